"""IP-Adapter: what an image encoder saw, as keys and values for a UNet's cross-attentions, under its files' names.

Ye et al. 2023, "IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models".
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Shapes = Mapping[str, tuple[int, ...]]

HEAD_CHANNELS = 64
"""Of the resampler's attention, in all files."""


class IpAdapterNet(nn.Module):
    """The whole of a file of the ``form`` plain, plus or full; ``shapes`` are those of its tensors.

    Raises LookupError or ValueError for shapes that are not those of one.
    """

    def __init__(self, form: str, numbers: Iterable[int], shapes: Shapes) -> None:
        super().__init__()
        self.image_proj = {"plain": Plain, "plus": Resampler, "full": Full}[form](shapes)
        pairs = {str(number): shapes[f"ip_adapter.{number}.to_k_ip.weight"] for number in numbers}
        self.ip_adapter = nn.ModuleDict({number: _Pair(context, width) for number, (width, context) in pairs.items()})

    def forward(self, seen: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values, (n, tokens, width) each, by the numbers of the file, of what the encoder said: its summary
        (n, sees), or hidden states (n, length, sees)."""
        tokens = self.image_proj(seen)
        return [pair(tokens) for pair in self.ip_adapter.values()]


class Plain(nn.Module):
    """One layer; a summary to some tokens."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        numbers, sees = shapes["image_proj.proj.weight"]
        (self._width,) = shapes["image_proj.norm.weight"]
        self.proj = nn.Linear(sees, numbers)
        self.norm = nn.LayerNorm(self._width)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """(n, sees) to (n, tokens, width)."""
        output: torch.Tensor = self.norm(self.proj(seen).unflatten(-1, (-1, self._width)))
        return output


class Full(nn.Module):
    """Two layers; each hidden state to a token."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        inner, sees = shapes["image_proj.proj.0.weight"]
        width, _ = shapes["image_proj.proj.2.weight"]
        self.proj = nn.Sequential(nn.Linear(sees, inner), nn.GELU(), nn.Linear(inner, width), nn.LayerNorm(width))

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """(n, length, sees) to (n, length, width)."""
        output: torch.Tensor = self.proj(seen)
        return output


class Resampler(nn.Module):
    """Learned queries that look at hidden states and at themselves: Alayrac et al. 2022, "Flamingo", section 2.1."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        width, sees = shapes["image_proj.proj_in.weight"]
        output, _ = shapes["image_proj.proj_out.weight"]
        inner, _ = shapes["image_proj.layers.0.1.1.weight"]
        across, _ = shapes["image_proj.layers.0.0.to_q.weight"]
        if across % HEAD_CHANNELS:
            raise ValueError("the resampler's attention is not made of heads of 64")
        depth = sum(key.startswith("image_proj.layers.") and key.endswith(".0.to_q.weight") for key in shapes)
        self.latents = nn.Parameter(torch.empty(shapes["image_proj.latents"]))
        self.proj_in = nn.Linear(sees, width)
        self.proj_out = nn.Linear(width, output)
        self.norm_out = nn.LayerNorm(output)
        self.layers = nn.ModuleList(
            nn.ModuleList([_Looking(width, across), _FeedForward(width, inner)]) for _ in range(depth)
        )

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """(n, length, sees) to (n, queries, width)."""
        tokens = self.latents.expand(len(seen), -1, -1)
        seen = self.proj_in(seen)
        layer: Any
        for layer in self.layers:
            tokens = layer[0](seen, tokens) + tokens
            tokens = layer[1](tokens) + tokens
        output: torch.Tensor = self.norm_out(self.proj_out(tokens))
        return output


class _Looking(nn.Module):
    """The attention of the resampler, in heads of ``HEAD_CHANNELS``."""

    def __init__(self, width: int, across: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, across, bias=False)
        self.to_kv = nn.Linear(width, 2 * across, bias=False)
        self.to_out = nn.Linear(across, width, bias=False)

    def forward(self, seen: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        tokens = self.norm2(tokens)
        keys, values = self.to_kv(torch.cat([self.norm1(seen), tokens], dim=1)).chunk(2, dim=-1)
        found = functional.scaled_dot_product_attention(_heads(self.to_q(tokens)), _heads(keys), _heads(values))
        output: torch.Tensor = self.to_out(found.transpose(1, 2).flatten(2))
        return output


class _FeedForward(nn.Sequential):
    def __init__(self, width: int, inner: int) -> None:
        first, second = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)
        super().__init__(nn.LayerNorm(width), first, nn.GELU(), second)


class _Pair(nn.Module):
    """Keys and values of one cross-attention."""

    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(context, width, bias=False)
        self.to_v_ip = nn.Linear(context, width, bias=False)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.to_k_ip(tokens), self.to_v_ip(tokens)


def _heads(tokens: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = tokens.unflatten(-1, (-1, HEAD_CHANNELS)).transpose(1, 2)
    return output
