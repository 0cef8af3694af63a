"""What a model family must offer. A family is one file here and its name in ``FAMILIES``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from webui.core.library import ModelFile

Conditioning = Mapping[str, torch.Tensor]
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

    ``inpaints`` marks a UNet that takes mask and masked picture as further input channels. ``components`` are the parts
    that LoRAs change, by diffusers' names: unet, text_encoder.
    """

    file: ModelFile
    content_hash: str
    components: Mapping[str, torch.nn.Module]
    latent_channels: int
    latent_scale: int
    inpaints: bool
    scheduler_config: Mapping[str, Any]
    preview_map: PreviewMap

    def encode_prompt(self, text: str, clip_skip: int) -> tuple[Conditioning, int]:
        """One row of conditioning, and how many tokens did not fit; raises RequestError for clip_skip."""

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """The UNet's output (epsilon or v), (n, channels, h, w), float32; ``latents`` may hold further channels."""

    def encode(self, picture: torch.Tensor) -> Posterior:
        """The latents of a picture (1, 3, height, width), float32, -1..1."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures (n, 3, height, width), float32, nominally -1..1."""


class Family(Protocol):
    """How to recognise and load one kind of model."""

    name: str

    def recognises(self, file: ModelFile) -> bool:
        """Whether this family's layout is what the file holds."""

    def load(
        self,
        file: ModelFile,
        device: torch.device,
        dtype: torch.dtype,
        progress: Callable[[str, float], None],
    ) -> Model:
        """Loads it, calling ``progress(what, fraction)`` before each part; raises CannotLoad."""
