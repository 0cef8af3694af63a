"""Canny's edges, bit for bit those of ``cv2.Canny(picture, low, high)``: what ControlNets for edges were trained on.

As in OpenCV's documentation of ``Canny`` with its defaults: 3 x 3 Sobel with repeated borders, of each pixel the
channel with the largest |dx| + |dy|, no blur before. Angles are compared in OpenCV's fixed point, tan(22.5 degrees) in
15 bits.
"""

import numpy as np
from numpy.typing import NDArray

FIXED_BITS = 15
TAN_22 = round(0.4142135623730950488016887242097 * (1 << FIXED_BITS))

Bytes = NDArray[np.uint8]
Whole = NDArray[np.int32]


def canny(levels: Bytes, low: float, high: float) -> Bytes:
    """Edges of RGB levels (h, w, 3) as (h, w) of 0 and 255.

    A pixel whose gradient is above ``high`` is one, and what is above ``low`` and hangs together with it.
    """
    from scipy import ndimage

    low, high = int(np.floor(min(low, high))), int(np.floor(max(low, high)))
    dx, dy, strength = _gradient(levels)
    peaks = _is_peak(dx, dy, strength) & (strength[1:-1, 1:-1] > low)
    labels, count = ndimage.label(peaks, np.ones((3, 3), np.uint8))
    strong = np.zeros(count + 1, bool)
    strong[labels[peaks & (strength[1:-1, 1:-1] > high)]] = True
    edges: Bytes = np.where(strong[labels], 255, 0).astype(np.uint8)
    return edges


def _gradient(levels: Bytes) -> tuple[Whole, Whole, Whole]:
    """dx, dy (h, w) of the channel where they are largest together, and that sum with zeros around it."""
    padded = np.pad(levels.astype(np.int32), ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = padded[:, 2:] - padded[:, :-2]
    down = padded[2:] - padded[:-2]
    dx = across[:-2] + 2 * across[1:-1] + across[2:]
    dy = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    sums = np.abs(dx) + np.abs(dy)
    chosen = sums.argmax(axis=2)[..., None]
    dx, dy, strength = (np.take_along_axis(part, chosen, axis=2)[..., 0] for part in (dx, dy, sums))
    return dx, dy, np.pad(strength, 1)


def _is_peak(dx: Whole, dy: Whole, strength: Whole) -> NDArray[np.bool_]:
    """Where no neighbour along the gradient is stronger."""
    own = strength[1:-1, 1:-1]
    x, y = np.abs(dx).astype(np.int64), np.abs(dy).astype(np.int64) << FIXED_BITS
    flat = x * TAN_22
    is_across = y < flat
    is_down = y > flat + (x << FIXED_BITS + 1)
    across = (own > strength[1:-1, :-2]) & (own >= strength[1:-1, 2:])
    down = (own > strength[:-2, 1:-1]) & (own >= strength[2:, 1:-1])
    falling = (own > strength[:-2, :-2]) & (own > strength[2:, 2:])
    rising = (own > strength[:-2, 2:]) & (own > strength[2:, :-2])
    aslant = np.where((dx ^ dy) < 0, rising, falling)
    return np.where(is_across, across, np.where(is_down, down, aslant))
