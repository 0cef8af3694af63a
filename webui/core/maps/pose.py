"""People's poses as OpenPose draws them, found by DWPose: YOLOX finds people, the other network their 133 points.

Layouts as in the ONNX files of github.com/IDEA-Research/DWPose; points as in COCO-WholeBody; lines and colours are
those of OpenPose, which ControlNets for poses were trained on.
"""

import colorsys
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImages
from PIL import ImageDraw
from PIL.Image import Image as PilImage
from PIL.Image import Resampling, Transform

from webui.core.errors import RequestError, show
from webui.core.files import AnnotatorFile
from webui.core.maps.networks import run, sides_of

GREY = 114
STRIDES = (8, 16, 32)
SURE_PERSON, SAME, SURE_POINT = 0.3, 0.45, 0.3
MOST_PEOPLE = 20
ROOM = 1.25
MEAN, SPREAD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
FACE, LEFT_HAND, RIGHT_HAND, ALL_POINTS = slice(23, 91), slice(91, 112), slice(112, 133), 133
NECK = -1
BODY = (0, NECK, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""OpenPose's 18 points as COCO's, the neck between both shoulders (5, 6)."""
LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
FINGERS = tuple((0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, 21))
COLOURS = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0)),
    *((0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255)),
    *((170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
LIMB_PX, JOINT_PX, FINGER_PX, FACE_PX = 8, 4, 2, 3
DIMMED = 0.6
"""Of a limb's colour, beside that of its joints."""

Floats = NDArray[np.float32]


def pose(picture: PilImage, files: Sequence[AnnotatorFile], hands: bool, face: bool) -> PilImage:
    """All people on black: their limbs, and where asked hands and faces. Black alone where there is nobody."""
    people, points = files
    sheet = PilImages.new("RGB", picture.size)
    found = [_find_points(points, picture, box) for box in _find_people(people, picture)]
    pen = ImageDraw.Draw(sheet)
    for places, scores in found:
        _draw_limbs(pen, *_body(places, scores))
    sheet = sheet.point(lambda level: int(level * DIMMED))
    pen = ImageDraw.Draw(sheet)
    for places, scores in found:
        for (x, y), score, colour in zip(*_body(places, scores), COLOURS, strict=True):
            _draw_dot(pen, x, y, JOINT_PX, colour, score)
        for hand in (LEFT_HAND, RIGHT_HAND) if hands else ():
            _draw_hand(pen, places[hand], scores[hand])
        for (x, y), score in zip(places[FACE], scores[FACE], strict=True) if face else ():
            _draw_dot(pen, x, y, FACE_PX, (255, 255, 255), score)
    return sheet


def _find_people(file: AnnotatorFile, picture: PilImage) -> Floats:
    """Boxes (n, 4) in px, left, top, right, bottom, the surest first."""
    height, width = (side or 640 for side in sides_of(file))
    scale = min(width / picture.width, height / picture.height)
    shown = max(1, int(picture.width * scale)), max(1, int(picture.height * scale))
    sheet = PilImages.new("RGB", (width, height), (GREY, GREY, GREY))
    sheet.paste(picture.resize(shown, Resampling.BILINEAR))
    numbers = np.asarray(sheet, np.float32)[..., ::-1].transpose(2, 0, 1)[None]
    given = run(file, np.ascontiguousarray(numbers))[0]
    places = np.concatenate([_cells(width // stride, height // stride, stride) for stride in STRIDES])
    if given.ndim != 3 or given.shape[1] != len(places) or given.shape[2] < 6:
        raise RequestError(f"{show(file.path.name)} gives {given.shape}, as YOLOX does not", "preprocessor")
    rows = given[0]
    scores = rows[:, 4] * rows[:, 5]
    middles = (rows[:, :2] + places[:, :2]) * places[:, 2:]
    halves = np.exp(rows[:, 2:4].clip(max=20)) * places[:, 2:] / 2
    boxes = (np.concatenate([middles - halves, middles + halves], axis=1) / scale).astype(np.float32)
    return boxes[_surest(boxes, scores)]


def _cells(across: int, down: int, stride: int) -> Floats:
    """(x, y, stride) of each place, row by row."""
    y, x = np.mgrid[:down, :across].reshape(2, -1).astype(np.float32)
    return np.stack([x, y, np.full_like(x, stride)], axis=1)


def _surest(boxes: Floats, scores: Floats) -> list[int]:
    order = [place for place in np.argsort(-scores, kind="stable") if scores[place] > SURE_PERSON]
    kept: list[int] = []
    for place in order:
        if len(kept) < MOST_PEOPLE and all(_shared(boxes[place], boxes[other]) < SAME for other in kept):
            kept.append(int(place))
    return kept


def _shared(one: Floats, other: Floats) -> float:
    """The share of their union that both boxes have."""
    corners = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(np.maximum(corners, 0).prod())
    both = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()) - common
    return common / max(both, 1e-9)


def _find_points(file: AnnotatorFile, picture: PilImage, box: Floats) -> tuple[Floats, Floats]:
    """All points (133, 2) in px of one person, and their scores (133,)."""
    height, width = (side or usual for side, usual in zip(sides_of(file), (384, 288), strict=True))
    middle, extent = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * ROOM
    extent = np.maximum(extent, extent[::-1] * (width / height, height / width)).clip(min=1)
    corner, scale = middle - extent / 2, extent / (width, height)
    part = picture.transform(
        (width, height), Transform.AFFINE, (scale[0], 0, corner[0], 0, scale[1], corner[1]), Resampling.BILINEAR
    )
    numbers = ((np.asarray(part, np.float32) - MEAN) / SPREAD).transpose(2, 0, 1)[None]
    given = run(file, np.ascontiguousarray(numbers, np.float32))
    if len(given) != 2 or any(rows.ndim != 3 or rows.shape[1] != ALL_POINTS for rows in given):
        shapes = " and ".join(str(rows.shape) for rows in given)
        raise RequestError(f"{show(file.path.name)} gives {shapes}, as DWPose does not", "preprocessor")
    across, down = (rows[0] for rows in given)
    bins = np.stack([across.argmax(axis=1) / across.shape[1], down.argmax(axis=1) / down.shape[1]], axis=1)
    places = (bins * extent + corner).astype(np.float32)
    return places, np.minimum(across.max(axis=1), down.max(axis=1))


def _body(places: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """OpenPose's 18 points and their scores."""
    neck, sure = places[5:7].mean(axis=0, keepdims=True), scores[5:7].min(keepdims=True)
    order = [ALL_POINTS if point == NECK else point for point in BODY]
    return np.concatenate([places, neck])[order], np.concatenate([scores, sure])[order]


def _draw_limbs(pen: ImageDraw.ImageDraw, places: Floats, scores: Floats) -> None:
    for (start, stop), colour in zip(LIMBS, COLOURS, strict=False):
        if min(scores[start], scores[stop]) > SURE_POINT:
            pen.polygon(list(_ellipse(places[start], places[stop])), fill=colour)


def _ellipse(start: Floats, stop: Floats) -> Iterator[tuple[float, float]]:
    """The outline of a limb, as long as it is and ``LIMB_PX`` wide."""
    middle, half = (start + stop) / 2, (stop - start) / 2
    length = max(float(np.hypot(*half)), 1e-6)
    across = np.array([-half[1], half[0]]) / length * LIMB_PX / 2
    for turn in np.linspace(0, 2 * np.pi, 60, endpoint=False):
        x, y = middle + half * np.cos(turn) + across * np.sin(turn)
        yield float(x), float(y)


def _draw_hand(pen: ImageDraw.ImageDraw, places: Floats, scores: Floats) -> None:
    for number, (start, stop) in enumerate(FINGERS):
        if min(scores[start], scores[stop]) > SURE_POINT:
            red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(number / len(FINGERS), 1, 1))
            pen.line([*map(tuple, (places[start].tolist(), places[stop].tolist()))], (red, green, blue), FINGER_PX)
    for (x, y), score in zip(places, scores, strict=True):
        _draw_dot(pen, x, y, JOINT_PX, (0, 0, 255), score)


def _draw_dot(
    pen: ImageDraw.ImageDraw, x: float, y: float, radius_px: int, colour: tuple[int, int, int], score: float
) -> None:
    if score > SURE_POINT:
        pen.ellipse((x - radius_px, y - radius_px, x + radius_px, y + radius_px), fill=colour)
