"""Peak memory of a whole process that loads a model and draws one picture: of 128 px, at SD 1.5's size of 512 px.

Ours in the number format it chooses here, diffusers in the same.
"""

import tempfile
from pathlib import Path

from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import of_size
from benchmarks.tasks import drawing_of, own_process

SIDE_PX, STEPS = {"demo": 128, "sd15": 512}, 2
STOCK = {"bfloat16": "bf16", "float32": "fp32"}
"""What diffusers' worker calls a number format."""


def run(options: Options) -> list[Row]:
    """One process each; a second one would take the same."""
    ours, dtype = _peak("darkroom as it starts", "shipped", options)
    stock, _ = _peak("diffusers", STOCK[dtype], options)
    baseline = Row(f"diffusers ({dtype})", "MiB", stock)
    return [baseline, compared(f"darkroom as it starts ({dtype})", "MiB", ours, baseline)]


def _peak(name: str, variant: str, options: Options) -> tuple[list[float], str]:
    """MiB, nothing where the system does not tell, and the number format."""
    with tempfile.TemporaryDirectory() as folder:
        worker = own_process(name, variant, of_size(options.size), Path(folder), options)
        try:
            peak = worker.draw(drawing_of(Path(folder), SIDE_PX[options.size], STEPS, seed=0)).peak_bytes
        finally:
            worker.close()
    return ([] if peak is None else [peak / 2**20]), worker.ready.dtype
