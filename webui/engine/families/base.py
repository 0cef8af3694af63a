"""What a model family must offer. A family is one file here and its name in ``FAMILIES``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from webui.core.checkpoint import FamilyName
from webui.core.images import Size
from webui.core.library import ModelFile
from webui.engine.embeddings import Embedding

Conditioning = Mapping[str, Any]
"""Keyword arguments of the UNet's forward that come from the prompt, one row a picture."""


class CannotLoad(RuntimeError):
    """A model that cannot be used; the message names it and the reason."""


@dataclass(frozen=True)
class PreviewMap:
    """A linear map from latents to RGB in 0..1: ``weight`` (3, channels), ``bias`` (3,)."""

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True)
class Posterior:
    """What the autoencoder makes of a picture: a normal distribution over latents, both (1, channels, h, w).

    Already multiplied by the model's scaling factor, so a sample is about of unit variance.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def sample(self, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """One latent a generator, (n, channels, h, w); the noise is drawn on the CPU."""
        noise = torch.cat([torch.randn(self.mean.shape, generator=generator) for generator in generators])
        return self.mean + self.std * noise.to(self.mean.device)

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return self.mean.nbytes + self.std.nbytes


class Model(Protocol):
    """A loaded model. Latents are (n, channels, height / scale, width / scale) at about unit variance.

    ``inpaints`` marks a UNet that takes mask and masked picture as further input channels, ``guides_itself`` one that
    is told the guidance instead of being run twice. ``components`` are the parts that LoRAs change, by diffusers'
    names; ``text_widths`` are the widths of its text encoders. ``warnings`` are what people should know of loading it.
    """

    file: ModelFile
    unet: torch.nn.Module
    vae: Any
    components: Mapping[str, torch.nn.Module]
    text_widths: Mapping[str, int]
    latent_channels: int
    latent_scale: int
    inpaints: bool
    guides_itself: bool
    scheduler_config: Mapping[str, Any]
    preview_map: PreviewMap
    warnings: tuple[str, ...]

    def encode_prompt(
        self, text: str, clip_skip: int, embeddings: Mapping[str, Embedding], negative: bool = False
    ) -> Conditioning:
        """The text as the UNet sees it, one row; raises RequestError for clip_skip."""

    def condition(self, prompt: Conditioning, size: Size, guidance: float, negative: bool) -> Conditioning:
        """An encoded prompt with all else that the UNet is told about a picture of this (width, height)."""

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """The UNet's output (epsilon or v), (n, channels, h, w), float32; ``latents`` may hold further channels."""

    def encode(self, picture: torch.Tensor) -> Posterior:
        """The latents of a picture (1, 3, height, width), float32, -1..1."""

    def decode(self, latents: torch.Tensor, in_float32: bool = False) -> torch.Tensor:
        """Pictures (n, 3, height, width), float32, nominally -1..1; ``in_float32`` whatever the model's own format."""


class Family(Protocol):
    """How to make a model of one kind."""

    names: tuple[FamilyName, ...]

    def assemble(self, file: ModelFile, components: Any, device: torch.device) -> Model:
        """The model from its loaded ``loading.Components``; it computes on ``device``."""
