"""Weights from safetensors files into modules: each tensor once, at its final format, on its final device.

Modules are built without memory and without random numbers, and every parameter gets its tensor as it is read. Weights
that are small in the file stay as they are where their layer can compute with them so (``Stored``). Files are read, not
mapped: a mapped file that is cut short meanwhile would end the process (docs/decisions/0009).
"""

import ctypes
import math
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from webui.core.gguf_file import BLOCKS
from webui.core.quantization import IGNORED, check_quantization, scale_names
from webui.core.tensor_file import BadFile, Place, read_header
from webui.engine.weights.gguf import Blocks
from webui.engine.weights.layers import can_keep, keep
from webui.engine.weights.scaled import Rotated, Scaled
from webui.engine.weights.stored import Stored

Module = TypeVar("Module", bound=nn.Module)
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
NAMED_MISSING = 3
FILLING = frozenset({"kaiming_uniform_", "xavier_uniform_", "uniform_", "normal_", "trunc_normal_", "fill_", "zero_"})
"""Functions of torch that networks put their first numbers into weights with."""
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


def read_all(files: Files) -> dict[str, torch.Tensor]:
    """Every tensor of the files by its key, in float32 on the CPU; raises BadFile."""
    sources = {name: source for name in files.shapes if (source := files.find(Key(name)))}
    if wrong := next((source for source in sources.values() if source.place.dtype not in DTYPES), None):
        raise BadFile(f"has {wrong.key.name} in the format {wrong.place.dtype!r}; known are {', '.join(DTYPES)}")
    return dict(read_some(files, sources, torch.device("cpu")))


def read_some(files: Files, names: Iterable[str], device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
    """Some tensors of the files by their keys, in the files' order, float32; raises BadFile."""
    found = {name: source for name in names if (source := files.find(Key(name)))}
    for name, tensor in _read(found, torch.float32, device):
        yield name, dense(tensor, torch.float32).reshape(files.shapes[name])
    files.check_unchanged()


def build_empty(make: Callable[[], Module]) -> Module:
    """The module that ``make`` makes, without memory."""
    with torch.device("meta"), _NoNumbers():
        return make().eval().requires_grad_(False)


class _NoNumbers(TorchFunctionMode):
    """Leaves out what would put numbers into tensors without memory: half of the time that building takes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """torch's own hook: each of its functions, with what it is called with."""
        if func.__name__ in FILLING:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **(kwargs or {}))


