"""Weights that rest in their file: a layer's numbers are in memory while it computes with them, and no longer.

For networks that compute once and wait for long, such as those that read words: in memory they would lie there for all
of the steps. What stands in a weight's place meanwhile has its shape and format, and is a single number that is none.
"""

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from webui.core.errors import RequestError, show
from webui.core.tensor_file import BadFile
from webui.engine.weights.files import BLOCK_BYTES, DTYPES, Files, Source, fill
from webui.engine.weights.layers import StoredLayer
from webui.engine.weights.stored import Stored

NO_NUMBER = 0x7F
"""A byte that, repeated, is no number in float8 and float16."""
PLACE = "in_file"
"""Where a layer has it."""


class LostFile(RequestError):
    """A file that is not any more what it was when its model was loaded; the message names it."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{show(name)} {why}", field="model")


class _Lent(threading.local):
    """Memory that a thread's layers read into, as large as the largest weight so far, and a buffer to convert from."""

    memory: torch.Tensor | None = None
    buffer: bytearray | None = None

    def take(self, nbytes: int) -> torch.Tensor:
        if self.memory is None or len(self.memory) < nbytes:
            self.memory = None
            with torch.inference_mode(False):
                self.memory = torch.empty(nbytes, dtype=torch.uint8)
        return self.memory[:nbytes]


_LENT = _Lent()


def give_back() -> None:
    """Lets go of the memory that this thread's layers were read into."""
    _LENT.memory = _LENT.buffer = None


def stand_in(shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """What is in a weight's place while its numbers are in its file; it takes no memory."""
    if dtype.itemsize == 1:
        return torch.tensor([NO_NUMBER], dtype=torch.uint8).view(dtype).expand(shape)
    return torch.tensor([math.nan], dtype=dtype).expand(shape)


class InFile:
    """The weight of one layer on a processor, which reads it from ``source`` for each call from now on.

    Of an embedding those rows are read that are asked for. What has another weight in its place, a LoRA's, reads none.
    """

    def __init__(self, layer: nn.Module, files: Files, source: Source) -> None:
        self._files, self._source = files, source
        found = layer.stored if isinstance(layer, StoredLayer) else layer
        self._parameter = next(found.parameters(recurse=False))  # the layer itself is not held: it holds this
        self._resting, self._came = self._parameter.data, False
        layer.register_forward_pre_hook(self._come)
        layer.register_forward_hook(self._leave, always_call=True)
        layer.__dict__[PLACE] = self

    @contextmanager
    def here(self, weight: torch.Tensor | Stored) -> Iterator[torch.Tensor | Stored]:
        """The model's own weight, whatever is in its place, with all its numbers until the end of the context."""
        numbers = self._lend()
        if isinstance(weight, torch.Tensor):
            yield numbers
            return
        self._parameter.data = numbers
        try:
            yield weight
        finally:
            self._parameter.data = self._resting

    def _come(self, layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        changed = isinstance(layer, StoredLayer) and isinstance(layer.changed, torch.Tensor)
        if changed or self._parameter.data_ptr() != self._resting.data_ptr():
            return
        self._parameter.data = self._some(given[0]) if isinstance(layer, nn.Embedding) else self._lend()
        self._came = True

    def _leave(self, *_: object) -> None:
        if self._came:
            self._parameter.data, self._came = self._resting, False

    def _lend(self) -> torch.Tensor:
        """All numbers, in memory that is another weight's in the next call."""
        whole = _LENT.take(self._resting.nbytes).view(self._resting.dtype)
        self._read(whole, [slice(None)])
        return whole.view(self._resting.shape)

    def _some(self, ids: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers; of the others no memory is taken, for nobody writes to it."""
        with torch.inference_mode(False):
            table = torch.empty(self._resting.numel(), dtype=self._resting.dtype)
        each, rest = divmod(len(table), self._source.own_shape[0])
        parts = [slice(row * each, (row + 1) * each) for row in ids.unique().tolist()]
        self._read(table, [slice(None)] if rest else parts)  # blocks may go on from one row to the next
        return table.view(self._resting.shape)

    def _read(self, into: torch.Tensor, parts: Iterable[slice]) -> None:
        """Some numbers of a flat tensor from the file."""
        source, path = self._source, self._source.path
        stored = torch.uint8 if into.dtype == torch.uint8 else DTYPES[source.place.dtype]
        _LENT.buffer = _LENT.buffer or bytearray(BLOCK_BYTES)
        begin, _, of = source.key.rows
        first = source.place.offset + source.place.nbytes // of * begin
        try:
            with path.open("rb", buffering=0) as file:
                for part in parts:
                    file.seek(first + (part.start or 0) * stored.itemsize)
                    fill(file, into[part], stored, _LENT.buffer)
            self._files.check_unchanged()
        except (BadFile, OSError) as error:
            why = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
            raise LostFile(path.name, why) from None


@contextmanager
def here(layer: nn.Module, weight: torch.Tensor | Stored) -> Iterator[torch.Tensor | Stored]:
    """A layer's own ``weight``, to be read until the end of the context, wherever its numbers are."""
    if resting := layer.__dict__.get(PLACE):
        with resting.here(weight) as found:
            yield found
    else:
        yield weight
