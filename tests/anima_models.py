"""A tiny Anima with random weights, in each layout that people have; the published names, a hundredth of the sizes."""

import json
import math
from collections.abc import Callable, Container, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

TRANSFORMER = {
    **{"in_channels": 16, "out_channels": 16, "num_attention_heads": 2, "attention_head_dim": 24, "num_layers": 2},
    **{"text_embed_dim": 32, "adaln_lora_dim": 8, "mlp_ratio": 2.0, "rope_scale": (1.0, 4.0, 4.0)},
    "extra_pos_embed_type": None,
}
CONDITIONER = {
    **{"source_dim": 32, "target_dim": 32, "model_dim": 32, "num_layers": 1, "num_attention_heads": 2},
    "mlp_ratio": 2.0,
}
ENCODER = {
    **{"vocab_size": 151_936, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 32_768},
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}
VAE = {"base_dim": 8, "z_dim": 16, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1}
MODULES = ("transformer", "text_conditioner", "text_encoder", "vae")


def make_parts(encoder_width: int = 32, transformer: Mapping[str, Any] = TRANSFORMER) -> dict[str, Any]:
    """diffusers' and transformers' networks by the names of diffusers' folder, always with the same weights."""
    from diffusers import AnimaTextConditioner, AutoencoderKLQwenImage
    from transformers import Qwen3Config, Qwen3Model

    from webui.engine.families import anima  # diffusers' transformer wants torchvision otherwise

    torch.manual_seed(0)
    parts = {
        "transformer": anima.TRANSFORMER.make(transformer),
        "text_conditioner": AnimaTextConditioner(**CONDITIONER | {"source_dim": encoder_width}),
        "text_encoder": Qwen3Model(Qwen3Config(**ENCODER | {"hidden_size": encoder_width})),
        "vae": AutoencoderKLQwenImage(**VAE),
    }
    generator = torch.Generator().manual_seed(1)
    for parameter in parts["transformer"].parameters():  # so that words and time show in what comes of it
        if parameter.ndim > 1:
            parameter.data.normal_(generator=generator).mul_(1.2 / parameter.shape[1] ** 0.5)
    return {name: part.eval().requires_grad_(False) for name, part in parts.items()}


def save_folder(folder: Path, parts: Mapping[str, Any], shift: float = 3.0) -> Path:
    """As ``ModularPipeline.save_pretrained`` lays it out; the vocabularies are those that ship."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    for name, part in parts.items():
        part.save_pretrained(folder / name)
    FlowMatchEulerDiscreteScheduler(shift=shift).save_pretrained(folder / "scheduler")
    (folder / "modular_model_index.json").write_text('{"_class_name": "AnimaModularPipeline"}')
    return folder


def theirs(parts: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The transformer with its adapter under Cosmos-Predict2's names."""
    from webui.engine.families.anima import cosmos_name

    own = {f"{prefix}{cosmos_name(name)}": tensor for name, tensor in _state(parts["transformer"]).items()}
    adapter = {f"{prefix}llm_adapter.{name}": tensor for name, tensor in _state(parts["text_conditioner"]).items()}
    return own | adapter


