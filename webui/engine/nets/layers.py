"""What several networks are built of."""

import torch
from torch import nn
from torch.nn import functional


class Conv1x1(nn.Conv2d):
    """A 1 x 1 convolution as what it is: a linear layer over the channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        return functional.linear(input, self.weight.flatten(1), self.bias)


def to_tokens(picture: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) as (n, h * w, c): a view, where the picture is channels-last."""
    return picture.permute(0, 2, 3, 1).flatten(1, 2)


def spread(values: torch.Tensor, rows: int, again: int = 0) -> torch.Tensor:
    """(n, ...) as (rows, ...), all n again and again, for as many prompts as there are, and the last ``again`` once
    more."""
    values = values if len(values) == rows else values.repeat(rows // len(values), *[1] * (values.dim() - 1))
    return torch.cat([values, values[-again:]]) if again else values


def to_picture(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(n, h * w, c) as (n, c, h, w), channels-last: a view."""
    output: torch.Tensor = tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)
    return output
