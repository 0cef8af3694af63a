"""Peak memory of a whole process that loads a model of SD 1.5's size and draws one picture of 512 px, in bfloat16."""

import tempfile
from pathlib import Path

from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import sd15
from benchmarks.pictures import drawing_of, own_process

SIDE_PX, STEPS = 512, 2
PROGRAMS = {"diffusers bf16": "bf16", "darkroom as it starts": "shipped"}


def run(options: Options) -> list[Row]:
    """One process each; a second one would take the same."""
    models, rows = sd15(), []
    with tempfile.TemporaryDirectory() as folder:
        for name, variant in PROGRAMS.items():
            worker = own_process(name, variant, models, Path(folder), options)
            try:
                peak = worker.draw(drawing_of(Path(folder), SIDE_PX, STEPS, seed=0)).peak_bytes
            finally:
                worker.close()
            if peak is not None:
                samples, label = [peak / 2**20], f"{name} ({worker.ready.dtype})"
                rows.append(compared(label, "MiB", samples, rows[0]) if rows else Row(label, "MiB", samples))
    return rows
