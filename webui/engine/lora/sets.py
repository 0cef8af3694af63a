"""LoRA sets as values: what is in one, what of a model it changes, and how much memory that takes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from webui.core.block_weights import BlockWeights
from webui.engine.lora.deltas import Delta
from webui.engine.lora.reading import Parameter
from webui.engine.weights.layers import Pair

Entry = tuple[str, float, float, BlockWeights | None]
"""Of a LoRA: content hash, strength on the UNet, on the text encoders, and factors on both by block."""
SetKey = tuple[Entry, ...]
"""All LoRAs of a set, in the order of the hashes."""

Contributions = tuple[tuple[str, float], ...]
"""(content hash, strength) of each LoRA that changes one tensor, in the order of the hashes."""


def set_key(loras: Iterable[Entry]) -> SetKey:
    """The same for any order of the same LoRAs; one that is named twice counts with the sum of its strengths."""
    sums: dict[tuple[str, BlockWeights | None], tuple[float, float]] = {}
    for content_hash, unet, text, blocks in loras:
        before = sums.get((content_hash, blocks), (0.0, 0.0))
        sums[content_hash, blocks] = before[0] + unet, before[1] + text
    entries = [(name, unet, text, blocks) for (name, blocks), (unet, text) in sums.items() if unet or text]
    return tuple(sorted(entries, key=_order))


def _order(entry: Entry) -> tuple[Any, ...]:
    name, _, _, blocks = entry
    return (name, blocks.values, blocks.elements) if blocks else (name,)


@dataclass(frozen=True)
class MergedSet:
    """The tensors of one set, by the parameter they stand in for, and what went into each.

    A weight that is ``Stored`` has a ``Pair`` beside it instead, where the set changes it by products alone.

    ``text_key`` is the part of the set that changes the text encoders: prompts are encoded anew when it changes.
    """

    tensors: Mapping[Parameter, torch.Tensor | Pair] = field(default_factory=dict)
    contributions: Mapping[Parameter, Contributions] = field(default_factory=dict)
    text_key: Contributions = ()


NOTHING = MergedSet()


@dataclass(frozen=True)
class MergePlan:
    """What goes into each tensor of a set, those that are ``known``, and how large the others will be."""

    parts: Mapping[Parameter, Sequence[tuple[Delta, float]]]
    contributions: Mapping[Parameter, Contributions]
    text_key: Contributions
    known: MergedSet
    nbytes: Mapping[Parameter, int]

    @property
    def new_bytes(self) -> int:
        """What there is not yet."""
        return sum(nbytes for place, nbytes in self.nbytes.items() if place not in self.known.tensors)


def parts_of(merged: MergedSet | MergePlan) -> frozenset[tuple[Parameter, Contributions, int]]:
    """What a set is made of, and how large: the same for the same tensors."""
    if isinstance(merged, MergePlan):
        nbytes = merged.nbytes
    else:
        nbytes = {place: tensor.nbytes for place, tensor in merged.tensors.items()}
    return frozenset((place, parts, nbytes[place]) for place, parts in merged.contributions.items())


def nbytes_of_parts(*sets: Iterable[tuple[Parameter, Contributions, int]]) -> int:
    """As ``nbytes_of``, of sets that need not be there."""
    return sum(nbytes for _, _, nbytes in set().union(*sets))


def nbytes_of(sets: Iterable[MergedSet]) -> int:
    """Memory of all tensors of all sets, each counted once."""
    tensors = {id(tensor): tensor for merged in sets for tensor in merged.tensors.values()}
    return sum(tensor.nbytes for tensor in tensors.values())
