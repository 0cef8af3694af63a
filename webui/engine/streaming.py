"""Networks that rest in the computer's memory and come to a device a block at a time, the next while one computes.

A block is computed with from memory that is taken once: two slots that blocks take turns in, and room of its own for
each that stays. Nothing comes back: what is on the device is a copy, and the network's own tensors rest meanwhile.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from webui.core.memory import SLOTS
from webui.engine.cpu.conv import PackedConv2d, parameter_of
from webui.engine.weights.layers import StoredLayer

ALIGNMENT = 256
"""Of each tensor in a block, in bytes: any format may begin there, and copies are fast."""
LARGEST_SHARE = 4
"""A block is this part of the memory at most, where it can be."""

Place = tuple[nn.Module, str]


class Unit:
    """Tensors that come and go together, ``own`` by place, as they rest."""

    def __init__(self, places: list[Place]) -> None:
        for module, _ in places:
            if isinstance(module, PackedConv2d):
                module.keep()
        self.own = {place: parameter_of(*place).data for place in places}
        self.nbytes = sum(_aligned(tensor) for tensor in self.own.values())
        self.came: Any = None
        self.used: Any = None

    def put(self, place: Place, tensor: torch.Tensor) -> None:
        """The one way a weight changes place."""
        module, name = place
        if isinstance(module, PackedConv2d) and name == "weight":
            module.exchange(tensor)
        else:
            parameter_of(module, name).data = tensor

    def leave(self) -> None:
        """The tensors that rest are the network's again."""
        for place, tensor in self.own.items():
            self.put(place, tensor)

    def copies(self, memory: torch.Tensor) -> Iterator[tuple[Place, torch.Tensor]]:
        """Where in ``memory`` (bytes, uint8) each tensor is to be, as it is laid out where it rests."""
        begin = 0
        for place, tensor in self.own.items():
            flat = memory[begin : begin + tensor.nbytes].view(tensor.dtype)
            yield place, flat.as_strided(tensor.shape, _dense_strides(tensor))
            begin += _aligned(tensor)


class Space:
    """The memory of a device that networks take turns to hold: ``limit_bytes`` of it. One has it at a time.

    With ``stays`` as many blocks as fit are there until another network's turn; without, none is.
    """

    def __init__(self, device: torch.device, limit_bytes: float = math.inf, stays: bool = True) -> None:
        self.device, self.limit_bytes, self.stays = device, limit_bytes, stays
        self._holder: Streamed | None = None

    def take(self, nbytes: int) -> torch.Tensor:
        """So much memory, (bytes,), uint8."""
        with torch.inference_mode(False):
            return torch.empty(nbytes, dtype=torch.uint8, device=self.device)

    def enter(self, network: "Streamed") -> bool:
        """Gives it the memory; whether another network had it, or none."""
        if self._holder is network:
            return False
        if self._holder:
            self._holder.rest()
        self._holder = network
        return True

    def left(self, network: "Streamed") -> None:
        """It has nothing there any more."""
        if self._holder is network:
            self._holder = None


