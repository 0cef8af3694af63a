"""Peak memory of a whole process that loads a model and draws one picture: of 128 px, at SD 1.5's size of 256 and 512.

Ours in the number format it chooses here, diffusers in the same. All of it is what the system calls resident, pages of
mapped files included; private is what nobody can give back while the process lives.
"""

import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import of_size
from benchmarks.tasks import drawing_of, own_process

SIDES_PX, STEPS = {"demo": (128,), "sd15": (256, 512)}, 2
STOCK = {"bfloat16": "bf16", "float32": "fp32"}
"""What diffusers' worker calls a number format."""
EVERY_S = 0.05
PRIVATE = re.compile(r"^Private_Dirty: +(\d+) kB", re.MULTILINE)


def run(options: Options) -> list[Row]:
    """One process each; a second one would take the same."""
    rows: list[Row] = []
    for side in (options.side,) if options.side else SIDES_PX[options.size]:
        ours, dtype = _peaks("darkroom as it starts", "shipped", side, options)
        stock, _ = _peaks("diffusers", STOCK[dtype], side, options)
        for what, own in ours.items():
            baseline = Row(f"{side} px, {what}, diffusers ({dtype})", "MiB", stock[what])
            rows += [baseline, compared(f"{side} px, {what}, darkroom as it starts ({dtype})", "MiB", own, baseline)]
    return rows


def _peaks(name: str, variant: str, side: int, options: Options) -> tuple[dict[str, list[float]], str]:
    """MiB, all and private, nothing where the system does not tell, and the number format."""
    with tempfile.TemporaryDirectory() as folder, private_peak() as found:
        worker = own_process(name, variant, of_size(options.size), Path(folder), options)
        try:
            steps = options.steps or STEPS
            peak = worker.draw(drawing_of(Path(folder), side, steps, seed=0)).peak_bytes
        finally:
            worker.close()
    private = max(found, default=0)
    figures = {"all": peak or 0, "private": private}
    return {what: [nbytes / 2**20] if nbytes else [] for what, nbytes in figures.items()}, worker.ready.dtype


@contextmanager
def private_peak() -> Iterator[list[int]]:
    """Bytes of private memory that this process' children have meanwhile, the one with the most, again and again."""
    found: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY_S):
            found.append(max(map(_private_bytes, psutil.Process().children()), default=0))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield found
    finally:
        ended.set()
        watching.join()


def _private_bytes(process: psutil.Process) -> int:
    """Of one process; 0 where the system does not tell."""
    with suppress(OSError):
        told = PRIVATE.search(Path(f"/proc/{process.pid}/smaps_rollup").read_text("ascii"))
        return int(told[1]) * 1024 if told else 0
    return 0
