"""``Resident``: a loaded model, where its parts rest while it draws, and what makes its backbone faster."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from webui.core.engine_options import EngineOptions
from webui.core.files import ModelFile, VaeFile
from webui.core.memory import PLANS, STREAMING, Need
from webui.engine.families.loading import PartKey
from webui.engine.families.model import Model
from webui.engine.lora.switcher import LoraSwitcher
from webui.engine.streaming import Space, Streamed
from webui.engine.weights import keeps_small

if TYPE_CHECKING:
    from webui.engine.speed.compiled import CompiledUNet
    from webui.engine.speed.graphed import GraphedUNet


@dataclass(eq=False)
class Resident:
    """A model with its LoRAs, how its weights rest, and what they take.

    ``parts`` are what is kept of it, by role; ``vae`` stands in for its own autoencoder, if it is not None.
    ``limit_bytes`` is what of the device's memory its weights may take under the plan ``blocks``.
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
    faster: "CompiledUNet | GraphedUNet | None" = None
    _streamed: list[Streamed] = field(default_factory=list)

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Its parts as they are drawn with."""
        return {**self.model.components, "vae": self.model.vae}

    def speed_up(self, options: EngineOptions) -> None:
        """Has the backbone compiled or recorded, where that is wanted and all of it rests on the device.

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
        self.model.run = self.faster or self.model.network

    def slow_down(self) -> None:
        """The plain backbone again."""
        if self.faster:
            self.faster.close()
            self.faster = None
            self.model.run = self.model.network

    def pause(self) -> None:
        """Its parts are the plain ones, and rest: another model may draw with those that it shares."""
        self.unhook()
        self.loras.switch(())

    def hook(self, device: torch.device) -> None:
        """Has parts that rest elsewhere come to the device as they are needed."""
        if self.plan == PLANS[0]:
            return
        limit = self.limit_bytes if self.plan == "blocks" else math.inf
        space = Space(device, limit, stays=self.plan != "sequential")
        self._streamed = [
            Streamed(module, space)
            for part, module in self.modules.items()
            if self.plan in STREAMING or part != "backbone"
        ]

    def unhook(self) -> None:
        """The plain modules, where they rest."""
        for streamed in self._streamed:
            streamed.unhook()
        self._streamed = []

    def rest(self) -> None:
        """Takes what is not in use off the device; to be called after encoding and decoding."""
        for streamed in self._streamed:
            streamed.rest()
