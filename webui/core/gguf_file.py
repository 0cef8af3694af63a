"""The header of a GGUF file: what is in it, without reading it. Nothing here imports torch.

Format (ggml, docs/gguf.md): the magic, a version, how many tensors and how many notes; the notes, each a name, a type
and a value; the tensors, each a name, its sides from the innermost out, a type and where its bytes are behind the
header; then the tensors' bytes. Numbers are little endian.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_NOTES, MAX_TEXT_BYTES, MAX_ITEMS, MAX_SIDES = 20_000, 2**20, 2**21, 4
MAX_NOTED_SIDES = 8
"""Where a shape is not ggml's own."""
ALIGNMENT = 32
SHAPE_NOTE = "comfy.gguf.orig_shape."
"""ComfyUI-GGUF's note of a tensor's shape where it is stored in another: rows that no block fits into are joined."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9


@dataclass(frozen=True)
class Block:
    """How many numbers share how many bytes."""

    numbers: int
    nbytes: int


BLOCKS: Mapping[str, Block] = {
    "Q4_0": Block(32, 18),
    "Q4_1": Block(32, 20),
    "Q5_0": Block(32, 22),
    "Q5_1": Block(32, 24),
    "Q8_0": Block(32, 34),
    "Q2_K": Block(256, 84),
    "Q3_K": Block(256, 110),
    "Q4_K": Block(256, 144),
    "Q5_K": Block(256, 176),
    "Q6_K": Block(256, 210),
}
"""What is read of ggml's types, by its names, besides plain numbers."""
_PLAIN = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I8": 1, "I16": 2, "I32": 4, "I64": 8}
_TYPES = (
    *("F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K"),
    *("Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16"),
    *("I32", "I64", "F64", "IQ1_M", "BF16", "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0", "TQ2_0", "IQ4_NL_4_4"),
    *("IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4", "NVFP4", "Q1_0"),
)  # fmt: skip
"""ggml's types, by their numbers."""


class NotEnough(ValueError):
    """The bytes end within the header."""


class Unread(ValueError):
    """A type of numbers that is not read here; the message is its name."""


@dataclass(frozen=True)
class Tensor:
    """``shape`` from the outermost side in; ``dtype`` is ggml's name; ``offset`` counts from the file's beginning."""

    shape: tuple[int, ...]
    dtype: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class GgufHeader:
    """The notes that are texts or single numbers, as text, and the tensors by their names."""

    notes: Mapping[str, str]
    tensors: Mapping[str, Tensor]


def parse_gguf(start: bytes, max_tensors: int) -> GgufHeader:
    """The header in a file's first bytes. Raises NotEnough, Unread, and ValueError for what is no such header."""
    reader = _Reader(start)
    if reader.take("4s") != MAGIC or reader.take("I") not in VERSIONS:
        raise ValueError("of another version than 2 and 3")
    tensors, notes = reader.take("Q"), reader.take("Q")
    if tensors > max_tensors or notes > MAX_NOTES:
        raise ValueError(f"of {tensors:,} tensors and {notes:,} notes, which are more than are read")
    said: dict[str, Any] = {}
    for _ in range(notes):
        name = reader.text()
        said[name] = reader.value(reader.take("I"))
    raw = {}
    for _ in range(tensors):
        name, sides = reader.text(), reader.take("I")
        if name in raw or not 1 <= sides <= MAX_SIDES:
            raise ValueError(f"wrong at {name[:80]!r}: it is there twice or has {sides} sides")
        shape = tuple(reader.take("Q") for _ in range(sides))[::-1]
        raw[name] = (shape, reader.take("I"), reader.take("Q"))
    alignment = said.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError("of an alignment that is not a power of two")
    first = -(-reader.at // alignment) * alignment
    found = {}
    for name, (shape, kind, at) in raw.items():
        try:
            found[name] = _tensor(shape, kind, first + at, said.get(SHAPE_NOTE + name))
        except Unread:
            raise
        except ValueError as error:
            raise ValueError(f"wrong at {name[:80]!r}: it has {error}") from None
    texts = {name: str(value) for name, value in said.items() if not isinstance(value, list)}
    return GgufHeader(texts, found)


def _tensor(shape: tuple[int, ...], kind: int, offset: int, noted: Any) -> Tensor:
    name = _TYPES[kind] if kind < len(_TYPES) else f"type {kind}"
    numbers = math.prod(shape)
    if name in _PLAIN:
        nbytes = numbers * _PLAIN[name]
    elif name not in BLOCKS:
        raise Unread(name)
    elif not shape or shape[-1] % BLOCKS[name].numbers:
        raise ValueError(f"rows of {shape[-1]} numbers in blocks of {BLOCKS[name].numbers}")
    else:
        nbytes = numbers // BLOCKS[name].numbers * BLOCKS[name].nbytes
    if noted is not None:
        if not isinstance(noted, list) or len(noted) > MAX_NOTED_SIDES or not all(map(_is_side, noted)):
            raise ValueError("a note of a shape that is none")
        if math.prod(noted) != numbers:
            raise ValueError(f"{numbers:,} numbers, and a shape of {math.prod(noted):,}")
        shape = tuple(noted)
    return Tensor(shape, name, offset, nbytes)


def _is_side(noted: Any) -> bool:
    return isinstance(noted, int) and noted >= 0


class _Reader:
    """Bytes from the first on; every count is bounded by what is there."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def take(self, form: str) -> Any:
        size = struct.calcsize(f"<{form}")
        if self.at + size > len(self._data):
            raise NotEnough("ends within its header")
        (value,) = struct.unpack_from(f"<{form}", self._data, self.at)
        self.at += size
        return value

    def text(self) -> str:
        length = self.take("Q")
        if length > MAX_TEXT_BYTES:
            raise ValueError(f"of a text of {length:,} bytes, which is more than is read")
        if self.at + length > len(self._data):
            raise NotEnough("ends within its header")
        self.at += length
        return self._data[self.at - length : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """A number, a text, or a list of such."""
        if kind == _TEXT:
            return self.text()
        if kind != _LIST:
            if kind not in _SCALARS:
                raise ValueError(f"of a note of the type {kind}, which is not known")
            return self.take(_SCALARS[kind])
        inner, count = self.take("I"), self.take("Q")
        if count > MAX_ITEMS or inner == _LIST or (inner != _TEXT and inner not in _SCALARS):
            raise ValueError(f"of a list of {count:,} of the type {inner}, which is not read")
        if inner == _TEXT:  # a vocabulary may have some hundred thousand
            self._skip_texts(count)
            return []
        return [self.value(inner) for _ in range(count)]

    def _skip_texts(self, count: int) -> None:
        data, at = self._data, self.at
        for _ in range(count):
            length = int.from_bytes(data[at : at + 8], "little")
            if length > MAX_TEXT_BYTES:
                raise ValueError(f"of a text of {length:,} bytes, which is more than is read")
            at += 8 + length
            if at > len(data):
                raise NotEnough("ends within its header")
        self.at = at
