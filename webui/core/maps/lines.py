"""Maps of lines and edges, white on black, from RGB levels (h, w, 3) to levels (h, w), 0..255."""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

LINE_BLUR_PX = 6.0
FAINT, LEAST_CONTRAST, USUAL_LINE = 8.0, 16.0, 127.0
FINE_PX, COARSE_PX = 0.5, 5.0
CLEAREST = 99.5
"""Of all pixels, the percentile of the gradient that becomes white."""


def line(levels: Bytes) -> Bytes:
    """What is darker than its surroundings in all channels, its usual contrast as 127: pencil and ink on paper.

    The differences and constants of lineart_standard, which models for lines are used with.
    """
    darker = (_blur(levels, LINE_BLUR_PX) - levels).min(axis=2).clip(0, 255)
    clear = darker[darker > FAINT]
    usual = max(LEAST_CONTRAST, float(np.median(clear))) if clear.size else LEAST_CONTRAST
    return _to_bytes(darker * (USUAL_LINE / usual))


def scribble(levels: Bytes, threshold: float) -> Bytes:
    """Strokes from an extended difference of Gaussians (Winnemoeller and others, 2012): fewer with a high threshold."""
    difference = _blur(levels, COARSE_PX) - _blur(levels, FINE_PX)
    darker = 255 - _to_bytes(255 - difference.min(axis=2)).astype(np.int32)
    strokes: Bytes = np.where(2 * darker > threshold, 255, 0).astype(np.uint8)
    return strokes


def soft_edge(levels: Bytes, blur_px: float) -> Bytes:
    """How steep the picture is, after a blur: soft lines, the clearest white. No network is asked what is an edge."""
    from scipy import ndimage

    steep = [
        ndimage.gaussian_gradient_magnitude(levels[..., channel].astype(np.float32), blur_px, mode="mirror")
        for channel in range(3)
    ]
    edges = np.maximum.reduce(steep)
    clearest = float(np.percentile(edges, CLEAREST))
    return _to_bytes(edges * (255.0 / max(clearest, 1.0)))


def threshold(levels: Bytes, level: float) -> Bytes:
    """White where all channels are above the level."""
    white: Bytes = np.where(levels.min(axis=2) > level, 255, 0).astype(np.uint8)
    return white


def _blur(levels: Bytes, sigma_px: float) -> Floats:
    from scipy import ndimage

    blurred: Floats = ndimage.gaussian_filter(levels.astype(np.float32), (sigma_px, sigma_px, 0), mode="mirror")
    return blurred


def _to_bytes(values: NDArray[np.floating]) -> Bytes:
    cut: Bytes = values.clip(0, 255).astype(np.uint8)
    return cut
