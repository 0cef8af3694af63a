"""What a map's networks are, how their files are known, and how they are run: ONNX files, on the CPU, by onnxruntime.

Nothing is downloaded. A file is looked at before it is run, as finders' are: numbers in other files, operators of its
own and loops are refused.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from webui.core import onnx_session
from webui.core.errors import RequestError, show
from webui.core.files import AnnotatorFile
from webui.core.finder_file import EXTRA, FLOATS, RUNTIME, words_of
from webui.core.onnx_file import Port, read_safe
from webui.core.onnx_session import Floats
from webui.core.segmenter_file import is_named_so, read_part
from webui.core.tensor_file import BadFile

FOLDER = "models/annotators"
FIELD = "preprocessor"


@dataclass(frozen=True)
class Network:
    """One network that a map needs: what it is, for people, and words of which one is in its file's name. ``example``
    is such a name. ``channels`` are those that one of its outputs (1, channels, h, w) has; empty: any."""

    what: str
    words: tuple[str, ...]
    example: str
    channels: tuple[int, ...] = ()

    def goes_by(self, name: str) -> bool:
        """Whether a file of this name is it; `_` at the ends of a word is where another word begins, or the name."""
        spaced = f"_{re.sub('[-. ]', '_', name.casefold())}_"
        return any(word in spaced for word in self.words)

    def check(self, outputs: Sequence[Port]) -> None:
        """Raises BadFile where a file says that it gives something else."""
        shapes = [port.shape for port in outputs]
        told = [shape[1] if len(shape) == 4 else 1 for shape in shapes if shape and len(shape) in (3, 4)]
        known = len(told) == len(shapes) and None not in told
        if self.channels and known and not set(told) & set(self.channels):
            raise BadFile(f"gives {words_of(tuple(outputs))}, as {self.what} does not")


DEPTH = Network("Depth Anything or MiDaS", ("depth", "midas", "dpt"), "depth_anything_v2_vits.onnx")
PEOPLE = Network("YOLOX", ("yolox",), "yolox_l.onnx")
POSE = Network("DWPose", ("dw_ll", "dwpose", "rtmpose", "rtmw"), "dw-ll_ucoco_384.onnx")
HED = Network("HED", ("_hed_", "controlnethed"), "ControlNetHED.onnx", (1,))
PIDINET = Network("PiDiNet", ("pidinet",), "table5_pidinet.onnx", (1,))
TEED = Network("TEED", ("_teed_",), "teed.onnx", (1,))
NORMALS = Network("NormalBae", ("normalbae", "normal_bae", "scannet"), "normalbae_scannet.onnx", (3, 4))
KINDS = Network(
    "a network of ADE20K's kinds",
    ("ade20k", "_ade_", "segformer", "upernet", "oneformer", "uniformer"),
    "segformer-b0-finetuned-ade-512-512.onnx",
    (150, 1),
)


KNOWN = (DEPTH, PEOPLE, POSE, HED, PIDINET, TEED, NORMALS, KINDS)


def is_annotator(name: str) -> bool:
    """Whether a file of this name is one of these, or the segmenter's."""
    return is_named_so(name) or any(network.goes_by(name) for network in KNOWN)


def check_annotator(file: AnnotatorFile) -> None:
    """Raises BadFile, with the reason, for what is neither a preprocessor's network nor a half of the segmenter."""
    network = next((network for network in KNOWN if network.goes_by(file.name)), None)
    if network is None and is_named_so(file.name):
        read_part(file)
        return
    read_port(file)
    if network:
        network.check(read_safe(file.path).outputs)


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
            network.check(read_safe(file.path).outputs)
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
