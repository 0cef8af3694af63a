"""Where each prompt counts: the regions of a pass as shares of every place of its latents."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PilImages
from PIL.Image import Resampling

from webui.core import images
from webui.core.images import Size
from webui.core.stages import WHOLE, Area, RegionUse, Shares

Levels = npt.NDArray[Any]
LEAST = 1e-4
"""A share that is less anywhere is none."""


def shares(regions: Sequence[RegionUse], size: Size, seen: Shares = WHOLE) -> list[Levels]:
    """What of each place the picture's prompt has, then each region, for latents of (width, height) cells.

    At a place where region i, of weight w_i in 0..1, is with m_i in 0..1: a_i = w_i m_i and S = sum a_i; its prompt has
    a_i / max(1, S), and the picture's prompt max(0, 1 - S). They sum to 1 everywhere. Each is (height, width). ``seen``
    is what of the picture the latents are.
    """
    own = [region.weight * _cover(region.area, size, seen) for region in regions]
    rest = 1 - sum(own, np.zeros((size[1], size[0])))
    parts = [part * (part >= LEAST) for part in (rest, *own)]
    total = sum(parts[1:], parts[0])
    return [part / total for part in parts]


def as_tensor(share: Levels, device: torch.device) -> torch.Tensor | None:
    """(1, 1, h, w), float32; None for what is all over."""
    return None if (share == 1).all() else torch.from_numpy(share).to(device, torch.float32)[None, None]


def _cover(area: Area, size: Size, seen: Shares) -> Levels:
    """How far each cell is in an area, 0..1: over an edge it goes in a straight line, as wide as the feather or, if
    that is more, as the cell, so that areas that share an edge sum to 1 there. Edges of the picture are none."""
    seen = _within(area.seen, seen)
    across, down = ((seen[k + 2] - seen[k]) / size[k] for k in (0, 1))  # of a cell, as shares of the picture
    shorter = min(1 / across, 1 / down)  # side of the picture, in cells
    widths = area.feather * shorter * across, area.feather * shorter * down
    if area.mask is not None:
        return _masked(area.mask, widths, size, seen)
    assert area.box
    left, top, right, bottom = area.box
    edges = [
        _between(first, last, seen[k] + (np.arange(size[k]) + 0.5) * cell, max(width, cell))
        for k, (first, last, cell, width) in enumerate(
            zip((left, top), (right, bottom), (across, down), widths, strict=True)
        )
    ]
    return np.outer(edges[1], edges[0])


def _within(outer: Shares, inner: Shares) -> Shares:
    """A part of a part, as shares of the whole."""
    width, height = outer[2] - outer[0], outer[3] - outer[1]
    left, top, right, bottom = inner
    return outer[0] + left * width, outer[1] + top * height, outer[0] + right * width, outer[1] + bottom * height


def _between(first: float, last: float, places: Levels, width: float) -> Levels:
    begun = np.clip((places - first) / width + 0.5, 0, 1) if first > 0 else np.ones_like(places)
    ended = np.clip((places - last) / width + 0.5, 0, 1) if last < 1 else np.zeros_like(places)
    between: Levels = begun - ended
    return between


def _masked(mask: str, widths: tuple[float, float], size: Size, seen: Shares) -> Levels:
    """The mean of the mask's levels in each cell, its edges softened before."""
    levels = np.asarray(images.decode_text(mask), np.float64) / 255
    height, width = levels.shape
    levels = _softened(_softened(levels, widths[0] * width).T, widths[1] * height).T
    box = seen[0] * width, seen[1] * height, seen[2] * width, seen[3] * height
    shown = PilImages.fromarray(levels.astype(np.float32))
    return np.array(shown.resize(size, Resampling.BOX, box), np.float64)


def _softened(levels: Levels, width: float) -> Levels:
    """Rows in which each place is the mean of those around it, ``width`` px in all; beyond the ends are the ends."""
    if width <= 1:
        return levels
    most = int(width) + 2
    padded = np.pad(levels, ((0, 0), (most, most)), mode="edge")
    sums = np.concatenate([np.zeros((len(levels), 1)), padded.cumsum(1)], axis=1)
    places = np.arange(levels.shape[1]) + most + 0.5

    def until(ends: Levels) -> Levels:
        whole = ends.astype(int)
        reached: Levels = sums[:, whole] + (ends - whole) * padded[:, whole]
        return reached

    means: Levels = (until(places + width / 2) - until(places - width / 2)) / width
    return means
