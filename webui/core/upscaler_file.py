"""Whether a file is an upscaler that can be used, told from its keys before anything is read or run."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Literal

from webui.core.file_kinds import recognize
from webui.core.files import UpscalerFile
from webui.core.pickles import check_weights_alone
from webui.core.tensor_file import PICKLE_ENDINGS, BadFile, read_header

FURTHER = "spandrel"
"""The package that knows more networks."""
COMPACT_KEY = "body.0.weight"
ESRGAN_KEYS = ("body.0.rdb1.conv1.weight", "RRDB_trunk.0.RDB1.conv1.weight", "model.1.sub.0.RDB1.conv1.0.weight")
"""Real-ESRGAN's names, ESRGAN's, and those of its first code."""

Network = Literal["compact", "esrgan"]


def network_of(keys: Iterable[str]) -> Network | None:
    """The network of ours whose keys these are."""
    known = set(keys)
    if not known.isdisjoint(ESRGAN_KEYS):
        return "esrgan"
    return "compact" if COMPACT_KEY in known else None


def check_upscaler(file: UpscalerFile) -> None:
    """Raises BadFile, with the reason, for what cannot be used."""
    if file.problem:
        raise BadFile(file.problem)
    if file.path.suffix.lower() in PICKLE_ENDINGS:
        keys: Iterable[str] = check_weights_alone(file.path)
    else:
        shapes = read_header(file.path).shapes
        kind = recognize(shapes)
        if kind and kind.role != "upscaler":
            raise BadFile(kind.reason)
        keys = shapes
    check_network(keys)


def check_network(keys: Iterable[str]) -> None:
    """Raises BadFile where nothing here knows the network whose keys these are."""
    if network_of(keys) is None and find_spec(FURTHER) is None:
        raise BadFile(
            "is not an ESRGAN, Real-ESRGAN or compact network; the package"
            f" {FURTHER}, which knows more, is not installed"
        )
