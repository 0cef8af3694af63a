"""The compact network of Real-ESRGAN: convolutions at the picture's own size, the last of which makes all pixels.

Wang et al. 2021, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", and its code's
SRVGGNetCompact.
"""

from itertools import chain, pairwise

import torch
from torch import nn
from torch.nn import functional


class Compact(nn.Module):
    """(n, c, h, w) in 0..1 to (n, c, scale * h, scale * w); its parameters have the names of their files."""

    multiple, tile_px = 1, 256

    def __init__(self, channels: int, width: int, hidden: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        sides = [channels, *[width] * (hidden + 1)]
        inner = [(nn.Conv2d(into, out, 3, padding=1), nn.PReLU(width)) for into, out in pairwise(sides)]
        self.body = nn.ModuleList([*chain(*inner), nn.Conv2d(width, channels * scale**2, 3, padding=1)])

    @property
    def reach_px(self) -> int:
        """How far from a pixel of the picture others count for it."""
        return len(self.body) // 2 + 1

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """What the convolutions make is added to the picture with each pixel ``scale`` times as large."""
        made = picture
        for layer in self.body:
            made = layer(made)
        shuffled = functional.pixel_shuffle(made, self.scale)
        return shuffled + functional.interpolate(picture, scale_factor=float(self.scale), mode="nearest")
