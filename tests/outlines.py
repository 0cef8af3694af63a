"""Outlines as points, and how closely a picture follows one."""

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImages
from PIL import ImageDraw
from PIL.Image import Image as PilImage
from scipy import ndimage

from webui.core.maps.canny import canny

Points = Sequence[tuple[float, float]]
"""Shares of the picture's sides."""
SIDE_PX, NEAR_PX = 128, 2
STAR = [
    (0.36 + reach * math.sin(turn * math.pi / 5), 0.36 - reach * math.cos(turn * math.pi / 5))
    for turn, reach in zip(range(11), [0.32, 0.15] * 5 + [0.32], strict=True)
]
"""Not where the model puts one by itself."""


def draw(points: Points, width: int = 1) -> PilImage:
    """White lines on black."""
    picture = PilImages.new("RGB", (SIDE_PX, SIDE_PX))
    ImageDraw.Draw(picture).line([(x * SIDE_PX, y * SIDE_PX) for x, y in points], "white", width)
    return picture


def read(data: bytes) -> PilImage:
    return PilImages.open(io.BytesIO(data)).convert("RGB")


def f1(picture: PilImage, lines: PilImage) -> float:
    """Harmonic mean of the shares of the picture's edges near the lines, and of the lines near its edges."""
    found, wanted = canny(np.asarray(picture), 100, 200) > 0, np.asarray(lines.convert("L")) > 127
    precision, recall = _near(found, wanted), _near(wanted, found)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _near(ones: NDArray[np.bool_], others: NDArray[np.bool_]) -> float:
    distances = ndimage.distance_transform_edt(~others)
    return float((distances[ones] <= NEAR_PX).mean()) if ones.any() and others.any() else 0.0
