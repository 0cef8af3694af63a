"""Networks of ONNX files, run on the CPU by onnxruntime: arrays by name in, arrays by name out."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from cachetools import LRUCache, cached
from numpy.typing import NDArray

from webui.core.errors import RequestError, show
from webui.core.files import AnnotatorFile
from webui.core.onnx_file import read_safe
from webui.core.tensor_file import BadFile

KEPT = 6
DTYPES = {1: np.float32, 6: np.int32, 7: np.int64, 10: np.float16}
"""ONNX's numbers of the types that are given."""

Floats = NDArray[np.float32]
State = tuple[Path, int, int]
Ready = tuple[Any, Mapping[str, int]]
"""A network that can be run, and the types of what it takes."""
_READY: LRUCache[State, Ready] = LRUCache(KEPT)


def state_of(file: AnnotatorFile, field: str) -> State:
    """What changes with the file: its path, size in bytes and time; RequestError about ``field`` where it is gone."""
    try:
        stat = file.path.stat()
    except OSError as error:
        raise RequestError(f"{show(file.path.name)} can no longer be read: {error.strerror}", field) from None
    return file.path, stat.st_size, stat.st_mtime_ns


def run(file: AnnotatorFile, given: Mapping[str, NDArray[Any]], field: str) -> dict[str, Floats]:
    """All that the network gives, by name; RequestError about ``field``, naming its file, where it cannot be run."""
    state = state_of(file, field)
    try:
        session, dtypes = _load(file.path, state)
        found = session.run(None, {name: values.astype(DTYPES[dtypes[name]]) for name, values in given.items()})
    except BadFile as error:
        raise RequestError(f"{show(file.path.name)} {error}", field) from None
    except Exception as error:  # the runtime has no common class of its own
        reason = (str(error).strip().splitlines() or ["no reason given"])[0][:200]
        raise RequestError(f"{show(file.path.name)} cannot be run: {reason}", field) from None
    named = {port.name: np.asarray(part, np.float32) for port, part in zip(session.get_outputs(), found, strict=True)}
    if not all(np.isfinite(part).all() for part in named.values()):
        raise RequestError(f"{show(file.path.name)} gives values that are not numbers (NaN or infinity)", field)
    return named


def held() -> frozenset[Path]:
    """The files whose networks are in memory; from any thread."""
    return frozenset(path for path, *_ in [*_READY])


@cached(_READY, lambda _path, state: state, Lock())
def _load(path: Path, _state: State) -> Ready:
    """The network of a file; read again where it has changed."""
    ports = read_safe(path).inputs
    for port in ports:
        if port.dtype not in DTYPES:
            raise BadFile(f"takes numbers of ONNX's type {port.dtype}, which are not given here")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # it would keep what the largest picture took, gigabytes for SAM
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # whoever draws meanwhile needs the cores
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return session, {port.name: port.dtype for port in ports}
