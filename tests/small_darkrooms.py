"""Small SD 1.x and SDXL models to draw with, and a quick picture of one."""

from pathlib import Path

import numpy as np
from checkpoints import small

from webui.core.events import Done, Image
from webui.core.request import Request

PROMPT = "a red apple, flat style, on a blue background"
QUICK = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 2, "seed": 5, "guidance": 3.0, "sampler": "Euler"}


def save_models(data: Path) -> Path:
    """A data folder with a small SD 1.x and a small SDXL model."""
    for kind in ("sd1", "sdxl"):
        small(kind, directory=data / "models/Stable-diffusion" / kind)
    return data


def run(darkroom, **fields) -> list:
    return list(darkroom.generate(Request(**(QUICK | fields))))


def draw(darkroom, **fields) -> np.ndarray:
    events = run(darkroom, **fields)
    assert isinstance(events[-1], Done)
    (picture,) = [event.image for event in events if isinstance(event, Image)]
    return np.asarray(picture).astype(int)
