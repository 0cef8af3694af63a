"""A tiny Krea 2 with random weights, in each layout that people have; the published names, a hundredth of the sizes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.anima_models import VAE, _state, vae_state

TRANSFORMER = {
    **{"in_channels": 64, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "intermediate_size": 96, "timestep_embed_dim": 16, "text_hidden_dim": 32},
    **{"num_text_layers": 3, "text_num_attention_heads": 2, "text_num_key_value_heads": 2},
    **{"text_intermediate_size": 48, "num_layerwise_text_blocks": 1, "num_refiner_text_blocks": 1},
    "axes_dims_rope": (4, 6, 6),
}
LAYERS = (2, 5, 8)
WORDS = {
    **{"vocab_size": 151_936, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 9, "head_dim": 16},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32_768},
    "rope_parameters": {"rope_type": "default", "rope_theta": 5_000_000.0, "mrope_section": [4, 2, 2]},
}
EYES = {
    **{"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 8, "out_hidden_size": 32},
    **{"deepstack_visual_indexes": [0], "num_position_embeddings": 16},
}


def make_parts(width: int = 32, layers: int = 9, transformer: Mapping[str, Any] = TRANSFORMER) -> dict[str, Any]:
    """diffusers' and transformers' networks by the names of diffusers' folder, always with the same weights."""
    from diffusers import AutoencoderKLQwenImage, Krea2Transformer2DModel
    from transformers import Qwen3VLConfig, Qwen3VLModel

    torch.manual_seed(0)
    words = WORDS | {"hidden_size": width, "num_hidden_layers": layers}
    parts = {
        "transformer": Krea2Transformer2DModel(**transformer),
        "text_encoder": Qwen3VLModel(Qwen3VLConfig(text_config=words, vision_config=EYES | {"out_hidden_size": width})),
        "vae": AutoencoderKLQwenImage(**VAE),
    }
    generator = torch.Generator().manual_seed(1)
    for name, parameter in parts["transformer"].named_parameters():  # so that words and time show in what comes of it
        if parameter.ndim > 1 and "table" not in name:
            parameter.data.normal_(generator=generator).mul_(1.5 / parameter.shape[1] ** 0.5)
        else:
            parameter.data.normal_(generator=generator).mul_(0.2)
    return {name: part.eval().requires_grad_(False) for name, part in parts.items()}


def save_folder(folder: Path, parts: Mapping[str, Any], distilled: bool = False) -> Path:
    """As ``Krea2Pipeline.save_pretrained`` lays it out; the vocabulary is the one that ships."""
    pipeline(parts, distilled).save_pretrained(folder)
    return folder


def pipeline(parts: Mapping[str, Any], distilled: bool = False, tokenizer: Any = None) -> Any:
    """diffusers' own."""
    from diffusers import FlowMatchEulerDiscreteScheduler, Krea2Pipeline

    from webui.core.kinds.krea2 import BY_SIZE

    scheduler = FlowMatchEulerDiscreteScheduler(**BY_SIZE)
    pipe = Krea2Pipeline(
        scheduler=scheduler, tokenizer=tokenizer, **parts, text_encoder_select_layers=LAYERS, is_distilled=distilled
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def theirs(parts: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The transformer under its original names."""
    from webui.engine.families.krea2 import krea_key

    own = {f"{prefix}{krea_key(name)}": tensor for name, tensor in _state(parts["transformer"]).items()}
    return {name: tensor.flatten() if name.endswith("mod.lin") else tensor for name, tensor in own.items()}


def encoder_state(parts: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The text encoder with its eyes, as a file of it has both."""
    return {f"{prefix}{name}": tensor for name, tensor in _state(parts["text_encoder"]).items()}


def save_whole(path: Path, parts: Mapping[str, Any]) -> Path:
    """All in one file, as ComfyUI saves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begin = "text_encoders.qwen3vl_4b.transformer."
    text = encoder_state(parts, begin)
    text = {name.replace(f"{begin}language_model.", f"{begin}model."): tensor for name, tensor in text.items()}
    save_file(theirs(parts, "model.diffusion_model.") | text | vae_state(parts, "vae."), path)
    return path


def save_apart(models: Path, parts: Mapping[str, Any], prefix: str = "") -> Path:
    """The transformer, the text encoder and the autoencoder in the folders that people keep them in."""
    files = {
        "diffusion_models/krea2-tiny.safetensors": theirs(parts, prefix),
        "text_encoders/qwen3vl_tiny.safetensors": encoder_state(parts, "model."),
        "VAE/qwen_image_tiny.safetensors": vae_state(parts, ""),
    }
    for place, state in files.items():
        (models / place).parent.mkdir(parents=True, exist_ok=True)
        save_file(state, models / place)
    return models / "diffusion_models/krea2-tiny.safetensors"


def _original(path: str) -> str:
    from webui.engine.families.krea2 import krea_name

    return krea_name(path)


STYLES: Mapping[str, Callable[[str], str]] = {
    "diffusers": lambda path: f"transformer.{path}",
    "ComfyUI": lambda path: f"diffusion_model.{_original(path)}",
    "kohya": lambda path: f"lora_unet_{_original(path)}".replace(".", "_"),
    "bare": _original,
    "AI-Toolkit": lambda path: f"base_model.model.{_original(path)}",
    "mixed": lambda path: f"transformer.{path.removeprefix('transformer_')}",
    "OneTrainer": lambda path: f"lora_transformer_{path}".replace(".", "_"),
    "LyCORIS": lambda path: f"lycoris_{path}".replace(".", "_"),
}
"""How programs call a module of the transformer in LoRA files."""


def published(
    blocks: int = 28, layers: int = 36, narrow_encoder: bool = False
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Names and shapes of the three files as published, by the folder that each goes into.

    Or with fewer layers, and with an encoder whose layers are narrow inside.
    """
    from diffusers import AutoencoderKLQwenImage, Krea2Transformer2DModel
    from transformers import Qwen3VLConfig, Qwen3VLModel

    words = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": layers, "head_dim": 128}
    words |= {"num_attention_heads": 32, "num_key_value_heads": 8}
    words |= {"intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1} if narrow_encoder else {}
    eyes = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "patch_size": 16}
    eyes |= {"out_hidden_size": 2560, "deepstack_visual_indexes": [5, 11, 17], "num_position_embeddings": 2304}
    eyes |= {"depth": 1, "deepstack_visual_indexes": [0]} if narrow_encoder else {}
    with torch.device("meta"):
        parts = {
            "transformer": Krea2Transformer2DModel(num_layers=blocks),
            "text_encoder": Qwen3VLModel(Qwen3VLConfig(text_config=WORDS | words, vision_config=eyes)),
            "vae": AutoencoderKLQwenImage(),
        }
        states = {
            "diffusion_models": theirs(parts, ""),
            "text_encoders": encoder_state(parts, "model."),
            "VAE": vae_state(parts, ""),
        }
    return {folder: {name: tuple(own.shape) for name, own in state.items()} for folder, state in states.items()}
