"""Tensors in safetensors and GGUF files: where they lie, and how they are read into memory."""

import ctypes
import os
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from webui.core.gguf_file import BLOCKS
from webui.core.quantization import check_quantization, scale_names
from webui.core.tensor_file import BadFile, Place, read_header

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
SMALL = ("F8_E4M3", "F8_E5M2", "I8", *BLOCKS)
"""What stays as it is in memory, by the format's own name."""
KNOWN = (*DTYPES, *SMALL[2:])
BLOCK_BYTES, DEVICE_BLOCK_BYTES = 2**22, 2**25


@dataclass(frozen=True)
class Key:
    """A tensor in a file: its name, which third of its rows (None for all of them), whether it lies transposed, and
    whether the halves of its rows are ``swapped``. ``share`` is another part of its rows: from the first to before
    the second of so many equal ones.

    A ``flat`` one may have its numbers in other rows than the parameter's, in the same order; ``last`` is that frame's.
    """

    name: str
    third: int | None = None
    transposed: bool = False
    swapped: bool = False
    flat: bool = False
    share: tuple[int, int, int] | None = None
    last: bool = False

    @property
    def rows(self) -> tuple[int, int, int]:
        """Which part of its rows it is, as ``share`` says it."""
        return self.share or ((0, 1, 1) if self.third is None else (self.third, self.third + 1, 3))

    @property
    def is_as_it_lies(self) -> bool:
        """Whether nothing has to be put in another order."""
        return not (self.transposed or self.swapped or self.last)


@dataclass(frozen=True)
class Source:
    """A tensor in a file, with how it lies there, and the tensor that it is to be multiplied with, if any.

    ``rotated`` is how many numbers of a row were rotated together, 0 for none. ``exact`` is read in float32 always.
    """

    path: Path
    place: Place
    shape: tuple[int, ...]
    key: Key
    scale: "Source | None" = None
    rotated: int = 0
    exact: bool = False

    def format_of(self, dtype: torch.dtype) -> torch.dtype:
        """What it is read in for a network that computes in ``dtype``."""
        return torch.float32 if self.exact else dtype

    @property
    def nbytes(self) -> int:
        """How much of the file is read for it."""
        return self.share_of(self.place.nbytes)

    @property
    def own_shape(self) -> tuple[int, ...]:
        """That of its rows."""
        return self.shape if self.key.rows == (0, 1, 1) else (self.share_of(self.shape[0]), *self.shape[1:])

    def share_of(self, of: int) -> int:
        """How many of so many are its rows'."""
        first, behind, parts = self.key.rows
        return of // parts * (behind - first)

    @property
    def is_small(self) -> bool:
        """Whether it can stay in memory as it is."""
        return self.place.dtype in SMALL and self.key.is_as_it_lies


class Files:
    """The tensors of one or several files by key, remembered as they were when they were first looked at."""

    def __init__(self, paths: Iterable[Path], prefixes: Iterable[str] = ()) -> None:
        """``prefixes``, one a path, are put before the keys in each, where two files would have the same ones."""
        self.paths = tuple(paths)
        self._stamps = self._stamp()
        self._places: dict[str, tuple[Path, Place]] = {}
        self._rotated: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path, prefix in zip_longest(self.paths, prefixes, fillvalue=""):
            header = read_header(Path(path))
            rotated = check_quantization(Path(path), header)
            self._rotated |= {f"{prefix}{layer}.weight": group for layer, group in rotated.items()}
            self._places |= {f"{prefix}{key}": (Path(path), place) for key, place in header.places.items()}
            self.shapes |= {f"{prefix}{key}": shape for key, shape in header.shapes.items()}

    def find(self, key: Key) -> Source | None:
        """The tensor under this key, if there is one, with its scale."""
        if (found := self._places.get(key.name)) is None:
            return None
        scale = next((Key(name) for name in scale_names(key.name) if name in self._places), None)
        rotated = self._rotated.get(key.name, 0)
        return Source(*found, self.shapes[key.name], key, self.find(scale) if scale else None, rotated)

    def check_unchanged(self) -> None:
        """Raises BadFile where a file is not what it was when it was first looked at."""
        if self._stamp() != self._stamps:
            raise BadFile("was changed while it was read; try again")

    @property
    def identity(self) -> Hashable:
        """The same for the same files as they were when they were first looked at, by whatever path."""
        return tuple(zip(map(os.path.realpath, self.paths), self._stamps, strict=True))

    def _stamp(self) -> list[tuple[int, int]]:
        return [(stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, self.paths)]


def fill(file: Any, tensor: torch.Tensor, stored: torch.dtype, buffer: bytearray) -> None:
    """Numbers of the format ``stored`` into a flat tensor."""
    if stored == tensor.dtype and tensor.device.type == "cpu":
        _read_exactly(file, _memory_of(tensor) if len(tensor) else memoryview(b""))
        return
    for block in tensor.split(len(buffer) // stored.itemsize) if len(tensor) else ():
        _read_exactly(file, memoryview(buffer)[: len(block) * stored.itemsize])
        block.copy_(torch.frombuffer(buffer, dtype=stored, count=len(block)))


def _memory_of(tensor: torch.Tensor) -> memoryview:
    """A tensor's own bytes; numpy's view would fix the size of its storage, which ``cpu.conv`` empties."""
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def _read_exactly(file: Any, into: memoryview) -> None:
    while len(into):
        if not (count := file.readinto(into)):
            raise BadFile("was cut short while it was read")
        into = into[count:]