def encoder_state(parts: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The text encoder as a language model's file has it."""
    return {f"{prefix}{name}": tensor for name, tensor in _state(parts["text_encoder"]).items()}


def vae_state(parts: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The autoencoder under Wan's names."""
    from webui.engine.families.qwen_image_vae import wan_name

    resnets = parts["vae"].config.num_res_blocks + 1
    return {f"{prefix}{wan_name(name, resnets)}": tensor for name, tensor in _state(parts["vae"]).items()}


def save_whole(path: Path, parts: Mapping[str, Any]) -> Path:
    """All in one file, as ComfyUI saves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = encoder_state(parts, "text_encoders.qwen3_06b.transformer.model.")
    save_file(theirs(parts, "model.diffusion_model.") | text | vae_state(parts, "vae."), path)
    return path


def save_apart(models: Path, parts: Mapping[str, Any], prefix: str = "net.") -> Path:
    """The transformer, the text encoder and the autoencoder in the folders that people keep them in."""
    files = {
        "diffusion_models/anima-tiny.safetensors": theirs(parts, prefix),
        "text_encoders/qwen_3_tiny.safetensors": encoder_state(parts, "model."),
        "VAE/qwen_image_tiny.safetensors": vae_state(parts, ""),
    }
    for place, state in files.items():
        (models / place).parent.mkdir(parents=True, exist_ok=True)
        save_file(state, models / place)
    return models / "diffusion_models/anima-tiny.safetensors"


def _state(part: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in part.state_dict().items()}


STYLES: Mapping[str, Callable[[str, str], str]] = {
    "diffusers": lambda part, path: f"{part}.{path}",
    "ComfyUI": lambda part, path: f"diffusion_model.{_in(part)}{_their(part, path)}",
    "kohya": lambda part, path: f"lora_unet_{_in(part)}{_their(part, path)}".replace(".", "_"),
    "bare": lambda part, path: f"net.{_in(part)}{_their(part, path)}",
}
"""How programs call a module of the transformer or of the text conditioner in LoRA files."""


def _in(part: str) -> str:
    return "llm_adapter." if part == "text_conditioner" else ""


def _their(part: str, path: str) -> str:
    from webui.engine.families.anima import cosmos_name

    return path if part == "text_conditioner" else cosmos_name(path)


def published() -> dict[str, dict[str, tuple[int, ...]]]:
    """Names and shapes of the three files as they were published, by the folder that each goes into."""
    from diffusers import AutoencoderKLQwenImage

    from webui.engine.families import anima
    from webui.engine.families.qwen_image_vae import wan_name
    from webui.engine.text import qwen
    from webui.engine.weights import build_empty

    wide = {"num_attention_heads": 16, "attention_head_dim": 128, "num_layers": 28, "text_embed_dim": 1024}
    transformer = anima.TRANSFORMER.make, TRANSFORMER | wide | {"adaln_lora_dim": 256, "mlp_ratio": 4.0}
    adapter = {"source_dim": 1024, "target_dim": 1024, "model_dim": 1024, "num_layers": 6, "num_attention_heads": 16}
    deep = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "head_dim": 128}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8}

    def shapes(make: Callable[[Any], nn.Module], config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(part.shape) for name, part in build_empty(partial(make, config)).named_parameters()}

    own = {f"net.{anima.cosmos_name(name)}": shape for name, shape in shapes(*transformer).items()}
    asks = shapes(anima.TEXT_CONDITIONER.make, adapter)
    words = shapes(qwen.make, ENCODER | deep | heads)
    pixels = shapes(lambda config: AutoencoderKLQwenImage(**config), {"z_dim": 16})
    return {
        "diffusion_models": own | {f"net.llm_adapter.{name}": shape for name, shape in asks.items()},
        "text_encoders": {f"model.{name}": shape for name, shape in words.items()},
        "VAE": {wan_name(name, 3): shape for name, shape in pixels.items()},
    }


def write_published(
    path: Path, shapes: Mapping[str, tuple[int, ...]], sparse: bool = False, small: bool = False
) -> Path:
    """A file of full size in bfloat16 with small random numbers; ``sparse``: zeros that take no room on the disk.

    ``small``: matrices are in fp8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        in_fp8 = small and len(shape) == 2
        begin, end = end, end + (1 if in_fp8 else 2) * math.prod(shape)
        header[name] = {"dtype": "F8_E4M3" if in_fp8 else "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    noise = torch.randn(4_194_301, generator=torch.Generator().manual_seed(0)).mul(0.02)
    formats = {"BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn}
    # read round and round; no two tensors begin alike
    blocks = {name: noise.to(dtype).view(torch.uint8).numpy().tobytes() for name, dtype in formats.items()}
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if sparse:
            file.truncate(8 + len(text) + end)
            return path
        for told in header.values():
            block, (begin, end) = blocks[told["dtype"]], told["data_offsets"]
            while begin < end:
                begin += file.write(block[begin % len(block) :][: end - begin])
    return path


def write_all(models: Path, sparse: bool, small: Container[str] = ()) -> dict[str, Path]:
    """The three published files below a folder of models, by the folder of each; matrices of ``small`` ones in fp8."""
    return {
        folder: write_published(models / folder / "published.safetensors", shapes, sparse, folder in small)
        for folder, shapes in published().items()
    }
