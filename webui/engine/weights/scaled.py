"""fp8 and INT8: one small number for each of a weight's, a scale for all of it or for each row, and maybe a rotation.

ComfyUI's form (its QUANTIZATION.md, and comfy-kitchen's ``TensorWiseINT8Layout``), and the older one of scaled fp8.
"""

import math
from collections.abc import Sequence
from functools import cache

import torch

from webui.engine.weights.stored import Stored

FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


class Scaled(Stored):
    """The weight is ``numbers`` times ``scale``, multiplied in float32.

    ``numbers`` (rows, ...) are of any format; ``scale`` is one number, or one a row, or None for none.
    """

    def __init__(self, numbers: torch.Tensor, scale: torch.Tensor | None, shape: Sequence[int], dtype: torch.dtype):
        super().__init__(shape, numbers.numel() // max(1, shape[0]), dtype)
        self._kind = numbers.dtype
        self.numbers = self.keep(numbers.reshape(shape[0], -1).view(torch.uint8))
        self.scale = None if scale is None else self.keep(scale.float().reshape(-1, 1).view(torch.int32))

    def decode(self, units: slice | torch.Tensor) -> torch.Tensor:
        """Rows."""
        numbers = self.numbers[units]
        if self._kind in FP8 and numbers.device.type == "cpu":
            values = torch.index_select(_table(self._kind), 0, numbers.flatten().int()).view(numbers.shape)
        else:
            values = numbers.view(self._kind)
        if self.scale is None:
            return values
        scale = self.scale.view(torch.float32)
        return values.float() * (scale if len(scale) == 1 else scale[units])


class Rotated(Scaled):
    """Before it was rounded, each ``group`` of a row was turned: outliers are spread so (ConvRot, 2025).

    The rotation is a regular Hadamard matrix, symmetric, and its own inverse.
    """

    def __init__(
        self, numbers: torch.Tensor, scale: torch.Tensor | None, group: int, shape: Sequence[int], dtype: torch.dtype
    ) -> None:
        super().__init__(numbers, scale, shape, dtype)
        self.group = group

    def decode(self, units: slice | torch.Tensor) -> torch.Tensor:
        """Rows, turned back."""
        rows = super().decode(units).float()
        return turn(rows, self.group)


def turn(rows: torch.Tensor, group: int) -> torch.Tensor:
    """Each ``group`` numbers of (n, row), float32, times the Hadamard matrix of that size, which is a power of 4.

    It is a Kronecker product of smaller ones, and two small products are less work than a large one.
    """
    side = 4
    while side * side < group:
        side *= 4
    outer, inner = hadamard(group // side).to(rows.device), hadamard(side).to(rows.device)
    grouped = rows.reshape(-1, group // side, side)
    turned: torch.Tensor = torch.matmul(outer, torch.matmul(grouped, inner))
    return turned.reshape(rows.shape)


@cache
def hadamard(size: int) -> torch.Tensor:
    """The regular Hadamard matrix of a power of 4, (size, size), orthonormal and symmetric."""
    with torch.inference_mode(False):
        matrix = torch.ones(1, 1)
        four = torch.ones(4, 4) - 2 * torch.eye(4).flip(0)
        while len(matrix) < size:
            matrix = torch.kron(matrix, four)
        return matrix / math.sqrt(size)


@cache
def _table(kind: torch.dtype) -> torch.Tensor:
    """All 256 numbers of a format: to look them up is four times as fast on a CPU as torch's own conversion."""
    with torch.inference_mode(False):
        return torch.arange(256, dtype=torch.uint8).view(kind).float()
