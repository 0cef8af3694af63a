"""What goes into the loop: the only place where the three tasks differ.

txt2img starts from noise, img2img from a noised picture part of the way down, inpaint besides keeps or is shown
what lies outside the mask.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL.Image import Image as PilImage
from torch.nn import functional

from webui.core.canvas import Canvas
from webui.core.groups.variation import Variation
from webui.core.images import Box, Cut, Size
from webui.core.latent_filters import LATENT_FILTERS
from webui.core.stages import Pass
from webui.engine.families.base import Draw, Posterior
from webui.engine.families.model import Model
from webui.engine.noise import Noise

# An array of Pillow's bytes is read-only, and so is all that is done with it here: read.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


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


def make_generators(seeds: Iterable[int]) -> list[torch.Generator]:
    """One CPU generator a picture, for each its seed: the device and the batch change nothing."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def make_draw(generators: Sequence[torch.Generator], variation: Variation | None = None, first: int = 0) -> Draw:
    """What a pass begins with, from each picture's generator; ``first`` is the number of the first one in its job.

    With a variation each number lies between that one and what the variation's seed would have drawn in its place.
    """

    def draw(shape: Sequence[int]) -> torch.Tensor:
        return torch.cat([torch.randn(shape, generator=generator) for generator in generators])

    if variation is None:
        return draw
    seeds = (variation.picture(first + k).seed for k in range(len(generators)))
    draw_other = make_draw(make_generators(seeds))

    def draw_between(shape: Sequence[int]) -> torch.Tensor:
        pairs = zip(draw(shape), draw_other(shape), strict=True)
        return torch.stack([slerp(one, other, variation.strength) for one, other in pairs])

    return draw_between


