"""The embedded finder, ``demo-subject``: what stands out from a plain background, by arithmetic alone.

The background is a plane of colour through the picture's edge: most of what lies there belongs to it. What differs
clearly from it and hangs together is a part. Distances are those of RGB levels, root mean square over the channels.
"""

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image as PilImage
from PIL.Image import Resampling

from webui.core.found import Part

LOOKED_AT_PX = 128
"""The longer side of what is looked at: the size that the embedded model draws."""
EDGE = 0.05
"""Of the shorter side, how wide the edge is that the background is read from."""
ROUNDS = 4
CLEAR = 14.0
"""Levels by which a pixel differs at least, where the background itself is even."""
SPREADS = 4.0
"""Of the background's own spread, by how many times it must differ."""
JOINED = 0.03
"""Of the longer side: parts nearer to each other than that are one."""
SMALL = 0.006
"""Of the picture: what is smaller is no part."""
SURE = 48.0
"""Levels from which on a part is as clear as can be."""
ROOM = 0.015
"""Of the longer side, how much around a part belongs to it."""

Floats = NDArray[np.float32]


def find_subject(picture: PilImage) -> list[Part]:
    """The parts of an RGB picture, those with the largest contrast first; none in a plain one."""
    from scipy import ndimage

    scale = max(picture.size) / LOOKED_AT_PX
    size = tuple(max(8, round(side / scale)) for side in picture.size)
    looked_at = picture if scale <= 1 else picture.resize((size[0], size[1]), Resampling.BOX)
    levels = np.asarray(looked_at.convert("RGB"), np.float32)
    distance = ndimage.gaussian_filter(_distance(levels), 0.7)
    longest = max(levels.shape)
    clear = distance > max(CLEAR, SPREADS * _spread(distance))
    reach = max(1, round(JOINED * longest))
    joined = ndimage.binary_dilation(clear, np.ones((3, 3), bool), iterations=reach)
    labels, _ = ndimage.label(joined, np.ones((3, 3)))
    labels[~clear] = 0
    parts = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is None or (inside := labels == number).sum() < SMALL * clear.size:
            continue
        score = min(1.0, float(distance[inside].mean()) / SURE)
        room = round(ROOM * longest)
        (top, bottom), (left, right) = ((side.start - room, side.stop + room) for side in place)
        across, down = picture.width / levels.shape[1], picture.height / levels.shape[0]
        box = (
            max(0, int(left * across)),
            max(0, int(top * down)),
            min(picture.width, int(np.ceil(right * across))),
            min(picture.height, int(np.ceil(bottom * down))),
        )
        parts.append(Part(box, round(score, 4)))
    return parts


def _distance(levels: Floats) -> Floats:
    """By how many levels each pixel differs from the background, (h, w)."""
    height, width = levels.shape[:2]
    edge = max(2, round(EDGE * min(height, width)))
    on_edge = np.ones((height, width), bool)
    on_edge[edge:-edge, edge:-edge] = False
    down, across = np.mgrid[:height, :width].astype(np.float32)
    places = np.stack([np.ones_like(across), across / width - 0.5, down / height - 0.5], axis=-1)
    known, colours = places[on_edge], levels[on_edge]
    plane = np.zeros((3, 3), np.float32)
    plane[0] = np.median(colours, axis=0)
    for number in range(ROUNDS):  # the first round with a colour alone; then what fits it decides the plane
        off = np.sqrt(((colours - known @ plane) ** 2).mean(axis=1))
        fits = off <= max(8.0, float(np.median(off)) * 2)
        if number == ROUNDS - 1 or fits.sum() < 20:
            break
        plane = np.linalg.lstsq(known[fits], colours[fits], rcond=None)[0].astype(np.float32)
    distance: Floats = np.sqrt(((levels - places @ plane) ** 2).mean(axis=-1))
    return distance


def _spread(distance: Floats) -> float:
    """Of the background itself: what most of the edge does not exceed."""
    edge = np.concatenate([distance[0], distance[-1], distance[:, 0], distance[:, -1]])
    return float(np.median(edge))