class WeightLoader:
    """What an empty module needs from files: all of it found and checked before anything is read.

    ``keys_of`` says under which keys a parameter may be found; with ``keeps_small`` weights that are small in the files
    stay so. Raises BadFile for what is missing or misshapen.
    """

    def __init__(
        self, module: nn.Module, files: Files, keys_of: Callable[[str], Iterator[Key]], keeps_small: bool = False
    ) -> None:
        self.module, self.files = module, files
        self._sources: dict[str, Source] = {}
        self._kept: set[str] = set()
        missing: list[str] = []
        exact = set(getattr(module, "_keep_in_fp32_modules", None) or ())  # diffusers' word for what is not rounded
        for name, parameter in module.named_parameters():
            candidates = list(keys_of(name))
            found = next((source for key in candidates if (source := files.find(key))), None)
            if found is None:
                missing.append(candidates[0].name)
            else:
                _check_shape(found, tuple(parameter.shape))
                self._sources[name] = replace(found, exact=bool(exact.intersection(name.split("."))))
                path, _, kind = name.rpartition(".")
                if keeps_small and found.is_small and can_keep(module.get_submodule(path), kind):
                    self._kept.add(name)
        if missing:
            more = f" and {len(missing) - NAMED_MISSING} more" if len(missing) > NAMED_MISSING else ""
            raise BadFile(f"lacks {', '.join(missing[:NAMED_MISSING])}{more}")
        self.file_bytes = sum(source.nbytes for source in self._sources.values())
        self._numbers = {name: parameter.numel() for name, parameter in module.named_parameters()}

    def nbytes(self, dtype: torch.dtype) -> int:
        """How much memory the weights take, those that are not kept small in this format."""
        formats = {name: source.format_of(dtype) for name, source in self._sources.items() if name not in self._kept}
        dense = sum(self._numbers[name] * own.itemsize for name, own in formats.items())
        scales = sum(
            math.prod(found.scale.shape) * 4 for found in map(self._sources.get, self._kept) if found and found.scale
        )
        return dense + scales + sum(self._sources[name].nbytes for name in self._kept)

    def layer_bytes(self, dtype: torch.dtype) -> int:
        """How much the largest of them takes."""
        return max(
            self._sources[name].nbytes if name in self._kept else count * dtype.itemsize
            for name, count in self._numbers.items()
        )

    def unread(self, prefix: str) -> list[str]:
        """The keys that begin with ``prefix``, without it, of what is not read."""
        found = self._sources.values()
        read = {source.key.name for source in found} | {source.scale.key.name for source in found if source.scale}
        return [
            key.removeprefix(prefix)
            for key in self.files.shapes
            if key.startswith(prefix) and key not in read and not key.endswith(IGNORED)
        ]

    def find_not_finite(self) -> str | None:
        """The key of a tensor in the files, of those that are read, with numbers that are none; None for no such."""
        for name, tensor in _read(self._sources, torch.float64, torch.device("cpu")):
            if not dense(tensor, torch.float64).isfinite().all():
                return self._sources[name].key.name
        return None

    def read(self, dtype: torch.dtype, device: torch.device) -> Iterator[int]:
        """Gives every parameter its tensor; yields how many bytes were read, tensor by tensor."""
        state: dict[str, torch.Tensor] = {}
        shapes = {name: parameter.shape for name, parameter in self.module.named_parameters()}
        kept: dict[str, Stored] = {}
        for name, tensor in _read(self._sources, dtype, device):
            if isinstance(tensor, Stored) and name in self._kept:
                tensor.shape = shapes[name]
                kept[name] = tensor
            else:
                state[name] = dense(tensor, self._sources[name].format_of(dtype)).reshape(shapes[name])
            yield self._sources[name].nbytes
        self.files.check_unchanged()
        self.module.load_state_dict(state, strict=False, assign=True)
        for name, stored in kept.items():
            keep(self.module.get_submodule(name.removesuffix(".weight")), stored)
        self.module.requires_grad_(False)


