"""GGUF's blocks: Q4_0 to Q8_0 and K-quants, as ggml defines them (ggml-common.h), made dense on any device.

A block is some bytes for 32 or 256 numbers. Its scales are float16; what they are multiplied with are packed whole
numbers. The results are those of ``gguf``'s own dequantiser, bit for bit, in float32.
"""

from collections.abc import Callable, Mapping, Sequence

import torch

from webui.core.gguf_file import BLOCKS
from webui.engine.weights.stored import Stored

Bytes = torch.Tensor
"""(blocks, bytes), uint8."""


class Blocks(Stored):
    """A weight as blocks of ``kind``, by ggml's name of it; ``numbers`` are their bytes."""

    def __init__(self, numbers: torch.Tensor, kind: str, shape: Sequence[int], dtype: torch.dtype) -> None:
        super().__init__(shape, BLOCKS[kind].numbers, dtype)
        self.numbers = self.keep(numbers.view(-1, BLOCKS[kind].nbytes))
        self._decode = DECODERS[kind]

    def decode(self, units: slice | torch.Tensor) -> torch.Tensor:
        """Blocks, float32."""
        return self._decode(self.numbers[units])


def _half(blocks: Bytes, at: int) -> torch.Tensor:
    """The float16 at a byte of each block, (blocks, 1), as float32."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Bytes, width: int) -> torch.Tensor:
    """``width`` bytes at a time as their low halves, then their high ones: (blocks, n) to (blocks, n / width, 2 w)."""
    grouped: torch.Tensor = packed.unflatten(1, (-1, width))
    return torch.cat([grouped & 15, grouped >> 4], dim=2)


def _planes(packed: Bytes, bits: int, width: int) -> torch.Tensor:
    """``width`` bytes at a time as their lowest ``bits``, then the next: (blocks, n / width * 8 / bits, width)."""
    grouped: torch.Tensor = packed.unflatten(1, (-1, 1, width))
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)[:, None]
    return torch.bitwise_and(grouped >> shifts, 2**bits - 1).flatten(1, 2)


def _fifth_bits(packed: Bytes) -> torch.Tensor:
    """One bit for each of 32 numbers, in order, (blocks, 32), where the fifth is."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return (((packed[:, :, None] >> shifts) & 1) << 4).flatten(1)


def _q8_0(blocks: Bytes) -> torch.Tensor:
    return blocks[:, 2:].view(torch.int8) * _half(blocks, 0)


def _q4_0(blocks: Bytes) -> torch.Tensor:
    return (_nibbles(blocks[:, 2:], 16).flatten(1).view(torch.int8) - 8) * _half(blocks, 0)


def _q4_1(blocks: Bytes) -> torch.Tensor:
    return (_nibbles(blocks[:, 4:], 16).flatten(1) * _half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: Bytes) -> torch.Tensor:
    numbers = _nibbles(blocks[:, 6:], 16).flatten(1) | _fifth_bits(blocks[:, 2:6])
    return (numbers.view(torch.int8) - 16) * _half(blocks, 0)


def _q5_1(blocks: Bytes) -> torch.Tensor:
    numbers = _nibbles(blocks[:, 8:], 16).flatten(1) | _fifth_bits(blocks[:, 4:8])
    return (numbers * _half(blocks, 0)).add_(_half(blocks, 2))


def _q2_k(blocks: Bytes) -> torch.Tensor:
    """16 parts, each with 4 bits of scale and 4 of minimum; 2 bits a number."""
    scales = blocks[:, :16]
    factors, least = (scales & 15) * _half(blocks, 80), (scales >> 4) * _half(blocks, 82)
    numbers = _planes(blocks[:, 16:80], 2, 32).reshape(-1, 16, 16)
    return (numbers * factors[:, :, None]).sub_(least[:, :, None]).flatten(1)


def _q3_k(blocks: Bytes) -> torch.Tensor:
    """16 parts with 6 bits of scale; 2 bits a number, and a third that takes 4 off where it is not set."""
    packed = blocks[:, 96:108]
    low, high = _nibbles(packed[:, :8], 8).flatten(1), _planes(packed[:, 8:], 2, 4).flatten(1)
    scales = (low | (high << 4)).view(torch.int8) - 32
    factors = scales * _half(blocks, 108)
    thirds = (_planes(blocks[:, :32], 1, 32) ^ 1) << 2
    numbers = _planes(blocks[:, 32:96], 2, 32).view(torch.int8) - thirds.view(torch.int8)
    return (numbers.reshape(-1, 16, 16) * factors[:, :, None]).flatten(1)


def _scales_of_8(packed: Bytes) -> tuple[torch.Tensor, torch.Tensor]:
    """12 bytes as eight scales and eight minima of 6 bits, (blocks, 8) each."""
    first, second, third = packed.split(4, dim=1)
    scales = torch.cat([first & 63, (third & 15) | ((first >> 2) & 48)], dim=1)
    least = torch.cat([second & 63, (third >> 4) | ((second >> 2) & 48)], dim=1)
    return scales, least


def _of_8(blocks: Bytes, numbers: torch.Tensor) -> torch.Tensor:
    """Eight parts of 32 ``numbers`` (blocks, 8, 32), with scales and minima as Q4_K and Q5_K have them."""
    scales, least = _scales_of_8(blocks[:, 4:16])
    factors, offsets = scales * _half(blocks, 0), least * _half(blocks, 2)
    return (numbers * factors[:, :, None]).sub_(offsets[:, :, None]).flatten(1)


def _q4_k(blocks: Bytes) -> torch.Tensor:
    return _of_8(blocks, _nibbles(blocks[:, 16:], 32).reshape(-1, 8, 32))


def _q5_k(blocks: Bytes) -> torch.Tensor:
    fifths = _planes(blocks[:, 16:48], 1, 32) << 4
    return _of_8(blocks, _nibbles(blocks[:, 48:], 32).reshape(-1, 8, 32) | fifths)


def _q6_k(blocks: Bytes) -> torch.Tensor:
    """16 parts with 8 bits of scale; 4 low bits and 2 high ones a number."""
    low = _nibbles(blocks[:, :128], 64).reshape(-1, 8, 32)
    numbers = (low | (_planes(blocks[:, 128:192], 2, 32) << 4)).view(torch.int8) - 32
    factors = blocks[:, 192:208].view(torch.int8) * _half(blocks, 208)
    return (numbers.reshape(-1, 16, 16) * factors[:, :, None]).flatten(1)


DECODERS: Mapping[str, Callable[[Bytes], torch.Tensor]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
