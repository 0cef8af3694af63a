"""Small random controls in the layouts that people have: folders of diffusers', and single files under the published
names.

Each is what its published file is, at the size of ``checkpoints.small``'s models. Nothing here comes from ``webui``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
from checkpoints import Tensors, _layers, _named, _sequence
from PIL import Image as PilImages
from safetensors.torch import save_file
from torch import nn

SIDE = 64
"""Of the pictures, in px."""
RANK = 4
WIDTHS = (8, 8, 16, 16)
"""Of the network that sees the map."""


def _fill(net: nn.Module, seed: int, size: float = 0.1) -> nn.Module:
    """What training begins at zero gets random numbers."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        if not parameter.any():
            parameter.data.normal_(0, size, generator=generator)
    return net.eval().requires_grad_(False)


def _settings(net: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in net.config.items() if name[:1] != "_"}


def control_net(unet: nn.Module, seed: int = 1, **settings: Any) -> diffusers.ControlNetModel:
    """A ControlNet for a UNet, whose own half is what it begins from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=WIDTHS)
        if settings:
            made = diffusers.ControlNetModel(**_settings(made) | settings)
    return _fill(made, seed)


def union(unet: nn.Module, kinds: int = 6, seed: int = 2) -> diffusers.ControlNetUnionModel:
    """A union for a UNet of SDXL."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = diffusers.ControlNetUnionModel.from_unet(unet, conditioning_embedding_out_channels=WIDTHS)
        width = unet.config.block_out_channels[0]
        config = _settings(made) | {"num_control_type": kinds, "num_trans_channel": width, "num_trans_head": 4}
        made = diffusers.ControlNetUnionModel(**config | {"num_proj_channel": width})
    return _fill(made, seed)


def adapter(unet: nn.Module, kind: str = "full_adapter", greys: bool = False, seed: int = 3) -> diffusers.T2IAdapter:
    """A T2I-Adapter for a UNet: its channels are the UNet's."""
    channels = list(unet.config.block_out_channels)
    xl = kind == "full_adapter_xl"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = diffusers.T2IAdapter(
            in_channels=1 if greys else 3,
            channels=[*channels, channels[-1]] if xl else channels[:-1] if kind == "light_adapter" else channels,
            num_res_blocks=2,
            downscale_factor=16 if xl else 8,
            adapter_type=kind,
        )
    return made.eval().requires_grad_(False)


def to_ldm(net: diffusers.ControlNetModel) -> dict[str, torch.Tensor]:
    """A ControlNet under the names of lllyasviel's files, without their ``control_model.``."""
    return {name: tensor.contiguous() for name, tensor in _net_to_ldm(net)}


def _net_to_ldm(net: diffusers.ControlNetModel) -> Tensors:
    yield from _named("time_embed", net.time_embedding, {"linear_1": "0", "linear_2": "2"})
    if hasattr(net, "add_embedding"):
        yield from _named("label_emb.0", net.add_embedding, {"linear_1": "0", "linear_2": "2"})
    inputs: list[list[nn.Module]] = [[net.conv_in]]
    for block in net.down_blocks:
        inputs += _layers(block) + [[module] for module in block.downsamplers or ()]
    for index, modules in enumerate(inputs):
        yield from _sequence(f"input_blocks.{index}", modules)
        yield from _named(f"zero_convs.{index}.0", net.controlnet_down_blocks[index])
    first, last = net.mid_block.resnets
    yield from _sequence("middle_block", [first, net.mid_block.attentions[0], last])
    yield from _named("middle_block_out.0", net.controlnet_mid_block)
    seen = net.controlnet_cond_embedding
    for index, layer in enumerate((seen.conv_in, *seen.blocks, seen.conv_out)):
        yield from _named(f"input_hint_block.{2 * index}", layer)


def control_lora(unet: nn.Module, seed: int = 4) -> tuple[dict[str, torch.Tensor], diffusers.ControlNetModel]:
    """A file as stabilityai's Control-LoRAs, and the ControlNet that it makes of the UNet."""
    whole = control_net(unet, seed)
    base = to_ldm(control_net(unet, seed))
    generator, tensors = torch.Generator().manual_seed(seed), {"lora_controlnet": torch.zeros(0)}
    changed = dict(base)
    for name, weight in base.items():
        is_own = name.startswith(("input_hint_block", "zero_convs", "middle_block_out"))
        if is_own or weight.dim() < 2:
            tensors[name] = weight
            continue
        out, *inner = weight.shape
        up = torch.randn(out, RANK, generator=generator) * 0.02
        down = torch.randn(RANK, *inner, generator=generator)
        path = name.removesuffix(".weight")
        tensors |= {f"{path}.up": up.view(out, RANK, *(1 for _ in inner[1:])), f"{path}.down": down}
        changed[name] = weight + (up @ down.flatten(1)).view(weight.shape)
    spelled = dict(zip(to_ldm(whole), (name for name, _ in _paths(whole)), strict=True))
    whole.load_state_dict({spelled[name]: tensor for name, tensor in changed.items()})
    return {name: tensor.contiguous() for name, tensor in tensors.items()}, whole


def _paths(net: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """diffusers' own names in the order of ``to_ldm``: each tensor is found again by its memory."""
    own = {tensor.data_ptr(): name for name, tensor in net.state_dict().items()}
    return ((own[tensor.data_ptr()], tensor) for _, tensor in _net_to_ldm(net))


def to_original(made: diffusers.T2IAdapter) -> dict[str, torch.Tensor]:
    """A T2I-Adapter under TencentARC's names."""
    layers, light = made.config.num_res_blocks, made.config.adapter_type == "light_adapter"
    tensors = {}
    for key, tensor in made.state_dict().items():
        _, *path = key.split(".")
        if light:
            path = ["body" if part == "resnets" else part for part in path]
        elif path[0] == "body":
            level, inner = int(path[1]), path[2:]
            number = level * layers + (int(inner[1]) if inner[0] == "resnets" else 0)
            path = ["body", str(number), *(inner[2:] if inner[0] == "resnets" else inner)]
        tensors[".".join(path)] = tensor.contiguous()
    return tensors


def save(path: Path, tensors: dict[str, torch.Tensor], prefix: str = "", dtype: torch.dtype | None = None) -> Path:
    """A single file."""
    save_file({prefix + name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}, path)
    return path


def guide(seed: int = 3) -> PilImages.Image:
    """A map of white lines."""
    image = PilImages.new("RGB", (SIDE, SIDE))
    image.paste((255, 255, 255), (8 + seed, 8, 12 + seed, 56))
    image.paste((200, 90, 40), (16, 30, 60, 34 + seed))
    return image
