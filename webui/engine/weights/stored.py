"""``Stored``: a weight that stays in the small numbers of its file, and is made dense when it is computed with."""

from collections.abc import Sequence

import torch
from torch import nn

CHUNK, DEVICE_CHUNK = 2**18, 2**24
"""Numbers that are made dense at once: on a processor what fits into its cache, elsewhere what keeps a device busy."""


class Stored(nn.Module):
    """A weight of a layer, of this ``shape``, that computes in ``dtype``.

    Its numbers are parameters of its own, so that they move with the network, or are brought as they are needed. They
    are units behind one another, of ``unit`` numbers each, that are made dense by themselves: rows, or blocks.
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

    def forward(self, dtype: torch.dtype) -> torch.Tensor:
        """As ``dense``; a call of the module, for what brings its numbers to a device for a call."""
        count = self.shape.numel() // self.unit
        whole = torch.empty(count, self.unit, dtype=dtype, device=self.device)
        step = max(1, (CHUNK if whole.device.type == "cpu" else DEVICE_CHUNK) // self.unit)
        for first in range(0, count, step):
            part = slice(first, first + step)
            whole[part].copy_(self.decode(part))
        return whole.view(self.shape)

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
