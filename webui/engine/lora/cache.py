"""``WeightCache``: which LoRA set a model's weights have right now, and the merged weights of earlier sets.

The model's own numbers are never lost. A set's merged tensors are computed from them alone and take their place in the
modules by a pointer swap (or by a copy, where addresses must stay), so "no LoRA" is the model itself, bit for bit, and
nothing depends on what ran before.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from webui.core.block_weights import BlockWeights, block_of
from webui.engine.cpu.conv import Ordered, PackedConv2d, parameter_of
from webui.engine.lora.beside import beside, nbytes_beside
from webui.engine.lora.deltas import Delta, merge
from webui.engine.lora.reading import LoraWeights, Parameter
from webui.engine.lora.sets import (
    NOTHING,
    Contributions,
    MergedSet,
    MergePlan,
    SetKey,
    nbytes_of,
    nbytes_of_parts,
    parts_of,
)
from webui.engine.weights.in_file import here
from webui.engine.weights.layers import Pair, StoredLayer
from webui.engine.weights.stored import Stored

How = Literal["unchanged", "cached", "merged"]
Shapes = Mapping[nn.Module, torch.Size]
"""What convolutions are given in a forward."""


@dataclass(frozen=True)
class Unordered:
    """A weight of a convolution without its ordered copy for inputs of a shape."""

    place: Parameter
    weight: torch.Tensor
    shape: torch.Size


class WeightCache:
    """Installs LoRA sets in one model and keeps the merged tensors of several under a byte budget.

    ``components`` are the parts by role. ``budget_bytes`` bounds the merged tensors on the model's device,
    those in use included, except that a set larger than all of it is still used, and then not kept. What is left of it
    goes to the ordered copies (``cpu.conv``) of weights that are not in use. What must leave moves to host memory under
    ``host_bytes``, if that is not 0. ``device`` computes, wherever a component rests meanwhile; None is where it is.
    With ``in_place`` the modules keep their tensors and sets are copied into them, as recorded CUDA graphs need it;
    what a set overwrites is copied first, beside the budget. Not thread-safe: the device thread owns it.
    """

    def __init__(
        self,
        components: Mapping[str, nn.Module],
        budget_bytes: int,
        host_bytes: int = 0,
        device: torch.device | None = None,
        in_place: bool = False,
    ) -> None:
        self._owners: dict[Parameter, nn.Module] = {}
        self._base: dict[Parameter, torch.Tensor | Stored] = {}
        for component, root in components.items():
            for path, module in root.named_modules():
                if isinstance(module, Stored):
                    continue
                if isinstance(module, StoredLayer):
                    self._owners[component, path, "weight"] = module
                    self._base[component, path, "weight"] = module.stored
                for kind, parameter in module.named_parameters(recurse=False):
                    self._owners[component, path, kind] = module
                    self._base[component, path, kind] = parameter.data
        self._device, self._in_place = device, in_place
        self._budget_bytes, self._host_bytes = budget_bytes, host_bytes
        self._sets: OrderedDict[SetKey, MergedSet] = OrderedDict()
        self._on_host: OrderedDict[SetKey, MergedSet] = OrderedDict()
        self._ordered: OrderedDict[tuple[Parameter, int], Ordered] = OrderedDict()  # by place and address of the weight
        self._key: SetKey = ()
        self._installed = NOTHING

    @property
    def key(self) -> SetKey:
        """The set that is installed."""
        return self._key

    @property
    def text_key(self) -> Contributions:
        """What of the installed set changes the text encoders."""
        return self._installed.text_key

    @property
    def nbytes(self) -> int:
        """Merged tensors on the device, each counted once, and ordered copies that are not in use."""
        return self._nbytes_with(NOTHING) + self._ordered_bytes

    def __contains__(self, key: SetKey) -> bool:
        """Whether the set can be installed without computing."""
        return not key or key == self._key or key in self._sets or key in self._on_host

    def switch(
        self, key: SetKey, read: Callable[[str], LoraWeights], check: Callable[[], None] = lambda: None
    ) -> tuple[How, float]:
        """Makes ``key`` the installed set; says how, and in how many seconds.

        ``read`` gives the weights of a content hash and is asked only where something must be computed; ``check`` is
        called between tensors and may raise to stop. Whatever is raised half way leaves the base installed.
        """
        started = time.perf_counter()
        how: How = "cached"
        if key in self._sets:
            self._sets.move_to_end(key)
        if key == self._key:
            return "unchanged", time.perf_counter() - started
        try:
            target = self._sets.get(key) if key else NOTHING
            if target is None:
                self._install((), NOTHING)  # a set that is in use but too large to keep goes first
                if (target := self._fetch(key)) is None:
                    how, target = "merged", self._merge(self._plan(key, read), check)
                if self._nbytes_with(target) <= self._budget_bytes:
                    self._sets[key] = target
            self._install(key, target)
        except BaseException:
            self._restore()
            raise
        return how, time.perf_counter() - started

    def clear(self) -> None:
        """Lets go of all that is kept of sets; only for a model that has none on."""
        self._sets.clear()
        self._on_host.clear()
        self._ordered.clear()

    def merges(self, keys: Sequence[SetKey], read: Callable[[str], LoraWeights]) -> int:
        """How many sets would be merged if these were installed one after another: what makes room is merged again."""
        if all(not key or key in self._sets for key in keys):
            return 0
        parts = {key: parts_of(merged) for key, merged in (*self._sets.items(), *self._on_host.items())}
        parts |= {(): frozenset(), self._key: parts_of(self._installed)}
        kept, on_host, now, count = list(self._sets), list(self._on_host), self._key, 0
        for key in keys:
            if key in kept:
                kept.append(kept.pop(kept.index(key)))
            elif key != now and key:
                if key not in parts:
                    parts[key] = parts_of(self._plan(key, read))
                count += key not in on_host
                on_host = [other for other in on_host if other != key]
                while kept and nbytes_of_parts(parts[key], *(parts[other] for other in kept)) > self._budget_bytes:
                    on_host = self._on_host_with(kept.pop(0), on_host, parts)
                if nbytes_of_parts(parts[key]) <= self._budget_bytes:
                    kept.append(key)
            now = key
        return count

    def prepare(self, key: SetKey, read: Callable[[str], LoraWeights]) -> bool:
        """Merges a set that is wanted next, if it fits beside the installed one; what is installed stays."""
        if key in self:
            return True
        plan = self._plan(key, read)
        if nbytes_of([self._installed, plan.known]) + plan.new_bytes > self._budget_bytes:
            return False
        self._sets[key] = self._merge(plan)
        return True

    def unordered(self, shapes: Mapping[SetKey, Shapes]) -> list[Unordered]:
        """What the first forward of each set would put in order; nothing where not all of it would stay.

        All sets must be there. ``shapes`` are what each set's forwards give the convolutions.
        """
        sets = {key: self._installed if key == self._key else self._sets.get(key, NOTHING) for key in shapes}
        tensors = {place for merged in sets.values() for place in merged.tensors if place[2] == "weight"}
        changed = {place: self._base[place] for place in tensors if isinstance(self._owners[place], PackedConv2d)}
        missing: dict[tuple[Parameter, int], Unordered] = {}
        wanted: dict[tuple[Parameter, int], int] = {}
        for key, merged in sets.items():
            for place in changed:
                owner, weight = self._owners[place], merged.tensors.get(place, changed[place])
                assert isinstance(weight, torch.Tensor)
                shape, at = shapes[key].get(owner), (place, weight.data_ptr())
                if shape is None or at in wanted or not isinstance(owner, PackedConv2d) or not owner.orders(shape):
                    continue
                present = parameter_of(owner, "weight").data_ptr() == at[1]
                kept = self._ordered.get(at)
                wanted[at] = 0 if present else weight.nbytes
                if not (owner.is_ordered(shape) if present else kept and kept.packed_for[0] == shape):
                    missing[at] = Unordered(place, weight, shape)
        fits = self._nbytes_with(NOTHING) + sum(wanted.values()) <= self._budget_bytes
        return list(missing.values()) if fits and len(shapes) > 1 else []

    def order(self, missing: Iterable[Unordered], check: Callable[[], None] = lambda: None) -> None:
        """Does ahead what ``unordered`` found; ``check`` is called between weights and may raise to stop."""
        for one in missing:
            check()
            owner = self._owners[one.place]
            assert isinstance(owner, PackedConv2d)
            if parameter_of(owner, "weight").data_ptr() == one.weight.data_ptr():
                owner.pack(one.shape, owner.padding)
                continue
            self._ordered.pop((one.place, one.weight.data_ptr()), None)
            while self._ordered and self.nbytes + one.weight.nbytes > self._budget_bytes:
                self._ordered.popitem(last=False)
            if ordered := owner.order(one.weight, one.shape):
                self._ordered[one.place, one.weight.data_ptr()] = ordered

    def _on_host_with(self, key: SetKey, on_host: list[SetKey], parts: Mapping[SetKey, Any]) -> list[SetKey]:
        """What is in host memory once a set has moved there, as ``_move_to_host`` does it."""
        free = self._host_bytes - nbytes_of_parts(parts[key])
        if free < 0:
            return on_host
        while sum(nbytes_of_parts(parts[other]) for other in on_host) > free:
            on_host = on_host[1:]
        return [*on_host, key]

    def _fetch(self, key: SetKey) -> MergedSet | None:
        """A set from host memory, if it is there; what kept sets have of it already is shared with them."""
        if (stored := self._on_host.pop(key, None)) is None:
            return None
        known = self._known(stored.contributions)
        missing = {place: tensor for place, tensor in stored.tensors.items() if place not in known.tensors}
        self._make_room(sum(tensor.nbytes for tensor in missing.values()), known)
        fetched = {place: tensor.to(self._base[place].device, copy=True) for place, tensor in missing.items()}
        return MergedSet({**known.tensors, **fetched}, stored.contributions, stored.text_key)

    def _plan(self, key: SetKey, read: Callable[[str], LoraWeights]) -> "MergePlan":
        parts: dict[Parameter, list[tuple[Delta, float]]] = {}
        contributions: dict[Parameter, Contributions] = {}
        text_key: list[tuple[str, float]] = []
        for content_hash, unet, text, blocks in key:
            on_text = 0.0
            for place, delta in read(content_hash).deltas.items():
                strength = (unet if place[0] == "backbone" else text) * (_factor(blocks, place) if blocks else 1)
                if strength:
                    parts.setdefault(place, []).append((delta, strength))
                    contributions[place] = (*contributions.get(place, ()), (content_hash, strength))
                    on_text = on_text if place[0] == "backbone" else strength
            text_key += [(content_hash, on_text)] if on_text else []
        known = self._known(contributions)
        nbytes = {place: self._merged_bytes(self._base[place], changes) for place, changes in parts.items()}
        return MergePlan(parts, contributions, tuple(text_key), known, nbytes)

    def _merged_bytes(self, base: torch.Tensor | Stored, parts: Sequence[tuple[Delta, float]]) -> int:
        return nbytes_beside(base, parts) if isinstance(base, Stored) else base.nbytes

    def _known(self, contributions: Mapping[Parameter, Contributions]) -> MergedSet:
        """The tensors that kept sets have already: where the same LoRAs went in at the same strengths."""
        known: dict[Parameter, torch.Tensor | Pair] = {}
        for other in self._sets.values():
            for place, own in contributions.items():
                if other.contributions.get(place) == own:
                    known[place] = other.tensors[place]
        return MergedSet(known)

    def _merge(self, plan: "MergePlan", check: Callable[[], None] = lambda: None) -> MergedSet:
        """The set's tensors: the known ones, and the others computed."""
        self._make_room(plan.new_bytes, plan.known)
        tensors: dict[Parameter, torch.Tensor | Pair] = {}
        with torch.no_grad():
            for place, parts in plan.parts.items():
                check()
                if (tensor := plan.known.tensors.get(place)) is None:
                    with self._whole(place) as base:
                        if isinstance(base, Stored):
                            tensor = beside(base, parts, self._device or base.device)
                        else:
                            tensor = merge(base.to(self._device or base.device), parts).to(base.device)
                tensors[place] = tensor
        return MergedSet(tensors, plan.contributions, plan.text_key)

    def _whole(self, place: Parameter) -> AbstractContextManager[torch.Tensor | Stored]:
        """A weight of the base, to be read."""
        owner = self._owners[place]
        if isinstance(owner, PackedConv2d):
            owner.keep()
        return here(owner, self._base[place]) if place[2] == "weight" else nullcontext(self._base[place])

    @property
    def _ordered_bytes(self) -> int:
        return sum(ordered.nbytes for ordered in self._ordered.values())

    def _nbytes_with(self, more: MergedSet) -> int:
        return nbytes_of([more, self._installed, *self._sets.values()])

    def _make_room(self, new_bytes: int, reused: MergedSet) -> None:
        """Drops the least recently used sets, but not the installed one, until ``new_bytes`` more fit beside the rest.

        All ordered copies go before the first set does. ``reused`` stays in memory whatever is dropped.
        """
        if self.nbytes + new_bytes > self._budget_bytes:
            self._ordered.clear()
        while self._nbytes_with(reused) + new_bytes > self._budget_bytes:
            key = next((key for key in self._sets if key != self._key), None)
            if key is None:
                return
            self._move_to_host(key, self._sets.pop(key))

    def _move_to_host(self, key: SetKey, merged: MergedSet) -> None:
        nbytes = nbytes_of([merged])
        if nbytes > self._host_bytes:
            return
        while nbytes_of(self._on_host.values()) + nbytes > self._host_bytes:
            self._on_host.popitem(last=False)
        tensors = {place: tensor.to("cpu", copy=True) for place, tensor in merged.tensors.items()}
        self._on_host[key] = MergedSet(tensors, merged.contributions, merged.text_key)

    def _install(self, key: SetKey, target: MergedSet) -> None:
        """Touches the parameters in which the two sets differ, and no others."""
        before, self._key, self._installed = self._installed, key, target
        changed: dict[Parameter, torch.Tensor | Stored | Pair]
        changed = {place: self._base[place] for place in before.tensors.keys() - target.tensors.keys()}
        changed |= {place: new for place, new in target.tensors.items() if before.tensors.get(place) is not new}
        former = [(place, self._put(place, tensor)) for place, tensor in changed.items()]
        if replaced := [(place, ordered) for place, ordered in former if ordered]:
            self._keep_ordered(before, replaced)

    def _keep_ordered(self, before: MergedSet, replaced: Sequence[tuple[Parameter, Ordered]]) -> None:
        """Those of weights that stay in memory anyway, as far as there is room; the oldest make room."""
        free = self._budget_bytes - self.nbytes
        for place, ordered in replaced:
            weight = before.tensors.get(place)
            if weight is not None and not any(kept.tensors.get(place) is weight for kept in self._sets.values()):
                continue
            while free < ordered.nbytes and self._ordered:
                free += self._ordered.popitem(last=False)[1].nbytes
            if free >= ordered.nbytes:
                self._ordered[place, ordered.weight.data_ptr()] = ordered
                free -= ordered.nbytes

    def _restore(self) -> None:
        """The base, whatever state a failure left."""
        self._key, self._installed = (), NOTHING
        for place, tensor in self._base.items():
            self._put(place, tensor)

    def _put(self, place: Parameter, tensor: torch.Tensor | Stored | Pair) -> Ordered | None:
        """The one way a weight changes; gives the ordered copy of what it was, if it had one."""
        owner, base = self._owners[place], self._base[place]
        if isinstance(base, Stored) or isinstance(tensor, Stored | Pair):
            assert isinstance(owner, StoredLayer)
            owner.change(None if isinstance(tensor, Stored) else tensor)
            return None
        parameter = parameter_of(owner, place[2])
        if not self._in_place:
            if isinstance(owner, PackedConv2d) and place[2] == "weight":
                return owner.exchange(tensor, self._ordered.pop((place, tensor.data_ptr()), None))
            parameter.data = tensor
            return None
        if base.data_ptr() == parameter.data_ptr():  # never overwritten so far
            if tensor is base:
                return None
            self._base[place] = base.clone()
        with torch.no_grad():
            parameter.copy_(tensor)
        return None


def _factor(blocks: BlockWeights, place: Parameter) -> float:
    component, path, _ = place
    return blocks.factor(block_of(path) if component == "backbone" else "BASE", path)
