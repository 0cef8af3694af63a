"""What a region costs: a step of the plain prompt, and of two and three prompts by area.

In processor time, which other programs on the machine do not lengthen; the ways take turns.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import Options, Row, compared
from webui import Darkroom, Request, Settings

STEPS = 10
LEFT, RIGHT = (
    {"box": (0, 0, 0.5, 1), "prompt": "a red apple on the left"},
    {"box": (0.5, 0, 1, 1), "prompt": "a blue whale"},
)
WAYS: Mapping[str, Mapping[str, Any]] = {
    "no region": {},
    "1 region, the left half": {"regions": (LEFT,)},
    "2 regions that cover all": {"regions": (LEFT, RIGHT)},
    "2 regions of weight 0.8": {"regions": tuple({**region, "weight": 0.8} for region in (LEFT, RIGHT))},
}


def run(options: Options) -> list[Row]:
    """Milliseconds of processor time for a step with guidance, after a picture that warms up."""
    samples: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        darkroom = Darkroom(Settings(device="cpu", dtype="float32", data_dir=Path(folder)))
        for k in range(options.rounds + 1):
            for way, fields in WAYS.items():
                started = time.process_time()
                for _ in darkroom.generate(Request(prompt="flat style", seed=1, steps=STEPS, **fields)):
                    pass
                if k:
                    samples[way].append(1e3 * (time.process_time() - started) / STEPS)
    first, *others = samples
    row = Row(first, "ms", samples[first])
    return [row, *(compared(way, "ms", samples[way], row) for way in others)]