def _check_shape(source: Source, wanted: tuple[int, ...]) -> None:
    """A 1 x 1 convolution may stand for a linear layer, and the other way round."""
    shape, key = source.shape, source.key
    if key.rows != (0, 1, 1):
        shape = source.own_shape if shape and shape[0] % key.rows[2] == 0 else ()
    if key.transposed:
        shape = shape[::-1]
    shape = (*shape[:2], *shape[2 + key.last :])
    plain = [tuple(side for side in sides[2:] if side != 1) for sides in (shape, wanted)]
    alike = shape[:2] == wanted[:2] and plain[0] == plain[1]
    if not alike and not (key.flat and math.prod(shape) == math.prod(wanted)):
        raise BadFile(f"has {key.name} in the shape {_text(source.shape)}, where {_text(wanted)} is needed")
    if source.place.dtype not in KNOWN:
        raise BadFile(f"has {key.name} in the format {source.place.dtype!r}; known are {', '.join(KNOWN)}")
    if source.place.dtype == "I8" and not source.scale:
        raise BadFile(f"has {key.name} as INT8 without a scale")
    block = BLOCKS.get(source.place.dtype)
    if block and any(math.prod(source.shape) // key.rows[2] * rows % block.numbers for rows in key.rows[:2]):
        raise BadFile(f"has {key.name} in blocks that do not end with its parts")
    if source.scale:
        _check_scale(source.scale, source.shape)


def _check_scale(scale: Source, of: tuple[int, ...]) -> None:
    """One number, or one a row."""
    if math.prod(scale.shape) != 1 and (scale.shape[0], math.prod(scale.shape)) != (of[0], of[0]):
        raise BadFile(f"has {scale.key.name} in the shape {_text(scale.shape)}, where 1 or {of[0]} numbers are known")
    if scale.place.dtype not in DTYPES:
        raise BadFile(f"has {scale.key.name} in the format {scale.place.dtype!r}; known are {', '.join(DTYPES)}")


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "of a single number"


def dense(tensor: torch.Tensor | Stored, dtype: torch.dtype) -> torch.Tensor:
    """A tensor, or what a weight that is kept small stands for."""
    return tensor.dense(dtype) if isinstance(tensor, Stored) else tensor


def _read(
    sources: Mapping[str, Source], dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, torch.Tensor | Stored]]:
    """(name, flat tensor, or what it is made of) in the order of the files.

    Numbers of the wanted format are read to where they stay, others through one buffer, block by block: a block that
    fits into the processor's cache costs the memory one write instead of three.
    """
    buffer = bytearray(BLOCK_BYTES if device.type == "cpu" else DEVICE_BLOCK_BYTES)
    order = sorted(sources, key=lambda name: (sources[name].path, sources[name].place.offset))
    for path, names in groupby(order, key=lambda name: sources[name].path):
        with path.open("rb", buffering=0) as file:
            for name in names:
                source, own = sources[name], sources[name].format_of(dtype)
                first, _, parts = source.key.rows
                file.seek(source.place.offset + source.place.nbytes // parts * first)
                if source.scale or source.is_small or source.place.dtype not in DTYPES:
                    stored = _stored(source, _read_raw(file, source, device, buffer), own, device)
                    yield name, stored if source.key.is_as_it_lies else _in_order(stored.dense(own), source)
                    continue
                tensor = torch.empty(_numbers(source), dtype=own, device=device)
                _fill(file, tensor, DTYPES[source.place.dtype], buffer)
                yield name, tensor if source.key.is_as_it_lies else _in_order(tensor, source)


def _in_order(tensor: torch.Tensor, source: Source) -> torch.Tensor:
    """A dense tensor, transposed, with its halves the other way round or its last frame, as its key says."""
    tensor = tensor.reshape(source.shape)
    if source.key.swapped:
        return torch.cat(tensor.chunk(2)[::-1])
    return (tensor[:, :, -1] if source.key.last else tensor.t()).contiguous()


def _fill(file: Any, tensor: torch.Tensor, stored: torch.dtype, buffer: bytearray) -> None:
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


def _read_raw(file: Any, source: Source, device: torch.device, buffer: bytearray) -> torch.Tensor:
    """A tensor's bytes as they are, flat, uint8."""
    if source.place.dtype not in BLOCKS:
        _numbers(source)
    raw = torch.empty(source.nbytes, dtype=torch.uint8, device=device)
    _fill(file, raw, torch.uint8, buffer)
    return raw


def _stored(source: Source, raw: torch.Tensor, dtype: torch.dtype, device: torch.device) -> Stored:
    """The weight of which ``raw`` are the bytes."""
    shape = source.own_shape
    if source.place.dtype in BLOCKS:
        return Blocks(raw, source.place.dtype, shape, dtype)
    scale = None
    if source.scale:
        ((_, found),) = _read({"": source.scale}, torch.float32, device)
        scale = dense(found, torch.float32)
        if len(scale) > 1:
            first, behind, parts = source.key.rows
            scale = scale[len(scale) // parts * first : len(scale) // parts * behind]
    numbers = raw.view(torch.int8 if source.place.dtype == "I8" else DTYPES[source.place.dtype])
    if source.rotated:
        return Rotated(numbers, scale, source.rotated, shape, dtype)
    return Scaled(numbers, scale, shape, dtype)


def _numbers(source: Source) -> int:
    """How many numbers of a tensor are read; BadFile where its bytes are not as many as its shape says."""
    numbers = math.prod(source.shape)
    itemsize = 1 if source.place.dtype == "I8" else DTYPES[source.place.dtype].itemsize
    if numbers * itemsize != source.place.nbytes:
        raise BadFile(f"is damaged: {source.key.name} has {source.place.nbytes} bytes, which its shape does not need")
    return source.share_of(numbers)  # rows lie behind one another


def _read_exactly(file: Any, into: memoryview) -> None:
    while len(into):
        if not (count := file.readinto(into)):
            raise BadFile("was cut short while it was read")
        into = into[count:]
