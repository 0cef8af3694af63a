"""Weights from safetensors files into modules: each tensor once, at its final format, on its final device.

Modules are built without memory and without random numbers, and every parameter gets its tensor as it is read. Weights
that are small in the file stay as they are where their layer can compute with them so (``Stored``), and those of a
network that waits for long may stay where they are (``InFile``). Files are read, not mapped: a mapped file that is cut
short meanwhile would end the process (docs/decisions/0009).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import nn

from webui.core.gguf_file import BLOCKS
from webui.core.memory import RESTS_FROM_BYTES
from webui.core.quantization import IGNORED
from webui.core.tensor_file import BadFile
from webui.engine.weights.files import BLOCK_BYTES, DEVICE_BLOCK_BYTES, DTYPES, KNOWN, Files, Key, Source, fill
from webui.engine.weights.gguf import Blocks
from webui.engine.weights.in_file import InFile, stand_in
from webui.engine.weights.layers import can_keep, keep
from webui.engine.weights.scaled import Rotated, Scaled
from webui.engine.weights.stored import Stored

NAMED_MISSING = 3


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
        self._resting: set[str] = set()
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
        self._numbers = {name: parameter.numel() for name, parameter in module.named_parameters()}

    def leave_in_files(self, dtype: torch.dtype) -> None:
        """Has the weights of its layers stay in their files, where all take ``RESTS_FROM_BYTES``: for a processor."""
        if self.nbytes(dtype) >= RESTS_FROM_BYTES:
            self._resting = {name for name, source in self._sources.items() if self._can_rest(name, source)}

    def _can_rest(self, name: str, source: Source) -> bool:
        """Whether its layer reads it by being called, and it is read as it lies."""
        path, _, kind = name.rpartition(".")
        is_read_alone = kind == "weight" and type(self.module.get_submodule(path)) in (nn.Linear, nn.Embedding)
        is_plain = name in self._kept or (source.place.dtype in DTYPES and not source.is_small and not source.scale)
        return is_read_alone and is_plain and source.key.is_as_it_lies

    @property
    def file_bytes(self) -> int:
        """How much there is to read, before it computes."""
        return sum(source.nbytes for name, source in self._sources.items() if name not in self._resting)

    def nbytes(self, dtype: torch.dtype) -> int:
        """How much memory the weights take, those that are not kept small in this format; at most one that rests."""
        sizes = {name: self._nbytes_of(name, dtype) for name in self._sources}
        resting = [sizes.pop(name) for name in self._resting]
        return sum(sizes.values()) + max(resting, default=0)

    def _nbytes_of(self, name: str, dtype: torch.dtype) -> int:
        source = self._sources[name]
        if name not in self._kept:
            return self._numbers[name] * source.format_of(dtype).itemsize
        return source.nbytes + (math.prod(source.scale.shape) * 4 if source.scale else 0)

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
        for name in self._resting:
            source = self._sources[name]
            if name in self._kept:
                kept[name] = _stored(source, stand_in((source.nbytes,), torch.uint8), source.format_of(dtype), device)
                kept[name].shape = shapes[name]
            else:
                _numbers(source)
                state[name] = stand_in(shapes[name], source.format_of(dtype))
        read = {name: source for name, source in self._sources.items() if name not in self._resting}
        for name, tensor in _read(read, dtype, device):
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
        for name in self._resting:
            InFile(self.module.get_submodule(name.removesuffix(".weight")), self.files, self._sources[name])
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
                fill(file, tensor, DTYPES[source.place.dtype], buffer)
                yield name, tensor if source.key.is_as_it_lies else _in_order(tensor, source)


def _in_order(tensor: torch.Tensor, source: Source) -> torch.Tensor:
    """A dense tensor, transposed, with its halves the other way round or its last frame, as its key says."""
    tensor = tensor.reshape(source.shape)
    if source.key.swapped:
        return torch.cat(tensor.chunk(2)[::-1])
    return (tensor[:, :, -1] if source.key.last else tensor.t()).contiguous()


def _read_raw(file: Any, source: Source, device: torch.device, buffer: bytearray) -> torch.Tensor:
    """A tensor's bytes as they are, flat, uint8."""
    if source.place.dtype not in BLOCKS:
        _numbers(source)
    raw = torch.empty(source.nbytes, dtype=torch.uint8, device=device)
    fill(file, raw, torch.uint8, buffer)
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
