"""``Model``: a loaded model of any family."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from webui.core.files import ModelFile
from webui.core.images import Size
from webui.engine.embeddings import Embedding
from webui.engine.families.base import Conditioning, Posterior, PreviewMap
from webui.engine.families.family import Config, EncodeOptions, Family, Parts


class Model:
    """The networks of a model, and what its family makes of them.

    Latents are (n, channels, height / scale, width / scale) at about unit variance; ``noise_patch`` is how many a side
    are drawn as one. ``network`` is the backbone's, ``components`` are the networks that LoRAs change, by role;
    ``text_widths`` are the widths of the text encoders that take embeddings. ``inpaints`` marks a backbone that takes
    mask and masked picture as further input channels, ``guides_itself`` one that is told the guidance instead of being
    run twice. ``files`` are its own and those that lend it parts, ``warnings`` are what people should know of loading
    it.
    """

    def __init__(
        self,
        file: ModelFile,
        family: Family,
        parts: Parts,
        scheduler_config: Config,
        preview_map: PreviewMap | None = None,
        warnings: tuple[str, ...] = (),
        lenders: tuple[ModelFile, ...] = (),
    ) -> None:
        self.file, self.family, self.parts, self.warnings = file, family, parts, warnings
        self.files = file, *lenders
        self.scheduler_config: Mapping[str, Any] = scheduler_config
        self.device = parts.device
        self.network: Any = parts["backbone"]
        self.backbone = family.backbone(parts)
        self.autoencoder = family.autoencoder(parts)
        changeable = [part.role for part in family.parts if part.changeable and part.role in parts.modules]
        roles = sorted(changeable, key=lambda role: role != "backbone")
        self.components: Mapping[str, nn.Module] = {role: parts[role] for role in roles}
        checkpoint = parts.checkpoint
        reads = () if "embeddings" in checkpoint.row.lacks else parts.tokenizers
        self.text_widths = {role: parts[role].hidden_size for role in reads}
        self.latent_channels = family.latents.channels
        self.noise_patch = family.latents.patch if family.latents.packs_noise else 1
        self.inpaints, self.guides_itself = checkpoint.inpaints, checkpoint.guides_itself
        rows, offsets = family.latents.rgb, family.latents.rgb_offset
        own = preview_map or PreviewMap(torch.tensor(rows).t() / 2, (torch.tensor(offsets) + 1) / 2)
        self.preview_map = PreviewMap(own.weight.to(self.device), own.bias.to(self.device))

    @property
    def kind(self) -> str:
        """The name of its kind."""
        return self.parts.checkpoint.family

    @property
    def network_title(self) -> str:
        """What people call the backbone's network."""
        return next(part.title for part in self.family.parts if part.role == "backbone")

    @property
    def dtype(self) -> torch.dtype:
        """The format that the backbone computes in."""
        dtype: torch.dtype = self.network.dtype
        return dtype

    @property
    def latent_scale(self) -> int:
        """How many px of a picture a side of its latents stands for."""
        return self.autoencoder.scale

    @property
    def vae(self) -> Any:
        """The network of the autoencoder, which can be exchanged."""
        return self.parts["vae"]

    @vae.setter
    def vae(self, module: nn.Module) -> None:
        self.parts.modules["vae"] = module
        self.autoencoder = self.family.autoencoder(self.parts)

    @property
    def run(self) -> Callable[..., Any]:
        """What calls the backbone's network, compiled or not."""
        return self.backbone.run

    @run.setter
    def run(self, run: Callable[..., Any]) -> None:
        self.backbone.run = run

    def encode_prompt(
        self, text: str, clip_skip: int, embeddings: Mapping[str, Embedding], negative: bool = False
    ) -> Conditioning:
        """The text as the backbone sees it, one row; raises RequestError for clip_skip."""
        return self.family.encode(self.parts, text, EncodeOptions(clip_skip, embeddings, negative))

    def condition(self, prompt: Conditioning, size: Size, guidance: float, negative: bool) -> Conditioning:
        """An encoded prompt with all else that the backbone is told about a picture of this (width, height)."""
        return self.family.condition(self.parts, prompt, size, guidance, negative)

    def shift(self, size: Size, steps: int) -> float:
        """By how much flow's schedule is shifted for a picture of this (width, height) in so many steps."""
        tokens = math.prod(math.ceil(side / (self.latent_scale * self.family.latents.patch)) for side in size)
        return self.family.shift(self.scheduler_config, tokens, steps)

    def encode(self, picture: torch.Tensor) -> Posterior:
        """The latents of a picture (1, 3, height, width), float32, -1..1."""
        return self.autoencoder.encode(picture)

    def decode(self, latents: torch.Tensor, in_float32: bool = False) -> torch.Tensor:
        """Pictures (n, 3, height, width), float32, nominally -1..1; ``in_float32`` whatever the model's own format."""
        return self.autoencoder.decode(latents, in_float32)
