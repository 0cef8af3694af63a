"""Qwen-Image's autoencoder, which several families share: its files, its configuration from shapes, its latents.

It is made for films. A picture is a film of one frame, before which there is nothing: of each kernel through time the
last frame alone meets numbers that are not 0, and so the network is a KL autoencoder. Files name its tensors as
diffusers does, or as Wan does, whose autoencoder it was.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from webui.core.checkpoint import Checkpoint
from webui.core.files import VaeFile
from webui.core.kinds.parts import QWEN_IMAGE_VAE
from webui.core.tensor_file import BadFile
from webui.engine.families import base
from webui.engine.families.base import Posterior
from webui.engine.families.family import LatentFormat, Part, Parts
from webui.engine.families.latent import KlAutoencoder
from webui.engine.nets.autoencoder import Autoencoder
from webui.engine.weights import Files, Key, WeightLoader, build_empty

CHANNELS = 16
_RGB = (
    *((-0.1299, -0.1692, 0.2932), (0.0671, 0.0406, 0.0442), (0.3568, 0.2548, 0.1747), (0.0372, 0.2344, 0.1420)),
    *((0.0313, 0.0189, -0.0328), (0.0296, -0.0956, -0.0665), (-0.3477, -0.4059, -0.2925), (0.0166, 0.1902, 0.1975)),
    *((-0.0412, 0.0267, -0.1364), (-0.1293, 0.0740, 0.1636), (0.0680, 0.3019, 0.1128), (0.0032, 0.0581, 0.0639)),
    *((-0.1251, 0.0927, 0.1699), (0.0060, -0.0633, 0.0005), (0.3477, 0.2275, 0.2950), (0.1984, 0.0913, 0.1861)),
)
LATENTS = LatentFormat(CHANNELS, _RGB, rgb_offset=(-0.1835, -0.0868, -0.3360))
"""From latents to RGB in -1..1: ComfyUI, latent_formats.py, Wan21."""
MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
"""Of the latents by channel, where no configuration says it: the published one's (its config.json)."""

