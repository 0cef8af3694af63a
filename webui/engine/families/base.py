"""What a model family must offer. A family is one file here and its name in ``FAMILIES``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from webui.core.checkpoint import FamilyName
from webui.core.errors import RequestError
from webui.core.files import ModelFile
from webui.core.images import Size
from webui.engine.embeddings import Embedding
from webui.engine.nets.unet import UNet
from webui.engine.speed.shortcuts import Shortcuts

Conditioning = Mapping[str, Any]
"""What the UNet is told, one row a picture: ``context``, and for some models ``summary``, ``ids`` and ``guidance``."""

Draw = Callable[[Sequence[int]], torch.Tensor]
"""Normal numbers on the CPU: for a shape (1, ...) one row for each picture of a batch, (n, ...)."""


class CannotLoad(RequestError):
    """A model that cannot be used; the message names it and the reason."""

    def __init__(self, message: str) -> None:
        super().__init__(message, field="model")


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
    drawn: bool = True

    def sample(self, draw: Draw) -> torch.Tensor:
        """One latent a picture, (n, channels, h, w); where nothing of it is ``drawn``, the mean."""
        if not self.drawn:
            return self.mean
        return self.mean + self.std * draw(self.mean.shape).to(self.mean.device)

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return self.mean.nbytes + self.std.nbytes


class Backbone(Protocol):
    """The network that is asked in each evaluation, behind one signature."""

    def prepare(
        self, conditionings: Sequence[Conditioning], count: int, shown: torch.Tensor | None = None
    ) -> Sequence[Any]:
        """What it is told of ``count`` pictures in each evaluation, one entry a forward.

        Neighbours of one shape are one forward, or a few where they are many. It holds as long as the weights do.
        ``shown`` (count, further channels, h, w) is what the network sees beside the latents: inpainting's mask and
        picture.
        """

    def predict(
        self, latents: torch.Tensor, time: torch.Tensor, prepared: Any, shortcuts: Shortcuts | None = None
    ) -> Sequence[torch.Tensor]:
        """One forward: an output like ``latents`` (count, channels, h, w), float32, for each conditioning in it.

        ``latents`` are those of ``Noise.model_input`` and ``time`` is 0..1000.
        """


class Model(Backbone, Protocol):
    """A loaded model. Latents are (n, channels, height / scale, width / scale) at about unit variance.

    ``run_unet`` calls the UNet, compiled or not, with what ``UNet.forward`` takes.
    ``inpaints`` marks a UNet that takes mask and masked picture as further input channels, ``guides_itself`` one that
    is told the guidance instead of being run twice. ``components`` are the parts that LoRAs change, by diffusers'
    names; ``text_widths`` are the widths of its text encoders. ``warnings`` are what people should know of loading it.
    """

    file: ModelFile
    unet: UNet
    run_unet: Callable[..., torch.Tensor]
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

    def convolved(
        self, conditionings: Sequence[Conditioning], latents: torch.Tensor
    ) -> Mapping[torch.nn.Module, torch.Size]:
        """The UNet's 3 x 3 convolutions, each with the shape that it is given where these are drawn with these told.

        Of several forwards it is the first one's.
        """

    def condition(self, prompt: Conditioning, size: Size, guidance: float, negative: bool) -> Conditioning:
        """An encoded prompt with all else that the UNet is told about a picture of this (width, height)."""

    def encode(self, picture: torch.Tensor) -> Posterior:
        """The latents of a picture (1, 3, height, width), float32, -1..1."""

    def decode(self, latents: torch.Tensor, in_float32: bool = False) -> torch.Tensor:
        """Pictures (n, 3, height, width), float32, nominally -1..1; ``in_float32`` whatever the model's own format."""


class Family(Protocol):
    """How to make a model of one kind."""

    names: tuple[FamilyName, ...]

    def assemble(self, file: ModelFile, components: Any, device: torch.device) -> Model:
        """The model from its loaded ``loading.Components``; it computes on ``device``."""