class Streamed:
    """A network whose modules find their weights on the device of ``space`` whenever they are called.

    Blocks are modules as large as a quarter of the memory allows, or a layer where that is larger; what stays is spread
    evenly among what comes and goes. On CUDA and XPU blocks come on a stream of their own; each waits for what was
    computed with the one before in its slot.
    """

    def __init__(self, network: nn.Module, space: Space) -> None:
        self._space, device = space, space.device
        always, groups = _split(network, _most(network, space))
        seen = set[int]()
        first, *others = (_unseen(places, seen) for places in (always, *groups))
        self._always, self._units = Unit(first), [Unit(places) for places in others if places]
        self._staying = self._choose_staying()
        self._memory: dict[Unit, torch.Tensor] = {}
        self._slots: dict[Unit, torch.Tensor] = {}  # the one that was needed or brought last at the end
        self._after: dict[Unit, Unit] = dict(zip(self._units, [*self._units[1:], *self._units[:1]], strict=True))
        self._current: Unit | None = None
        self._backend: Any = torch.get_device_module(device) if device.type in ("cuda", "xpu") else None
        self._stream = self._backend.Stream(device) if self._backend else None
        unit_of = {id(parameter_of(*place)): unit for unit in (self._always, *self._units) for place in unit.own}
        self._hooks = [
            module.register_forward_pre_hook(partial(self._need, unit_of[id(parameter)]))
            for module in network.modules()
            if (parameter := _any_own(module)) is not None
        ]
        self._buffers = [
            (module, name, buffer)
            for module in network.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        for module, name, buffer in self._buffers:
            module._buffers[name] = buffer.to(device)

    @property
    def largest_bytes(self) -> int:
        """Of its blocks."""
        return max((unit.nbytes for unit in self._units), default=0)

    def unhook(self) -> None:
        """The plain network, where it rests."""
        self.rest()
        for hook in self._hooks:
            hook.remove()
        for module, name, buffer in self._buffers:
            module._buffers[name] = buffer

    def rest(self) -> None:
        """Nothing of it is on the device any more."""
        for unit in self._memory:
            unit.leave()
        if self._stream is not None:
            for memory in self._memory.values():
                memory.record_stream(self._stream)
        self._memory.clear()
        self._slots.clear()
        self._current = None
        self._space.left(self)

    def _choose_staying(self) -> set[Unit]:
        """As many as there is memory for beside the slots, one after another at equal distances."""
        if not self._space.stays:
            return set()
        free = self._space.limit_bytes - self._always.nbytes
        total = sum(unit.nbytes for unit in self._units)
        if total <= free:
            return set(self._units)
        free -= SLOTS * self.largest_bytes
        staying, share, gone = set[Unit](), free / total, 0.0
        for unit in self._units:
            gone += unit.nbytes * share
            if gone >= unit.nbytes and unit.nbytes <= free:
                staying.add(unit)
                gone, free = gone - unit.nbytes, free - unit.nbytes
        return staying

    def _need(self, unit: Unit, *_: object) -> None:
        """Before a module is called: its weights are there for all that is computed from here on."""
        if unit is self._current:
            return
        if self._space.enter(self):
            self._bring(self._always)
            self._arrive(self._always)
        if unit is self._always:
            return
        if unit not in self._memory:
            self._bring(unit)
        self._arrive(unit)
        if unit in self._slots:
            self._slots[unit] = self._slots.pop(unit)
        if self._current:
            self._after[self._current] = unit
            self._current.used = self._record(None)
        self._current = unit
        if following := self._following(unit):
            self._bring(following)

    def _following(self, unit: Unit) -> Unit | None:
        """The next that is not there, by what came after what the last time."""
        for _ in self._units:
            unit = self._after[unit]
            if unit not in self._memory:
                return unit
            if unit not in self._staying:
                return None
        return None

    def _bring(self, unit: Unit) -> None:
        """Begins to copy it, into a slot or into room of its own."""
        memory = self._find_room(unit)
        self._memory[unit] = memory
        with torch.inference_mode(False), torch.no_grad():
            if self._stream is None:
                self._copy(unit, memory)
                return
            with self._backend.stream(self._stream):
                self._copy(unit, memory)
            unit.came = self._record(self._stream)

    def _copy(self, unit: Unit, memory: torch.Tensor) -> None:
        for place, copy in unit.copies(memory):
            copy.copy_(unit.own[place], non_blocking=True)
            unit.put(place, copy)

    def _arrive(self, unit: Unit) -> None:
        if unit.came is not None:
            self._backend.current_stream(self._space.device).wait_event(unit.came)
            unit.came = None

    def _record(self, stream: Any) -> Any:
        """An event at the end of what a stream, or the one that computes, has to do so far."""
        if self._backend is None:
            return None
        event = self._backend.Event()
        event.record(stream or self._backend.current_stream(self._space.device))
        return event

    def _find_room(self, unit: Unit) -> torch.Tensor:
        """Memory for it; the copying stream waits until nothing computes with that any more."""
        if unit is self._always or unit in self._staying:
            memory = self._space.take(unit.nbytes)
            self._wait(None)
            return memory
        if len(self._slots) < SLOTS:
            memory = self._space.take(max(one.nbytes for one in self._units if one not in self._staying))
            self._wait(None)
        else:
            former = next(held for held in self._slots if held is not self._current)
            former.leave()
            del self._memory[former]
            memory = self._slots.pop(former)
            if former.used is not None:
                self._wait(former.used)
        self._slots[unit] = memory
        return memory

    def _wait(self, event: Any) -> None:
        """Has the copying stream wait for an event, or for all that is to be computed so far."""
        if self._stream is None:
            return
        if event is None:
            self._stream.wait_stream(self._backend.current_stream(self._space.device))
        else:
            self._stream.wait_event(event)


def pin(network: nn.Module) -> None:
    """Has its weights in memory that a card copies from by itself, where the system gives so much."""
    for module, name in _places(network):
        parameter = parameter_of(module, name)
        try:
            parameter.data = parameter.data.pin_memory()
        except RuntimeError:  # it comes more slowly then
            return


def _most(network: nn.Module, space: Space) -> float:
    """How large a block may be."""
    sizes = [_aligned(parameter_of(*place)) for place in _places(network)]
    if space.stays and sum(sizes) <= space.limit_bytes:
        return math.inf
    return max(space.limit_bytes / LARGEST_SHARE if space.stays else 0, *sizes)


def _split(network: nn.Module, most: float) -> tuple[list[Place], list[list[Place]]]:
    """What is always needed, and blocks of at most so many bytes or of one layer, in the network's own order."""
    children = (
        [] if isinstance(network, StoredLayer) else [child for child in network.children() if _has_weights(child)]
    )
    if not children or sum(_aligned(parameter_of(*place)) for place in _places(network)) <= most:
        return [], [list(_places(network))]
    own = [(network, name) for name, tensor in network.__dict__["_parameters"].items() if tensor is not None]
    always, groups = own, list[list[Place]]()
    apart = isinstance(network, nn.ModuleList | nn.Sequential)
    room = 0.0
    for child in children:
        more, found = _split(child, most)
        always = [*always, *more]
        for group in found:
            nbytes = sum(_aligned(parameter_of(*place)) for place in group)
            if groups and not apart and len(found) == 1 and nbytes <= room:
                groups[-1] = [*groups[-1], *group]
                room -= nbytes
            else:
                groups.append(group)
                room = most - nbytes if len(found) == 1 else 0.0
    return always, groups


def _has_weights(module: nn.Module) -> bool:
    return next(_places(module), None) is not None


def _places(network: nn.Module) -> Iterator[Place]:
    for module in network.modules():
        for name, parameter in module.__dict__["_parameters"].items():
            if parameter is not None:
                yield module, name


def _unseen(places: list[Place], seen: set[int]) -> list[Place]:
    """Those of tensors that were not seen: layers may share one."""
    found = {id(parameter_of(*place)): place for place in reversed(places)}
    new = [place for key, place in reversed(found.items()) if key not in seen]
    seen.update(found)
    return new


def _any_own(module: nn.Module) -> nn.Parameter | None:
    """A tensor of the module itself, or of the weight that it may read without calling that."""
    weight = module.stored if isinstance(module, StoredLayer) else module
    return next((tensor for tensor in weight.__dict__["_parameters"].values() if tensor is not None), None)


def _aligned(tensor: torch.Tensor) -> int:
    return math.ceil(tensor.nbytes / ALIGNMENT) * ALIGNMENT


def _dense_strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """Its own, where it has no gaps."""
    extent = 1 + sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.stride() if extent == tensor.numel() else torch.empty(tensor.shape, device="meta").stride()