# what begins a tensor's name -> what begins it in Wan's names
_WHOLE = {"quant_conv": "conv1", "post_quant_conv": "conv2"}
_HALF = {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}
_MIDDLE = {"resnets.0": "middle.0", "attentions.0": "middle.1", "resnets.1": "middle.2"}
_RESNET = {
    "norm1": "residual.0",
    "conv1": "residual.2",
    "norm2": "residual.3",
    "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}
_BLOCK = re.compile(r"(down_blocks\.\d+|mid_block\.\w+\.\d+|up_blocks\.\d+\.\w+\.\d+)\.(\w+)\.(.+)")


def wan_name(path: str, resnets: int) -> str:
    """What Wan calls a tensor of diffusers' names; ``resnets`` are those of each level of the decoder.

    Where the encoder's blocks are one row in both, diffusers sorts the decoder's by level.
    """
    half, _, rest = path.partition(".")
    if half in _WHOLE:
        return f"{_WHOLE[half]}.{rest}"
    if not (found := _BLOCK.fullmatch(rest)):
        first, _, rest = rest.partition(".")
        return f"{half}.{_HALF[first]}.{rest}"
    block, tensor, rest = found.groups()
    place = block.split(".")
    if place[0] == "down_blocks":
        name = f"downsamples.{place[1]}"
    elif place[0] == "mid_block":
        name = _MIDDLE[f"{place[1]}.{place[2]}"]
    else:
        name = f"upsamples.{int(place[1]) * (resnets + 1) + (int(place[3]) if place[2] == 'resnets' else resnets)}"
    return f"{half}.{name}.{_RESNET.get(tensor, tensor)}.{rest}"


def is_wan(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> bool:
    """Whether a file has the autoencoder in Wan's names."""
    return f"{prefix}decoder.middle.0.residual.0.gamma" in shapes


def keys(parameter: str, root: nn.Module, names: str, prefix: str) -> Iterator[Key]:
    """Where a parameter may be found, in the file's names: of kernels for films what looks at the frame itself."""
    path, _, kind = parameter.rpartition(".")
    made: Any = root
    level = len(made.encoder.down_blocks[0].resnets) + 1
    if found := _DOWN.fullmatch(path):
        block, part, number, rest = found.groups()
        place = int(block) * level + (int(number) if part == "resnets" else level - 1)
        path = f"encoder.down_blocks.{place}.{rest}"
    third = None
    if found := _ATTENTION.fullmatch(path):
        path, third = f"{found[1]}.to_qkv", "qkv".index(found[2])
    for ours, theirs in _RENAMED.items():
        path = path.replace(ours, theirs)
    if "downsamplers" in parameter or "upsamplers" in parameter:
        path = f"{path.removesuffix('.conv')}.resample.1"
    film = kind == "weight" and bool(_OF_FILMS.search(path))
    name = f"{path}.{kind}"
    yield Key(prefix + (wan_name(name, level) if names == "wan" else name), third, last=film)


_DOWN = re.compile(r"encoder\.down_blocks\.(\d+)\.(resnets|downsamplers)\.(\d+)\.(.+)")
_ATTENTION = re.compile(r"(.+\.attentions\.\d+)\.to_([qkv])")
_OF_FILMS = re.compile(r"(^|\.)(conv_in|conv1|conv2|conv_out|conv_shortcut|quant_conv|post_quant_conv)$")
_RENAMED = {"conv_norm_out": "norm_out", "group_norm": "norm", "to_out.0": "proj"}


def config(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> dict[str, Any]:
    """Widths and levels from shapes, whichever names they go by; raises KeyError for a missing tensor."""
    wan = is_wan(shapes, prefix)
    row = f"{prefix}encoder.{'downsamples' if wan else 'down_blocks'}"
    conv_in, last = ("conv1", "residual.6") if wan else ("conv_in", "conv2")
    width = shapes[f"{prefix}encoder.{conv_in}.weight"][0]
    levels, falls, resnets, number, out = [], [], 0, 0, width
    while True:
        if block := shapes.get(f"{row}.{number}.{last}.weight"):
            resnets, out = resnets + 1, block[0]
        elif f"{row}.{number}.resample.1.weight" in shapes:
            falls.append(f"{row}.{number}.time_conv.weight" in shapes)
            levels.append((out, resnets))
            resnets = 0
        else:
            levels.append((out, resnets))
            break
        number += 1
    return {
        "base_dim": width,
        "z_dim": shapes[f"{prefix}{'conv2' if wan else 'post_quant_conv'}.weight"][0],
        "dim_mult": [side // width for side, _ in levels],
        "num_res_blocks": levels[0][1],
        "temperal_downsample": falls,
    }


def make(config: Mapping[str, Any]) -> Autoencoder:
    """The network for a picture, without weights; ValueError for a build that is not known."""
    if config.get("attn_scales"):
        raise ValueError(f"VAE has attn_scales {config['attn_scales']!r}, which is not supported")
    width = config.get("base_dim", 96)
    network = Autoencoder(
        {
            "block_out_channels": [width * times for times in config.get("dim_mult", (1, 2, 4, 4))],
            "layers_per_block": config.get("num_res_blocks", 2),
            "latent_channels": config.get("z_dim", CHANNELS),
            "norm_num_groups": None,
        }
    )
    told: Any = network
    told.latents_mean, told.latents_std = config.get("latents_mean", MEAN), config.get("latents_std", STD)
    return network


class QwenImageAutoencoder(KlAutoencoder):
    """Pictures and latents; these are without their mean and at unit variance, channel by channel."""

    def __init__(self, vae: Any, device: torch.device) -> None:
        super().__init__(vae, device)
        shape = (1, vae.latent_channels, 1, 1)
        self._mean = torch.tensor(vae.latents_mean, device=device).view(shape)
        self._std = torch.tensor(vae.latents_std, device=device).view(shape)

    def encode(self, picture: torch.Tensor) -> Posterior:
        """As in ``Autoencoder``: the likeliest latents, as diffusers has it for these families."""
        mean, std = self._vae.encode(picture.to(self._vae.dtype))
        return Posterior((mean.float() - self._mean) / self._std, std.float() / self._std, drawn=False)

    def decode(self, latents: torch.Tensor, in_float32: bool = False) -> torch.Tensor:
        """As in ``Autoencoder``."""
        return self._decode(latents.float() * self._std + self._mean, in_float32).clamp(-1, 1)


def autoencoder(parts: Parts) -> base.Autoencoder:
    """That of a model of these families."""
    return QwenImageAutoencoder(parts["vae"], parts.device)


def lone_vae(
    _file: VaeFile, files: Files, checkpoint: Checkpoint, dtype: torch.dtype
) -> tuple[WeightLoader, torch.dtype]:
    """What finds it in a file of its own, for a model of these families; raises BadFile."""
    if (prefix := QWEN_IMAGE_VAE.find(files.shapes)) is None:
        raise BadFile(f"holds no VAE of Qwen-Image's kind, which {checkpoint.family} needs")
    names = "wan" if is_wan(files.shapes, prefix) else "diffusers"
    module = build_empty(partial(make, config(files.shapes, prefix)))
    return WeightLoader(module, files, lambda name: keys(name, module, names, prefix)), dtype


VAE = Part(
    role="vae",
    title="VAE",
    make=make,
    config=lambda _checkpoint, shapes, prefix: config(shapes, prefix),
    keys=keys,
    names=lambda _checkpoint, shapes, prefix: "wan" if is_wan(shapes, prefix) else "diffusers",
    changeable=False,
)
