"""Convolutions and linear layers in whole numbers of 8 bits, where people ask for it. The pictures are approximations.

A weight is rounded by output channel, from the dense one that is there at the time, and what comes in by its range in
each call: nothing is remembered from one picture to the next, so that a recipe gives the same bits again. The products
are oneDNN's, of u8 and s8, added up in 32 bits.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from webui.core.engine_options import EngineOptions
from webui.core.memory import PLANS
from webui.engine.cpu.conv import HAS_ONEDNN, PackedConv2d, parameter_of, version_of
from webui.engine.nets.layers import Conv1x1

INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Any of these multiplies in 8 bits; without one it is slower than float32, and on older processors sums overflow."""
LEAST_PRODUCTS, LEAST_REUSE = 2**25, 256
"""Of a layer's multiplications in all, and for each number that comes in: with fewer, rounding costs what it saves."""
LEVELS, BELOW = 252, 1
"""Of 256, so that no rounding error leads past the ends."""
AT_ONCE = 2**20
"""Numbers that are rounded at once: what lies between is in the processor's cache."""
KEPT = re.compile(r"conv_(in|out)|(time|add)_emb|attn2\.to_[kv]$")
"""Layers that stay as they are, by name: the first and the last, those that are told the time or the words."""


@dataclass(frozen=True)
class Rounded:
    """A weight in whole numbers, ``packed`` as oneDNN wants it: times ``scales`` (out,) it is nearly ``of``."""

    of: torch.Tensor  # held, so that no other tensor gets its address
    version: int
    packed: Any
    scales: torch.Tensor
    zeros: torch.Tensor

    def is_of(self, weight: torch.Tensor) -> bool:
        """Whether the weight is still the one that was rounded."""
        return self.of.data_ptr() == weight.data_ptr() and self.version == version_of(weight)


