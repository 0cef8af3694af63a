"""A UNet's layers as few operations: a small network spends much of its time between them.

No module is called within a layer. In bfloat16 what follows a product is done as it is written, in float32 and rounded
once: other bits than the plain layers', and no farther from float32's. In the other formats they are the same bits.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from webui.engine.cpu.conv import PackedConv2d, convolves, for_traces, parameter_of
from webui.engine.cpu.int8 import INT8
from webui.engine.nets.blocks import Resnet
from webui.engine.nets.layers import Conv1x1, spread, to_picture, to_tokens
from webui.engine.nets.transformer import Attended, Attention, FeedForward, Layer, Transformer
from webui.engine.nets.unet import UNet
from webui.engine.speed.shortcuts import Merging

FEW_PIXELS = 1024
"""Below that torch's group norm of a channels-last picture goes number by number in bfloat16: three times as long."""

ROUNDED = frozenset(INT8.values())
PARTS = frozenset({nn.Linear, Conv1x1, nn.GroupNorm, nn.LayerNorm, PackedConv2d}) | ROUNDED
"""Whose work is done here in their place."""


def fuses(dtype: torch.dtype) -> bool:
    """Whether fewer roundings are as good as the plain layers', and oneDNN knows how."""
    return dtype == torch.bfloat16 and convolves(dtype)


