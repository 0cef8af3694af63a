"""A tiny FLUX.2 Klein with random weights, in each layout that people have; the published names, small sizes."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

TRANSFORMER = {
    **{"in_channels": 128, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16},
    **{"num_attention_heads": 2, "joint_attention_dim": 96, "timestep_guidance_channels": 32},
    **{"mlp_ratio": 3.0, "axes_dims_rope": (4, 4, 4, 4), "guidance_embeds": False},
}
ENCODER = {
    **{"vocab_size": 151_936, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 29},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 32_768},
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "tie_word_embeddings": True,
}
VAE = {
    **{"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "latent_channels": 32, "sample_size": 64},
    **{"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4},
}
SCHEDULER = {"use_dynamic_shifting": True, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15}


def make_parts(encoder_width: int = 32, transformer: Mapping[str, Any] = TRANSFORMER) -> dict[str, Any]:
    """diffusers' and transformers' networks by the names of diffusers' folder, always with the same weights."""
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    parts = {
        "transformer": Flux2Transformer2DModel(**transformer),
        "text_encoder": Qwen3ForCausalLM(Qwen3Config(**ENCODER | {"hidden_size": encoder_width})),
        "vae": AutoencoderKLFlux2(**VAE),
    }
    generator = torch.Generator().manual_seed(1)
    for parameter in parts["transformer"].parameters():  # so that words and time show in what comes of it
        if parameter.ndim > 1:
            parameter.data.normal_(generator=generator).mul_(1.0 / parameter.shape[1] ** 0.5)
    for layer in parts["text_encoder"].model.layers:
        for parameter in layer.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(generator=generator).mul_(0.5 / parameter.shape[1] ** 0.5)
    statistics = parts["vae"].bn
    statistics.running_mean.normal_(generator=generator).mul_(0.2)
    statistics.running_var.uniform_(0.5, 2.0, generator=generator)
    return {name: part.eval().requires_grad_(False) for name, part in parts.items()}


def save_folder(folder: Path, parts: Mapping[str, Any], distilled: bool = True) -> Path:
    """As the pipeline's ``save_pretrained`` lays it out; the vocabulary is the one that ships."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    for name, part in parts.items():
        part.save_pretrained(folder / name)
    FlowMatchEulerDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    said = "true" if distilled else "false"
    (folder / "model_index.json").write_text(f'{{"_class_name": "Flux2KleinPipeline", "is_distilled": {said}}}')
    return folder


def theirs(parts: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The transformer under Black Forest Labs' names: query, key and value in one, the last norm's halves swapped."""
    from webui.engine.families.flux2 import original_name

    found: dict[str, torch.Tensor] = {}
    for name, tensor in _state(parts["transformer"]).items():
        path, _, kind = name.rpartition(".")
        original, third = original_name(path)
        if path == "norm_out.linear":
            tensor = torch.cat(tensor.chunk(2)[::-1])
        key = f"{prefix}{original}.{'scale' if original.endswith('_norm') else kind}"
        found[key] = tensor if not third else torch.cat([found[key], tensor])  # in their order
    return found


