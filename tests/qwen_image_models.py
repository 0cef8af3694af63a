"""A tiny Qwen-Image with random weights, in each layout that people have; the published names, small sizes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.anima_models import VAE, _state, vae_state

TRANSFORMER = {
    **{"in_channels": 64, "out_channels": 16, "num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2},
    **{"joint_attention_dim": 128, "axes_dims_rope": (4, 14, 14)},
}
WORDS = {
    **{"vocab_size": 152_064, "hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 2},
    **{"num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6},
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
}
EYES = {
    **{"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 8},
    **{"out_hidden_size": 128, "fullatt_block_indexes": [0]},
}


def make_parts(transformer: Mapping[str, Any] = TRANSFORMER) -> dict[str, Any]:
    """diffusers' and transformers' networks by the names of diffusers' folder, always with the same weights."""
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    told = Qwen2_5_VLConfig(text_config=WORDS, vision_config=EYES, tie_word_embeddings=True)
    parts = {
        "transformer": QwenImageTransformer2DModel(**transformer),
        "text_encoder": Qwen2_5_VLForConditionalGeneration(told),
        "vae": AutoencoderKLQwenImage(**VAE),
    }
    generator = torch.Generator().manual_seed(1)
    for parameter in parts["transformer"].parameters():  # so that words and time show in what comes of it
        if parameter.ndim > 1:
            parameter.data.normal_(generator=generator).mul_(1.0 / parameter.shape[1] ** 0.5)
    return {name: part.eval().requires_grad_(False) for name, part in parts.items()}


def pipeline(parts: Mapping[str, Any], tokenizer: Any = None, kind: str = "QwenImagePipeline") -> Any:
    """diffusers' own."""
    import diffusers

    from webui.engine.families.qwen_image import BY_SIZE

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**BY_SIZE)
    pipe = getattr(diffusers, kind)(scheduler=scheduler, tokenizer=tokenizer, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save_folder(folder: Path, parts: Mapping[str, Any], kind: str = "QwenImagePipeline") -> Path:
    """As ``save_pretrained`` lays it out; the vocabulary is the one that ships."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    from webui.engine.families.qwen_image import BY_SIZE

    for name, part in parts.items():
        part.save_pretrained(folder / name)
    FlowMatchEulerDiscreteScheduler(**BY_SIZE).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(f'{{"_class_name": "{kind}"}}')
    return folder


def transformer_state(parts: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The transformer, whose names are the same in all programs."""
    return {f"{prefix}{name}": tensor for name, tensor in _state(parts["transformer"]).items()}


def encoder_state(parts: Mapping[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    """The text encoder with its eyes, as ComfyUI's file of it has both."""
    words, eyes = parts["text_encoder"].model.language_model, parts["text_encoder"].model.visual
    own = {f"{prefix}model.{name}": tensor for name, tensor in _state(words).items()}
    return own | {f"{prefix}visual.{name}": tensor for name, tensor in _state(eyes).items()}


def save_whole(path: Path, parts: Mapping[str, Any]) -> Path:
    """All in one file, as ComfyUI saves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = encoder_state(parts, "text_encoders.qwen25_7b.transformer.")
    save_file(transformer_state(parts, "model.diffusion_model.") | text | vae_state(parts, "vae."), path)
    return path


def save_apart(models: Path, parts: Mapping[str, Any], prefix: str = "") -> Path:
    """The transformer, the text encoder and the autoencoder in the folders that people keep them in."""
    files = {
        "diffusion_models/qwen-image-tiny.safetensors": transformer_state(parts, prefix),
        "text_encoders/qwen_2.5_vl_tiny.safetensors": encoder_state(parts),
        "VAE/qwen_image_tiny.safetensors": vae_state(parts, ""),
    }
    for place, state in files.items():
        (models / place).parent.mkdir(parents=True, exist_ok=True)
        save_file(state, models / place)
    return models / "diffusion_models/qwen-image-tiny.safetensors"


STYLES: Mapping[str, Callable[[str], str]] = {
    "diffusers": lambda path: f"transformer.{path}",
    "ComfyUI": lambda path: f"diffusion_model.{path}",
    "kohya": lambda path: f"lora_unet_{path}".replace(".", "_"),
    "Lightning": lambda path: path,
    "OneTrainer": lambda path: f"lora_transformer_{path}".replace(".", "_"),
    "LyCORIS": lambda path: f"lycoris_{path}".replace(".", "_"),
}
"""How programs call a module of the transformer in LoRA files."""


def published() -> dict[str, dict[str, tuple[int, ...]]]:
    """Names and shapes of the three files as published, by the folder that each goes into."""
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    words = {"hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28}
    words |= {"num_attention_heads": 28, "num_key_value_heads": 4}
    with torch.device("meta"):
        told = Qwen2_5_VLConfig(text_config=WORDS | words, vision_config={"depth": 1, "out_hidden_size": 3584})
        parts = {
            "transformer": QwenImageTransformer2DModel(),
            "text_encoder": Qwen2_5_VLForConditionalGeneration(told),
            "vae": AutoencoderKLQwenImage(),
        }
        states = {
            "diffusion_models": transformer_state(parts, ""),
            "text_encoders": encoder_state(parts) | {"lm_head.weight": parts["text_encoder"].lm_head.weight},
            "VAE": vae_state(parts, ""),
        }
    return {folder: {name: tuple(own.shape) for name, own in state.items()} for folder, state in states.items()}
