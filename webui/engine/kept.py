"""``Kept``: the models that are in memory, part by part, and which of it goes where room is needed."""

import math
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch

from webui.core.files import ModelFile
from webui.core.memory import HEADROOM
from webui.engine.devices import free_bytes, release_memory, total_bytes, trim_heap
from webui.engine.families.loading import PartKey
from webui.engine.lora.switcher import LoraSwitcher
from webui.engine.resident import Resident
from webui.engine.weights import WeightLoader

FREE_SHARE = 1 / 4
"""Of all memory: so much stays free where nobody said what models may take that nothing is drawn with."""
HOST = torch.device("cpu")


@dataclass
class Part:
    """A network with its weights: how many bytes they are, and where they rest."""

    module: torch.nn.Module
    nbytes: int
    device: torch.device


class Kept:
    """One model is drawn with, on ``device``; of others there is what has room.

    Of what is not drawn with, merged LoRAs go first, then the parts that were used least recently; from a device with
    memory of its own they go to the computer's, while a quarter of that stays free. A part is there once, whichever
    models are made of it. ``limit_bytes`` bounds all that is not drawn with; None is what leaves ``FREE_SHARE`` free.
    With ``rests_in_files`` what is borrowed is in memory a layer at a time, as it computes.
    """

    def __init__(self, device: torch.device, limit_bytes: int | None, rests_in_files: bool = False) -> None:
        self._device, self._limit_bytes, self._rests_in_files = device, limit_bytes, rests_in_files
        self.active: Resident | None = None
        self._models: OrderedDict[ModelFile, Resident] = OrderedDict()  # least recently used first, as the parts
        self._parts: OrderedDict[PartKey, Part] = OrderedDict()
        self._borrowed: set[PartKey] = set()

    @property
    def names(self) -> list[str]:
        """The models that are ready to be drawn with, the newest last."""
        return [file.name for file in list(self._models)]

    def model(self, file: ModelFile) -> Resident | None:
        """The model made from this file, if it is there."""
        return self._models.get(file)

    def find(self, keys: Mapping[str, PartKey]) -> dict[str, Part]:
        """Those of the parts that are there."""
        return {part: self._parts[key] for part, key in keys.items() if key in self._parts}

    def __contains__(self, key: PartKey) -> bool:
        """Whether a part is there."""
        return key in self._parts

    def put(self, key: PartKey, module: torch.nn.Module, nbytes: int, device: torch.device) -> None:
        """A part that rests on ``device`` now, or one that was there, which goes to it."""
        if key in self._parts:
            self.move(key, device)
        else:
            self._parts[key] = Part(module, nbytes, device)

    def move(self, key: PartKey, device: torch.device) -> None:
        """A part to another device; models that are not drawn with are not made of it any more."""
        part = self._parts[key]
        if part.device != device:
            self._take_apart(key)
            part.module.to(device)
            part.device = device

    def borrow(self, key: PartKey, loader: WeightLoader, dtype: torch.dtype) -> torch.nn.Module:
        """A network that is needed for a moment, on the device if it has room there, else in the computer's memory.

        Raises what reading raises.
        """
        if self._rests_in_files:
            loader.leave_in_files(dtype)
        nbytes = math.ceil(loader.nbytes(dtype) * HEADROOM)
        self.make_room(self._device, nbytes, [key])
        device = self._device if free_bytes(self._device) >= nbytes else HOST
        self._borrowed.add(key)
        if key in self._parts:
            self.move(key, device)
        else:
            own = torch.float32 if (device.type, dtype) == ("cpu", torch.float16) else dtype
            with torch.inference_mode(False):  # its weights may be exchanged
                for _ in loader.read(own, device):
                    pass
            self.put(key, loader.module, nbytes, device)
        return self._parts[key].module

    def give_back(self, stays: bool) -> None:
        """What was borrowed is not needed any more; unless it ``stays``, it leaves the device."""
        if not self._borrowed:
            return
        for key in self._borrowed & self._parts.keys():
            if not stays:
                self.move(key, HOST)
        self._borrowed.clear()
        self.trim()

    def add(self, resident: Resident) -> None:
        """A model whose parts are here; what was made from its file before that changed goes."""
        file = resident.model.file
        for former in [known for known in self._models if known.path == file.path]:
            stale = self._models.pop(former)
            stale.slow_down()
            in_use = {key for other in (resident, *self._models.values()) for key in other.parts.values()}
            for key in set(stale.parts.values()) - in_use:
                self._parts.pop(key, None)
        self._models[file] = resident

    def draw_with(self, resident: Resident) -> None:
        """This is the model from now on, and what there is no room for goes."""
        if resident is not self.active:
            self.pause()
            self.active = resident
        self._models.move_to_end(resident.model.file)
        for key in resident.parts.values():
            self._parts.move_to_end(key)
        self.trim()

    def pause(self) -> None:
        """Nothing is drawn with any more; all is kept."""
        if self.active:
            self.active.pause()
        self.active = None

    def clear(self, besides: Collection[PartKey] = ()) -> None:
        """Lets go of all, but for some parts."""
        self.pause()
        for resident in self._models.values():
            resident.slow_down()
        self._models.clear()
        for key in self._parts.keys() - set(besides):
            del self._parts[key]
        self._release()

    def nbytes(self, device: torch.device) -> int:
        """What models take of a device's memory."""
        return sum(part.nbytes for part in list(self._parts.values()) if part.device == device)  # asked by others, too

    def idle_bytes(self, device: torch.device | None = None) -> int:
        """What of it, or of all memory, nothing is drawn with, merged LoRAs on the device included."""
        loras = sum(loras.cache.nbytes for loras in self._idle_loras()) if device in (None, self._device) else 0
        return loras + sum(self._parts[key].nbytes for key in self._idle(device))

    def make_room(self, device: torch.device, needed: float, besides: Collection[PartKey] = ()) -> None:
        """Has what is not drawn with leave the device until so many bytes are free there, as far as there is such.

        What torch keeps of freed memory goes first: others, and whoever asks what is free, do not see it.
        """
        if device != HOST and free_bytes(device) < needed:
            release_memory(device)
        while free_bytes(device) < needed and self._give_up(device, besides):
            self._release()

    def trim(self) -> None:
        """Keeps what is not drawn with within its bounds."""
        if self._limit_bytes is None:
            for device in {self._device, HOST}:
                self.make_room(device, total_bytes(device) * FREE_SHARE)
            return
        while self.idle_bytes() > self._limit_bytes:
            if not self._give_up(HOST):
                self._give_up(self._device, to_host=False)
            self._release()

    def _release(self) -> None:
        release_memory(self._device)
        trim_heap()  # it keeps what a model's smaller tensors leave, and free memory would not be seen

    def _give_up(self, device: torch.device, besides: Collection[PartKey] = (), to_host: bool = True) -> bool:
        """The next of what may go from a device; False where there is none."""
        if device == self._device and (loras := next(self._idle_loras(), None)):
            loras.cache.clear()
            return True
        if (key := next(self._idle(device, besides), None)) is None:
            return False
        host_bytes = self._parts[key].nbytes + total_bytes(HOST) * FREE_SHARE
        if to_host and device != HOST and free_bytes(HOST) > host_bytes:
            self.move(key, HOST)
        else:
            self._take_apart(key)
            del self._parts[key]
        return True

    def _take_apart(self, key: PartKey) -> None:
        """The models that are made of this part, but not the one that is drawn with: their LoRAs go with them."""
        for file, resident in list(self._models.items()):
            if resident is not self.active and key in resident.parts.values():
                resident.slow_down()
                del self._models[file]

    def _idle(self, device: torch.device | None = None, besides: Collection[PartKey] = ()) -> Iterator[PartKey]:
        """The parts that nothing is drawn with, the least recently used first; where a device is given, its own."""
        in_use = {*besides, *(self.active.parts.values() if self.active else ())}
        return (
            key for key, part in self._parts.items() if key not in in_use and (device is None or part.device == device)
        )

    def _idle_loras(self) -> Iterator[LoraSwitcher]:
        others = (resident.loras for resident in self._models.values() if resident is not self.active)
        return (loras for loras in others if loras.cache.nbytes)
