"""Two checkouts of this product in one run (``--against DIR``): what a change costs, and whether pixels stay the same.

Each checkout draws through its own worker, in a process of its own, the other one's code nowhere on its path; both run
in this environment. A round asks both for the same picture, in an order that is turned round each time. Where other
programs run too, the clock says little; what a process had of the processors, best with ``--threads 1``, says more.
"""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure import Options, Row, compared
from benchmarks.peers import Models, Worker
from benchmarks.tasks import PROGRAMS, ROOT, USUAL, Task, drawing_of, own_process

TOO_LONG = ("compiled",)
"""Not measured here: compiling each of them anew takes minutes."""
CPU_ALONE, CUDA_ALONE = ("compiled",), ("graphed",)
BEFORE, NOW = "before", "now"
FORMAT = Path(".bench/darkroom/cache/dtype.json")
"""Where a checkout's worker keeps which number format its processor is faster with."""


@dataclass
class _Pair:
    """One program of both checkouts: milliseconds a picture, by the clock and of processors; equal pictures or not."""

    workers: Mapping[str, Worker]
    samples_ms: dict[str, list[float]] = field(default_factory=lambda: {BEFORE: [], NOW: []})
    processor_ms: dict[str, list[float]] = field(default_factory=lambda: {BEFORE: [], NOW: []})
    pictures: int = 0
    different: int = 0
    worst: int = 0

    def note(self) -> str:
        """Number format, and whether the pixels are the same."""
        same = f"same pixels in all {self.pictures} pictures"
        other = f"other pixels in {self.different} of {self.pictures} pictures, by up to {self.worst}/255"
        formats = dict.fromkeys(worker.ready.dtype for worker in self.workers.values())
        return f"({' and '.join(formats)}; {other if self.different else same})"


def compare_checkouts(task: Task, options: Options, models: Models, side: int, label: str, steps: int) -> list[Row]:
    """Two rows for each program, the second one's ratio to the first; ``options.against`` is the other checkout."""
    assert options.against is not None
    checkouts = {NOW: ROOT, BEFORE: options.against}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        work = Path(folder)
        pairs = {
            name: _Pair(dict(_start(name, checkouts, models, options, work, stack))) for name in ours(task, options)
        }
        warm_up = max(1, len(task.lora_sets)) if len(task.lora_sets) < options.rounds else 1
        for k in range(options.rounds + warm_up):
            drawing = drawing_of(work, side, steps, k, task)
            for pair in pairs.values():
                for which in (BEFORE, NOW) if k % 2 else (NOW, BEFORE):
                    worker = pair.workers[which]
                    spent_s = worker.processor_s()
                    answer = worker.draw(replace(drawing, out=str(work / f"{which}.png")))
                    if k >= warm_up:
                        pair.samples_ms[which].append(answer.seconds * 1e3)
                        pair.processor_ms[which].append((worker.processor_s() - spent_s) * 1e3)
                _judge(pair, work)
    return [row for name, pair in pairs.items() for row in _rows(f"{label}: {name}", pair)]


def _rows(name: str, pair: _Pair) -> Iterator[Row]:
    before = Row(f"{name}, {BEFORE}", "ms", pair.samples_ms[BEFORE])
    yield before
    yield compared(f"{name}, {NOW}", "ms", pair.samples_ms[NOW], before, pair.note())
    if all(pair.processor_ms[BEFORE]):
        before = Row(f"{name}, processor time {BEFORE}", "ms", pair.processor_ms[BEFORE])
        yield before
        yield compared(f"{name}, processor time {NOW}", "ms", pair.processor_ms[NOW], before)


def ours(task: Task, options: Options) -> list[str]:
    """Those of the task's programs that are this product."""
    left_out = TOO_LONG + (CUDA_ALONE if options.device == "cpu" else CPU_ALONE)
    names: Sequence[str] = task.programs or USUAL
    return [name for name in names if name.startswith("darkroom") and PROGRAMS[name] not in left_out]


def _start(
    name: str,
    checkouts: Mapping[str, Path],
    models: Models,
    options: Options,
    work: Path,
    stack: contextlib.ExitStack,
) -> Iterator[tuple[str, Worker]]:
    for which, checkout in checkouts.items():
        worker = own_process(name, PROGRAMS[name], models, work, options, checkout)
        stack.callback(worker.close)
        yield which, worker
        here, there = ROOT / FORMAT, checkouts[BEFORE] / FORMAT
        if which == NOW and here != there and here.is_file():  # measured once for both, since measurements differ
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(here, there)


def _judge(pair: _Pair, work: Path) -> None:
    one, other = (np.asarray(Image.open(work / f"{which}.png")).astype(np.int16) for which in (BEFORE, NOW))
    pair.pictures += 1
    if hashlib.sha256(one.tobytes()).digest() != hashlib.sha256(other.tobytes()).digest():
        pair.different += 1
        pair.worst = max(pair.worst, int(abs(one - other).max()))
