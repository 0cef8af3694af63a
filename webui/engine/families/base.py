"""What a loaded model is made of: the backbone that is asked in each evaluation, and the autoencoder around it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from webui.core.errors import RequestError
from webui.core.groups.nag import Nag
from webui.engine.speed.shortcuts import Shortcuts

Conditioning = Mapping[str, Any]
"""What the backbone is told, one row a picture: a UNet ``context``, some ``summary``, ``ids`` and ``guidance``."""


@dataclass(frozen=True)
class Steering:
    """What a UNet's attention does besides for its prompts, but for the first ``negatives`` of what it is told.

    Where it is ``perturbed``, each is answered once more with the innermost self-attention looking at nothing but the
    token itself. ``against`` (one row) is what cross-attention is pushed away from, by as much as ``nag`` says.
    """

    negatives: int = 0
    perturbed: bool = False
    nag: Nag | None = None
    against: Conditioning | None = None


Draw = Callable[[Sequence[int]], torch.Tensor]
"""Normal numbers on the CPU: for a shape (1, ...) one row for each picture of a batch, (n, ...)."""


class CannotLoad(RequestError):
    """A model that cannot be used; the message names it and the reason."""

    def __init__(self, message: str, field: str = "model") -> None:
        super().__init__(message, field=field)


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
    """The network that is asked in each evaluation, behind one signature. Outside of it latents have four axes.

    ``run`` is what calls its module, compiled or not, with what the module's ``forward`` takes.
    """

    run: Callable[..., Any]

    def prepare(
        self, conditionings: Sequence[Conditioning], count: int, shown: torch.Tensor | None = None
    ) -> Sequence[Any]:
        """What it is told of ``count`` pictures in each evaluation, one entry a forward.

        Neighbours of one shape are one forward, or a few where they are many. It holds as long as the weights do.
        ``shown`` (count, further channels, h, w) is what the network sees beside the latents: inpainting's mask and
        picture.
        """

    def steer(
        self, conditionings: Sequence[Conditioning], count: int, shown: torch.Tensor | None, steering: Steering
    ) -> Sequence[Any]:
        """As ``prepare``, with attention steered, which UNets can. An entry's ``perturbed`` is how many answers are."""
        return self.prepare(conditionings, count, shown)

    def predict(
        self, latents: torch.Tensor, time: torch.Tensor, prepared: Any, shortcuts: Shortcuts | None = None
    ) -> Sequence[torch.Tensor]:
        """One forward: an output like ``latents`` (count, channels, h, w), float32, for each conditioning in it, and
        behind them those that are perturbed.

        ``latents`` are those of ``Noise.model_input`` and ``time`` is 0..1000, or (count,) of what was joined.
        """

    def join(self, prepared: Sequence[Any], counts: Sequence[int]) -> Any:
        """What different loops were told of so many pictures each, as one entry for all of these, one behind the other.

        It is for entries of the same ``form``; those of a backbone that joins nothing have none.
        """
        (only,) = prepared
        return only

    def convolved(
        self, conditionings: Sequence[Conditioning], latents: torch.Tensor, steering: Steering | None = None
    ) -> Mapping[nn.Module, torch.Size]:
        """Its 3 x 3 convolutions, each with the shape that it is given where these latents are drawn with these told.

        Of several forwards it is the first one's. For one without convolutions there are none.
        """
        return {}


class Autoencoder(Protocol):
    """What makes latents of pictures and pictures of latents.

    ``scale`` is how many px of a picture a side of its latents stands for. With ``use_tiling`` it decodes in tiles.
    """

    scale: int
    use_tiling: bool

    @property
    def px_bytes(self) -> int:
        """Of the widest tensor, for each px of the picture."""

    def encode(self, picture: torch.Tensor) -> Posterior:
        """The latents of a picture (1, 3, height, width), float32, -1..1."""

    def decode(self, latents: torch.Tensor, in_float32: bool = False) -> torch.Tensor:
        """Pictures (n, 3, height, width), float32, nominally -1..1; ``in_float32`` whatever the model's own format."""
