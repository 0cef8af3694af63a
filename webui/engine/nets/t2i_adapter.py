"""T2I-Adapter, under the names that diffusers gives its parts. It sees a picture once, and no latents at all.

Mou et al. 2023, "T2I-Adapter: Learning Adapters to Dig out More Controllable Ability for Text-to-Image Diffusion
Models".
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

KINDS = ("full_adapter", "full_adapter_xl", "light_adapter")
HALVED_BY_XL = (2,)
"""The resolutions of SDXL's that are half of the one before; those of the others are, but for the first."""


class T2IAdapter(nn.Module):
    """``config`` is that of diffusers' T2IAdapter; ValueError for what this one does not do.

    ``in_channels`` is 3, or 1 for one that sees greys. ``scale`` is how many px a side are one place of what it makes
    first.
    """

    __call__: Callable[..., Sequence[torch.Tensor]]  # which torch has without types

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        kind = config.get("adapter_type", KINDS[0])
        if kind not in KINDS:
            raise ValueError(f"the T2I-Adapter's adapter_type is {kind!r}; known are {', '.join(KINDS)}")
        channels, layers = list(config.get("channels", (320, 640, 1280, 1280))), config.get("num_res_blocks", 2)
        self.in_channels: int = config.get("in_channels", 3)
        self.scale: int = config.get("downscale_factor", 8)
        into = self.in_channels * self.scale**2
        self.body: Any = nn.ModuleList()
        if kind == KINDS[2]:
            for level, (before, after) in enumerate(zip([into, *channels], [*channels, channels[-1]], strict=True)):
                self.body.append(_Level(before, after, layers, level > 0, after // 4))
            return
        self.conv_in = nn.Conv2d(into, channels[0], 3, padding=1)
        for level, after in enumerate(channels):
            before = channels[max(level - 1, 0)]
            halves = level in HALVED_BY_XL if kind == KINDS[1] else level > 0
            self.body.append(_Level(before, after, layers, halves))

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return next(self.parameters()).dtype

    def forward(self, picture: torch.Tensor) -> Sequence[torch.Tensor]:
        """Features (n, channels, h, w), one a resolution, of a map (n, in channels, height, width) in 0..1.

        Sides that are no multiple of ``scale`` go on as they end.
        """
        height, width = picture.shape[-2:]
        if (right := -width % self.scale) | (below := -height % self.scale):
            picture = functional.pad(picture, (0, right, 0, below), mode="replicate")
        seen = functional.pixel_unshuffle(picture, self.scale).contiguous(memory_format=torch.channels_last)
        if hasattr(self, "conv_in"):
            seen = self.conv_in(seen)
        features = []
        for level in self.body:
            seen = level(seen)
            features.append(seen)
        return features


class _Level(nn.Module):
    """One resolution. A light one computes with ``inner`` channels, and comes back to all at its end."""

    def __init__(self, into: int, out: int, layers: int, halves: bool, inner: int | None = None) -> None:
        super().__init__()
        self.halves = halves
        width = inner or out
        self.in_conv = nn.Conv2d(into, width, 1) if into != width or inner else None
        self.resnets = nn.ModuleList(_Resnet(width, 3 if inner else 1) for _ in range(layers))
        self.out_conv = nn.Conv2d(width, out, 1) if inner else None

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """(n, into, h, w) to (n, out, h', w')."""
        if self.halves:
            seen = functional.avg_pool2d(seen, 2, 2, ceil_mode=True)
        if self.in_conv is not None:
            seen = self.in_conv(seen)
        for resnet in self.resnets:
            seen = resnet(seen)
        return seen if self.out_conv is None else self.out_conv(seen)


class _Resnet(nn.Module):
    def __init__(self, width: int, second: int) -> None:
        super().__init__()
        self.block1 = nn.Conv2d(width, width, 3, padding=1)
        self.block2 = nn.Conv2d(width, width, second, padding=second // 2)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.block2(functional.relu(self.block1(seen))) + seen
        return output
