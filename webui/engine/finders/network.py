"""Finders in ONNX files: YOLOv8 and later as ultralytics exports them, detectors and segmenters, run on the CPU.

The picture is brought into the network's size without changing its shape (grey around it), what it gives is read back
into the picture's pixels, and of boxes that lie over each other the surest stays. Layouts as in the documentation of
ultralytics' export: (1, 4 + classes [+ 32], places) with boxes as centre and size, or (1, parts, 6 [+ 32]) with
corners, score and class; masks are mixed of prototypes (1, 32, height / 4, width / 4).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImages
from PIL.Image import Image as PilImage
from PIL.Image import Resampling

from webui.core.errors import RequestError
from webui.core.files import FinderFile
from webui.core.finder_file import BOX, CORNERS, Head, check_finder, read_head
from webui.core.found import Part
from webui.core.images import Box, Size
from webui.core.tensor_file import BadFile
from webui.engine.families.base import CannotLoad

GREY = 114
SAME = 0.5
"""The share of their union from which on two boxes are about one thing."""
MOST = 1000
"""Of the surest places, how many are looked at."""
KEPT = 2

Floats = NDArray[np.float32]
Stamp = tuple[int, int]


class Network:
    """A finder that is ready to run."""

    def __init__(self, file: FinderFile, session: Any, head: Head) -> None:
        self._name, self._session, self._head = file.name, session, head

    def find(self, picture: PilImage, threshold: float) -> list[Part]:
        """The parts of an RGB picture with a score not below the threshold, the surest of those that overlap."""
        sheet = Sheet(picture.size, self._head.sides)
        numbers = sheet.lay(picture).astype(self._head.dtype)
        try:
            given = self._session.run(None, {self._session.get_inputs()[0].name: numbers})
        except Exception as error:  # the runtime has no common class of its own
            raise RequestError(f"finder {self._name[:80]!r} cannot be run: {_first_line(error)}", "detail") from None
        boxes, scores, mixes = self._read(np.asarray(given[0], np.float32), threshold)
        if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
            raise RequestError(
                f"finder {self._name[:80]!r} gives values that are not numbers (NaN or infinity)", "detail"
            )
        prototypes = np.asarray(given[1], np.float32)[0] if self._head.masks else None
        parts = []
        for number in most_sure(boxes, scores):
            box = sheet.box_in_picture(boxes[number])
            mask = None if prototypes is None else sheet.mask_in_picture(mixes[number], prototypes, box)
            if mask is not None and mask.getbbox() is None:
                mask = None
            parts.append(Part(box, round(float(min(scores[number], 1.0)), 4), mask))
        return parts

    def _read(self, given: Floats, threshold: float) -> tuple[Floats, Floats, Floats]:
        """Corners (n, 4) in px of the sheet, scores (n,) from the threshold on, and how masks are mixed (n, masks)."""
        head = self._head
        rows = given[0] if head.ended else given[0].T
        if (
            rows.ndim != 2
            or rows.shape[1] < BOX + 1 + head.masks
            or head.ended
            and rows.shape[1] != CORNERS + head.masks
        ):
            raise RequestError(f"finder {self._name[:80]!r} gives {given.shape}, as no finder does", "detail")
        if head.ended:
            scores, mixes = rows[:, 4], rows[:, CORNERS:]
        else:
            scores, mixes = rows[:, BOX : rows.shape[1] - head.masks].max(axis=1), rows[:, rows.shape[1] - head.masks :]
        order = np.argsort(-scores, kind="stable")[:MOST]
        order = order[~(scores[order] < threshold)]
        boxes = rows[order, :4]
        if not head.ended:
            half = boxes[:, 2:] / 2
            boxes = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
        return boxes, scores[order], mixes[order]


class Sheet:
    """A picture of ``size`` (width, height) in the middle of a network's (height, width), as large as it fits."""

    def __init__(self, size: Size, sides: tuple[int, int]) -> None:
        self._size, self._sides = size, sides
        self._scale = min(sides[1] / size[0], sides[0] / size[1])
        self._shown = max(1, round(size[0] * self._scale)), max(1, round(size[1] * self._scale))
        self._left, self._top = (sides[1] - self._shown[0]) // 2, (sides[0] - self._shown[1]) // 2

    def lay(self, picture: PilImage) -> Floats:
        """(1, 3, h, w) of 0..1, grey around the picture."""
        shown = picture.convert("RGB").resize(self._shown, Resampling.BILINEAR)
        sheet = PilImages.new("RGB", (self._sides[1], self._sides[0]), (GREY, GREY, GREY))
        sheet.paste(shown, (self._left, self._top))
        return np.ascontiguousarray(np.asarray(sheet, np.float32).transpose(2, 0, 1)[None] / 255)

    def box_in_picture(self, corners: Floats) -> Box:
        """The whole pixels of the picture that are nearest to corners on the sheet."""
        shift = (self._left, self._top) * 2
        left, top, right, bottom = (
            min(max(round((float(at) - off) / self._scale), 0), side)
            for at, off, side in zip(corners, shift, self._size * 2, strict=True)
        )
        return left, top, right, bottom

    def mask_in_picture(self, mix: Floats, prototypes: Floats, box: Box) -> PilImage:
        """What the prototypes (masks, h, w) are mixed to, in the picture's size; nothing outside of the box."""
        levels = np.tensordot(mix, prototypes, axes=1).astype(np.float32)
        down, across = (own / side for own, side in zip(levels.shape, self._sides, strict=True))
        shown = (
            self._left * across,
            self._top * down,
            (self._left + self._shown[0]) * across,
            (self._top + self._shown[1]) * down,
        )
        whole = PilImages.fromarray(levels).resize(self._size, Resampling.BILINEAR, shown)
        inside = np.zeros((self._size[1], self._size[0]), np.uint8)
        left, top, right, bottom = box
        inside[top:bottom, left:right] = np.where(np.asarray(whole)[top:bottom, left:right] > 0, 255, 0)
        return PilImages.fromarray(inside)


