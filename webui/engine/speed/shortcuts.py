"""What the UNet may leave out where people ask for it. The pictures are approximations.

Features reused: Ma et al. 2023, "DeepCache: Accelerating Diffusion Models for Free". Tokens merged: Bolya and Hoffman
2023, "Token Merging for Fast Stable Diffusion".
"""

from dataclasses import dataclass, field

import torch
from torch.nn import functional


@dataclass
class Shortcuts:
    """For one series of forwards with the same rows: each may use what the one before it has left here.

    Of ``reuse`` forwards the first is whole, the others take its deep features. ``merging`` (0..0.75) is the share of
    the tokens that self-attention at the highest resolution does without.
    """

    merging: float = 0.0
    reuse: int = 1
    _features: torch.Tensor | None = field(default=None, init=False, repr=False)
    _forwards: int = field(default=0, init=False)

    @property
    def taken(self) -> bool:
        """Whether anything is left out at all."""
        return self.merging > 0 or self.reuse > 1

    @property
    def goes_on(self) -> bool:
        """Whether the next forward takes the features that are here."""
        return self._forwards % self.reuse != 0 and self._features is not None

    def recall(self) -> torch.Tensor | None:
        """The deep features for this forward, or None where it has to be a whole one."""
        whole = self._forwards % self.reuse == 0
        self._forwards += 1
        return None if whole else self._features

    def keep(self, features: torch.Tensor) -> None:
        """Leaves a whole forward's deep features for those that follow."""
        if self.reuse > 1:
            self._features = features


@dataclass(frozen=True)
class Merging:
    """Which of a picture's tokens go together, for each row by itself.

    One token of each 2 x 2 is a destination, always the first one: a seed repeats its picture bit for bit. Of the
    others, those most alike to a destination become one with it. ``sources`` (rows, merged) and ``rest`` (rows, kept)
    are positions; ``share`` (rows, destinations, merged) is what each source adds to its destination and ``own``
    (rows, destinations, 1) what is left of the destination itself, so that the result is their mean; ``places``
    (rows, tokens) says where each token's value is found afterwards.
    """

    destinations: torch.Tensor
    sources: torch.Tensor
    rest: torch.Tensor
    share: torch.Tensor
    own: torch.Tensor
    places: torch.Tensor

    @classmethod
    def find(cls, tokens: torch.Tensor, height: int, width: int, share: float) -> "Merging":
        """For tokens (rows, height * width, channels), of which ``share`` (0..0.75) are to go."""
        rows, count, _ = tokens.shape
        grid = torch.arange(count, device=tokens.device).view(height, width)
        destinations = grid[::2, ::2].flatten()
        others = torch.ones(count, dtype=torch.bool, device=tokens.device)
        others[destinations] = False
        others = others.nonzero().flatten()
        unit = functional.normalize(tokens, dim=-1)
        likeness, nearest = (unit[:, others] @ unit[:, destinations].transpose(1, 2)).max(dim=-1)
        order = likeness.argsort(dim=-1, descending=True, stable=True)
        merged, kept = order.split([min(int(share * count), len(others)), max(len(others) - int(share * count), 0)], 1)
        into = nearest.gather(1, merged)
        joined = tokens.new_zeros(rows, len(destinations), merged.shape[1]).scatter_(1, into[:, None], 1)
        weight = 1 / (1 + joined.sum(dim=-1, keepdim=True, dtype=torch.float32)).to(tokens.dtype)
        places = torch.empty(rows, count, dtype=torch.long, device=tokens.device)
        places[:, destinations] = torch.arange(len(destinations), device=tokens.device)
        places.scatter_(1, others[merged], into)
        after = torch.arange(len(destinations), len(destinations) + kept.shape[1], device=tokens.device)
        places.scatter_(1, others[kept], after.expand(rows, -1))
        return cls(destinations, others[merged], others[kept], joined * weight, weight, places)

    def merge(self, tokens: torch.Tensor) -> torch.Tensor:
        """(rows, all, channels) to (rows, fewer, channels)."""
        together = torch.baddbmm(tokens[:, self.destinations] * self.own, self.share, _pick(tokens, self.sources))
        return torch.cat([together, _pick(tokens, self.rest)], dim=1)

    def spread(self, tokens: torch.Tensor) -> torch.Tensor:
        """(rows, fewer, channels) back to (rows, all, channels): those that went together have the same values."""
        return _pick(tokens, self.places)


def _pick(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return tokens.gather(1, positions[:, :, None].expand(-1, -1, tokens.shape[-1]))
