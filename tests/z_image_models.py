"""A tiny Z-Image with random weights, in each layout that people have, in the published names."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from tests.anima_models import ENCODER, encoder_state

TRANSFORMER = {
    **{"in_channels": 16, "dim": 64, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2},
    **{"cap_feat_dim": 32, "axes_dims": [8, 12, 12], "axes_lens": [1536, 512, 512]},
}
VAE = {
    **{"latent_channels": 16, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "norm_num_groups": 32},
    **{"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4},
    **{"scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False},
}


def make_parts(encoder_width: int = 32, transformer: Mapping[str, Any] = TRANSFORMER) -> dict[str, Any]:
    """diffusers' and transformers' networks by the names of diffusers' folder, always with the same weights."""
    from diffusers import AutoencoderKL, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    parts = {
        "transformer": ZImageTransformer2DModel(**transformer),
        "text_encoder": Qwen3Model(Qwen3Config(**ENCODER | {"hidden_size": encoder_width, "num_hidden_layers": 3})),
        "vae": AutoencoderKL(**VAE),
    }
    generator = torch.Generator().manual_seed(1)
    for parameter in parts["transformer"].parameters():  # so that words and time show in what comes of it
        if parameter.ndim > 1:
            parameter.data.normal_(generator=generator).mul_(1.0 / parameter.shape[1] ** 0.5)
    return {name: part.eval().requires_grad_(False) for name, part in parts.items()}


def make_pipe(parts: Mapping[str, Any], tokenizer: Any, shift: float = 3.0, kind: str = "ZImagePipeline") -> Any:
    """diffusers' own pipeline of these parts."""
    import diffusers

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    pipe = getattr(diffusers, kind)(**parts, tokenizer=tokenizer, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def theirs(parts: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The transformer under its own program's names, with attention's projections in one."""
    from webui.engine.families.z_image import own_name

    gathered: dict[str, list[torch.Tensor]] = {}
    for name, tensor in parts["transformer"].state_dict().items():
        gathered.setdefault(prefix + own_name(name), []).append(tensor)
    return {name: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for name, tensors in gathered.items()}


def vae_state(parts: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The autoencoder under FLUX.1's own names."""
    from webui.engine.families.ldm import vae_keys
    from webui.engine.nets.autoencoder import Autoencoder

    own = Autoencoder(parts["vae"].config)
    state = parts["vae"].state_dict()
    return {prefix + next(vae_keys(name, own, "ldm", "")).name: tensor.contiguous() for name, tensor in state.items()}


def save_whole(path: Path, parts: Mapping[str, Any]) -> Path:
    """All in one file, as ComfyUI saves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = encoder_state(parts, "text_encoders.qwen3_4b.transformer.model.")
    save_file(theirs(parts, "model.diffusion_model.") | text | vae_state(parts, "vae."), path)
    return path


def save_apart(models: Path, parts: Mapping[str, Any], prefix: str = "") -> Path:
    """The transformer, the text encoder and the autoencoder in the folders that people keep them in."""
    files = {
        "diffusion_models/z-image-tiny.safetensors": theirs(parts, prefix)
        | {f"{prefix}norm_final.weight": torch.ones(64)},
        "text_encoders/qwen_3_tiny.safetensors": encoder_state(parts, "model."),
        "VAE/ae-tiny.safetensors": vae_state(parts, ""),
    }
    for place, state in files.items():
        (models / place).parent.mkdir(parents=True, exist_ok=True)
        save_file(state, models / place)
    return models / "diffusion_models/z-image-tiny.safetensors"


STYLES: Mapping[str, Callable[[str], str]] = {
    "diffusers": lambda path: f"transformer.{path}",
    "ComfyUI": lambda path: f"diffusion_model.{path}",
    "kohya": lambda path: f"lora_unet_{path}".replace(".", "_"),
    "bare": lambda path: path,
}
"""How programs call a module of the transformer in LoRA files."""


def published(layers: int = 30, refiners: int = 2, words_layers: int = 36) -> dict[str, dict[str, tuple[int, ...]]]:
    """Names and shapes of the three files as they were published, by the folder that each goes into."""
    from webui.engine.families import z_image
    from webui.engine.families.ldm import vae_keys
    from webui.engine.nets.autoencoder import Autoencoder
    from webui.engine.text import qwen
    from webui.engine.weights import build_empty

    wide = {"dim": 3840, "n_layers": layers, "n_refiner_layers": refiners, "n_heads": 30, "n_kv_heads": 30}
    wide |= {"cap_feat_dim": 2560, "axes_dims": [32, 48, 48]}
    deep = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": words_layers, "head_dim": 128}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8}
    levels = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    vae = build_empty(partial(Autoencoder, VAE | levels))

    def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
        return {name: tuple(part.shape) for name, part in module.named_parameters()}

    own: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes(build_empty(partial(z_image.TRANSFORMER.make, TRANSFORMER | wide))).items():
        there = own.get(theirs_name := z_image.own_name(name), (0, *shape[1:]))
        own[theirs_name] = (there[0] + shape[0], *shape[1:])
    words = shapes(build_empty(partial(qwen.make, ENCODER | deep | heads)))
    pixels = shapes(vae)
    return {
        "diffusion_models": own,
        "text_encoders": {f"model.{name}": shape for name, shape in words.items()},
        "VAE": {next(vae_keys(name, vae, "ldm", "")).name: shape for name, shape in pixels.items()},
    }