def slerp(one: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    """From ``one`` (0) to ``other`` (1), both (channels, h, w), along the sphere, for each column by itself.

    Shoemake 1985, "Animating Rotation with Quaternion Curves", with the dimension and the limit of A1111's
    ``modules/rng.py``. Of noises that are all but the same there is a mean, with the shares the other way round there.
    """
    ways = [noise / torch.linalg.vector_norm(noise, dim=1, keepdim=True) for noise in (one, other)]
    cosine = (ways[0] * ways[1]).sum(1)
    if cosine.mean() > 0.9995:
        return one * share + other * (1 - share)
    angle = torch.acos(cosine)
    parts = [torch.sin(part * angle) / torch.sin(angle) for part in (1.0 - share, share)]
    return parts[0].unsqueeze(1) * one + parts[1].unsqueeze(1) * other


@torch.inference_mode()
def encode(model: Model, canvas: Canvas, device: torch.device) -> Encoded:
    """Picture and mask of a canvas as latents; the costly part of a start picture."""
    pixels = to_tensor(canvas.image, device)
    if canvas.mask is None:
        return Encoded(model.encode(pixels), None, _hidden(model, canvas.latent_size, device))
    mask = torch.from_numpy(np.asarray(canvas.mask)).to(device)[None, None].float().div_(255)
    masked = model.encode(pixels * (mask < 0.5)) if model.inpaints else None
    return Encoded(model.encode(pixels), functional.avg_pool2d(mask, model.latent_scale), masked, canvas.greys)


@torch.inference_mode()
def encode_latents(model: Model, latents: torch.Tensor, canvas: Canvas | None, size: Size) -> Encoded:
    """Latents (1, channels, h, w) as what a model sees of its start picture; ``canvas`` where a part of it is kept."""
    known = Posterior(latents, torch.zeros(()), drawn=False)
    if canvas is None:
        return Encoded(known, None, _hidden(model, size, latents.device))
    return replace(encode(model, canvas, latents.device), picture=known)


@torch.inference_mode()
def enlarge(latents: torch.Tensor, own: Size, size: Size, filter_name: str, scale: int) -> torch.Tensor:
    """Latents of a picture of ``own`` px at another size in px, as A1111's hires fix has them.

    They fill another shape, and the rest is cut off on both sides.
    """
    mode, antialias = LATENT_FILTERS[filter_name]
    (across, down), (left, top, right, bottom) = _enlarged(own, size, scale)
    made = functional.interpolate(latents, (down, across), mode=mode, antialias=antialias)
    return made[..., top:bottom, left:right].contiguous()


def cut_of_enlarged(own: Size, size: Size, scale: int) -> Cut:
    """What of a picture of ``own`` px its latents show when they are enlarged to ``size``."""
    (across, down), (left, top, right, bottom) = _enlarged(own, size, scale)
    width, height = own
    return left * width / across, top * height / down, right * width / across, bottom * height / down


def _enlarged(own: Size, size: Size, scale: int) -> tuple[Size, Box]:
    """The size that fills another shape, and what of it is kept, both in latents of ``scale`` px."""
    (across, down), (width, height) = own, size
    is_higher = across * height < width * down
    full = (width, width * down // across) if is_higher else (height * across // down, height)
    left, top = ((px // scale - side // scale) // 2 for px, side in zip(full, size, strict=True))
    return (full[0] // scale, full[1] // scale), (left, top, left + width // scale, top + height // scale)


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
def prepare(model: Model, noise: Noise, size: Size, draw: Draw, device: torch.device) -> Start:
    """txt2img: each picture's own noise (n, channels, height / scale, width / scale), float32, at full level."""
    drawn = _draw_noise(model, size, draw).to(device)
    hidden = _hidden(model, size, device)
    shown = None if hidden is None else _shown(hidden, None, draw)
    return Start(noise.full(drawn), shown=shown)


@torch.inference_mode()
def prepare_from(
    model: Model,
    noise: Noise,
    encoded: Encoded,
    stage: Pass,
    draw: Draw,
    device: torch.device,
) -> Start:
    """img2img and inpaint: the picture's latents, noised to the level at which ``noise`` begins.

    Inpainting at full strength starts from noise alone. Random numbers are drawn in the order of diffusers' pipelines:
    posterior (but where nothing of the picture is needed), noise, masked posterior.
    """
    noise_alone = encoded.mask is not None and stage.strength == 1.0
    unseen = noise_alone and encoded.masked is not None
    picture = encoded.picture.mean if unseen else encoded.picture.sample(draw)
    original = _at_size(picture, model, stage.size)
    drawn = _draw_noise(model, stage.size, draw).to(device)
    mask = encoded.mask
    begin = (
        original if mask is None else _refill(original, drawn, mask, stage.init.mask_fill if stage.init else "original")
    )
    latents = noise.full(drawn) if noise_alone else noise.add(begin, drawn, 0)
    if encoded.masked is not None:
        return Start(latents, shown=_shown(encoded.masked, mask, draw))
    return Start(latents, hold=None if mask is None else Hold(mask, original, drawn, encoded.greys))


def _draw_noise(model: Model, size: Size, draw: Draw) -> torch.Tensor:
    """Each picture's noise; what is drawn as a patch is then laid out as its latents, and cut where it has too many."""
    height, width = (side // model.latent_scale for side in size[::-1])
    if (patch := model.noise_patch) == 1:
        return draw((1, model.latent_channels, height, width))
    patches = draw((1, model.latent_channels * patch**2, -(-height // patch), -(-width // patch)))
    return functional.pixel_shuffle(patches, patch)[..., :height, :width].contiguous()


def _at_size(latents: torch.Tensor, model: Model, size: Size) -> torch.Tensor:
    """Latent resize: bilinear, where the picture was encoded at another size."""
    height, width = size[1] // model.latent_scale, size[0] // model.latent_scale
    if latents.shape[-2:] == (height, width):
        return latents
    return functional.interpolate(latents, (height, width), mode="bilinear", antialias=True)


def _refill(original: torch.Tensor, noise: torch.Tensor, mask: torch.Tensor, fill: str) -> torch.Tensor:
    """What the masked part starts from; "fill" was done in pixels."""
    if fill == "noise":
        return (1 - mask) * original + mask * noise
    if fill == "nothing":
        return (1 - mask) * original
    return original


def _shown(masked: Posterior, mask: torch.Tensor | None, draw: Draw) -> torch.Tensor:
    """The further input channels of an inpainting UNet: binary mask, then the masked picture's latents."""
    latents = masked.sample(draw)
    hard = torch.ones_like(latents[:, :1]) if mask is None else (mask >= 0.5).to(latents.dtype)
    return torch.cat([hard.expand(len(latents), -1, -1, -1), latents], dim=1)
