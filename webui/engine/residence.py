"""How a model comes to be drawn with, where its parts rest meanwhile, and what goes when memory ends."""

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from webui.core.engine_options import EngineOptions
from webui.core.errors import show
from webui.core.events import Loading
from webui.core.files import ControlFile, ModelFile, VaeFile
from webui.core.memory import PLAN_WORDS, PLANS, STREAMING, TOLD_BYTES, Need, Room, in_gib, rests_in_files
from webui.core.uses import stand_ins
from webui.core.weight_files import stamp
from webui.engine.cpu.install import install
from webui.engine.cpu.int8 import unfit
from webui.engine.devices import free_bytes, release_frames, release_memory, spare_bytes, trim_heap
from webui.engine.families.base import CannotLoad
from webui.engine.families.loading import ModelLoader, PartKey, check_unchanged, read_vae
from webui.engine.families.model import Model
from webui.engine.kept import HOST, Kept
from webui.engine.lora.switcher import LoraSwitcher
from webui.engine.resident import LoadedControl, Resident
from webui.engine.streaming import pin

REPORT_EVERY_S = 0.1
DECODE_TENSORS = 10
"""The decoder's peak in tensors of the picture's size and its widest channels at that size (measured: 8 to 10)."""
STRIP_TENSORS = 4
"""The same where it goes in strips, whose memory is given back row by row (measured: 3 to 4)."""
TRIM_FROM_BYTES = 48 * 2**20
"""A decoder that needs more than this on a CPU finds the heap trimmed, which takes some tens of milliseconds."""


