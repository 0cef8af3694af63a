"""The header of a file of tensors: what is in it, without reading it. Nothing here imports torch.

A file is one of safetensors, or of GGUF (``gguf_file``), whatever its name says. Format of safetensors: 8 bytes of
header length, little endian; the header, a JSON object; then the tensors' bytes.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from webui.core.first_bytes import recognize_bytes
from webui.core.gguf_file import MAGIC, GgufHeader, NotEnough, Unread, parse_gguf
from webui.core.gguf_names import ARCHITECTURES, LANGUAGE_MODEL, transformers_names

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 20_000
MAX_SIDES = 8
LENGTH_BYTES = 8
START_BYTES = 200
GGUF_START_BYTES = 2**18
PICKLE_ENDINGS = (".pt", ".pth", ".ckpt", ".bin")
NUMBER_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 1),
}
"""What one number takes, by safetensors' name of its format."""


class BadFile(ValueError):
    """A file that cannot be used; the message is the reason, to be put behind the file's name."""


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes are in the file, and of what type, by the format's own name: F16, BF16, ..."""

    dtype: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """Free text about the file, by name, and the shape and place of each tensor, by key."""

    metadata: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    places: Mapping[str, Place] = field(default_factory=dict, repr=False, compare=False)


def read_header(path: Path) -> Header:
    """The header, kept until the file changes; raises BadFile."""
    if path.suffix.lower() in PICKLE_ENDINGS:
        raise BadFile(
            "is a pickle, and opening a pickle can run any program; have it saved as safetensors where it was made"
        )
    try:
        stat = path.stat()
        return _read_header(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise BadFile(f"cannot be read: {error.strerror}") from None


@lru_cache(maxsize=256)
def _read_header(path: Path, size_bytes: int, _mtime_ns: int) -> Header:
    with path.open("rb") as file:
        start = file.read(START_BYTES)
        if start.startswith(MAGIC):
            wanted = GGUF_START_BYTES
            while (found := parse_gguf_header(start, size_bytes)) is None:
                if not (more := file.read(wanted)):
                    raise BadFile("was cut short while it was read")
                start += more
                wanted = len(start)
            return found
        length = header_length(start, size_bytes)
        file.seek(LENGTH_BYTES)
        return parse_header(file.read(length), size_bytes)


def check_gguf(start: bytes) -> None:
    """Raises BadFile, with what it seems to be, for the first bytes of what is no GGUF file."""
    if not start.startswith(MAGIC):
        seems = recognize_bytes(start)
        raise BadFile("is not a GGUF file, whatever its name says" + (f": {seems}" if seems else ""))


def parse_gguf_header(start: bytes, size_bytes: int) -> Header | None:
    """The header of a GGUF file of that size by its first bytes; None where they are too few. Raises BadFile."""
    try:
        found = parse_gguf(start, MAX_TENSORS)
    except NotEnough:
        if len(start) >= size_bytes:
            raise BadFile("is cut short: it ends within its header") from None
        if len(start) >= MAX_HEADER_BYTES:
            raise BadFile(f"has a header of more than {MAX_HEADER_BYTES // 2**20} MiB") from None
        return None
    except Unread as error:
        raise BadFile(f"has weights as {error}, which is not known here; get it as Q8_0, Q6_K or Q4_K") from None
    except ValueError as error:
        raise BadFile(f"is damaged: its header is {error}") from None
    called = _known_names(found)
    places = {called[name]: Place(tensor.dtype, tensor.offset, tensor.nbytes) for name, tensor in found.tensors.items()}
    whole = max((place.offset + place.nbytes for place in places.values()), default=0)
    if whole > size_bytes:
        raise BadFile(f"is cut short: it has {size_bytes:,} of {whole:,} bytes")
    return Header(found.notes, {called[name]: tensor.shape for name, tensor in found.tensors.items()}, places)


def _known_names(found: GgufHeader) -> Mapping[str, str]:
    """What the tensors are called here: llama.cpp's names are those of other programs too. Raises BadFile."""
    if LANGUAGE_MODEL not in found.tensors:
        return {name: name for name in found.tensors}
    architecture = found.notes.get("general.architecture", "none")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise BadFile(f"is a language model of the architecture {architecture[:40]!r}; {known} can read words here")
    called = transformers_names(architecture, found.tensors)
    if len(set(called.values())) < len(called):
        raise BadFile("is damaged: two of its tensors mean the same")
    return called


def header_length(start: bytes, size_bytes: int) -> int:
    """How many bytes behind the first 8 are the header, told from the first ``START_BYTES`` of a file of that size.

    Raises BadFile for what is not a safetensors file, saying what it seems to be instead.
    """
    if size_bytes == 0:
        raise BadFile("is empty")
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    seems = recognize_bytes(start) if length > MAX_HEADER_BYTES else ""
    if seems or start[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{" or length < 2:
        raise BadFile("is not a safetensors file, whatever its name says" + (f": {seems}" if seems else ""))
    if length > MAX_HEADER_BYTES:
        raise BadFile(f"has a header of {length / 2**20:,.0f} MiB; {MAX_HEADER_BYTES // 2**20} MiB are allowed")
    if length + LENGTH_BYTES > size_bytes:
        raise BadFile("is cut short: it ends within its header")
    return length


def parse_header(text: bytes, size_bytes: int) -> Header:
    """The header of a file of that size; raises BadFile."""
    first = len(text) + LENGTH_BYTES
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", None)
        metadata = {} if metadata is None else metadata  # null, as safetensors' own library reads it
        shapes = {key: tuple(int(side) for side in entry["shape"]) for key, entry in header.items()}
        places = {key: _read_place(entry, first) for key, entry in header.items()}
        whole = max((place.offset + place.nbytes for place in places.values()), default=first)
        metadata = {str(name): str(value) for name, value in metadata.items()}
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        raise BadFile("is damaged: its header cannot be read") from None
    if len(shapes) > MAX_TENSORS:
        raise BadFile(f"has {len(shapes):,} tensors; {MAX_TENSORS:,} are allowed")
    if whole > size_bytes:
        raise BadFile(f"is cut short: it has {size_bytes:,} of {whole:,} bytes")
    if (wrong := next((key for key, place in places.items() if not _fits(shapes[key], place)), None)) is not None:
        raise BadFile(f"is damaged: {wrong[:80]!r} has {places[wrong].nbytes:,} bytes, and its shape needs others")
    return Header(metadata, shapes, places)


def _read_place(entry: Mapping[str, Any], start: int) -> Place:
    first, last = (int(offset) for offset in entry["data_offsets"])
    if not 0 <= first <= last:
        raise ValueError
    return Place(str(entry.get("dtype", "")), start + first, last - first)


def _fits(shape: tuple[int, ...], place: Place) -> bool:
    """Whether a tensor has as many bytes as its shape says, as far as its format is known."""
    size = NUMBER_BYTES.get(place.dtype)
    is_shape = len(shape) <= MAX_SIDES and min(shape, default=0) >= 0
    return is_shape and (size is None or math.prod(shape) * size == place.nbytes)


@dataclass(frozen=True)
class FileHash:
    """SHA-256 of the tensors' bytes (what A1111 shows the first 12 digits of), and of that and the header together."""

    tensors: str
    content: str


def hash_file(path: Path) -> FileHash:
    """The file's hashes, kept until it changes; raises OSError."""
    stat = path.stat()
    return _hash_file(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hash_file(path: Path, _size_bytes: int, _mtime_ns: int) -> FileHash:
    with path.open("rb") as file:
        start = file.read(8)
        header = file.read(min(int.from_bytes(start, "little"), MAX_HEADER_BYTES))
        tensors = hashlib.file_digest(file, "sha256").hexdigest()
    return FileHash(tensors, hashlib.sha256(start + header + tensors.encode()).hexdigest())


def read_floats(path: Path, header: Header, key: str) -> np.ndarray | None:
    """One small tensor's numbers, flat; None where the file has none of that name or not as floats."""
    place = header.places.get(key)
    if place is None or place.dtype not in ("F32", "F16", "BF16"):
        return None
    with path.open("rb") as file:
        file.seek(place.offset)
        data = file.read(place.nbytes)
    if place.dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, "<f4" if place.dtype == "F32" else "<f2").astype("<f4")