def encoder_state(parts: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The text encoder as a language model's file has it."""
    own = _state(parts["text_encoder"])
    return {f"{prefix}{name.removeprefix('model.')}": tensor for name, tensor in own.items() if "lm_head" not in name}


def vae_state(parts: Mapping[str, Any], prefix: str, halves: bool = True) -> dict[str, torch.Tensor]:
    """The autoencoder under the original names; with ``halves`` its outermost layers are each half's own."""
    from webui.engine.families.flux2_vae import VAE as PART
    from webui.engine.families.ldm import vae_keys

    made = PART.make(VAE)
    found = {}
    for name, tensor in _state(parts["vae"]).items():
        (key,) = vae_keys(name, made, "ldm", "") if "." in name and not name.startswith("bn.") else (None,)
        path = key.name if key else name
        if halves and path.startswith(("quant_conv", "post_quant_conv")):
            path = f"{'decoder' if path.startswith('post') else 'encoder'}.{path}"
        is_attention = ".attn_1." in path and tensor.ndim == 2
        found[prefix + path] = tensor[:, :, None, None] if is_attention else tensor
    return found


def save_whole(path: Path, parts: Mapping[str, Any]) -> Path:
    """All in one file, as ComfyUI saves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = encoder_state(parts, "text_encoders.qwen3_4b.transformer.model.")
    save_file(theirs(parts, "model.diffusion_model.") | text | vae_state(parts, "vae."), path)
    return path


def save_apart(models: Path, parts: Mapping[str, Any], prefix: str = "") -> Path:
    """The transformer, the text encoder and the autoencoder in the folders that people keep them in."""
    files = {
        "diffusion_models/klein-tiny.safetensors": theirs(parts, prefix),
        "text_encoders/qwen_3_tiny.safetensors": encoder_state(parts, "model."),
        "VAE/flux2-vae-tiny.safetensors": vae_state(parts, ""),
    }
    for place, state in files.items():
        (models / place).parent.mkdir(parents=True, exist_ok=True)
        save_file(state, models / place)
    return models / "diffusion_models/klein-tiny.safetensors"


def _state(part: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in part.state_dict().items()}


STYLES: Mapping[str, Callable[[str], str]] = {
    "diffusers": lambda path: f"transformer.{path}",
    "ComfyUI": lambda path: f"diffusion_model.{path}",
    "kohya": lambda path: f"lora_unet_{path.replace('.', '_')}",
    "peft": lambda path: f"base_model.model.{path}",
    "wrapped": lambda path: f"diffusion_model.{path}",
    "lycoris": lambda path: f"lycoris_{path.replace('.', '_')}",
}
"""How programs call a module of the transformer in LoRA files."""
ORIGINAL = ("ComfyUI", "kohya", "peft")
"""Those that go by the original names, in which query, key and value are one."""


def published(
    size: str = "4B", blocks: tuple[int, int] | None = None, narrow_encoder: bool = False
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Names and shapes of the three files as they were published, by the folder that each goes into.

    Or with so many double and single ``blocks``, and with an encoder whose layers are narrow inside.
    """
    from webui.engine.families import flux2
    from webui.engine.weights import build_empty

    deep, single, heads, text, inner = {"4B": (5, 20, 24, 2560, 9728), "9B": (8, 24, 32, 4096, 12_288)}[size]
    deep, single = blocks or (deep, single)
    wide = {"num_layers": deep, "num_single_layers": single, "num_attention_heads": heads, "attention_head_dim": 128}
    wide |= {"joint_attention_dim": 3 * text, "timestep_guidance_channels": 256, "axes_dims_rope": (32,) * 4}
    large = {"hidden_size": text, "intermediate_size": inner, "num_hidden_layers": 36, "head_dim": 128}
    large |= {"num_attention_heads": 32, "num_key_value_heads": 8}
    if narrow_encoder:
        large |= {"intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1}

    def empty(make: Callable[[Any], nn.Module], config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(part.shape) for name, part in build_empty(lambda: make(config)).named_parameters()}

    from webui.engine.text import qwen

    own: dict[str, tuple[int, ...]] = {}
    for name, shape in empty(flux2.TRANSFORMER.make, TRANSFORMER | wide).items():
        path, _, kind = name.rpartition(".")
        original, third = flux2.original_name(path)
        key = f"{original}.{'scale' if original.endswith('_norm') else kind}"
        own[key] = shape if third is None else (3 * shape[0], *shape[1:])
    words = {f"model.{name}": shape for name, shape in empty(qwen.make, ENCODER | large).items()}
    widths = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    with torch.device("meta"):
        from diffusers import AutoencoderKLFlux2

        pixels = vae_state({"vae": AutoencoderKLFlux2(**VAE | widths)}, "")
    return {
        "diffusion_models": own,
        "text_encoders": words,
        "VAE": {name: tuple(tensor.shape) for name, tensor in pixels.items()},
    }


def numbers(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many numbers they hold."""
    return sum(math.prod(shape) for shape in shapes.values())
