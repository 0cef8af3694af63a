"""What goes into the loop and what comes out of it: the only place where the three tasks differ.

txt2img starts from noise, img2img from a noised picture part of the way down, inpaint besides keeps or is shown
what lies outside the mask.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image as PilImages
from PIL.Image import Image as PilImage
from torch.nn import functional

from webui.core.canvas import Canvas
from webui.core.groups.init import Init
from webui.core.images import Size
from webui.engine.families.base import Model, Posterior
from webui.engine.noise import Noise

# An array of Pillow's bytes is read-only, and so is all that is done with it here: read.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


class NotFinite(RuntimeError):
    """The picture came out as NaN or infinity."""


@dataclass(frozen=True)
class Encoded:
    """A canvas as the model sees it; depends on neither seed nor strength, so it is kept between jobs.

    ``mask`` is (1, 1, h, w) in 0..1 at latent size, with ``greys`` or of black and white alone; ``masked`` is the
    picture with the masked part grey (for UNets that inpaint).
    """

    picture: Posterior
    mask: torch.Tensor | None
    masked: Posterior | None
    greys: bool = False

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return sum(part.nbytes for part in (self.picture, self.mask, self.masked) if part is not None)


@dataclass(frozen=True)
class Hold:
    """Keeps what lies outside the mask on the input's own path while the rest is drawn.

    ``mask`` (1, 1, h, w) is how far each place may change: 1 is free from the start, 0 never, and grey m is let go
    for the last share m of the way (Levin and Fried 2023, "Differential Diffusion"): rounded to steps, and upwards
    where all grey is the soft edge of white (not ``greys``). ``original`` and ``noise`` are (n, channels, h, w).
    """

    mask: torch.Tensor
    original: torch.Tensor
    noise: torch.Tensor
    greys: bool = False

    def apply(self, noise: Noise, latents: torch.Tensor, index: int) -> torch.Tensor:
        """The latents before evaluation ``index`` (1..n), or at the end, with the held places at their noise level."""
        kept = noise.add(self.original, self.noise, index)
        reached = index - 0.5 if self.greys else index
        free = (self.mask > 1 - reached / len(noise)).to(latents.dtype)
        return (1 - free) * kept + free * latents


@dataclass(frozen=True)
class Start:
    """Where the loop begins: latents at their noise level, and what inpainting adds.

    ``shown`` (n, 1 + channels, h, w) is concatenated to the UNet's input.
    """

    latents: torch.Tensor
    hold: Hold | None = None
    shown: torch.Tensor | None = None


def make_generators(seed: int, count: int) -> list[torch.Generator]:
    """One CPU generator a picture, ``seed + k`` for picture k: the device and the batch change nothing."""
    return [torch.Generator("cpu").manual_seed(seed + k) for k in range(count)]


@torch.inference_mode()
def encode(model: Model, canvas: Canvas, device: torch.device) -> Encoded:
    """Picture and mask of a canvas as latents; the costly part of a start picture."""
    pixels = to_tensor(canvas.image, device)
    if canvas.mask is None:
        return Encoded(model.encode(pixels), None, _hidden(model, canvas.latent_size, device))
    mask = torch.from_numpy(np.asarray(canvas.mask)).to(device)[None, None].float().div_(255)
    masked = model.encode(pixels * (mask < 0.5)) if model.inpaints else None
    return Encoded(model.encode(pixels), functional.avg_pool2d(mask, model.latent_scale), masked, canvas.greys)


def _hidden(model: Model, size: Size, device: torch.device) -> Posterior | None:
    """For a UNet that inpaints: a picture that is masked all over, which diffusers shows as grey."""
    return model.encode(torch.zeros(1, 3, size[1], size[0], device=device)) if model.inpaints else None


def to_tensor(image: PilImage, device: torch.device) -> torch.Tensor:
    """An RGB picture as (1, 3, height, width), float32, -1..1.

    The array is the one copy of the pixels; it crosses to the device as bytes and becomes floats there.
    """
    pixels = torch.from_numpy(np.asarray(image)).to(device)
    return (
        pixels.permute(2, 0, 1)[None].to(torch.float32, memory_format=torch.contiguous_format).div_(255).mul_(2).sub_(1)
    )


@torch.inference_mode()
def prepare(
    model: Model, noise: Noise, size: Size, generators: Sequence[torch.Generator], device: torch.device
) -> Start:
    """txt2img: each picture's own noise (n, channels, height / scale, width / scale), float32, at full level."""
    drawn = _random(model, size, generators).to(device)
    hidden = _hidden(model, size, device)
    shown = None if hidden is None else _shown(hidden, None, generators)
    return Start(noise.full(drawn), shown=shown)


