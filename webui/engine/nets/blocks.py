"""The blocks that a UNet and its ControlNets are built of, under the names that diffusers gives their parts."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from webui.engine.nets.layers import Conv1x1
from webui.engine.nets.transformer import Transformer


class Embedding(nn.Module):
    """Two linear layers; the first may be given a further condition."""

    def __init__(self, channels: int, width: int, condition_channels: int | None = None) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, width)
        if condition_channels is not None:
            self.cond_proj = nn.Linear(condition_channels, channels, bias=False)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, values: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """(n, channels) to (n, width)."""
        if condition is not None:
            values = values + self.cond_proj(condition)
        output: torch.Tensor = self.linear_2(functional.silu(self.linear_1(values)))
        return output


class Block(nn.Module):
    """One resolution: residual layers, each with a transformer where the level attends to the prompt."""

    def __init__(
        self, into: Sequence[int], out: int, time: int, groups: int, eps: float, transformer: dict[str, Any] | None
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(channels, out, time, groups, eps) for channels in into)
        self.attentions = nn.ModuleList([Transformer(**transformer) for _ in into] if transformer else [])
        self.downsamplers = nn.ModuleList()
        self.upsamplers = nn.ModuleList()

    def layers(self) -> Iterator[tuple[nn.Module, nn.Module | None]]:
        """Each residual layer with its transformer, if it has one."""
        transformers = iter(self.attentions)
        return ((resnet, next(transformers, None)) for resnet in self.resnets)


class Resampler(nn.Module):
    """A convolution that halves the sides, or that follows their doubling."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)

    def forward(self, hidden: torch.Tensor, _time: torch.Tensor | None = None) -> torch.Tensor:
        """(n, channels, h, w) to (n, channels, h', w')."""
        output: torch.Tensor = self.conv(hidden)
        return output


class Resnet(nn.Module):
    """He et al. 2016, with group norm before each convolution and the time added between them."""

    def __init__(self, into: int, out: int, time: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, into, eps)
        self.conv1 = nn.Conv2d(into, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(time, out)
        self.norm2 = nn.GroupNorm(groups, out, eps)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = Conv1x1(into, out) if into != out else None

    def forward(self, hidden: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """(n, in, h, w) to (n, out, h, w), told the time (n, or 1, width)."""
        inner = self.conv1(functional.silu(self.norm1(hidden), inplace=True))
        inner = self.norm2(inner.add_(self.time_emb_proj(time)[:, :, None, None]))
        inner = self.conv2(functional.silu(inner, inplace=True))
        if self.conv_shortcut is not None:
            hidden = self.conv_shortcut(hidden.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        output: torch.Tensor = inner.add_(hidden)
        return output
