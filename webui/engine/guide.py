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
