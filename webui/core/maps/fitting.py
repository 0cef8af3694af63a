"""How pictures and maps come to the size that a control is used at."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImages
from PIL.Image import Image as PilImage
from PIL.Image import Resampling

from webui.core import images
from webui.core.images import ResizeMode, Size

FLAT_COLOURS = 200
"""With no more colours a map shows areas, or lines, and gets no colours between them."""


def fit(picture: PilImage, size: Size, resize: ResizeMode) -> tuple[PilImage, Size]:
    """The picture brought to ``size``, and where it is to lie there: in the middle where it leaves room.

    "resize and fill" leaves the room, so that no edges are found where the picture ends.
    """
    if resize == "resize and fill":
        whole = picture if picture.size == size else images.contain(picture, size)
        return whole, ((size[0] - whole.width) // 2, (size[1] - whole.height) // 2)
    return images.resize(picture, size, resize), (0, 0)


def fit_map(drawn: PilImage, size: Size, resize: ResizeMode) -> PilImage:
    """A finished map brought to ``size``: white lines stay white and areas stay flat."""
    if resize == "resize and fill":
        scale = min(size[0] / drawn.width, size[1] / drawn.height)
        inner = max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale))
        return lay(scale_map(drawn, inner), size, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    if resize == "crop and resize" and drawn.size != size:
        left, top, right, bottom = images.filling_cut(drawn.size, size)
        corner = round(left), round(top)
        drawn = drawn.crop((*corner, max(corner[0] + 1, round(right)), max(corner[1] + 1, round(bottom))))
    return scale_map(drawn, size)


def scale_map(drawn: PilImage, size: Size) -> PilImage:
    """The same with other pixels: two colours stay two, few colours stay these, others are mixed."""
    if drawn.size == size:
        return drawn
    colours = drawn.getcolors(FLAT_COLOURS)
    if colours is None:
        return drawn.resize(size, images.FILTER)
    shades = [colour for _, colour in colours]
    if len(shades) > 2 or any(len(set(shade)) > 1 for shade in shades if isinstance(shade, tuple)):
        return drawn.resize(size, Resampling.NEAREST)
    return _two_greys(drawn, size)


def lay(inner: PilImage, size: Size, place: Size) -> PilImage:
    """A map on a sheet of ``size``, around it the middle colour of its edge."""
    if inner.size == size:
        return inner
    levels = np.asarray(inner)
    edge = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    sheet = PilImages.new(inner.mode, size, tuple(int(level) for level in np.median(edge, axis=0)))
    sheet.paste(inner, place)
    return sheet


def _two_greys(drawn: PilImage, size: Size) -> PilImage:
    """The two levels apart again after they were mixed, where Otsu's threshold (1979) parts them best."""
    mixed = np.asarray(
        drawn.convert("L").resize(size, Resampling.BOX if min(size) < min(drawn.size) else images.FILTER)
    )
    low, high = drawn.convert("L").getextrema()
    parted = np.where(mixed > _otsu(mixed), high, low).astype(np.uint8)
    return PilImages.fromarray(parted).convert("RGB")


def _otsu(levels: NDArray[np.uint8]) -> int:
    """The level up to which the darker of two classes goes so that both are most alike in themselves."""
    counts = np.bincount(levels.ravel(), minlength=256).astype(np.float64)
    below = counts.cumsum()
    sums = (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return int(np.nan_to_num(between).argmax())
