"""A thing's mask from clicks on it: Segment Anything in ONNX files, which sees a picture once and then answers fast.

Preparation and reading back as in Meta's ``SamPredictor`` and ``SamOnnxModel`` (SAM: the longer side fits the square,
the rest is empty) and ``SAM2Transforms`` (SAM 2: squeezed into it).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray
from PIL import Image as PilImages
from PIL.Image import Image as PilImage
from PIL.Image import Resampling

from webui.core.errors import RequestError, show
from webui.core.images import Size, pixels_sha256, to_rgb
from webui.core.onnx_file import Port
from webui.core.onnx_session import Floats, run, state_of
from webui.core.segmenter_file import STRIDE, Decoder, Segmenter

FIELD = "segmenter"
MOST_BYTES = 128 * 2**20
"""Of what encoders made of pictures: 30 of SAM's, 8 of SAM 2's."""
MOST_POINTS = 64
MEAN, SPREAD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
ON_IT, BESIDE_IT, NO_POINT = 1, 0, -1
ALL_MASKS = 4
"""SAM's own number: the first is for several points, the others (a part, more of it, the whole) for a single one."""

Features = Mapping[str, Floats]
Point = tuple[float, float]


class Eye:
    """Finds things in pictures, and keeps what encoders saw in the last ones. One call at a time."""

    def __init__(self) -> None:
        self._seen: LRUCache[Any, Features] = LRUCache(
            MOST_BYTES, lambda seen: sum(part.nbytes for part in seen.values())
        )

    def find(self, segmenter: Segmenter, picture: PilImage, points: Sequence[Point], labels: Sequence[int]) -> PilImage:
        """White (L) where the thing is, at the picture's size. ``points`` in px, each labelled 1: on it, or 0: beside.

        RequestError where a point is not on the picture, none is on the thing, or a file cannot be run.
        """
        width, height = picture.size
        if not 0 < len(points) == len(labels) <= MOST_POINTS or ON_IT not in labels:
            reason = f"1 to {MOST_POINTS} points are taken, each with a label; at least one must be 1, on the thing"
            raise RequestError(reason, "points")
        for x, y in points:
            if not (0 <= x <= width and 0 <= y <= height):
                raise RequestError(f"the point {x:g}, {y:g} is not on the picture of {width} x {height} px", "points")
        return _decode(segmenter, self._see(segmenter, to_rgb(picture)), picture.size, points, labels)

    def _see(self, segmenter: Segmenter, picture: PilImage) -> Features:
        file = segmenter.encoder.file
        key = state_of(file, FIELD), segmenter.side_px, pixels_sha256(picture)
        if key not in self._seen:
            port = segmenter.encoder.picture
            shown = run(file, {port.name: _prepare(segmenter, picture)}, FIELD)
            wanted = {name: shown[name] for name in (part.name for part in segmenter.decoder.features)}
            try:
                self._seen[key] = wanted
            except ValueError:  # larger than all that is kept
                return wanted
        return self._seen[key]


def _shown_size(segmenter: Segmenter, size: Size) -> Size:
    """How large (width, height) the picture is in the square."""
    side = segmenter.side_px
    if segmenter.decoder.is_second:
        return side, side
    width, height = (max(1, int(length * side / max(size) + 0.5)) for length in size)
    return width, height


def _prepare(segmenter: Segmenter, picture: PilImage) -> NDArray[Any]:
    """What the encoder takes; one that takes (h, w, 3) prepares the rest itself."""
    small = picture.resize(_shown_size(segmenter, picture.size), Resampling.BILINEAR)
    levels = np.asarray(small, np.float32)
    if len(segmenter.encoder.picture.shape or ()) == 3:
        return levels
    square = np.zeros((segmenter.side_px, segmenter.side_px, 3), np.float32)
    square[: small.height, : small.width] = (levels - MEAN) / SPREAD
    return square.transpose(2, 0, 1)[None]


def _decode(
    segmenter: Segmenter, features: Features, size: Size, points: Sequence[Point], labels: Sequence[int]
) -> PilImage:
    decoder = segmenter.decoder
    shown = _shown_size(segmenter, size)
    scale = np.array(shown, np.float64) / size
    places, kinds = np.array(points, np.float64) * scale, np.array(labels)
    if decoder.has_prior and not decoder.is_second:  # Meta's SAM is told where points end; the others see to that
        places, kinds = np.concatenate([places, [[0, 0]]]), np.append(kinds, NO_POINT)
    given = dict(features) | {decoder.points.name: _lead(places, decoder.points, 2)}
    given[decoder.labels.name] = _lead(kinds, decoder.labels, 1)
    given |= _without_prior(decoder, segmenter.side_px, size)
    found = run(decoder.file, given, FIELD)
    masks, scores = found[decoder.masks], found[decoder.scores].reshape(-1)
    if masks.ndim < 3 or masks.size != scores.size * masks.shape[-2] * masks.shape[-1] or not scores.size:
        reason = f"gives {masks.shape} and {found[decoder.scores].shape}, as Segment Anything does not"
        raise RequestError(f"{show(decoder.file.path.name)} {reason}", FIELD)
    chosen = _choose(scores, len(points))
    levels = PilImages.fromarray(masks.reshape(-1, *masks.shape[-2:])[chosen])
    if not decoder.is_second:
        levels = levels.resize((segmenter.side_px, segmenter.side_px), Resampling.BILINEAR).crop((0, 0, *shown))
    whole = np.asarray(levels.resize(size, Resampling.BILINEAR))
    return PilImages.fromarray(np.where(whole > 0, 255, 0).astype(np.uint8))


def _choose(scores: Floats, points: int) -> int:
    """Which mask is meant: as in ``SamOnnxModel.select_masks``, or the one that the network is surest of."""
    if scores.size == ALL_MASKS:
        return 0 if points > 1 else 1 + int(scores[1:].argmax())
    return int(scores.argmax())


def _lead(values: NDArray[Any], port: Port, sides: int) -> NDArray[Any]:
    """The same behind sides of 1, as many as the network takes: (1, n, 2), or (1, 1, n, 2) as optimum exports it."""
    more = (len(port.shape) if port.shape else sides + 1) - sides
    return values.reshape((1,) * more + values.shape)


def _without_prior(decoder: Decoder, side_px: int, size: Size) -> dict[str, NDArray[Any]]:
    """No mask of before, and the picture's size (height, width), where the network asks for them."""
    given: dict[str, NDArray[Any]] = {}
    if decoder.prior:
        side = 4 * side_px // STRIDE
        given[decoder.prior.name] = np.zeros((1, 1, side, side))
    if decoder.has_prior:
        given[decoder.has_prior.name] = np.zeros(1)
    if decoder.size:
        given[decoder.size.name] = np.array(size[::-1])
    return given
