"""The one resident model: how it comes, where its parts rest, and what goes when it comes."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from webui.core.engine_options import EngineOptions
from webui.core.events import Loading
from webui.core.files import ModelFile, VaeFile
from webui.engine.cpu.install import install
from webui.engine.devices import free_bytes, release_frames, release_memory, trim_heap
from webui.engine.families import FAMILIES
from webui.engine.families.base import CannotLoad, Model
from webui.engine.families.loading import ModelLoader, check_unchanged, read_vae
from webui.engine.lora.switcher import LoraSwitcher

if TYPE_CHECKING:
    from webui.engine.speed.compiled import CompiledUNet
    from webui.engine.speed.graphed import GraphedUNet

REPORT_EVERY_S = 0.1
HEADROOM = 1.15
"""How much more than its weights a model must find free: what drawing takes besides is small beside them."""

PLANS = ("resident", "offload", "sequential")
PLAN_WORDS = {
    "resident": "the whole model on the device",
    "offload": "text encoder and autoencoder off the device while the UNet runs",
    "sequential": "every layer brought to the device as it is needed",
}
DECODE_TENSORS = 10
"""The decoder's peak in tensors of the picture's size and its widest channels at that size (measured: 8 to 10)."""
TRIM_FROM_BYTES = 128 * 2**20
"""A decoder that needs more than this on a CPU finds the heap trimmed, which takes some tens of milliseconds."""


@dataclass
class Resident:
    """A loaded model with its LoRAs, how its weights rest, and how many bytes they are."""

    model: Model
    loras: LoraSwitcher
    plan: str
    loaded_as: str
    nbytes: int
    own_vae: Any
    lenders: tuple[ModelFile, ...] = ()
    vae: VaeFile | None = None
    faster: "CompiledUNet | GraphedUNet | None" = None


class Residence:
    """Keeps one model on one device, exchanges it, and moves its parts as the memory plan says."""

    def __init__(self, options: EngineOptions, device: torch.device, dtype: torch.dtype) -> None:
        self.options, self.device, self.dtype = options, device, dtype
        self._resident: Resident | None = None
        self._hooks: list[Any] = []
        self._tiles = False

    @property
    def model(self) -> Model | None:
        """The resident model, if any."""
        return self._resident.model if self._resident else None

    @property
    def loras(self) -> LoraSwitcher | None:
        """Its LoRAs."""
        return self._resident.loras if self._resident else None

    @property
    def lenders(self) -> tuple[ModelFile, ...]:
        """The models whose parts stand in for what the resident one's file lacks."""
        return self._resident.lenders if self._resident else ()

    @property
    def is_compiled(self) -> bool:
        """Whether there is compiled code for all that the UNet was asked for."""
        return bool(self._resident and self._resident.faster and self._resident.faster.is_compiled)

    @property
    def plan(self) -> str:
        """How its weights rest."""
        return self._resident.plan if self._resident else PLANS[0]

    def load(self, file: ModelFile, lenders: Iterable[ModelFile], check: Callable[[], None]) -> Iterator[Loading]:
        """Makes this file the resident model, with what ``lenders`` lend it; yields how far it is.

        Where memory holds both, the former model stays until the new one is whole; where it does not, it goes first and
        comes back if the new one fails. ``check`` is called between tensors and may raise to stop. Raises CannotLoad.
        """
        if self._resident and self._resident.model.file == file:
            self._grow()
            return
        yield Loading(f"Loading {file.name}", 0.0)
        loader = ModelLoader(file, lenders, self.dtype)
        for used in (file, *loader.lenders):
            check_unchanged(used)
        free = free_bytes(self.device)
        held = self._resident.nbytes if self._resident and self._resident.plan == PLANS[0] else 0
        placing = self._choose_plan(loader, free + held)
        if self._resident and self._device_bytes(loader, placing) > free:
            yield from self._exchange(loader, placing, check)
        else:
            yield from self._read(loader, placing, check)

    def _exchange(self, loader: ModelLoader, placing: str, check: Callable[[], None]) -> Iterator[Loading]:
        """The former model goes first, and comes back if the new one fails; only one of them is ever held."""
        assert self._resident
        former, lenders, former_placing = self._resident.model.file, self._resident.lenders, self._resident.plan
        self.drop()
        failed: BaseException
        try:
            yield from self._read(loader, placing, check)
            return
        except BaseException as error:
            failed = error
        release_frames(failed)
        for _ in self._read(ModelLoader(former, lenders, self.dtype), former_placing):
            pass
        raise failed

    def _speed_up(self) -> None:
        """Has the UNet compiled or recorded, where that is wanted and all of it rests on the device."""
        resident = self._resident
        if resident is None or resident.plan != PLANS[0]:
            return
        if self.options.compile:
            from webui.engine.speed.compiled import CompiledUNet

            resident.faster = CompiledUNet(resident.model.unet, self.options.cache_dir)
        elif self.options.cuda_graphs:
            from webui.engine.speed.graphed import GraphedUNet

            resident.faster = GraphedUNet(resident.model.unet)
        resident.model.run_unet = resident.faster or resident.model.unet

    def _slow_down(self) -> None:
        """The plain UNet again."""
        if self._resident and self._resident.faster:
            self._resident.faster.close()
            self._resident.faster = None
            self._resident.model.run_unet = self._resident.model.unet

    def _make_switcher(self, model: Model, placing: str) -> LoraSwitcher:
        in_place = self.options.cuda_graphs and placing == PLANS[0]
        return LoraSwitcher(model, self.device, self.options.lora_cache_bytes, in_place)

    def drop(self) -> None:
        """Lets go of the model."""
        self._unhook()
        self._slow_down()
        self._resident = None
        release_memory(self.device)

    def _read(self, loader: ModelLoader, placing: str, check: Callable[[], None] = lambda: None) -> Iterator[Loading]:
        file, reading = loader.file, loader.read(lambda part: self._place(part, placing))
        told = -math.inf
        while True:
            check()
            try:
                progress = next(reading)
            except StopIteration as stop:
                components = stop.value
                break
            whole = progress.done_bytes == progress.total_bytes
            if time.monotonic() - told < REPORT_EVERY_S and not whole:
                continue
            told = time.monotonic()
            done, total = (count / 2**30 for count in (progress.done_bytes, progress.total_bytes))
            yield Loading(
                f"Loading {file.name}: {progress.part}, {done:.2f} of {total:.2f} GiB",
                progress.done_bytes / progress.total_bytes,
            )
        family = next(family for family in FAMILIES if loader.checkpoint.family in family.names)
        model: Any = family.assemble(file, components, self.device)
        if self.device.type == "cuda":
            torch.nn.Module.to(model.unet, memory_format=torch.channels_last)  # type: ignore[call-overload]
        loras = self._make_switcher(model, placing)
        for part in (model.unet, model.vae):
            self._install(part, placing)
        self.drop()
        self._resident = Resident(model, loras, placing, placing, loader.memory_bytes, model.vae, tuple(loader.lenders))
        self._hook()
        self._speed_up()

    def _install(self, network: torch.nn.Module, placing: str) -> None:
        """Has a network that computes on the CPU do so the CPU's way; its weights stay what they are."""
        if self.device.type == "cpu" and self.options.cpu_kernels:
            install(network, low_memory=placing == PLANS[0] and not self.options.compile)

    def _place(self, part: str, placing: str) -> torch.device:
        """Where a part rests."""
        stays = placing == "resident" or (placing == "offload" and part == "unet")
        return self.device if stays else torch.device("cpu")

    def _device_bytes(self, loader: ModelLoader, placing: str) -> int:
        """What the device must hold at once under a plan, drawing included."""
        parts = loader.part_bytes
        largest = max((nbytes for part, nbytes in parts.items() if part != "unet"), default=0)
        held = {"resident": sum(parts.values()), "offload": parts["unet"] + largest, "sequential": 0}[placing]
        return int(held * HEADROOM)

    def _choose_plan(self, loader: ModelLoader, free: int) -> str:
        """The largest that fits, or the one that was asked for; CannotLoad with the numbers where nothing does."""
        wanted = self.options.memory
        choices: tuple[str, ...] = PLANS if wanted == "auto" else (wanted,)
        if self.device.type == "cpu" and wanted == "auto":
            choices = PLANS[:1]  # there is nowhere else to rest
        fitting = next((name for name in choices if self._device_bytes(loader, name) <= free), None)
        if fitting is None:
            needed = min(self._device_bytes(loader, name) for name in choices)
            raise CannotLoad(
                f"model {loader.file.name!r} needs {needed / 2**30:.1f} GiB of memory on {self.device.type},"
                f" and {free / 2**30:.1f} GiB are free; close other programs or choose a smaller model"
            )
        if fitting != PLANS[0] and self.device.type != "cpu" and loader.memory_bytes > free_bytes(torch.device("cpu")):
            raise CannotLoad(
                f"model {loader.file.name!r} needs {loader.memory_bytes / 2**30:.1f} GiB of the computer's memory, and"
                f" {free_bytes(torch.device('cpu')) / 2**30:.1f} GiB are free"
            )
        return fitting

    def find_damage(self) -> str:
        """Whether the resident model's files hold numbers that are none, in words; reads them all."""
        assert self._resident
        file = self._resident.model.file
        damage = ModelLoader(file, self._resident.lenders, self.dtype).find_not_finite()
        return damage and f"model {file.name!r}: {damage}"

    # ---- where the parts are while they work ----

    def shrink(self) -> str | None:
        """Goes to the next smaller memory plan until the job's end; the words for it, None where there is none."""
        if self._resident is None:
            return None
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

    def _grow(self) -> None:
        """Back to the plan that the model was loaded under, where memory allows it again."""
        resident = self._resident
        assert resident
        if resident.plan != resident.loaded_as and resident.nbytes * HEADROOM < free_bytes(self.device):
            self._move_to(resident.loaded_as)

    def _move_to(self, placing: str) -> None:
        assert self._resident
        self._unhook()
        self._slow_down()
        self._resident.loras.switch(())  # the model's own tensors are what moves
        for part, module in self._modules().items():
            module.to(self._place(part, placing))
        self._resident.plan = placing
        self._resident.loras = self._make_switcher(self._resident.model, placing)
        release_memory(self.device)
        self._hook()
        self._speed_up()

    def rest(self) -> None:
        """Takes what is not in use off the device; to be called after encoding and decoding."""
        for hook in self._hooks:
            hook.offload()

    @contextmanager
    def unhooked(self) -> Iterator[None]:
        """The plain modules, where they rest: for changing their weights."""
        self._unhook()
        try:
            yield
        finally:
            self._hook()

    def _modules(self) -> Mapping[str, torch.nn.Module]:
        assert self._resident
        return {**self._resident.model.components, "vae": self._resident.model.vae}

    def _hook(self) -> None:
        if self._resident is None or self._resident.plan == PLANS[0]:
            return
        from accelerate import cpu_offload, cpu_offload_with_hook  # 0.3 s, for those who need it

        for part, module in self._modules().items():
            if self._resident.plan == "sequential":
                cpu_offload(module, self.device)
            elif part != "unet":
                self._hooks.append(cpu_offload_with_hook(module, self.device)[1])

    def _unhook(self) -> None:
        if self._resident is None or self._resident.plan == PLANS[0]:
            return
        self.rest()
        self._hooks.clear()
        from accelerate.hooks import remove_hook_from_module

        for module in self._modules().values():
            remove_hook_from_module(module, recurse=True)

    def use_vae(self, file: VaeFile | None) -> None:
        """Exchanges the model's autoencoder for the one in ``file``, or its own again; raises CannotLoad."""
        resident = self._resident
        assert resident
        if resident.vae == file:
            return
        checkpoint = resident.model.file.checkpoint
        assert checkpoint
        vae = resident.own_vae
        if file:
            vae = read_vae(file, checkpoint.family, self.dtype, self._place("vae", resident.plan))
            self._install(vae, resident.plan)
        with self.unhooked():
            resident.model.vae, resident.vae = vae, file

    def tile(self, width: int, height: int) -> bool:
        """Lets the autoencoder work in tiles where a picture of this size in one piece would not fit; says whether."""
        assert self._resident
        vae = self._resident.model.vae
        tiles = self._tiles or self._decoder_bytes(width, height) > free_bytes(self.device)
        vae.use_tiling = tiles
        return tiles

    def make_room_to_decode(self, width: int, height: int) -> None:
        """Keeps what the steps have left behind from adding to a large decoder's peak."""
        if self.device.type == "cpu" and self._decoder_bytes(width, height) > TRIM_FROM_BYTES:
            trim_heap()

    def _decoder_bytes(self, width: int, height: int) -> int:
        assert self._resident
        vae = self._resident.model.vae
        pixel_bytes: int = vae.block_out_channels[0] * vae.dtype.itemsize
        return width * height * pixel_bytes * DECODE_TENSORS