class Int8Conv2d(PackedConv2d):
    """A 3 x 3 convolution in whole numbers. It has no ordered copy of its weight meanwhile."""

    _rounded: Rounded | None = None

    def forward(
        self, input: torch.Tensor, padding: tuple[int, ...] | None = None, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As ``PackedConv2d``, nearly."""
        if not self._pays(input.shape):
            return super().forward(input, padding, bias)
        numbers, scale, zero = to_u8(input.permute(0, 2, 3, 1))
        weight = self._weight()
        padding = self.padding if padding is None else padding
        output: torch.Tensor = torch.ops.onednn.qconv_pointwise(
            numbers.permute(0, 3, 1, 2),
            *(scale, zero, weight.packed, weight.scales, weight.zeros, _bias(self) if bias is None else bias.float()),
            *(self.stride, padding, (1, 1), 1),
            *(1.0, 0, input.dtype, "none", [], ""),
        )
        return output

    def orders(self, shape: torch.Size) -> bool:
        """As in ``PackedConv2d``."""
        return not self._pays(shape) and super().orders(shape)

    def _pays(self, shape: torch.Size) -> bool:
        return pays(shape.numel(), 9 * self.out_channels // (self.stride[0] * self.stride[1]))

    def _weight(self) -> Rounded:
        self._refill()
        weight = parameter_of(self, "weight")
        if self._rounded is None or not self._rounded.is_of(weight):
            self._packed = self._rounded = None  # their memory first
            whole, scales, zeros = to_s8(weight)
            zero = 128  # any but 0: else oneDNN makes the weight ready for zeros of inputs again in each call
            packed = torch.ops.onednn.qconv_prepack(whole, scales, 1.0, zero, self.stride, self.padding, (1, 1), 1)
            self._rounded = Rounded(weight.data, version_of(weight), packed, scales, zeros)
        return self._rounded


class Int8Linear(nn.Linear):
    """A linear layer in whole numbers."""

    _rounded: Rounded | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out), nearly as the plain one."""
        if not pays(input.numel(), self.out_features):
            return super().forward(input)
        return _linear(self, input)


class Int8Conv1x1(Conv1x1):
    """A convolution of single pixels in whole numbers."""

    _rounded: Rounded | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out), nearly as the plain one."""
        if not pays(input.numel(), self.out_channels):
            return super().forward(input)
        return _linear(self, input)


INT8: dict[type[nn.Module], type[nn.Module]] = {
    PackedConv2d: Int8Conv2d,
    nn.Linear: Int8Linear,
    Conv1x1: Int8Conv1x1,
}
PLAIN: dict[type[nn.Module], type[nn.Module]] = {whole: plain for plain, whole in INT8.items()}


def use_int8(network: nn.Module, wanted: bool) -> None:
    """Has the layers of a network that was prepared by ``install`` compute in whole numbers, or none of them.

    Of those that do not any more, what was rounded is gone.
    """
    classes = INT8 if wanted else PLAIN
    for part in _layers(network):
        if other := classes.get(type(part)):
            part.__dict__.pop("_rounded", None)
            part.__class__ = other


def unfit(device: torch.device, dtype: torch.dtype, options: EngineOptions) -> str:
    """Why nothing is computed in 8 bits here, in words for people; empty where it can be."""
    if device.type != "cpu":
        return f"it is a way for CPUs to compute, and this is {device.type}"
    if not (HAS_ONEDNN and any(capabilities().get(name) for name in INSTRUCTIONS)):
        return "this processor has no instructions for it (AVX-512 VNNI, AVX-VNNI or AMX)"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"it goes with float32 and bfloat16, and this is {str(dtype).removeprefix('torch.')}"
    if not options.cpu_kernels:
        return "it is one of the CPU kernels, which are off"
    return "" if options.memory in ("auto", PLANS[0]) else f"it does not go with --memory {options.memory}"


@cache
def capabilities() -> dict[str, Any]:
    """What the processor can do, as torch calls it."""
    return dict(torch.cpu.get_capabilities())


def pays(numbers: int, reuse: int) -> bool:
    """Whether it saves more to multiply so many numbers in 8 bits, each so often, than it costs to round them."""
    return reuse >= LEAST_REUSE and numbers * reuse >= LEAST_PRODUCTS


def to_u8(numbers: torch.Tensor) -> tuple[torch.Tensor, float, int]:
    """Numbers as whole ones, 0..255, with the scale and the zero: they were nearly ``(whole - zero) * scale``.

    Where one is not finite, the scale is not, and so all that is computed.
    """
    low, high = (float(end) for end in torch.aminmax(numbers))
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / LEVELS or 1.0
    zero = round(-low / scale) + BELOW if math.isfinite(scale) else BELOW
    whole = torch.empty(numbers.shape, dtype=torch.int8)  # what is made at once as uint8 takes five times as long
    for part, made in zip(numbers.reshape(-1).split(AT_ONCE), whole.view(-1).split(AT_ONCE), strict=True):
        spread = part.mul(1 / scale) if part.dtype == torch.float32 else part.float().mul_(1 / scale)
        made.copy_(spread.add_(zero - 128).round_())
    return whole.view(torch.uint8).bitwise_xor_(128), scale, zero


def to_s8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(out, ...) in whole numbers -127..127, with the scale and the zero of each output, which is 0."""
    rows = weight.detach().flatten(1)
    whole, scales = torch.empty(rows.shape, dtype=torch.int8), torch.empty(len(rows))
    at_once = max(1, AT_ONCE // rows.shape[1])
    for some, made, scale in zip(rows.split(at_once), whole.split(at_once), scales.split(at_once), strict=True):
        dense = some.float()
        torch.amax(dense.abs(), 1, out=scale)
        scale.div_(127).clamp_(min=torch.finfo(torch.float32).tiny)  # of an output that is all zeros
        made.copy_(torch.div(dense, scale[:, None]).round_())
    return whole.view(weight.shape), scales, torch.zeros(len(rows), dtype=torch.int32)


def _linear(layer: Any, input: torch.Tensor) -> torch.Tensor:
    weight = layer.weight
    if layer._rounded is None or not layer._rounded.is_of(weight):
        layer._rounded = None
        whole, scales, zeros = to_s8(weight.flatten(1))
        layer._rounded = Rounded(
            weight.data, version_of(weight), torch.ops.onednn.qlinear_prepack(whole, None), scales, zeros
        )
    rounded: Rounded = layer._rounded
    numbers, scale, zero = to_u8(input)
    output: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        *(numbers, scale, zero, rounded.packed, rounded.scales, rounded.zeros, _bias(layer)),
        *(1.0, 0, input.dtype, "none", [], ""),
    )
    return output


def _bias(layer: Any) -> torch.Tensor | None:
    return None if layer.bias is None else layer.bias.float()


def _layers(network: nn.Module) -> Iterator[nn.Module]:
    return (part for name, part in network.named_modules() if not KEPT.search(name))
