"""What all families share: a UNet that works on the latents of a KL autoencoder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import nn

from webui.core.checkpoint import INPAINT_CHANNELS
from webui.core.errors import RequestError
from webui.core.files import ModelFile
from webui.core.images import Size
from webui.engine.families.base import Conditioning, Posterior, PreviewMap
from webui.engine.families.loading import Components
from webui.engine.nets.autoencoder import Autoencoder
from webui.engine.nets.tiny import TinyAutoencoder
from webui.engine.nets.unet import Prepared, UNet
from webui.engine.speed.shortcuts import Shortcuts

EMBEDDED_GUIDANCE_SCALE = 1000.0
FORWARD_ROWS = 32
"""Of one forward: what 16 pictures, the most of a batch, take with one prompt and a negative one."""


@dataclass(frozen=True)
class Forward:
    """One forward of the UNet: the prompts as it takes them, and what it is shown beside the latents."""

    prompts: Prepared
    shown: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values."""
        return sum(part.nbytes for pair in self.prompts.attended for part in pair)


class LatentDiffusionModel:
    """The components, resident on one device in one dtype. See ``base.Model`` for the contract."""

    latent_channels = 4
    preview_factors: tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]
    """Linear map from this family's latents to RGB in -1..1: (4, 3) and (3,) (ComfyUI, latent_formats.py)."""

    def __init__(self, file: ModelFile, components: Components, device: torch.device) -> None:
        self.file, self.warnings, self.device = file, components.warnings, device
        self.tokenizers = components.tokenizers
        self.unet: UNet = components.modules["unet"]
        self.run_unet: Callable[..., torch.Tensor] = self.unet
        self.vae: Autoencoder | TinyAutoencoder = components.modules["vae"]
        self.text_encoders = {part: components.modules[part] for part in components.tokenizers}
        self.components: Mapping[str, torch.nn.Module] = {"unet": self.unet, **self.text_encoders}
        self.text_widths = {part: encoder.hidden_size for part, encoder in self.text_encoders.items()}
        self.scheduler_config = components.scheduler_config
        self.latent_scale = 2 ** (len(self.vae.block_out_channels) - 1)
        self.inpaints = self.unet.in_channels == INPAINT_CHANNELS
        self.guides_itself = self.unet.guidance_channels is not None
        rows, offsets = self.preview_factors
        own = components.preview_map or PreviewMap(torch.tensor(rows).t() / 2, (torch.tensor(offsets) + 1) / 2)
        self.preview_map = PreviewMap(own.weight.to(device), own.bias.to(device))

    def condition(self, prompt: Conditioning, size: Size, guidance: float, negative: bool) -> Conditioning:
        """A UNet that guides itself is told the guidance, as a sinusoid (Meng et al. 2023; diffusers' LCM form)."""
        if self.unet.guidance_channels is None:
            return prompt
        half = self.unet.guidance_channels // 2
        frequencies = torch.exp(torch.arange(half) * -(torch.log(torch.tensor(10_000.0)) / (half - 1)))
        angles = max(guidance - 1, 0.0) * EMBEDDED_GUIDANCE_SCALE * frequencies
        told = torch.cat([angles.sin(), angles.cos()])[None]
        return {**prompt, "guidance": told.to(self.device, self.unet.dtype)}

    def prepare(
        self, conditionings: Sequence[Conditioning], count: int, shown: torch.Tensor | None = None
    ) -> list[Forward]:
        """As in ``base.Backbone``: neighbours of one length are stacked, and are one forward up to ``FORWARD_ROWS``."""
        rows = [{name: part.repeat_interleave(count, dim=0) for name, part in told.items()} for told in conditionings]
        fitting = _group(rows, count)
        stacked = [{name: torch.cat([told[name] for told in group]) for name in group[0]} for group in fitting]
        return [Forward(self.unet.prepare(**told), shown) for told in stacked]

    def convolved(self, conditionings: Sequence[Conditioning], latents: torch.Tensor) -> Mapping[nn.Module, torch.Size]:
        """As in ``base.Model``."""
        count, _, height, width = latents.shape
        rows = count * len(_group(conditionings, count)[0])
        return dict(self.unet.convolved(count, rows, height, width))

    def predict(
        self, latents: torch.Tensor, time: torch.Tensor, prepared: Forward, shortcuts: Shortcuts | None = None
    ) -> Sequence[torch.Tensor]:
        """As in ``base.Backbone``: one forward of the UNet in its own format."""
        seen = latents if prepared.shown is None else torch.cat([latents, prepared.shown], dim=1)
        output = self.run_unet(seen.to(self.unet.dtype), time, prepared.prompts, shortcuts).float()
        return output.chunk(len(output) // len(latents))

    def encode(self, picture: torch.Tensor) -> Posterior:
        """The autoencoder's encoder; mean and standard deviation scaled like the latents. A tiny one is certain."""
        mean, std = self.vae.encode(picture.to(self.vae.dtype))
        return Posterior(mean.float() * self.vae.scaling_factor, std.float() * self.vae.scaling_factor)

    def decode(self, latents: torch.Tensor, in_float32: bool = False) -> torch.Tensor:
        """Undoes the scaling of the latents, then the autoencoder's decoder."""
        dtype = self.vae.dtype
        latents = latents / self.vae.scaling_factor
        if not in_float32:
            return self.vae.decode(latents.to(dtype)).float()
        try:  # widening and narrowing again leaves every weight as it was
            torch.nn.Module.to(self.vae, torch.float32)
            return self.vae.decode(latents.float().to(self.vae.device)).to(self.device)
        finally:
            torch.nn.Module.to(self.vae, dtype)

    def check_clip_skip(self, clip_skip: int, layers: int) -> None:
        """Raises RequestError where the text encoder does not have so many layers to leave out."""
        if clip_skip > layers:
            raise RequestError(f"clip_skip {clip_skip} is more than this model's {layers} text layers", "clip_skip")


def _group(conditionings: Sequence[Conditioning], count: int) -> list[list[Conditioning]]:
    """What goes into one forward each: neighbours of the same shapes, as many as ``count`` pictures leave room for."""
    alike = [
        list(group) for _, group in groupby(conditionings, key=lambda told: [part.shape for part in told.values()])
    ]
    most = max(FORWARD_ROWS // count, 1)
    return [group[k : k + most] for group in alike for k in range(0, len(group), most)]
