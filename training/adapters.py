"""Low-rank layers beside a frozen model's own, and the two file formats that the world keeps them in.

LoRA: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021. A layer with weight W computes
W x + weight * (alpha / rank) * up(down(x)); `up` starts at zero, so a new adapter changes nothing.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

PREFIXES = {"unet": "lora_unet_", "text": "lora_te_text_model_"}
"""The part of the denoiser a layer is in, and how kohya's names for it begin.

Those names come from a CLIPTextModel whose layers lay one level deeper, in `text_model`; they kept that level."""


class LowRank(nn.Module):
    """`up(down(x))` for a linear layer, or for a convolution: there `down` has its kernel and `up` is 1x1."""

    down: nn.Linear | nn.Conv2d
    up: nn.Linear | nn.Conv2d

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, alpha: float):
        super().__init__()
        self.scale = alpha / rank
        if isinstance(base, nn.Linear):
            self.down = nn.Linear(base.in_features, rank, bias=False)
            self.up = nn.Linear(rank, base.out_features, bias=False)
        else:
            shape: dict[str, Any] = {name: getattr(base, name) for name in ("kernel_size", "stride", "padding")}
            self.down = nn.Conv2d(base.in_channels, rank, **shape, bias=False)
            self.up = nn.Conv2d(rank, base.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, inputs: Tensor, weight: Tensor | float) -> Tensor:
        """What is added to the base layer's output for `inputs` [n, ...]; `weight` is one number or [n]."""
        if isinstance(weight, Tensor):
            weight = weight.view(-1, *[1] * (inputs.ndim - 1))
        added: Tensor = self.up(self.down(inputs))
        return added * (self.scale * weight)


class Adapter(nn.Module):
    """The low-rank layers of one LoRA, in effect on the denoiser's layers until `detach`.

    `weight` is the strength, 0 to 1 and beyond: one number, or a tensor [n] with one for each row of the batch.
    """

    def __init__(self, denoiser: nn.Module, wanted: re.Pattern[str], rank: int, alpha: float):
        super().__init__()
        self.rank, self.alpha = rank, alpha
        self.weight: Tensor | float = 1.0
        modules = {name: module for name, module in denoiser.named_modules() if wanted.fullmatch(name)}
        bases = {name: module for name, module in modules.items() if is_linear(module)}
        self.layers = {name: LowRank(base, rank, alpha) for name, base in bases.items()}
        self.registered = nn.ModuleList(self.layers.values())
        self.handles = [base.register_forward_hook(self.hook(self.layers[name])) for name, base in bases.items()]

    def hook(self, layer: LowRank) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        """The forward hook that adds one low-rank layer's output to its base layer's."""
        return lambda module, inputs, output: output + layer(inputs[0], self.weight)

    def detach(self) -> None:
        """Give the denoiser its own layers back."""
        for handle in self.handles:
            handle.remove()


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """Whether a low-rank layer can stand beside it."""
    return isinstance(module, (nn.Linear, nn.Conv2d))


def kohya_name(name: str) -> str:
    """`unet.mid_block.attentions.0.proj_in` as `lora_unet_mid_block_attentions_0_proj_in`; `text...` likewise."""
    part, _, path = name.partition(".")
    return PREFIXES[part] + path.replace(".", "_")


def kohya_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """The layers as kohya's scripts name them, each with its alpha (a scalar), in half precision."""
    tensors = {}
    for name, layer in adapter.layers.items():
        key = kohya_name(name)
        tensors[f"{key}.lora_down.weight"] = layer.down.weight
        tensors[f"{key}.lora_up.weight"] = layer.up.weight
        tensors[f"{key}.alpha"] = torch.tensor(adapter.alpha)
    return halves(tensors)


def peft_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """The layers of the UNet as diffusers and PEFT name them, in half precision; alpha is in the metadata."""
    tensors = {}
    for name, layer in adapter.layers.items():
        tensors[f"{name}.lora_A.weight"] = layer.down.weight
        tensors[f"{name}.lora_B.weight"] = layer.up.weight
    return halves(tensors)


def halves(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in half precision, as a file holds them."""
    return {key: value.detach().half().contiguous() for key, value in tensors.items()}


def kohya_metadata(adapter: Adapter, name: str) -> dict[str, str]:
    """What kohya's scripts write beside the tensors, as far as it applies here."""
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(adapter.rank),
        "ss_network_alpha": str(adapter.alpha),
        "ss_output_name": name,
        "ss_base_model_version": "darkroom_demo",
    }


def peft_metadata(adapter: Adapter) -> dict[str, str]:
    """PEFT's configuration as diffusers' `save_lora_metadata` packs it: JSON, its keys behind `unet.`."""
    config = {
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "target_modules": sorted(name.removeprefix("unet.") for name in adapter.layers),
        "lora_dropout": 0.0,
        "bias": "none",
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": False,
        "use_dora": False,
    }
    packed = {f"unet.{key}": value for key, value in config.items()}
    return {"format": "pt", "lora_adapter_metadata": json.dumps(packed, sort_keys=True)}


def save(adapter: Adapter, file: Path, layout: str, description: dict[str, str]) -> int:
    """Write a LoRA in the layout "kohya" or "peft" with a description in its metadata; return its size in bytes."""
    if layout == "kohya":
        tensors, metadata = kohya_tensors(adapter), kohya_metadata(adapter, file.stem)
    else:
        tensors, metadata = peft_tensors(adapter), peft_metadata(adapter)
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(to_bytes(tensors, metadata | description))
    temporary.replace(file)
    return file.stat().st_size


def load_into(adapter: Adapter, tensors: dict[str, Tensor]) -> None:
    """Fill an adapter's layers with a file's tensors, in either layout; KeyError where one is missing."""
    for name, layer in adapter.layers.items():
        kohya = f"{kohya_name(name)}.lora_down.weight" in tensors
        keys = ("lora_down", "lora_up") if kohya else ("lora_A", "lora_B")
        for module, key in zip((layer.down, layer.up), keys, strict=True):
            stored = tensors[f"{kohya_name(name) if kohya else name}.{key}.weight"]
            module.weight.data.copy_(stored.float())
