"""Guidance: the network's answers to several prompts as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch

from webui.engine.families.base import Conditioning


@dataclass(frozen=True)
class Branch:
    """One term of the guidance: a prompt, how much it counts, and where: ``area`` (1, 1, h, w) in 0..1, or all over."""

    conditioning: Conditioning
    weight: float = 1.0
    area: torch.Tensor | None = None

    def share(self, of: torch.Tensor) -> torch.Tensor:
        """What this term contributes of (n, channels, h, w)."""
        if self.area is not None:
            return of * (self.weight * self.area)
        return of if self.weight == 1 else of * self.weight


def are_whole(branches: Sequence[Branch]) -> bool:
    """Whether the weights sum to 1 all over, so that at guidance 1 the unconditional answer counts for nothing."""
    total = sum(branch.weight * (1.0 if branch.area is None else branch.area) for branch in branches)
    return bool((torch.as_tensor(total) - 1).abs().max() < 1e-6)


def perturb(
    guided: torch.Tensor,
    outputs: Sequence[torch.Tensor],
    perturbed: Sequence[torch.Tensor],
    branches: Sequence[Branch],
    scale: float | torch.Tensor,
) -> torch.Tensor:
    """``guided + scale * sum(weight * area * (c - p))`` for outputs c and what they are with perturbed attention.

    Ahn et al. 2024, "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance", in diffusers' form.
    """
    if not branches:
        return guided
    away = [output - other for output, other in zip(outputs, perturbed, strict=True)]
    return guided + scale * _weighted(away, branches)


def rescale(guided: torch.Tensor, told: torch.Tensor, share: float) -> torch.Tensor:
    """``guided`` (n, channels, h, w) with the spread that the prompt's own answer ``told`` has, for this share.

    Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", section 3.4.
    """
    axes = list(range(1, guided.dim()))
    spread = told.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return share * (guided * spread) + (1 - share) * guided


def guide(
    unconditional: torch.Tensor | None, outputs: Sequence[torch.Tensor], branches: Sequence[Branch], guidance: float
) -> torch.Tensor:
    """``u + guidance * sum(weight * area * (c - u))`` for an output c (n, channels, h, w) of each branch.

    Ho and Salimans 2022, equation 6, in diffusers' form; several terms as in Liu et al. 2022, "Compositional Visual
    Generation with Composable Diffusion Models", equation 11. Without an unconditional answer u it is what this comes
    to at guidance 1, where branches that are whole need none.
    """
    if unconditional is None:
        return _weighted(outputs, branches)
    if not branches:
        return unconditional
    return unconditional + guidance * _weighted([output - unconditional for output in outputs], branches)


def _weighted(terms: Sequence[torch.Tensor], branches: Sequence[Branch]) -> torch.Tensor:
    return reduce(torch.add, [branch.share(term) for term, branch in zip(terms, branches, strict=True)])
