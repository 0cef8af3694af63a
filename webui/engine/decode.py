"""Latents -> pictures."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from PIL import Image as PilImages
from PIL.Image import Image as PilImage

from webui.engine.families.model import Model


class NotFinite(RuntimeError):
    """The picture came out as NaN or infinity."""


@torch.inference_mode()
def decode(
    model: Model, latents: torch.Tensor, unhooked: Callable[[], AbstractContextManager[None]] = nullcontext
) -> PilImage:
    """One picture from its latents (1, channels, h, w); raises NotFinite instead of passing off a black one.

    An autoencoder that overflows in its own format is asked again in float32, with its plain module: ``unhooked``.
    """
    if not torch.isfinite(latents).all():
        overflows = model.dtype != torch.float32
        narrow, dtype = "it overflows in this number format, or ", "--dtype float32 (or bfloat16), "
        raise NotFinite(
            f"the {model.network_title} came to not-a-number values: {narrow if overflows else ''}a LoRA or a weight in"
            f" the prompt is far too strong; try {dtype if overflows else ''}smaller weights, or another prediction"
        )
    picture = model.decode(latents)[0]
    if not torch.isfinite(picture).all():
        with unhooked():
            picture = model.decode(latents, in_float32=True)[0]
    if not torch.isfinite(picture).all():
        raise NotFinite(
            "the VAE came to not-a-number values even in float32: its file is likely damaged; choose another"
        )
    levels = (picture / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return PilImages.fromarray(levels.permute(1, 2, 0).cpu().numpy(), "RGB")
