"""``Stored``: a weight that stays in the small numbers of its file, and is made dense when it is computed with."""

import threading
from collections.abc import Iterator, Sequence

import torch
from torch import nn

CHUNK, DEVICE_CHUNK = 2**18, 2**24
"""Numbers that are made dense at once: on a processor what fits into its cache, elsewhere what keeps a device busy."""


class _Space(threading.local):
    """A block of each format, as large as the largest weight so far."""

    def __init__(self) -> None:
        self._blocks: dict[torch.dtype, torch.Tensor] = {}

    def take(self, numbers: int, dtype: torch.dtype) -> torch.Tensor:
        """So many numbers, with whatever is in them."""
        if dtype not in self._blocks or len(self._blocks[dtype]) < numbers:
            self._blocks.pop(dtype, None)
            with torch.inference_mode(False):
                self._blocks[dtype] = torch.empty(numbers, dtype=dtype)
        return self._blocks[dtype][:numbers]


_SPACE = _Space()


class Stored(nn.Module):
    """A weight of a layer, of this ``shape``, that computes in ``dtype``.

    Its numbers are parameters of its own, so that they move with the network, or are brought as they are needed. They
    are whole numbers, whatever they stand for: a network's format is neither changed nor told by them.
    ``unit`` of the weight's numbers are made dense by themselves: those of a row, or of a block.
    """

    def __init__(self, shape: Sequence[int], unit: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.shape, self.unit, self.dtype = torch.Size(shape), unit, dtype

    def decode(self, units: slice | torch.Tensor) -> torch.Tensor:
        """The numbers of these units, (units, unit), in any floating format that holds them exactly or in float32."""
        raise NotImplementedError

    def dense(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The whole weight, a new tensor; in the format that it computes in where none is given."""
        whole: torch.Tensor = self(dtype or self.dtype)
        return whole

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """Some of its rows, (..., row), by their numbers."""
        each = self.shape[1:].numel()
        if each % self.unit:
            return self.dense()[index]
        per_row = each // self.unit
        units = index.reshape(-1, 1) * per_row + torch.arange(per_row, device=index.device)
        return self.decode(units.flatten()).to(self.dtype).view(*index.shape, *self.shape[1:])

    def forward(self, dtype: torch.dtype, lent: bool = False) -> torch.Tensor:
        """As ``dense``; a call of the module, for what brings its numbers to a device for a call.

        ``lent`` memory is another weight's in the thread's next call: on a CPU tens of MiB of its own, taken anew for
        each weight, cost more than what is done there.
        """
        count = self.shape.numel() // self.unit
        if lent and self.device.type == "cpu":
            whole = _SPACE.take(self.shape.numel(), dtype).view(count, self.unit)
        else:
            whole = torch.empty(count, self.unit, dtype=dtype, device=self.device)
        step = max(1, (CHUNK if whole.device.type == "cpu" else DEVICE_CHUNK) // self.unit)
        for first in range(0, count, step):
            part = slice(first, first + step)
            whole[part].copy_(self.decode(part))
        return whole.view(self.shape)

    def in_turn(self, rows: int, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """Its dense rows on a CPU, some at a time, in lent memory: those of a convolution (n, in, h, w), channels-last.

        All of them at once where a block of numbers goes on from one row to the next.
        """
        each = self.shape[1:].numel()
        if rows * each % self.unit:
            rows = self.shape[0]
        for first in range(0, self.shape[0], rows):
            count = min(rows, self.shape[0] - first)
            part = slice(first * each // self.unit, (first + count) * each // self.unit)
            channels, *sides = self.shape[1:]
            lent = _SPACE.take(count * each, dtype).view(count, *sides, channels).movedim(-1, 1)
            yield lent.copy_(self.decode(part).view(lent.shape))

    @property
    def device(self) -> torch.device:
        """Where its numbers are; meta, where they are brought as they are needed."""
        return next(self.parameters()).device

    @property
    def nbytes(self) -> int:
        """What it takes of memory."""
        return sum(parameter.nbytes for parameter in self.parameters())

    def keep(self, numbers: torch.Tensor) -> nn.Parameter:
        """Numbers as a parameter, which is never trained."""
        return nn.Parameter(numbers, requires_grad=False)