class Residence:
    """Has one model at a time drawn with on one device, and moves its parts as the memory plan says."""

    def __init__(self, options: EngineOptions, device: torch.device, dtype: torch.dtype) -> None:
        self.options, self.device, self.dtype = options, device, dtype
        self._rests_in_files = rests_in_files(device.type, options.memory)
        self.kept = Kept(device, options.model_cache_bytes, self._rests_in_files)
        self.no_int8 = unfit(device, dtype, options)
        self._tiles = False
        self._read_bytes_s: float | None = None

    @property
    def room(self) -> Room:
        """What the device has for models; from any thread."""
        free = free_bytes(self.device) + spare_bytes(self.device) + self.kept.nbytes(self.device)
        return Room(self.device.type, free, self.dtype.itemsize, self.options.memory, self._read_bytes_s, self.no_int8)

    def use_int8(self, wanted: bool) -> None:
        """Has the model compute in 8 bits where that pays, or not any more."""
        if self._resident:
            self._resident.use_int8(wanted)

    @property
    def _resident(self) -> Resident | None:
        return self.kept.active

    @property
    def model(self) -> Model | None:
        """The model that is drawn with, if any."""
        return self._resident.model if self._resident else None

    @property
    def models(self) -> list[str]:
        """The names of all that need no reading to be drawn with."""
        return self.kept.names

    @property
    def loras(self) -> LoraSwitcher | None:
        """Its LoRAs."""
        return self._resident.loras if self._resident else None

    @property
    def lenders(self) -> tuple[ModelFile, ...]:
        """The models whose parts stand in for what the resident one's file lacks."""
        return self._resident.lenders if self._resident else ()

    @property
    def faster(self) -> Any:
        """What runs its UNet faster, a ``CompiledUNet``, ``GraphedUNet`` or ``TracedUNet``, if anything does."""
        return self._resident.faster if self._resident else None

    @property
    def small_weights(self) -> str:
        """The format in which the UNet's weights stay in memory, if that is not the one that it computes in."""
        checkpoint = self._resident.model.file.checkpoint if self._resident else None
        return checkpoint.small_weights if checkpoint else ""

    @property
    def plan(self) -> str:
        """How its weights rest."""
        return self._resident.plan if self._resident else PLANS[0]

    def load(
        self, file: ModelFile, lenders: Iterable[ModelFile], check: Callable[[], None], step_bytes: int = 0
    ) -> Iterator[Loading]:
        """Makes this file the model that is drawn with, with what ``lenders`` lend it; yields how far it is.

        ``step_bytes`` are what a step of the job takes beside the weights.

        What is in memory is not read again. Where memory holds both, the former model stays until the new one is
        whole; where it does not, it goes first and comes back if the new one fails. ``check`` is called between tensors
        and may raise to stop. Raises CannotLoad.
        """
        lenders = tuple(lenders)
        if (known := self.kept.model(file)) and known.lenders == stand_ins(file, lenders):
            self._draw_with(known)
            self._grow(step_bytes)
            return
        yield Loading(f"Loading {file.name}", 0.0)
        loader = ModelLoader(file, lenders, self.dtype, self._rests_in_files)
        for used in (file, *loader.lenders):
            check_unchanged(used)
        there = self._reuse(loader)
        release_memory(self.device)  # what torch keeps of freed memory has room for it, too
        need = Need(loader.part_bytes, loader.layer_bytes, step_bytes)
        placing = self._choose_plan(loader, need, self.room.free_bytes)
        if need.weight_bytes >= TOLD_BYTES:
            yield Loading(need.told(file.name, self.device.type, placing), 0.0)
        needed = need.on_device(placing) - there
        self.kept.make_room(self.device, needed, loader.keys.values())
        if self._resident and needed > free_bytes(self.device):
            yield from self._exchange(loader, need, placing, check)
        else:
            yield from self._read(loader, need, placing, check)

    def _reuse(self, loader: ModelLoader) -> int:
        """Gives it the parts that are in memory; says how many bytes of them are on the device."""
        known = self.kept.find(loader.keys)
        for part, kept in known.items():
            loader.use(part, kept.module)
        return sum(kept.nbytes for kept in known.values() if kept.device == self.device)

    def _exchange(self, loader: ModelLoader, need: Need, placing: str, check: Callable[[], None]) -> Iterator[Loading]:
        """The former model goes first, and comes back if the new one fails; only one of them is ever held."""
        assert self._resident
        resident = self._resident
        former, lenders, former_placing = resident.model.file, resident.lenders, resident.plan
        former_need = resident.need
        del resident
        self.kept.clear(besides=loader.keys.values())
        failed: BaseException
        try:
            yield from self._read(loader, need, placing, check)
            return
        except BaseException as error:
            failed = error
        release_frames(failed)
        again = ModelLoader(former, lenders, self.dtype, self._rests_in_files)
        self._reuse(again)
        for _ in self._read(again, former_need, former_placing):
            pass
        raise failed

    def _make_switcher(self, model: Model, placing: str) -> LoraSwitcher:
        in_place = self.options.cuda_graphs and placing == PLANS[0]
        budget_bytes = self.options.lora_cache_bytes
        if budget_bytes is None:  # what is not drawn with would make room
            budget_bytes = (free_bytes(self.device) + self.kept.idle_bytes(self.device)) // 4
        return LoraSwitcher(model, self.device, budget_bytes, in_place)

    def drop(self) -> None:
        """Lets go of all models."""
        self.kept.clear()

    def _read(
        self, loader: ModelLoader, need: Need, placing: str, check: Callable[[], None] = lambda: None
    ) -> Iterator[Loading]:
        file, reading = loader.file, loader.read(lambda part: self._place(part, placing))
        told, started, file_bytes = -math.inf, time.monotonic(), loader.file_bytes
        while True:
            check()
            try:
                progress = next(reading)
            except StopIteration as stop:
                modules = stop.value
                break
            whole = progress.done_bytes == progress.total_bytes
            if time.monotonic() - told < REPORT_EVERY_S and not whole:
                continue
            told = time.monotonic()
            done, total = (count / 2**30 for count in (progress.done_bytes, progress.total_bytes))
            share = progress.done_bytes / progress.total_bytes
            yield Loading(f"Loading {file.name}: {progress.part}, {done:.2f} of {total:.2f} GiB", share)
        if file_bytes:
            self._read_bytes_s = file_bytes / max(time.monotonic() - started, 1e-3)
        self.kept.pause()
        read = [part for part in loader.keys if part not in self.kept.find(loader.keys)]
        for part, key in loader.keys.items():
            self.kept.put(key, modules[part], loader.part_bytes[part], self._place(part, placing))
        model = loader.assemble(modules, self.device)
        if self.device.type == "cuda" and model.family.is_unet:
            torch.nn.Module.to(model.network, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._pin(model, placing)
        loras = self._make_switcher(model, placing)
        for part in {"backbone", "vae"}.intersection(read):
            self._install(modules[part], placing)
        resident = Resident(model, loras, placing, placing, need, model.vae, dict(loader.keys), tuple(loader.lenders))
        self.kept.add(resident)
        self._draw_with(resident)

    def _draw_with(self, resident: Resident) -> None:
        begins = resident is not self._resident
        self.kept.draw_with(resident)
        if begins:
            self._hook(resident)
            resident.speed_up(self.options)

    def _hook(self, resident: Resident) -> None:
        if resident.plan == "blocks":
            self.kept.make_room(self.device, math.inf)
        release_memory(self.device)
        resident.limit_bytes = resident.need.block_bytes(free_bytes(self.device))
        resident.hook(self.device)

    def _pin(self, model: Model, placing: str) -> None:
        """Has what a card will copy again and again lie where it does so by itself, where there is memory for that."""
        room = free_bytes(HOST) > 2 * sum(weight.nbytes for weight in model.network.parameters())
        if self.device.type == "cuda" and placing in STREAMING and room:
            pin(model.network)

    def _install(self, network: torch.nn.Module, placing: str) -> None:
        """Has a network that computes on the CPU do so the CPU's way; its weights stay what they are."""
        if self.device.type == "cpu" and self.options.cpu_kernels:
            install(network, low_memory=placing == PLANS[0] and not self.options.compile)

    def _place(self, part: str, placing: str) -> torch.device:
        """Where a part rests."""
        stays = placing == "resident" or (placing == "offload" and part == "backbone")
        return self.device if stays else torch.device("cpu")

    def _choose_plan(self, loader: ModelLoader, need: Need, free: int) -> str:
        """The largest that fits, or the one that was asked for; CannotLoad with the numbers where nothing does."""
        room = replace(self.room, free_bytes=free)
        if (fitting := need.choose(room.free_bytes, room.plans)) is None:
            raise CannotLoad(need.refusal(loader.file.name, room))
        if fitting != PLANS[0] and self.device != HOST:
            self.kept.make_room(HOST, loader.memory_bytes, loader.keys.values())
            there = sum(part.nbytes for part in self.kept.find(loader.keys).values() if part.device == HOST)
            if loader.memory_bytes > free_bytes(HOST) + there:
                needed, rest = in_gib(loader.memory_bytes), in_gib(free_bytes(HOST))
                raise CannotLoad(
                    f"Model “{show(loader.file.name)}” needs {needed} of the computer's memory, and {rest} are free."
                )
        return fitting

    def find_damage(self) -> str:
        """Whether the resident model's files hold numbers that are none, in words; reads them all."""
        assert self._resident
        file = self._resident.model.file
        damage = ModelLoader(file, self._resident.lenders, self.dtype).find_not_finite()
        return damage and f"model {file.name!r}: {damage}"

    def shrink(self) -> str | None:
        """Goes to the next smaller memory plan until the job's end; the words for it, None where there is none."""
        if self._resident is None:
            return None
        self.kept.make_room(self.device, math.inf)
        position = PLANS.index(self._resident.plan) + 1
        if self.device.type != "cpu" and position < len(PLANS):
            self._move_to(PLANS[position])
        elif self._tiles:
            return None
        self._tiles = True
        return PLAN_WORDS[self._resident.plan] if self.device.type != "cpu" else "decoding in tiles"

    def end_job(self) -> None:
        """Takes what is not in use off the device; the next job may tile less."""
        self._tiles = False
        self.rest()

    def _grow(self, step_bytes: int) -> None:
        """Back to the plan that the model was loaded under, where memory allows it again; room for larger steps."""
        resident = self._resident
        assert resident
        grown = step_bytes > resident.need.step_bytes
        resident.need = replace(resident.need, step_bytes=step_bytes)
        if resident.plan != resident.loaded_as:
            release_memory(self.device)
            if resident.need.on_device(resident.loaded_as) < free_bytes(self.device):
                self._move_to(resident.loaded_as)
        elif grown and resident.plan == "blocks":
            resident.unhook()
            self._hook(resident)

    def _move_to(self, placing: str) -> None:
        resident = self._resident
        assert resident
        resident.unhook()
        resident.slow_down()
        resident.loras.switch(())  # the model's own tensors are what moves
        for part, key in resident.parts.items():
            self.kept.move(key, self._place(part, placing))
        resident.plan = placing
        self._pin(resident.model, placing)
        resident.loras = self._make_switcher(resident.model, placing)
        self._hook(resident)
        resident.speed_up(self.options)

    def rest(self) -> None:
        """Takes what is not in use off the device; to be called after encoding and decoding."""
        if self._resident:
            self._resident.rest()
        self.kept.give_back(stays=self.plan == PLANS[0])

    @contextmanager
    def unhooked(self) -> Iterator[None]:
        """The plain modules, where they rest: for changing their weights."""
        assert self._resident
        self._resident.unhook()
        try:
            yield
        finally:
            self._resident.hook(self.device)

    def use_vae(self, file: VaeFile | None) -> None:
        """Exchanges the model's autoencoder for the one in ``file``, or its own again; raises CannotLoad."""
        resident = self._resident
        assert resident
        if resident.vae == file:
            return
        vae, key = self._find_vae(file, resident) if file else (resident.own_vae, None)
        resident.parts = {part: own for part, own in resident.parts.items() if part != "other vae"}
        resident.parts |= {"other vae": key} if key else {}
        with self.unhooked():
            resident.model.vae, resident.vae = vae, file

    def _find_vae(self, file: VaeFile, resident: Resident) -> tuple[Any, PartKey]:
        """The autoencoder in a file, and what it is kept by."""
        checkpoint = resident.model.file.checkpoint
        assert checkpoint
        key = (file, checkpoint.family, self.dtype, stamp(file.path) if file.path.is_file() else 0)
        device = self._place("vae", resident.plan)
        if known := self.kept.find({"vae": key}):
            vae: Any = known["vae"].module
            self.kept.move(key, device)
        else:
            vae = read_vae(file, checkpoint, self.dtype, device)
            self.kept.put(key, vae, sum(weight.nbytes for weight in vae.parameters()), device)
            self._install(vae, resident.plan)
        return vae, key

    def use_controls(
        self, files: Iterable[ControlFile], check: Callable[[], None]
    ) -> Generator[Loading, None, Mapping[ControlFile, LoadedControl]]:
        """Has these, and no others, be drawn with, too, under a smaller plan where it takes that; raises CannotLoad."""
        resident, stamps = self._resident, {file: stamp(file.path) for file in files}
        assert resident
        if {file: known.stamp for file, known in resident.controls.items()} == stamps:
            return resident.controls
        from webui.engine.controls.reading import ControlLoader, read_all

        loaders = [ControlLoader(file, resident.model.file, self.dtype) for file in stamps]
        resident.unhook()
        resident.take_controls({})
        release_memory(self.device)
        need = resident.need = replace(resident.need, control_bytes=sum(loader.nbytes for loader in loaders))
        room, own = self.room, PLANS.index(resident.plan)
        choices = tuple(plan for plan in room.plans if PLANS.index(plan) >= own) or (resident.plan,)
        try:
            if (plan := need.choose(room.free_bytes, choices)) is None:
                raise CannotLoad(need.refusal(resident.model.file.name, room), "controls")
            if plan != resident.plan:
                self._move_to(plan)
                resident.unhook()
            device = self._place("control", plan)
            keys = {loader.key: loader.nbytes for loader in loaders if loader.key not in self.kept}
            self.kept.make_room(device, sum(keys.values()), [loader.key for loader in loaders])
            modules = yield from read_all(loaders, self.kept, device, check, partial(self._install, placing=plan))
            found = zip(stamps.items(), modules, loaders, strict=True)
            resident.take_controls({file: LoadedControl(net, k.key, at, k.unread) for (file, at), net, k in found})
        finally:
            self._hook(resident)
        return resident.controls

    def tile(self, width: int, height: int) -> bool:
        """Lets the autoencoder work in tiles where a picture of this size in one piece would not fit; says whether."""
        assert self._resident
        needed = self._decoder_bytes(width, height)
        self.kept.make_room(self.device, needed)
        self._resident.model.autoencoder.use_tiling = tiles = self._tiles or needed > free_bytes(self.device)
        return tiles

    def make_room_to_decode(self, width: int, height: int) -> None:
        """Keeps what the steps have left behind from adding to a large decoder's peak."""
        if self.device.type == "cpu" and self._decoder_bytes(width, height) > TRIM_FROM_BYTES:
            trim_heap()

    def _decoder_bytes(self, width: int, height: int) -> int:
        assert self._resident
        tensors = STRIP_TENSORS if self.device.type == "cpu" and self.options.cpu_kernels else DECODE_TENSORS
        return width * height * self._resident.model.autoencoder.px_bytes * tensors
