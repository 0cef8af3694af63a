"""Image encoders (CLIP vision): from their files, and the pictures that they are shown."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image as PilImage
from PIL.Image import Resampling

from webui.core.clip_vision_file import ClipVisionShape, read_clip_vision, weights_of
from webui.engine.nets.clip_vision import ClipVision
from webui.engine.weights import Files, Key, WeightLoader, build_empty

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on, in 0..1: Radford et al. 2021."""


def image_encoder(path: Path) -> WeightLoader:
    """What reads the encoder in a file or folder; raises BadFile."""
    shape = read_clip_vision(path)
    module = build_empty(lambda: ClipVision(shape.config))

    def keys_of(name: str) -> Iterator[Key]:
        yield Key(name if name.startswith("visual_projection") else f"{shape.prefix}{name}")

    return WeightLoader(module, Files(weights_of(path)), keys_of)


def shown(picture: PilImage, shape: ClipVisionShape, resize: str = "crop and resize") -> torch.Tensor:
    """An RGB picture as the encoder was trained to see it, (1, 3, side, side), float32 on the CPU.

    Cropped to its middle, as CLIP's own processor does, or as ``resize`` says made square, or with black beside it.
    """
    side = shape.side_px
    if resize == "crop and resize":
        picture = _middle(picture, side)
    elif resize == "resize and fill":
        picture = _whole(picture, side)
    else:
        picture = picture.resize((side, side), Resampling.BICUBIC)
    levels = np.asarray(picture.convert("RGB"), np.float32) / 255
    normalised = (levels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(normalised).permute(2, 0, 1)[None]


def _middle(picture: PilImage, side: int) -> PilImage:
    shortest = min(picture.size)
    width, height = (int(side * own / shortest) if own != shortest else side for own in picture.size)
    picture = picture.resize((width, height), Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _whole(picture: PilImage, side: int) -> PilImage:
    longest = max(picture.size)
    width, height = (max(round(side * own / longest), 1) for own in picture.size)
    picture = picture.resize((width, height), Resampling.BICUBIC)
    left, top = (side - width) // 2, (side - height) // 2
    return picture.crop((-left, -top, side - left, side - top))
