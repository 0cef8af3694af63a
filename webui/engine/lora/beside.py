"""What LoRAs make of a weight that stays small: a pair of products beside it, or the dense weight in its place."""

from collections.abc import Sequence

import torch

from webui.engine.lora.deltas import Delta, LowRank, merge
from webui.engine.weights.layers import Pair
from webui.engine.weights.stored import Stored

Parts = Sequence[tuple[Delta, float]]
"""What each LoRA changes, and its strength."""


def beside(stored: Stored, parts: Parts, device: torch.device) -> Pair | torch.Tensor:
    """The products of all plain LoRAs as one, their ranks side by side; the dense weight where there are others.

    Also where the pair would be larger. ``device`` computes; the result is where ``stored`` is.
    """
    if not _is_pair(stored, parts):
        base = stored.dense().to(device)
        return merge(base, parts).to(stored.device)
    plain = [(delta, strength) for delta, strength in parts if isinstance(delta, LowRank)]
    up = torch.cat([delta.up.float() * (delta.scale * strength) for delta, strength in plain], dim=1)
    down = torch.cat([delta.rows() for delta, _ in plain])
    return Pair(up.to(stored.device, stored.dtype), down.to(stored.device, stored.dtype))


def nbytes_beside(stored: Stored, parts: Parts) -> int:
    """How much memory that takes."""
    return (_pair_numbers(stored, parts) if _is_pair(stored, parts) else stored.shape.numel()) * stored.dtype.itemsize


def _is_pair(stored: Stored, parts: Parts) -> bool:
    plain = all(isinstance(delta, LowRank) for delta, _ in parts)
    return plain and _pair_numbers(stored, parts) < stored.shape.numel()


def _pair_numbers(stored: Stored, parts: Parts) -> int:
    ranks = sum(delta.up.shape[1] for delta, _ in parts if isinstance(delta, LowRank))
    return ranks * (stored.shape[0] + stored.shape[1:].numel())
