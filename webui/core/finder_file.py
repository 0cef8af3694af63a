"""Whether a file is a finder that can be used, told from what it says of itself before anything is run."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from webui.core.files import FinderFile
from webui.core.onnx_file import OnnxFile, Port, read_safe
from webui.core.tensor_file import PICKLE_ENDINGS, BadFile

RUNTIME = "onnxruntime"
"""The package that runs such files."""
EXTRA = f"the package {RUNTIME}, which is not installed: pip install {RUNTIME}"
BOX, CORNERS = 4, 6
"""What a box is: centre and size; and in a head that ends in boxes, corners, score and class."""
MIN_SIDE_PX, MAX_SIDE_PX = 32, 2048
FREE_SIDE_PX = 640
"""What a network is given that takes any size and does not say what it was trained on."""
MOST_CANDIDATES = 200_000
FLOATS = {1: "float32", 10: "float16"}
TASKS = {"classify": "says what a picture shows", "pose": "finds poses", "obb": "finds turned boxes"}


@dataclass(frozen=True)
class Head:
    """``sides`` (height, width in px) of the picture that it is given; ``dtype`` of its numbers.

    ``masks`` are how many prototypes its masks are mixed of, 0 for boxes alone. A head that has ``ended`` gives rows of
    corners, score and class, one a part; else it gives columns of centre, size and a score for each class, many a part.
    """

    sides: tuple[int, int]
    dtype: str
    masks: int = 0
    ended: bool = False


def check_finder(file: FinderFile) -> None:
    """Raises BadFile, with the reason, for what cannot be used."""
    if file.path.suffix.lower() in PICKLE_ENDINGS:
        raise BadFile(export_line(file.path.stem))
    read_head(file.path)
    if find_spec(RUNTIME) is None:
        raise BadFile(f"needs {EXTRA}")


def export_line(stem: str) -> str:
    """What to do with a finder's pickle, to be put behind its name."""
    return (
        "is a pickle, and opening a pickle can run any program: export it where you trust it, with"
        f" `yolo export model={stem[:80]}.pt format=onnx`, and put {stem[:80]}.onnx into models/adetailer"
    )


def read_head(path: Path) -> Head:
    """What a file of ultralytics' takes and gives, YOLOv8 and later; raises BadFile saying what it is instead."""
    found = read_safe(path)
    if does := TASKS.get(found.notes.get("task", "")):
        raise BadFile(f"{does}, not boxes: use a detector or segmenter")
    sides, dtype = _read_input(found)
    return _read_outputs(found, sides, dtype)


def _read_input(found: OnnxFile) -> tuple[tuple[int, int], str]:
    ports = found.inputs
    shape = ports[0].shape if len(ports) == 1 else None
    if shape is None or len(shape) != 4 or shape[0] not in (1, None) or shape[1] not in (3, None):
        raise BadFile(f"is not a finder: it takes {words_of(ports)}, not one picture of three colours")
    if ports[0].dtype not in FLOATS:
        raise BadFile(f"takes numbers of ONNX's type {ports[0].dtype}; float32 and float16 are given")
    height, width = shape[2:]
    dtype = FLOATS[ports[0].dtype]
    if height is None or width is None:
        trained = re.fullmatch(r"\[(\d{1,4}), (\d{1,4})\]", found.notes.get("imgsz", ""))
        height, width = (int(side) for side in trained.groups()) if trained else (FREE_SIDE_PX, FREE_SIDE_PX)
    if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX and side % 32 == 0 for side in (height, width)):
        raise BadFile(
            f"wants pictures of {width} x {height} px; {MIN_SIDE_PX} to {MAX_SIDE_PX} in steps of 32 are given"
        )
    return (height, width), dtype


def _read_outputs(found: OnnxFile, sides: tuple[int, int], dtype: str) -> Head:
    ports = found.outputs
    shapes = [port.shape for port in ports]
    boxes = shapes[0] if shapes else None
    if len(ports) not in (1, 2) or boxes is None or len(boxes) != 3 or boxes[0] not in (1, None):
        raise _no_detector(ports)
    masks = 0
    if len(ports) == 2:
        prototypes = shapes[1]
        if prototypes is None or len(prototypes) != 4 or not prototypes[1]:
            raise _no_detector(ports)
        masks = prototypes[1]
    _, rows, columns = boxes
    if columns == CORNERS + masks:
        return Head(sides, dtype, masks, ended=True)
    if rows is None or rows <= BOX + masks or (columns is not None and not rows < columns <= MOST_CANDIDATES):
        raise _no_detector(ports)
    return Head(sides, dtype, masks)


def _no_detector(ports: tuple[Port, ...]) -> BadFile:
    return BadFile(f"is not a finder of YOLOv8 or later: it gives {words_of(ports)}")


def words_of(ports: tuple[Port, ...]) -> str:
    """Their shapes for people, of the first three."""
    shapes = (
        "?" if port.shape is None else " x ".join(str(side or "any") for side in port.shape) for port in ports[:3]
    )
    return " and ".join(shape or "one number" for shape in shapes) or "nothing"
