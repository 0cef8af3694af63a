"""LoRA files made in tests: tensors under the names that people's files have."""

import torch

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0"
TO_K = f"lora_unet_{ATTENTION.replace('.', '_')}_attn2_to_k"
CONV_IN, NORM = "lora_unet_conv_in", "lora_unet_conv_norm_out"

Tensors = dict[str, torch.Tensor]


def lora(out: int, inside: int, rank: int = 4, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    return (0.1 * torch.randn(rank, inside)).to(dtype), (0.1 * torch.randn(out, rank)).to(dtype)


def kohya(name: str, out: int, inside: int, **how) -> Tensors:
    return dict(zip((f"{name}.lora_down.weight", f"{name}.lora_up.weight"), lora(out, inside, **how), strict=True))
