"""A tiny SD 3.5 with random weights, in each layout that people have; the published names, small sizes."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from tests.flux1_models import CLIP, T5, VAE, stock_clip, stock_t5, vae_state

TRANSFORMER: dict[str, Any] = {
    **{"sample_size": 16, "in_channels": 16, "out_channels": 16, "num_layers": 3, "attention_head_dim": 32},
    **{"num_attention_heads": 2, "joint_attention_dim": 96, "caption_projection_dim": 64},
    **{"pooled_projection_dim": 64, "pos_embed_max_size": 12, "dual_attention_layers": (0, 1), "qk_norm": "rms_norm"},
}
"""3.5 medium's build: some blocks attend twice, and queries and keys are normed."""
FIRST = TRANSFORMER | {"attention_head_dim": 64, "num_attention_heads": 1, "dual_attention_layers": (), "qk_norm": None}
"""3 medium's."""
CLIP_L, CLIP_G = 24, 40
"""Widths, which share the summary as 768 and 1280 do."""
SCHEDULER = {"shift": 3.0}


def make_parts(
    transformer: Mapping[str, Any] = TRANSFORMER, clips: tuple[int, int] = (CLIP_L, CLIP_G)
) -> dict[str, Any]:
    """diffusers' and transformers' networks by the names of diffusers' folder, always with the same weights."""
    from diffusers import AutoencoderKL, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    def clip(width: int, **more: Any) -> Any:
        config = CLIP | {"hidden_size": width, "projection_dim": width, "num_hidden_layers": 3} | more
        return CLIPTextModelWithProjection(CLIPTextConfig(**config))

    torch.manual_seed(0)
    parts = {
        "transformer": SD3Transformer2DModel(**transformer),
        "text_encoder": clip(clips[0]),
        "text_encoder_2": clip(clips[1], hidden_act="gelu", pad_token_id=0),
        "text_encoder_3": T5EncoderModel(T5Config(**T5 | {"d_model": transformer["joint_attention_dim"]})),
        "vae": AutoencoderKL(**VAE | {"scaling_factor": 1.5305, "shift_factor": 0.0609}),
    }
    torch.nn.init.eye_(parts["text_encoder"].text_projection.weight)  # files of SD 3 have none for it
    generator = torch.Generator().manual_seed(1)
    for name, scale in (("transformer", 1.0), ("text_encoder_3", 0.7)):  # so that words and time show
        for path, parameter in parts[name].named_parameters():
            if parameter.ndim > 1 and "shared" not in path and "embed_tokens" not in path:
                parameter.data.normal_(generator=generator).mul_(scale / parameter.shape[1] ** 0.5)
    return {name: part.eval().requires_grad_(False) for name, part in parts.items()}


def stock_tokenizers(folder: Path) -> dict[str, Any]:
    """transformers' on the vocabularies that ship, as the pipeline takes them; CLIP-G's fills up with "!"."""
    from transformers import CLIPTokenizer

    first, third = stock_clip(folder / "tokenizer"), stock_t5(folder / "tokenizer_3")
    stock_clip(folder / "tokenizer_2")
    said = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "!"}
    (folder / "tokenizer_2/tokenizer_config.json").write_text(json.dumps(said), "utf-8")
    second = CLIPTokenizer.from_pretrained(folder / "tokenizer_2")
    return {"tokenizer": first, "tokenizer_2": second, "tokenizer_3": third}


def save_folder(folder: Path, parts: Mapping[str, Any]) -> Path:
    """As the pipeline's ``save_pretrained`` lays it out."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    for name, part in parts.items():
        part.save_pretrained(folder / name)
    stock_tokenizers(folder)
    FlowMatchEulerDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    return folder


def theirs(transformer: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """The transformer under Stability's names: several layers in one, and halves swapped where they swap them."""
    from webui.engine.families.sd3 import is_swapped, original_name

    pieces: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in state(transformer).items():
        path, _, kind = name.rpartition(".")
        original, third = original_name(path)
        key = "pos_embed" if kind == "pos_embed" else f"{original}.{kind}"
        swapped = is_swapped(path, transformer)
        pieces.setdefault(prefix + key, {})[third or 0] = torch.cat(tensor.chunk(2)[::-1]) if swapped else tensor
    return {key: torch.cat([found[third] for third in sorted(found)]) for key, found in pieces.items()}