@torch.inference_mode()
def prepare_from(
    model: Model,
    noise: Noise,
    encoded: Encoded,
    size: Size,
    init: Init,
    generators: Sequence[torch.Generator],
    device: torch.device,
) -> Start:
    """img2img and inpaint: the picture's latents, noised to the level at which ``noise`` begins.

    Inpainting at full strength starts from noise alone. Random numbers are drawn in the order of diffusers' pipelines:
    posterior (but where nothing of the picture is needed), noise, masked posterior.
    """
    noise_alone = encoded.mask is not None and init.strength == 1.0
    unseen = noise_alone and encoded.masked is not None
    picture = encoded.picture.mean if unseen else encoded.picture.sample(generators)
    original = _at_size(picture, model, size)
    drawn = _random(model, size, generators).to(device)
    mask = encoded.mask
    begin = original if mask is None else _refill(original, drawn, mask, init)
    latents = noise.full(drawn) if noise_alone else noise.add(begin, drawn, 0)
    if encoded.masked is not None:
        return Start(latents, shown=_shown(encoded.masked, mask, generators))
    return Start(latents, hold=None if mask is None else Hold(mask, original, drawn, encoded.greys))


@torch.inference_mode()
def decode(
    model: Model, latents: torch.Tensor, unhooked: Callable[[], AbstractContextManager[None]] = nullcontext
) -> PilImage:
    """One picture from its latents (1, channels, h, w); raises NotFinite instead of passing off a black one.

    An autoencoder that overflows in its own format is asked again in float32, with its plain module: ``unhooked``.
    """
    if not torch.isfinite(latents).all():
        overflows = model.unet.dtype != torch.float32
        raise NotFinite(
            f"the UNet came to not-a-number values: {'it overflows in this number format, or ' if overflows else ''}a"
            " LoRA or a weight in the prompt is far too strong; try"
            f" {'--dtype float32 (or bfloat16), ' if overflows else ''}smaller weights, or another prediction"
        )
    picture = model.decode(latents)[0]
    if not torch.isfinite(picture).all():
        with unhooked():
            picture = model.decode(latents, in_float32=True)[0]
    if not torch.isfinite(picture).all():
        raise NotFinite(
            "the autoencoder came to not-a-number values even in float32: its file is likely damaged; choose another"
        )
    levels = (picture / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return PilImages.fromarray(levels.permute(1, 2, 0).cpu().numpy(), "RGB")


def _random(model: Model, size: Size, generators: Sequence[torch.Generator]) -> torch.Tensor:
    shape = (1, model.latent_channels, size[1] // model.latent_scale, size[0] // model.latent_scale)
    return torch.cat([torch.randn(shape, generator=generator) for generator in generators])


def _at_size(latents: torch.Tensor, model: Model, size: Size) -> torch.Tensor:
    """Latent resize: bilinear, where the picture was encoded at another size."""
    height, width = size[1] // model.latent_scale, size[0] // model.latent_scale
    if latents.shape[-2:] == (height, width):
        return latents
    return functional.interpolate(latents, (height, width), mode="bilinear", antialias=True)


def _refill(original: torch.Tensor, noise: torch.Tensor, mask: torch.Tensor, init: Init) -> torch.Tensor:
    """What the masked part starts from; "fill" was done in pixels."""
    if init.mask_fill == "noise":
        return (1 - mask) * original + mask * noise
    if init.mask_fill == "nothing":
        return (1 - mask) * original
    return original


def _shown(masked: Posterior, mask: torch.Tensor | None, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """The further input channels of an inpainting UNet: binary mask, then the masked picture's latents."""
    latents = masked.sample(generators)
    hard = torch.ones_like(latents[:, :1]) if mask is None else (mask >= 0.5).to(latents.dtype)
    return torch.cat([hard.expand(len(latents), -1, -1, -1), latents], dim=1)
