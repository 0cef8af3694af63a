"""The transformer of a UNet's level, under the names that diffusers gives its parts."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from webui.engine.nets.layers import Conv1x1, spread, to_picture, to_tokens
from webui.engine.speed.shortcuts import Merging


class Against(NamedTuple):
    """The keys and values of what the last rows are pushed away from, (those rows, heads, length, width / heads).

    ``strengths`` (3,) are scale, tau and alpha of ``normalized``.
    """

    keys: torch.Tensor
    values: torch.Tensor
    strengths: torch.Tensor


class Attended(NamedTuple):
    """What one cross-attention looks at: keys and values of the prompts, (rows, heads, length, width / heads).

    ``further`` are those of other things than words; what is found there by itself is added. ``against`` is what the
    last rows are pushed away from.
    """

    keys: torch.Tensor
    values: torch.Tensor
    further: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
    against: Against | None = None

    def with_further(self, keys: torch.Tensor, values: torch.Tensor) -> "Attended":
        """The same with another thing, (rows, length, width) each; rows that are there again see what they saw."""
        rows, heads = self.keys.shape[:2]
        pair = []
        for part in (keys, values):
            part = torch.cat([part, part[len(part) * 2 - rows :]]) if rows > len(part) else part.contiguous()
            pair.append(part.unflatten(-1, (heads, -1)).transpose(1, 2))
        return self._replace(further=(*self.further, (pair[0], pair[1])))


def normalized(positive: torch.Tensor, negative: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
    """What attention found for a prompt, (rows, length, width), pushed away from what it found for another.

    ``strengths`` are scale (1 is off), tau, up to which a token's L1 norm may grow, and alpha, the share of the result.
    Chen et al. 2025, "Normalized Attention Guidance", equations 7 to 10, in the form of its published code.
    """
    scale, tau, alpha = strengths.unbind()
    pushed = positive * scale - negative * (scale - 1)
    own, grown = (torch.linalg.vector_norm(found, 1, -1, True, dtype=torch.float32) for found in (positive, pushed))
    pushed = pushed * (tau * own / grown.clamp(min=1e-12)).clamp(max=1).to(pushed.dtype)
    blended: torch.Tensor = pushed * alpha + positive * (1 - alpha)
    return blended


class Transformer(nn.Module):
    """Tokens of a picture through layers that attend to each other and to the prompt, added to the picture."""

    def __init__(
        self, width: int, heads: int, depth: int, context: int, groups: int, linear: bool, merges: bool
    ) -> None:
        super().__init__()
        self._merges = merges
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width) if linear else Conv1x1(width, width)
        self.transformer_blocks = nn.ModuleList(Layer(width, heads, context) for _ in range(depth))
        self.proj_out = nn.Linear(width, width) if linear else Conv1x1(width, width)

    def forward(
        self, picture: torch.Tensor, prompts: Iterator[Attended], merging: float = 0.0, perturbed: int = 0
    ) -> torch.Tensor:
        """(n, c, h, w) to as many rows as the prompts have, n or a multiple of it.

        ``merging`` is the share of tokens to merge, if this is the level for it. The last ``perturbed`` rows are those
        before them once more, with tokens that attend to themselves alone and to the prompt (Ahn et al. 2024,
        "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance").
        """
        height, width = picture.shape[-2:]
        merge = partial(Merging.find, height=height, width=width, share=merging) if merging and self._merges else None
        tokens = self.proj_in(to_tokens(self.norm(picture)))
        for layer in self.transformer_blocks:
            attended = next(prompts)
            if perturbed and len(tokens) < len(attended.keys):
                tokens = spread(tokens, len(attended.keys) - perturbed, perturbed)
            tokens = layer(tokens, attended, merge, perturbed)
        picture = spread(picture, len(tokens) - perturbed, perturbed)
        return to_picture(self.proj_out(tokens), height, width).add_(picture)


class Layer(nn.Module):
    """Attention to each other, attention to the prompt, and a feed-forward, each after a norm and added."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, context, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(
        self,
        tokens: torch.Tensor,
        attended: Attended,
        merge: Callable[[torch.Tensor], Merging] | None = None,
        perturbed: int = 0,
    ) -> torch.Tensor:
        own = self.norm1(tokens)
        if perturbed:
            whole, alone = own.split([len(own) - perturbed, perturbed])
            tokens = torch.cat([self._attend(whole, merge), self.attn1.project(self.attn1.to_v(alone))]).add_(tokens)
        else:
            tokens = self._attend(own, merge).add_(tokens)
        tokens = spread(tokens, len(attended.keys))  # until here the prompts have made no difference
        tokens = self.attn2(self.norm2(tokens), attended).add_(tokens)
        output: torch.Tensor = self.ff(self.norm3(tokens)).add_(tokens)
        return output

    def _attend(self, own: torch.Tensor, merge: Callable[[torch.Tensor], Merging] | None) -> torch.Tensor:
        """What the tokens find in each other."""
        if merge is None:
            return self.attn1(own, self.attn1.attend_to(own))
        merging = merge(own)
        few = merging.merge(own)
        return merging.spread(self.attn1(few, self.attn1.attend_to(few)))


class Attention(nn.Module):
    """Vaswani et al. 2017; ``context`` is the width of what is attended to."""

    __call__: Callable[..., torch.Tensor]  # which torch has without types

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def attend_to(self, context: torch.Tensor) -> Attended:
        """Keys and values, (n, heads, length, width / heads) each."""
        return Attended(self._split(self.to_k(context)), self._split(self.to_v(context)))

    def forward(self, tokens: torch.Tensor, attended: Attended) -> torch.Tensor:
        queries = self._split(self.to_q(tokens))
        found = self._find(queries, attended.keys, attended.values)
        if (against := attended.against) is not None:
            rows = len(against.keys)
            unwanted = self._find(queries[-rows:], against.keys, against.values)
            pushed = normalized(found[-rows:], unwanted, against.strengths)
            found = torch.cat([found[:-rows], pushed])
        for keys, values in attended.further:
            found = found + self._find(queries, keys, values)
        return self.project(found)

    def project(self, found: torch.Tensor) -> torch.Tensor:
        """What was found, (n, length, width), on its way out."""
        output: torch.Tensor = self.to_out[0](found)
        return output

    @staticmethod
    def _find(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return output


class FeedForward(nn.Module):
    """Shazeer 2020, "GLU Variants Improve Transformer": half of the inner values gate the others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        gated: Any = nn.Module()
        gated.proj = nn.Linear(width, 8 * width)
        self.net: Any = nn.ModuleList([gated, nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(..., width) to the same."""
        inner, gate = self.net[0].proj(tokens).chunk(2, dim=-1)
        output: torch.Tensor = self.net[2](functional.gelu(gate).mul_(inner))
        return output
