"""The network of ESRGAN and Real-ESRGAN: residual blocks in residual blocks, then larger step by step.

Wang et al. 2018, "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks"; its parameters have the names of
Real-ESRGAN's code.
"""

import torch
from torch import nn
from torch.nn import functional

SLOPE = 0.2
DAMPED = 0.2
LAYERS = 5


class DenseBlock(nn.Module):
    """Convolutions, each of which sees what all before it made."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for number in range(1, LAYERS + 1):
            out = growth if number < LAYERS else width
            self.add_module(f"conv{number}", nn.Conv2d(width + (number - 1) * growth, out, 3, padding=1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, width, h, w) to the same shape."""
        seen = features
        for number in range(1, LAYERS):
            made = functional.leaky_relu(self.get_submodule(f"conv{number}")(seen), SLOPE)
            seen = torch.cat((seen, made), 1)
        last: torch.Tensor = self.get_submodule(f"conv{LAYERS}")(seen)
        return last * DAMPED + features


class DenseBlocks(nn.Module):
    """Three of them."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, width, h, w) to the same shape."""
        made: torch.Tensor = self.rdb3(self.rdb2(self.rdb1(features)))
        return made * DAMPED + features


class Rrdb(nn.Module):
    """(n, c, h, w) in 0..1 to (n, c, scale * h, scale * w).

    Where the network itself enlarges by more (Real-ESRGAN's x2 and x1), squares of ``multiple`` pixels are folded into
    channels before it; sides must be multiples of that.
    """

    reach_px, tile_px = 24, 128
    """So far others count for a pixel by more than rounding (docs/decisions/0041); all of them do a little."""

    def __init__(self, channels: int, width: int, growth: int, blocks: int, doublings: int, multiple: int) -> None:
        super().__init__()
        self.scale, self.multiple, self.doublings = 2**doublings // multiple, multiple, doublings
        self.conv_first = nn.Conv2d(channels * multiple**2, width, 3, padding=1)
        self.body = nn.ModuleList([DenseBlocks(width, growth) for _ in range(blocks)])
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        for number in range(1, doublings + 1):
            self.add_module(f"conv_up{number}", nn.Conv2d(width, width, 3, padding=1))
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """The picture enlarged."""
        first = self.conv_first(functional.pixel_unshuffle(picture, self.multiple))
        features = first
        for block in self.body:
            features = block(features)
        features = first + self.conv_body(features)
        for number in range(1, self.doublings + 1):
            larger = functional.interpolate(features, scale_factor=2.0, mode="nearest")
            features = functional.leaky_relu(self.get_submodule(f"conv_up{number}")(larger), SLOPE)
        enlarged: torch.Tensor = self.conv_last(functional.leaky_relu(self.conv_hr(features), SLOPE))
        return enlarged
