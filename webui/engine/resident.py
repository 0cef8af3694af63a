"""``Resident``: a loaded model, where its parts rest while it draws, and what makes its backbone faster."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from webui.core.engine_options import EngineOptions
from webui.core.files import ControlFile, ModelFile, VaeFile
from webui.core.memory import PLANS, STREAMING, Need
from webui.core.order import Order
from webui.core.spans import spans
from webui.core.uses import stand_ins
from webui.engine.cpu.int8 import use_int8
from webui.engine.families.loading import PartKey
from webui.engine.families.model import Model
from webui.engine.lora.switcher import LoraSwitcher
from webui.engine.streaming import Space, Streamed
from webui.engine.weights import in_file, keeps_small

if TYPE_CHECKING:
    from webui.engine.speed.compiled import CompiledUNet
    from webui.engine.speed.graphed import GraphedUNet
    from webui.engine.speed.traced import TracedUNet

CONTROL = "control "
"""How the parts are called that are controls, before their numbers."""


@dataclass(frozen=True, eq=False)
class LoadedControl:
    """A control's network, by what it is kept, the ``stamp`` that its file had, and its ``unread`` keys."""

    module: Any
    key: PartKey
    stamp: int
    unread: Sequence[str] = ()


@dataclass(eq=False)
class Resident:
    """A model with its LoRAs, how its weights rest, and what they take.

    ``parts`` are what is kept of it, by role; ``vae`` stands in for its own autoencoder, if it is not None.
    ``limit_bytes`` is what of the device's memory its weights may take under the plan ``blocks``.
    ``controls`` are drawn with besides. ``int8`` says whether its backbone computes in whole numbers of 8 bits.
    Only the one that draws has hooks and LoRAs on: models may share parts.
    """

    model: Model
    loras: LoraSwitcher
    plan: str
    loaded_as: str
    need: Need
    own_vae: Any
    parts: dict[str, PartKey]
    lenders: tuple[ModelFile, ...] = ()
    vae: VaeFile | None = None
    limit_bytes: float = math.inf
    faster: "CompiledUNet | GraphedUNet | TracedUNet | None" = None
    controls: Mapping[ControlFile, LoadedControl] = field(default_factory=dict)
    int8: bool = False
    _streamed: list[Streamed] = field(default_factory=list)

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Its parts as they are drawn with."""
        return {**self.model.components, "vae": self.model.vae}

    def suits(self, order: Order) -> bool:
        """Whether an order of one plain pass is drawn with this just as it is, all of it on the device."""
        stage = order.passes[0]
        worn = {span.loras for span in spans(stage)}
        own = self.model.file, stand_ins(self.model.file, self.lenders), self.vae, self.plan, False, 1
        wanted = stage.model, stand_ins(stage.model, stage.lenders), stage.vae, PLANS[0], bool(self.controls), len(worn)
        return own == wanted and self.int8 == stage.int8 and self.loras.is_installed(*worn)

    def speed_up(self, options: EngineOptions) -> None:
        """Has the backbone compiled, recorded or written down, where that is wanted and all of it rests on the device.

        One whose weights stay small is run as it is: a LoRA beside them is no tensor in a fixed place.
        """
        is_plain = self.model.family.is_unet and not keeps_small(self.model.network)
        if self.plan != PLANS[0] or self.faster or not is_plain:
            return
        if options.compile:
            from webui.engine.speed.compiled import CompiledUNet

            self.faster = CompiledUNet(self.model.network, options.cache_dir)
        elif options.cuda_graphs:
            from webui.engine.speed.graphed import GraphedUNet

            self.faster = GraphedUNet(self.model.network)
        elif options.cpu_kernels and self.model.device.type == "cpu":
            from webui.engine.speed.traced import TracedUNet, suits

            if suits(self.model.network):
                self.faster = TracedUNet(self.model.network)
        self.model.run = self.faster or self.model.network

    def slow_down(self) -> None:
        """The plain backbone again."""
        if self.faster:
            self.faster.close()
            self.faster = None
            self.model.run = self.model.network

    def use_int8(self, wanted: bool) -> None:
        """Has the backbone compute in whole numbers of 8 bits, as it is, or not any more."""
        if wanted != self.int8:
            use_int8(self.model.network, wanted)
            self.int8 = wanted
            self.model.run = self.model.network if wanted else self.faster or self.model.network

    def pause(self) -> None:
        """Its parts are the plain ones, and rest: another model may draw with those that it shares."""
        self.use_int8(False)
        self.unhook()
        self.loras.switch(())
        self.take_controls({})

    def take_controls(self, controls: Mapping[ControlFile, LoadedControl]) -> None:
        """These and no others are drawn with, until it rests; it must be unhooked."""
        self.controls = controls
        self.parts = {part: key for part, key in self.parts.items() if not part.startswith(CONTROL)}
        self.parts |= {f"{CONTROL}{number}": control.key for number, control in enumerate(controls.values())}

    def hook(self, device: torch.device) -> None:
        """Has parts that rest elsewhere come to the device as they are needed."""
        if self.plan == PLANS[0]:
            return
        limit, share = (self.limit_bytes, self._controls_share) if self.plan == "blocks" else (math.inf, 0.0)
        stays = self.plan != "sequential"
        space = Space(device, limit * (1 - share), stays)
        self._streamed = [
            Streamed(module, space)
            for part, module in self.modules.items()
            if self.plan in STREAMING or part != "backbone"
        ]
        controls = {control.key: control.module for control in self.controls.values()}
        for module in controls.values():  # each beside the backbone: they take turns in every step
            own = math.inf if math.isinf(limit) else limit * share / len(self.controls)
            self._streamed.append(Streamed(module, Space(device, own) if stays else space))

    @property
    def _controls_share(self) -> float:
        """Of all weights that a step needs."""
        own, backbone = self.need.control_bytes, self.need.parts.get("backbone", 0)
        return own / (own + backbone) if own else 0.0

    def unhook(self) -> None:
        """The plain modules, where they rest."""
        for streamed in self._streamed:
            streamed.unhook()
        self._streamed = []

    def rest(self) -> None:
        """Takes what is not in use off the device; to be called after encoding and decoding."""
        in_file.give_back()
        for streamed in self._streamed:
            streamed.rest()