class FusedUNet(UNet):
    """As the plain one; in bfloat16 pictures stay channels-last where they are repeated."""

    @staticmethod
    def spread(values: torch.Tensor, rows: int, again: int = 0) -> torch.Tensor:
        """As ``layers.spread``."""
        if fuses(values.dtype) and len(values) != rows:
            values = torch.cat([values] * (rows // len(values)))
        return spread(values, rows, again)


class FusedResnet(Resnet):
    """As the plain one."""

    def forward(self, hidden: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """(n, in, h, w) to (n, out, h, w), told the time (n, or 1, width)."""
        parts = self._modules
        if not _all_plain(parts.values()):
            return super().forward(hidden, time)
        conv1: Any = parts["conv1"]
        conv2: Any = parts["conv2"]
        inner, told = _norm(parts["norm1"], hidden), _linear(parts["time_emb_proj"], time)
        _announce(conv1, inner)
        if fuses(hidden.dtype) and len(told) == 1:
            inner = conv1.forward(inner, bias=parameter_of(conv1, "bias") + told[0])
        else:
            inner = conv1.forward(inner).add_(told[:, :, None, None])
        inner = _norm(parts["norm2"], inner)
        _announce(conv2, inner)
        inner = conv2.forward(inner)
        if (shortcut := parts.get("conv_shortcut")) is not None:
            hidden = _linear(shortcut, hidden.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        output: torch.Tensor = inner.add_(hidden)
        return output


class FusedTransformer(Transformer):
    """As the plain one."""

    def forward(
        self, picture: torch.Tensor, prompts: Iterator[Attended], merging: float = 0.0, perturbed: int = 0
    ) -> torch.Tensor:
        """As the plain one's."""
        parts = self._modules
        ends = parts["norm"], parts["proj_in"], parts["proj_out"]
        if perturbed or merging or not _all_plain(ends):
            return super().forward(picture, prompts, merging, perturbed)
        height, width = picture.shape[-2:]
        tokens = _linear(ends[1], to_tokens(_norm(ends[0], picture, then_silu=False)))
        for layer in self.transformer_blocks:
            tokens = layer(tokens, next(prompts))
        picture = FusedUNet.spread(picture, len(tokens))
        return to_picture(_linear(ends[2], tokens, onto=to_tokens(picture)), height, width)


class FusedLayer(Layer):
    """As the plain one."""

    def forward(
        self,
        tokens: torch.Tensor,
        attended: Attended,
        merge: Callable[[torch.Tensor], Merging] | None = None,
        perturbed: int = 0,
    ) -> torch.Tensor:
        """As the plain one's."""
        if perturbed or merge is not None or attended.further or attended.against is not None:
            return super().forward(tokens, attended, merge, perturbed)
        parts = self._modules
        own, other = parts["attn1"], parts["attn2"]
        norms = parts["norm1"], parts["norm2"], parts["norm3"]
        if not _all_plain((*norms, *_projections(own), *_projections(other))):
            return super().forward(tokens, attended)
        seen = _layer_norm(norms[0], tokens)
        queries, keys, values, out = _projections(own)
        tokens = _attend(queries, seen, _heads(keys, seen, own), _heads(values, seen, own), own, out, tokens)
        tokens = spread(tokens, len(attended.keys))  # until here the prompts have made no difference
        queries, _, _, out = _projections(other)
        seen = _layer_norm(norms[1], tokens)
        tokens = _attend(queries, seen, attended.keys, attended.values, other, out, tokens)
        feed_forward: Any = parts["ff"]
        output: torch.Tensor = feed_forward(_layer_norm(norms[2], tokens)).add_(tokens)
        return output


def gate(part: FeedForward, tokens: torch.Tensor) -> torch.Tensor | None:
    """A whole feed-forward, if this is how it is done faster: both halves as products of their own, nothing between."""
    parts: tuple[Any, Any] = part.net[0].proj, part.net[2]
    if not fuses(tokens.dtype) or not _all_plain(parts) or any(type(part) in ROUNDED for part in parts):
        return None
    _announce(parts[0], tokens)
    weights, biases = (parameter_of(parts[0], name).chunk(2) for name in ("weight", "bias"))
    gates = _product(tokens, weights[1], biases[1], "gelu", "none")
    inner = torch.ops.mkldnn._linear_pointwise.binary(tokens, gates, weights[0], biases[0], "mul")
    return _linear(parts[1], inner)


def _all_plain(parts: Iterable[Any]) -> bool:
    """Whether all do what their classes say, and nobody is to be told of what they give."""
    if torch.compiler.is_compiling():
        return False
    return all(type(part) in PARTS and not part._forward_hooks for part in parts)


def _announce(part: Any, given: torch.Tensor) -> None:
    """Tells who waits for the part to be called: weights that rest elsewhere come then."""
    for hook in part._forward_pre_hooks.values():
        hook(part, (given,))


def _projections(attention: Any) -> tuple[Any, Any, Any, Any]:
    parts = attention._modules
    return parts["to_q"], parts["to_k"], parts["to_v"], parts["to_out"]._modules["0"]


def _attend(
    queries: Any,
    seen: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    attention: Any,
    out: Any,
    onto: torch.Tensor,
) -> torch.Tensor:
    found = Attention._find(_heads(queries, seen, attention), keys, values)
    return _linear(out, found, onto)


def _heads(part: Any, tokens: torch.Tensor, attention: Any) -> torch.Tensor:
    heads: torch.Tensor = attention._split(_linear(part, tokens))
    return heads


def _linear(part: Any, tokens: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
    """(..., in) to (..., out), a new tensor to which ``onto`` is added."""
    _announce(part, tokens)
    if type(part) in ROUNDED:
        made: torch.Tensor = part.forward(tokens)
        return made if onto is None else made.add_(onto)
    weight, bias = part._parameters["weight"], part._parameters["bias"]
    weight = weight.flatten(1) if weight.dim() == 4 else weight
    output: torch.Tensor
    if not fuses(tokens.dtype):
        output = functional.linear(tokens, weight, bias)
        return output if onto is None else output.add_(onto)
    if onto is None:
        output = _product(tokens, weight, bias)
    else:
        output = torch.ops.mkldnn._linear_pointwise.binary(tokens, onto, weight, bias, "add")
    return output


def _product(
    tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, then: str = "none", form: str = ""
) -> torch.Tensor:
    output: torch.Tensor
    if torch._C._is_tracing():
        output = for_traces().linear(tokens, weight, bias, then, form)
    else:
        output = torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, then, [], form)
    return output


def _norm(part: Any, picture: torch.Tensor, then_silu: bool = True) -> torch.Tensor:
    _announce(part, picture)
    weight, bias = part._parameters["weight"], part._parameters["bias"]
    dtype = picture.dtype
    if is_wide := fuses(dtype) and math.prod(map(int, picture.shape[2:])) < FEW_PIXELS:
        picture, weight, bias = picture.float(), weight.float(), bias.float()
    normed = torch.group_norm(picture, part.num_groups, weight, bias, part.eps)
    if then_silu:
        normed = functional.silu(normed, inplace=True)
    return normed.to(dtype) if is_wide else normed


def _layer_norm(part: Any, tokens: torch.Tensor) -> torch.Tensor:
    _announce(part, tokens)
    weight, bias = part._parameters["weight"], part._parameters["bias"]
    return torch.layer_norm(tokens, part.normalized_shape, weight, bias, part.eps)
