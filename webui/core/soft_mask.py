"""Masks that grow into what is masked: how much each place may change, from the edge inwards."""

import numpy as np
from PIL import Image as PilImages
from PIL.Image import Image as PilImage

from webui.core.images import BLACK_LEVEL


def soften(mask: PilImage, softness: float) -> PilImage:
    """The mask in levels, "L", which rises from each part's edge to what it was.

    For ``softness`` (0..1) of the way from the edge to the place in a part that is farthest from it; at 0 the very
    mask. It reaches as far as before, for no masked place becomes as dark as what counts as black.
    """
    if softness == 0 or mask.getbbox() is None:
        return mask
    from scipy import ndimage  # only soft masks need it

    levels = np.asarray(mask)
    masked = levels > 0
    if masked.all():  # there is no edge
        return mask
    parts, count = ndimage.label(masked, structure=np.ones((3, 3)))
    distance = ndimage.distance_transform_edt(masked)
    deepest = np.concatenate([[1.0], ndimage.maximum(distance, parts, np.arange(1, count + 1))])
    share = np.minimum(distance / np.maximum(deepest[parts] * softness, 1.0), 1.0)
    soft = np.where(masked, np.maximum(np.round(levels * share), BLACK_LEVEL + 1), 0)
    return PilImages.fromarray(np.minimum(soft, levels).astype(np.uint8))