def text_states(parts: Mapping[str, Any], prefixes: tuple[str, str, str]) -> list[dict[str, torch.Tensor]]:
    """The three encoders as files have them, behind these prefixes."""
    first, second, third = prefixes
    clips = [
        {
            f"{prefix}{name if 'projection' in name else 'text_model.' + name.removeprefix('text_model.')}": tensor
            for name, tensor in state(parts[role]).items()
            if role == "text_encoder_2" or "projection" not in name
        }
        for prefix, role in ((first, "text_encoder"), (second, "text_encoder_2"))
    ]
    t5 = {name: tensor for name, tensor in state(parts["text_encoder_3"]).items() if "embed_tokens" not in name}
    return [*clips, {f"{third}{name}": tensor for name, tensor in t5.items()}]


def save_whole(path: Path, parts: Mapping[str, Any], with_t5: bool = True) -> Path:
    """All in one file, as Stability published them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = text_states(parts, tuple(f"text_encoders.{name}.transformer." for name in ("clip_l", "clip_g", "t5xxl")))  # type: ignore[arg-type]  # fmt: skip
    whole = theirs(parts["transformer"], "model.diffusion_model.") | vae_state(parts, "first_stage_model.")
    for text in texts if with_t5 else texts[:2]:
        whole |= text
    save_file(whole, path)
    return path


def save_apart(models: Path, parts: Mapping[str, Any]) -> Path:
    """The transformer, the text encoders and the autoencoder in the folders that people keep them in."""
    clip_l, clip_g, t5 = text_states(parts, ("", "", ""))
    files = {
        "diffusion_models/sd3-tiny.safetensors": theirs(parts["transformer"], ""),
        "text_encoders/clip_l.safetensors": clip_l,
        "text_encoders/clip_g.safetensors": clip_g,
        "text_encoders/t5xxl.safetensors": t5,
        "VAE/sd3_vae.safetensors": vae_state(parts, ""),
    }
    for place, tensors in files.items():
        (models / place).parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, models / place)
    return models / "diffusion_models/sd3-tiny.safetensors"


def state(part: nn.Module) -> dict[str, torch.Tensor]:
    """Its tensors, ready to be saved."""
    return {name: tensor.contiguous() for name, tensor in part.state_dict().items()}


STYLES: Mapping[str, Callable[[str], str]] = {
    "diffusers": lambda path: f"transformer.{path}",
    "ComfyUI": lambda path: f"diffusion_model.{path}",
    "kohya": lambda path: f"lora_unet_{path.replace('.', '_')}",
    "OneTrainer": lambda path: f"lora_transformer_{path.replace('.', '_')}",
    "lycoris": lambda path: f"lycoris_{path.replace('.', '_')}",
}
"""How programs call a module of the transformer in LoRA files."""
ORIGINAL = ("ComfyUI", "kohya")
"""Those that go by Stability's names, in which several layers are one."""
PUBLISHED: Mapping[str, dict[str, Any]] = {
    "3 medium": FIRST | {"num_layers": 24, "num_attention_heads": 24, "pos_embed_max_size": 192},
    "3.5 medium": TRANSFORMER
    | {"num_layers": 24, "num_attention_heads": 24, "pos_embed_max_size": 384}
    | {"dual_attention_layers": tuple(range(13))},
    "3.5 large": TRANSFORMER
    | {"num_layers": 38, "num_attention_heads": 38, "pos_embed_max_size": 192, "dual_attention_layers": ()},
}


def published(name: str = "3.5 medium", blocks: int = 0) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published transformer, or of so many ``blocks`` of it."""
    from webui.engine.families import sd3
    from webui.engine.weights import build_empty

    wide = PUBLISHED[name] | {"attention_head_dim": 64, "joint_attention_dim": 4096, "pooled_projection_dim": 2048}
    wide |= {"caption_projection_dim": wide["num_attention_heads"] * 64}
    wide |= {"num_layers": blocks or wide["num_layers"]}
    network = build_empty(lambda: sd3.TRANSFORMER.make(wide))
    found: dict[str, tuple[int, ...]] = {}
    for name, part in network.named_parameters():
        path, _, kind = name.rpartition(".")
        original, third = sd3.original_name(path)
        key = "pos_embed" if kind == "pos_embed" else f"{original}.{kind}"
        found[key] = (len(part) * (1 if third is None else 3), *part.shape[1:])
    return found
