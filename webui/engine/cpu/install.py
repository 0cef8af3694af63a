"""Puts what the CPU computes faster with into a network of plain torch, in the place of its plain parts.

A part becomes one of another class that computes the same another way. It is still the same object with the same
weights, under the same names.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from webui.engine.cpu.conv import PackedConv2d, StoredPackedConv2d
from webui.engine.cpu.fused import FusedLayer, FusedResnet, FusedTransformer, FusedUNet
from webui.engine.cpu.int8 import use_int8
from webui.engine.cpu.parts import PartwiseFeedForward
from webui.engine.cpu.strips import StripHalf, StripResnet, StripUpsampler
from webui.engine.nets import blocks
from webui.engine.nets.autoencoder import Half, Resnet, Upsampler
from webui.engine.nets.transformer import FeedForward, Layer, Transformer
from webui.engine.nets.unet import UNet
from webui.engine.weights.layers import StoredConv2d

KERNELS = {torch.bfloat16: 2}
"""Which of our kernels these are, by format, 1 where nothing is said: one more for any that round another way, so that
recipes name them."""

FASTER: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: PackedConv2d,
    UNet: FusedUNet,
    blocks.Resnet: FusedResnet,
    Transformer: FusedTransformer,
    Layer: FusedLayer,
    FeedForward: PartwiseFeedForward,
    StoredConv2d: StoredPackedConv2d,
    Half: StripHalf,
    Resnet: StripResnet,
    Upsampler: StripUpsampler,
}
PLAIN: Mapping[type[nn.Module], type[nn.Module]] = {faster: plain for plain, faster in FASTER.items()}


def install(network: nn.Module, low_memory: bool = False) -> None:
    """Has ``network`` computed the CPU's way, which is within rounding of the plain one.

    ``low_memory`` lets the convolutions keep their large weights once, in oneDNN's order. Whoever took such a weight
    out of the network before asks the convolution to ``keep`` it before reading.
    """
    for part in network.modules():
        if faster := _faster(part):
            part.__class__ = faster
        if low_memory and isinstance(part, PackedConv2d):
            part.low_memory = True


def uninstall(network: nn.Module) -> None:
    """The plain network again, bit for bit."""
    use_int8(network, False)
    for part in network.modules():
        if isinstance(part, PackedConv2d):
            part.unpack()
        if plain := PLAIN.get(type(part)):
            part.__class__ = plain


def _faster(part: Any) -> type[nn.Module] | None:
    if type(part) in (nn.Conv2d, StoredConv2d) and not PackedConv2d.suits(part):
        return None
    return FASTER.get(type(part))
