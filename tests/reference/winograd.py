"""Large convolutions in float32 by Winograd's way as they were on 2026-11-29, frozen; see ``kernels``."""

import math
import threading
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch.nn import functional

TILE, FIELD = 4, 6
PLACES = FIELD * FIELD
FIELDS_BYTES, KERNEL_BYTES = 24 * 2**20, 48 * 2**20
"""Of what goes at once. More does not fit into a cache; with less, kernels are changed more often."""
LEAST_CHANNELS = 128
LEAST_CHANNELS_IN_ALL = 384
LEAST_PIXELS = 1024
"""With fewer, of a picture, changing fields and kernels costs more than it saves."""

OF_FIELDS = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
OF_KERNELS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OF_RESULTS = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


class _Space(threading.local):
    """Blocks that are kept: to take tens of MiB anew for each convolution costs as much as half of its work."""

    def __init__(self) -> None:
        self._blocks: dict[str, torch.Tensor] = {}

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """That block in this shape, with whatever is in it."""
        size = math.prod(shape)
        if name not in self._blocks or self._blocks[name].numel() < size:
            self._blocks.pop(name, None)
            with torch.inference_mode(False):
                self._blocks[name] = torch.empty(size)
        return self._blocks[name][:size].view(shape)


_SPACE = _Space()


def suits(input: torch.Tensor, weight: torch.Tensor, stride: Sequence[int]) -> bool:
    """Whether it is the faster way for pictures (n, c, h, w) and kernels (c', c, 3, 3), whatever n is."""
    return (
        input.device.type == "cpu"
        and input.dtype == torch.float32
        and tuple(stride) == (1, 1)
        and not torch.is_grad_enabled()
        and min(weight.shape[:2]) >= LEAST_CHANNELS
        and sum(weight.shape[:2]) >= LEAST_CHANNELS_IN_ALL
        and input.shape[2] * input.shape[3] >= LEAST_PIXELS
    )


def convolve(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, padding: Sequence[int]
) -> torch.Tensor:
    """``conv2d`` of (n, c, h, w) with (c', c, 3, 3) for inference; the result is channels-last."""
    (count, channels, *sides), out = input.shape, len(weight)
    bias = input.new_zeros(out) if bias is None else bias
    height, width = (side + 2 * pad - 2 for side, pad in zip(sides, padding, strict=True))
    down, across = -(-height // TILE), -(-width // TILE)
    fields = _fields(input, padding, down, across)
    made = input.new_empty(count, down, TILE, across, TILE, out)
    of_fields, of_kernels, of_results = _bases()
    some = max(1, min(out, KERNEL_BYTES // (PLACES * channels * 4)))  # kernels at once
    held = -1  # the first of those that are in their basis
    for pictures, rows in _parts(count, down, FIELDS_BYTES // (PLACES * across * max(channels, out) * 4)):
        part = fields[:, :, pictures, rows]
        tiles = part[0, 0, ..., 0].numel()
        plain = _SPACE.take("plain", PLACES, tiles * channels)
        plain.view(part.shape).copy_(part)
        changed = torch.mm(of_fields, plain, out=_SPACE.take("changed", PLACES, tiles * channels))
        for first in range(0, out, some):
            last = min(first + some, out)
            kernels = _SPACE.take("kernels", PLACES, (last - first) * channels)
            if held != first:
                torch.mm(of_kernels, weight[first:last].reshape(-1, 9).t(), out=kernels)
                held = first
            products = torch.bmm(
                changed.view(PLACES, tiles, channels),
                kernels.view(PLACES, last - first, channels).transpose(1, 2),
                out=_SPACE.take("plain", PLACES, tiles, last - first),  # which has been changed, and is free
            )
            results = _SPACE.take("results", TILE * TILE, tiles * (last - first))
            torch.mm(of_results, products.view(PLACES, -1), out=results)
            results = results.view(TILE, TILE, *part.shape[2:5], last - first).permute(2, 3, 0, 4, 1, 5)
            torch.add(results, bias[first:last], out=made[pictures, rows, ..., first:last])
    whole = made.view(count, TILE * down, TILE * across, out)
    return whole[:, :height, :width].contiguous().permute(0, 3, 1, 2)


def _fields(input: torch.Tensor, padding: Sequence[int], down: int, across: int) -> torch.Tensor:
    """The pixels that each tile of results comes from, (6, 6, n, down, across, c): a view of the padded picture."""
    top, left = padding
    below, right = TILE * down + 2 - input.shape[2] - top, TILE * across + 2 - input.shape[3] - left
    picture = functional.pad(input, (left, right, top, below)).permute(0, 2, 3, 1).contiguous()
    each, row, pixel, _ = picture.stride()
    shape = (FIELD, FIELD, len(input), down, across, input.shape[1])
    return picture.as_strided(shape, (row, pixel, each, TILE * row, TILE * pixel, 1))


def _parts(count: int, rows: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Pictures and rows of tiles that go at once: all, or else ``most`` rows of one picture."""
    if count * rows <= most:
        yield slice(0, count), slice(0, rows)
        return
    step = -(-rows // -(-rows // max(1, most)))
    for number in range(count):
        for top in range(0, rows, step):
            yield slice(number, number + 1), slice(top, min(top + step, rows))


@cache
def _bases() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For both directions at once: fields (36, 36), kernels (36, 9), results (16, 36)."""
    lines = (torch.tensor(matrix, dtype=torch.float64) for matrix in (OF_FIELDS, OF_KERNELS, OF_RESULTS))
    fields, kernels, results = (torch.kron(line, line).float() for line in lines)
    return fields, kernels, results
