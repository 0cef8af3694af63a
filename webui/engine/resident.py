"""``Resident``: a loaded model, where its parts rest while it draws, and what makes its backbone faster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from webui.core.engine_options import EngineOptions
from webui.core.files import ModelFile, VaeFile
from webui.engine.families.loading import PartKey
from webui.engine.families.model import Model
from webui.engine.lora.switcher import LoraSwitcher
from webui.engine.weights import keeps_small

if TYPE_CHECKING:
    from webui.engine.speed.compiled import CompiledUNet
    from webui.engine.speed.graphed import GraphedUNet

PLANS = ("resident", "offload", "sequential")
PLAN_WORDS = {
    "resident": "the whole model on the device",
    "offload": "text encoder and VAE off the device while the UNet runs",
    "sequential": "every layer brought to the device as it is needed",
}


@dataclass(eq=False)
class Resident:
    """A model with its LoRAs, how its weights rest, and how many bytes they are.

    ``parts`` are what is kept of it, by role; ``vae`` stands in for its own autoencoder, if it is not None.
    Only the one that draws has hooks and LoRAs on: models may share parts.
    """

    model: Model
    loras: LoraSwitcher
    plan: str
    loaded_as: str
    nbytes: int
    own_vae: Any
    parts: dict[str, PartKey]
    lenders: tuple[ModelFile, ...] = ()
    vae: VaeFile | None = None
    faster: "CompiledUNet | GraphedUNet | None" = None
    _hooks: list[Any] = field(default_factory=list)

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
        from accelerate import cpu_offload, cpu_offload_with_hook  # 0.3 s, for those who need it

        for part, module in self.modules.items():
            if self.plan == "sequential":
                cpu_offload(module, device)
            elif part != "backbone":
                self._hooks.append(cpu_offload_with_hook(module, device)[1])

    def unhook(self) -> None:
        """The plain modules, where they rest."""
        if self.plan == PLANS[0]:
            return
        self.rest()
        self._hooks.clear()
        from accelerate.hooks import remove_hook_from_module

        for module in self.modules.values():
            remove_hook_from_module(module, recurse=True)

    def rest(self) -> None:
        """Takes what is not in use off the device; to be called after encoding and decoding."""
        for hook in self._hooks:
            hook.offload()
