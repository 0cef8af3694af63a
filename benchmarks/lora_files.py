"""Random LoRAs: kohya files of rank 16 over attention, feed-forward, projections and some 3 x 3 convolutions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from webui.core.files import LoraFile

RANK, ALPHA = 16, 8.0
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
CONVOLUTIONS = ("down_blocks", "conv1")
"""First and last part of their names; with all of them, two sets at SD 1.5's size would take more than the cache."""


def lora_targets(unet: nn.Module) -> Iterator[tuple[str, Any]]:
    """What the LoRAs change, by name."""
    first, last = CONVOLUTIONS
    for name, module in unet.named_modules():
        if ("attentions" in name and name.endswith(TARGETS)) or (name.startswith(first) and name.endswith(last)):
            yield name, module


def write_lora(path: Path, unet: nn.Module, seed: int) -> LoraFile:
    """A kohya file for that network, its numbers from the seed."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, module in lora_targets(unet):
        out, into, *kernel = module.weight.shape
        down = torch.randn(RANK, into, *kernel, generator=generator)
        up = torch.randn(out, RANK, *(1 for _ in kernel), generator=generator)
        key = f"lora_unet_{name.replace('.', '_')}"
        tensors[f"{key}.lora_down.weight"] = down.mul_(0.02).half()
        tensors[f"{key}.lora_up.weight"] = up.mul_(0.02).half()
        tensors[f"{key}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, path)
    return LoraFile(path.stem, path)
