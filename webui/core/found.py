"""Parts that a finder has found in a picture: in which order they count, and the masks they become."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from PIL import Image as PilImages
from PIL.Image import Image as PilImage
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from webui.core.images import Box, Size


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Spot:
    """A part as a recipe tells it: (left, top, right, bottom) in px, and how sure the finder was, 0..1."""

    box: Box
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class Part:
    """``box`` is (left, top, right, bottom) in px of the picture, ``score`` 0..1 how sure the finder is.

    ``mask`` ("L", the picture's size) is its outline, where more than its box is known.
    """

    box: Box
    score: float
    mask: PilImage | None = field(default=None, compare=False)

    @property
    def spot(self) -> Spot:
        """Where it is, without its outline."""
        return Spot(self.box, self.score)

    def mask_of(self, size: Size, dilate_px: int = 0) -> PilImage:
        """What of a picture of this size is to be drawn anew: its outline, or all of its box, grown or shrunk."""
        mask = self.mask
        if mask is None:
            mask = PilImages.new("L", size)
            mask.paste(255, self.box)
        return _dilated(mask, dilate_px) if dilate_px else mask


def in_order(parts: Iterable[Part], threshold: float, at_most: int) -> Sequence[Part]:
    """The surest parts, not below the threshold, in the order in which they are drawn: by score, then from the top and
    from the left. Scores count in hundredths, so that no rounding of a processor's changes the order."""
    sure = [part for part in parts if part.score >= threshold and _is_some(part.box)]
    return sorted(sure, key=lambda part: (-round(part.score, 2), part.box[1], part.box[0], part.box))[:at_most]


def _dilated(mask: PilImage, px: int) -> PilImage:
    """Grown by a square of ``px`` a side, or for a number below 0 shrunk by one.

    As ADetailer's ``dilate_erode`` with OpenCV: a square with even sides reaches one px less to the left and up when it
    grows, and nothing comes in over the picture's edges.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    levels = np.asarray(mask)
    grow = maximum_filter if px > 0 else minimum_filter
    return PilImages.fromarray(grow(levels, abs(px), mode="constant", cval=0 if px > 0 else 255))


def _is_some(box: Box) -> bool:
    return box[0] < box[2] and box[1] < box[3]
