"""Maps of colours and greys, from an RGB picture to one of the same size."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImages
from PIL import ImageOps
from PIL.Image import Image as PilImage
from PIL.Image import Resampling, Transform

CELL_PX = 64
WAVE_PX = 256
"""How far apart the places are that a shuffle moves at random."""
# CIE 1976 lightness of sRGB, IEC 61966-2-1
LUMA = (0.2126, 0.7152, 0.0722)
LINEAR_BELOW = 0.04045
DARK_BELOW = 216 / 24389
DARK_SLOPE = 24389 / 27

Floats = NDArray[np.float64]


def invert(picture: PilImage) -> PilImage:
    """Black lines on white as white lines on black."""
    return ImageOps.invert(picture)


def coarsened(picture: PilImage, rate: float) -> PilImage:
    """What is left of the picture in so many times fewer pixels a side: tile models add detail to it."""
    if rate <= 1:
        return picture
    small = _times(picture.width, 1 / rate), _times(picture.height, 1 / rate)
    return picture.resize(small, Resampling.BOX).resize(picture.size, Resampling.BICUBIC)


def colour_grid(picture: PilImage) -> PilImage:
    """Squares of 64 px in the colours of what is below them."""
    cells = max(1, picture.width // CELL_PX), max(1, picture.height // CELL_PX)
    return picture.resize(cells, Resampling.BICUBIC).resize(picture.size, Resampling.NEAREST)


def blur(picture: PilImage, sigma_px: float) -> PilImage:
    """The picture under a Gaussian of this width."""
    from scipy import ndimage

    levels = np.asarray(picture, np.float32)
    blurred = ndimage.gaussian_filter(levels, (sigma_px, sigma_px, 0), mode="mirror", truncate=3.0)
    return PilImages.fromarray(blurred.round().clip(0, 255).astype(np.uint8))


def shuffle(picture: PilImage, seed: float) -> PilImage:
    """The picture's parts moved about in smooth random waves: its colours and textures, without its places.

    The same seed moves them in the same way.
    """
    from scipy import ndimage

    width, height = picture.size
    random = np.random.default_rng(int(seed))
    across, down = (_waves(random, width, height) * (side - 1) for side in (width, height))
    levels = np.asarray(picture)
    moved = [
        ndimage.map_coordinates(levels[..., channel], (down, across), order=1, mode="nearest") for channel in range(3)
    ]
    return PilImages.fromarray(np.stack(moved, axis=-1))


def luminance(picture: PilImage, gamma: float) -> PilImage:
    """Lightness as people see it (CIE L*), as greys."""
    encoded = np.asarray(picture, np.float64) / 255
    linear = np.where(encoded <= LINEAR_BELOW, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    light = linear @ LUMA
    lightness = np.where(light <= DARK_BELOW, light * DARK_SLOPE, 116 * np.cbrt(light) - 16) / 100
    return _greys(lightness, gamma)


def intensity(picture: PilImage, gamma: float) -> PilImage:
    """The largest of red, green and blue (V of HSV), as greys."""
    return _greys(np.asarray(picture).max(axis=2) / 255, gamma)


def _greys(shares: Floats, gamma: float) -> PilImage:
    levels = (shares.clip(0, 1) ** gamma * 255).round().astype(np.uint8)
    return PilImages.fromarray(levels).convert("RGB")


def _waves(random: np.random.Generator, width: int, height: int) -> Floats:
    """Smooth noise (height, width) of 0..1, both of which it reaches."""
    knots = random.random((height // WAVE_PX + 4, width // WAVE_PX + 4)).astype(np.float32)
    scale = 1 / WAVE_PX
    smooth = np.asarray(
        PilImages.fromarray(knots).transform(
            (width, height), Transform.AFFINE, (scale, 0, 1.5, 0, scale, 1.5), Resampling.BICUBIC
        ),
        np.float64,
    )
    low, high = smooth.min(), smooth.max()
    waves: Floats = (smooth - low) / max(high - low, 1e-9)
    return waves


def _times(side: int, factor: float) -> int:
    return max(1, int(side * factor))
