"""Start pictures and masks for tests of the engine."""

import numpy as np
from PIL import Image as PilImages

from webui.core.groups.init import Init

SIDE_PX, STEPS, SEED = 64, 6, 11
PROMPT = "a red apple, flat style, on a blue background"
BOX = (16, 24, 48, 56)  # whole latents: multiples of 8


def noise(width=SIDE_PX, height=SIDE_PX, seed=0):
    """A picture that compresses badly, with structure at the size of a latent."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return PilImages.fromarray(coarse).resize((width, height), PilImages.Resampling.BICUBIC)


def rectangle(box=BOX, size=(SIDE_PX, SIDE_PX), level=255):
    mask = PilImages.new("L", size)
    mask.paste(level, box)
    return mask


def levels(image) -> np.ndarray:
    return np.asarray(image).astype(np.int16)


def start(image=None, **options) -> Init:
    return Init(image=image or noise(), **({"strength": 0.6} | options))


def inpaint(image=None, **options) -> Init:
    return start(image, **({"mask": rectangle(), "mask_blur": 0} | options))


def inside(picture: np.ndarray) -> np.ndarray:
    left, top, right, bottom = BOX
    return picture[top:bottom, left:right]
