"""What all families share: a UNet that works on the latents of a KL autoencoder."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from webui.core.checkpoint import INPAINT_CHANNELS
from webui.core.images import Size
from webui.core.library import ModelFile
from webui.core.request import RequestError
from webui.engine.families.base import Conditioning, Posterior, PreviewMap
from webui.engine.families.loading import Components

EMBEDDED_GUIDANCE_SCALE = 1000.0


class LatentDiffusionModel:
    """The components, resident on one device in one dtype. See ``base.Model`` for the contract."""

    latent_channels = 4
    preview_factors: tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]
    """Linear map from this family's latents to RGB in -1..1: (4, 3) and (3,) (ComfyUI, latent_formats.py)."""

    def __init__(self, file: ModelFile, components: Components, device: torch.device) -> None:
        self.file, self.warnings, self.device = file, components.warnings, device
        self.tokenizers = components.tokenizers
        self.unet: UNet2DConditionModel = components.modules["unet"]
        self.vae: AutoencoderKL | AutoencoderTiny = components.modules["vae"]
        self.text_encoders = {part: components.modules[part] for part in components.tokenizers}
        self.components: Mapping[str, torch.nn.Module] = {"unet": self.unet, **self.text_encoders}
        self.text_widths = {part: int(encoder.config.hidden_size) for part, encoder in self.text_encoders.items()}
        self.scheduler_config = components.scheduler_config
        vae_config: Any = self.vae.config
        unet_config: Any = self.unet.config
        self.latent_scale = 2 ** (len(vae_config.block_out_channels) - 1)
        self.inpaints = int(unet_config.in_channels) == INPAINT_CHANNELS
        self.guides_itself = unet_config.time_cond_proj_dim is not None
        rows, offsets = self.preview_factors
        own = components.preview_map or PreviewMap(torch.tensor(rows).t() / 2, (torch.tensor(offsets) + 1) / 2)
        self.preview_map = PreviewMap(own.weight.to(device), own.bias.to(device))

    def condition(self, prompt: Conditioning, size: Size, guidance: float, negative: bool) -> Conditioning:
        """A UNet that guides itself is told the guidance, as a sinusoid (Meng et al. 2023; diffusers' LCM form)."""
        if not self.guides_itself:
            return prompt
        unet_config: Any = self.unet.config
        half = unet_config.time_cond_proj_dim // 2
        frequencies = torch.exp(torch.arange(half) * -(torch.log(torch.tensor(10_000.0)) / (half - 1)))
        angles = max(guidance - 1, 0.0) * EMBEDDED_GUIDANCE_SCALE * frequencies
        told = torch.cat([angles.sin(), angles.cos()])[None]
        return {**prompt, "timestep_cond": told.to(self.device, self.unet.dtype)}

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """One UNet forward; ``latents`` (n, 4 or 9, h, w) in any float type, the result (n, 4, h, w) in float32."""
        output = self.unet(latents.to(self.unet.dtype), timestep, return_dict=False, **conditioning)[0]
        return output.float()

    def encode(self, picture: torch.Tensor) -> Posterior:
        """The autoencoder's encoder; mean and standard deviation scaled like the latents. A tiny one is certain."""
        config: Any = self.vae.config
        latents = self.vae.encode(picture.to(self.vae.dtype), return_dict=False)[0]
        scale = float(config.scaling_factor)
        if isinstance(self.vae, AutoencoderTiny):
            return Posterior(latents.float() * scale, torch.zeros_like(latents, dtype=torch.float32))
        return Posterior(latents.mean.float() * scale, latents.std.float() * scale)

    def decode(self, latents: torch.Tensor, in_float32: bool = False) -> torch.Tensor:
        """Undoes the scaling of the latents, then the autoencoder's decoder."""
        config: Any = self.vae.config
        dtype = self.vae.dtype
        latents = latents / float(config.scaling_factor)
        if not in_float32:
            return self.vae.decode(latents.to(dtype), return_dict=False)[0].float()
        try:  # widening and narrowing again leaves every weight as it was
            torch.nn.Module.to(self.vae, torch.float32)
            return self.vae.decode(latents.float().to(self.vae.device), return_dict=False)[0].to(self.device)
        finally:
            torch.nn.Module.to(self.vae, dtype)

    def check_clip_skip(self, clip_skip: int, layers: int) -> None:
        """Raises RequestError where the text encoder does not have so many layers to leave out."""
        if clip_skip > layers:
            raise RequestError(f"clip_skip {clip_skip} is more than this model's {layers} text layers", "clip_skip")