def most_sure(boxes: Floats, scores: Floats) -> list[int]:
    """Of boxes (n, 4), the surest first, those that are not about the same thing as a surer one."""
    areas = np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(int(first))
        corners = np.minimum(boxes[first, 2:], boxes[left, 2:]) - np.maximum(boxes[first, :2], boxes[left, :2])
        common = np.maximum(corners, 0).prod(axis=1)
        union = np.maximum(areas[first] + areas[left] - common, 1e-9)
        left = left[common / union < SAME]
    return kept


class Finders:
    """Keeps the networks that were used last."""

    def __init__(self) -> None:
        self._networks: dict[tuple[FinderFile, Stamp], Network] = {}

    def clear(self) -> None:
        """Lets go of them."""
        self._networks.clear()

    @property
    def held(self) -> frozenset[Path]:
        """The files whose networks are in memory; from any thread."""
        return frozenset(file.path for file, _ in [*self._networks])

    def load(self, file: FinderFile) -> Network:
        """The network of a file as it is now; raises CannotLoad."""
        try:
            stat = file.path.stat()
        except OSError as error:
            raise CannotLoad(f"finder {file.name[:80]!r} can no longer be read: {error.strerror}") from None
        key = file, (stat.st_size, stat.st_mtime_ns)
        network = self._networks.pop(key, None) or _read_network(file)
        self._networks[key] = network
        while len(self._networks) > KEPT:
            del self._networks[next(iter(self._networks))]
        return network


def _read_network(file: FinderFile) -> Network:
    """Raises CannotLoad naming the file and the reason."""
    try:
        check_finder(file)
        head, data = read_head(file.path), file.path.read_bytes()
    except (BadFile, OSError) as error:
        raise CannotLoad(f"finder {file.name[:80]!r}: {file.path.name} {error}") from None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has no common class of its own
        reason = _first_line(error)
        raise CannotLoad(f"finder {file.name[:80]!r}: {file.path.name} cannot be loaded: {reason}") from None
    return Network(file, session, head)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]
