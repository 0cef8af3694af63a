"""What goes into the loop and what comes out of it: start latents from seeds, pictures from latents."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image as PilImages
from PIL.Image import Image as PilImage

from webui.engine.families.base import Model


class NotFinite(RuntimeError):
    """The picture came out as NaN or infinity."""


def make_generators(seed: int, count: int) -> list[torch.Generator]:
    """One CPU generator a picture, ``seed + k`` for picture k: the device and the batch change nothing."""
    return [torch.Generator("cpu").manual_seed(seed + k) for k in range(count)]


@torch.inference_mode()
def prepare(
    model: Model,
    scheduler: Any,
    width_px: int,
    height_px: int,
    generators: Sequence[torch.Generator],
    device: torch.device,
) -> torch.Tensor:
    """Start latents (n, channels, height / scale, width / scale), float32: each picture's own noise at full level."""
    shape = (1, model.latent_channels, height_px // model.latent_scale, width_px // model.latent_scale)
    noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
    return noise.to(device) * scheduler.init_noise_sigma


@torch.inference_mode()
def decode(model: Model, latents: torch.Tensor) -> PilImage:
    """One picture from its latents (1, channels, h, w); raises NotFinite instead of passing off a black one."""
    picture = model.decode(latents)[0]
    if not torch.isfinite(picture).all():
        raise NotFinite("the picture came out as not-a-number values; try --dtype float32")
    levels = (picture / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return PilImages.fromarray(levels.permute(1, 2, 0).cpu().numpy(), "RGB")
