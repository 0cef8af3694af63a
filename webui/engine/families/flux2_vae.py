"""FLUX.2's autoencoder: a KL one of 32 channels, whose latents are held at unit variance patch by patch."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from webui.core.checkpoint import Checkpoint
from webui.core.files import VaeFile
from webui.core.kinds.parts import FLUX2_VAE
from webui.core.tensor_file import BadFile
from webui.engine.families.base import Posterior
from webui.engine.families.configs import vae_config
from webui.engine.families.family import Config, Part, Shapes
from webui.engine.families.latent import KlAutoencoder, kl_dtype
from webui.engine.families.ldm import vae_keys
from webui.engine.nets.autoencoder import Autoencoder
from webui.engine.weights import Files, Key, WeightLoader, build_empty

CHANNELS, PATCH = 32, 2
BATCH_NORM_EPS = 1e-4
# From latents to RGB in -1..1: ComfyUI's fit (latent_formats.py, Flux2)
RGB = (
    (0.0058, 0.0113, 0.0073),
    (0.0495, 0.0443, 0.0836),
    (-0.0099, 0.0096, 0.0644),
    (0.2144, 0.3009, 0.3652),
    (0.0166, -0.0039, -0.0054),
    (0.0157, 0.0103, -0.0160),
    (-0.0398, 0.0902, -0.0235),
    (-0.0052, 0.0095, 0.0109),
    (-0.3527, -0.2712, -0.1666),
    (-0.0301, -0.0356, -0.0180),
    (-0.0107, 0.0078, 0.0013),
    (0.0746, 0.0090, -0.0941),
    (0.0156, 0.0169, 0.0070),
    (-0.0034, -0.0040, -0.0114),
    (0.0032, 0.0181, 0.0080),
    (-0.0939, -0.0008, 0.0186),
    (0.0018, 0.0043, 0.0104),
    (0.0284, 0.0056, -0.0127),
    (-0.0024, -0.0022, -0.0030),
    (0.1207, -0.0026, 0.0065),
    (0.0128, 0.0101, 0.0142),
    (0.0137, -0.0072, -0.0007),
    (0.0095, 0.0092, -0.0059),
    (0.0000, -0.0077, -0.0049),
    (-0.0465, -0.0204, -0.0312),
    (0.0095, 0.0012, -0.0066),
    (0.0290, -0.0034, 0.0025),
    (0.0220, 0.0169, -0.0048),
    (-0.0332, -0.0457, -0.0468),
    (-0.0085, 0.0389, 0.0609),
    (-0.0076, 0.0003, -0.0043),
    (-0.0111, -0.0460, -0.0614),
)
RGB_OFFSET = (-0.0329, -0.0718, -0.0851)


class Statistics(nn.Module):
    """Mean and variance of each channel of a patch, under the names of torch's batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.running_mean = nn.Parameter(torch.empty(channels))
        self.running_var = nn.Parameter(torch.empty(channels))


class PatchedAutoencoder(Autoencoder):
    """The KL autoencoder with the statistics of its latents' patches; ``config`` is that of AutoencoderKLFlux2."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        if tuple(config.get("patch_size", (PATCH, PATCH))) != (PATCH, PATCH):
            raise ValueError(f"VAE has patch_size {config['patch_size']!r}, which is not supported")
        super().__init__({**config, "scaling_factor": 1.0})
        self.bn = Statistics(self.latent_channels * PATCH**2)
        self.batch_norm_eps = float(config.get("batch_norm_eps", BATCH_NORM_EPS))


class Flux2Autoencoder(KlAutoencoder):
    """Pictures and latents; these are without their mean and at unit variance, by channel and by place in a patch."""

    def __init__(self, vae: PatchedAutoencoder, device: torch.device) -> None:
        super().__init__(vae, device)
        mean, variance = (part.detach().float().to(device) for part in (vae.bn.running_mean, vae.bn.running_var))
        spread = torch.sqrt(variance + vae.batch_norm_eps)
        self._mean, self._spread = (
            functional.pixel_shuffle(part[None, :, None, None], PATCH) for part in (mean, spread)
        )

    def _over(self, pattern: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Numbers of one patch for every place of latents."""
        height, width = latents.shape[-2:]
        return pattern.repeat(1, 1, -(-height // PATCH), -(-width // PATCH))[..., :height, :width]

    def encode(self, picture: torch.Tensor) -> Posterior:
        """As in ``Autoencoder``: the likeliest latents, as diffusers has it for this family."""
        found = super().encode(picture)
        mean, spread = self._over(self._mean, found.mean), self._over(self._spread, found.mean)
        return Posterior((found.mean - mean) / spread, found.std / spread, drawn=False)

    def decode(self, latents: torch.Tensor, in_float32: bool = False) -> torch.Tensor:
        """As in ``Autoencoder``."""
        latents = latents.float() * self._over(self._spread, latents) + self._over(self._mean, latents)
        return super().decode(latents, in_float32)


def names_of(shapes: Shapes, prefix: str) -> str:
    """Whose names a file's autoencoder goes by: diffusers', or those of the original programs."""
    return "diffusers" if f"{prefix}decoder.mid_block.resnets.0.conv1.weight" in shapes else "ldm"


def config_of(shapes: Shapes, prefix: str) -> Config:
    """Widths and levels from shapes; raises KeyError for a missing tensor."""
    names = names_of(shapes, prefix)
    there = {
        f"use_{part}": any(f"{prefix}{half}{part}.weight" in shapes for half in ("", "encoder.", "decoder."))
        for part in ("quant_conv", "post_quant_conv")
    }
    config = vae_config(1.0, shapes, prefix, names)
    levels = range(len(config["block_out_channels"]))
    first = {"ldm": "up.{}.block.0", "diffusers": "up_blocks.{}.resnets.0"}[names]
    order = levels if names == "ldm" else reversed(levels)  # the original program counts from the picture's side
    up = [shapes[f"{prefix}decoder.{first.format(level)}.conv1.weight"][0] for level in order]
    return {**config, **there, "decoder_block_out_channels": up}


def keys(parameter: str, root: nn.Module, names: str, prefix: str) -> Iterator[Key]:
    """Where a parameter may be found, in the file's names."""
    yield from vae_keys(parameter, root, names, prefix)
    if parameter.startswith(("quant_conv.", "post_quant_conv.")):
        yield Key(f"{prefix}{'decoder' if parameter.startswith('post') else 'encoder'}.{parameter}")


def lone_vae(
    _file: VaeFile, files: Files, checkpoint: Checkpoint, dtype: torch.dtype
) -> tuple[WeightLoader, torch.dtype]:
    """An autoencoder in a file of its own."""
    if (prefix := FLUX2_VAE.find(files.shapes)) is None:
        raise BadFile(f"holds no VAE of FLUX.2's kind, which {checkpoint.family} needs")
    config, names = config_of(files.shapes, prefix), names_of(files.shapes, prefix)
    module = build_empty(lambda: PatchedAutoencoder(config))
    return WeightLoader(module, files, lambda name: keys(name, module, names, prefix)), kl_dtype(config, dtype)


VAE = Part(
    role="vae",
    title="VAE",
    make=PatchedAutoencoder,
    config=lambda _checkpoint, shapes, prefix: config_of(shapes, prefix),
    keys=keys,
    names=lambda _checkpoint, shapes, prefix: names_of(shapes, prefix),
    dtype=kl_dtype,
    changeable=False,
)
