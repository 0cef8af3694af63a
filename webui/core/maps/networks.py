"""What a map's networks are, how their files are known, and how they are run: ONNX files, on the CPU, by onnxruntime.

Nothing is downloaded. A file is looked at before it is run, as finders' are: numbers in other files, operators of its
own and loops are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from PIL import Image as PilImages
from PIL.Image import Image as PilImage
from PIL.Image import Resampling

from webui.core import onnx_session
from webui.core.errors import RequestError, show
from webui.core.files import AnnotatorFile
from webui.core.finder_file import EXTRA, FLOATS, RUNTIME
from webui.core.onnx_file import Port, read_safe
from webui.core.onnx_session import Floats
from webui.core.segmenter_file import is_named_so, read_part
from webui.core.tensor_file import BadFile

FOLDER = "models/annotators"
FIELD = "preprocessor"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
USUAL_DEPTH_PX = 518
"""Of the shorter side, what Depth Anything was trained on."""
LONGEST_DEPTH = 4
"""Times as long as the shorter side of such a picture's square; a longer strip is looked at smaller."""


@dataclass(frozen=True)
class Network:
    """One network that a map needs: what it is, for people, and words of which one is in its file's name. ``example``
    is such a name."""

    what: str
    words: tuple[str, ...]
    example: str

    def goes_by(self, name: str) -> bool:
        """Whether a file of this name is it."""
        return any(word in name.casefold() for word in self.words)


DEPTH = Network("Depth Anything or MiDaS", ("depth", "midas", "dpt"), "depth_anything_v2_vits.onnx")
PEOPLE = Network("YOLOX", ("yolox",), "yolox_l.onnx")
POSE = Network("DWPose", ("dw-ll", "dwpose", "rtmpose", "rtmw"), "dw-ll_ucoco_384.onnx")


KNOWN = (DEPTH, PEOPLE, POSE)


def is_annotator(name: str) -> bool:
    """Whether a file of this name is one of these, or the segmenter's."""
    return is_named_so(name) or any(network.goes_by(name) for network in KNOWN)


def check_annotator(file: AnnotatorFile) -> None:
    """Raises BadFile, with the reason, for what is neither a preprocessor's network nor a half of the segmenter."""
    if is_named_so(file.name) and not any(network.goes_by(file.name) for network in KNOWN):
        read_part(file)
    else:
        read_port(file)


def find_networks(wanted: Sequence[Network], files: Mapping[str, AnnotatorFile]) -> tuple[AnnotatorFile, ...]:
    """The files of these networks, in this order; BadFile says what to get, and where it goes."""
    if wanted and find_spec(RUNTIME) is None:
        raise BadFile(f"needs {EXTRA}")
    return tuple(_find(network, files) for network in wanted)


def _find(network: Network, files: Mapping[str, AnnotatorFile]) -> AnnotatorFile:
    reason = ""
    for name, file in files.items():
        if not network.goes_by(name):
            continue
        try:
            read_port(file)
            return file
        except BadFile as error:
            reason = reason or f"{show(file.path.name)} {error}"
    if reason:
        raise BadFile(f"needs {network.what}, but {reason}")
    raise BadFile(f"needs {network.what} as an ONNX file in {FOLDER}, such as {network.example}")


def read_port(file: AnnotatorFile) -> Port:
    """What the network takes, a picture (1, 3, h, w); raises BadFile, with the reason, for what cannot be run."""
    if file.problem:
        raise BadFile(file.problem)
    ports = read_safe(file.path).inputs
    shape = ports[0].shape if len(ports) == 1 else None
    if shape is None or len(shape) != 4 or shape[1] != 3 or shape[0] not in (1, None):
        raise BadFile("takes something else than one picture of three colours (1 x 3 x height x width)")
    if ports[0].dtype not in FLOATS:
        raise BadFile(f"takes numbers of ONNX's type {ports[0].dtype}; float32 and float16 are given")
    return ports[0]


def state_of(file: AnnotatorFile) -> onnx_session.State:
    """What changes with the file; RequestError where it is gone."""
    return onnx_session.state_of(file, FIELD)


def run(file: AnnotatorFile, picture: Floats) -> list[Floats]:
    """All that the network gives for a picture (1, 3, h, w); RequestError naming its file where it cannot be run."""
    return list(onnx_session.run(file, {_port(file).name: picture}, FIELD).values())


def _port(file: AnnotatorFile) -> Port:
    try:
        return read_port(file)
    except BadFile as error:
        raise RequestError(f"{show(file.path.name)} {error}", FIELD) from None


def sides_of(file: AnnotatorFile) -> tuple[int | None, int | None]:
    """(height, width) in px that a network takes, None for what is free; raises as ``run`` does."""
    shape = _port(file).shape
    assert shape
    return shape[2], shape[3]


def depth(picture: PilImage, files: Sequence[AnnotatorFile]) -> PilImage:
    """How near things are, the nearest white, from a network that gives inverse depth (1, [1,] h, w)."""
    (file,) = files
    name = file.name.casefold()
    step = 14 if "anything" in name else 32
    mean, spread = HALVES if "dpt" in name else IMAGENET
    height, width = sides_of(file)
    scale = USUAL_DEPTH_PX / max(min(picture.size), (picture.width * picture.height / LONGEST_DEPTH) ** 0.5)
    size = tuple(
        fixed or max(step, round(side * scale / step) * step)
        for fixed, side in zip((width, height), picture.size, strict=True)
    )
    shown = np.asarray(picture.resize((size[0], size[1]), Resampling.BICUBIC), np.float32) / 255
    numbers = ((shown - mean) / spread).transpose(2, 0, 1)[None].astype(np.float32)
    near = np.squeeze(run(file, numbers)[0])
    if near.ndim != 2:
        raise RequestError(f"{show(file.path.name)} gives no depth: {near.ndim} sides instead of 2", FIELD)
    low, high = float(near.min()), float(near.max())
    levels = PilImages.fromarray(((near - low) / max(high - low, 1e-6)).astype(np.float32) * 255)
    resized = np.asarray(levels.resize(picture.size, Resampling.BICUBIC))
    return PilImages.fromarray(resized.round().clip(0, 255).astype(np.uint8)).convert("RGB")
