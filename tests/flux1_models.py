"""A tiny FLUX.1 with random weights, in each layout that people have; the published names, small sizes."""

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

TRANSFORMER = {
    **{"in_channels": 64, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 32},
    **{"num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 64},
    **{"axes_dims_rope": (4, 14, 14), "guidance_embeds": True},
}
CLIP: dict[str, Any] = {
    **{"vocab_size": 49_408, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2},
    **{"num_attention_heads": 1, "bos_token_id": 49_406, "eos_token_id": 49_407, "pad_token_id": 49_407},
}
T5: dict[str, Any] = {
    **{"vocab_size": 32_128, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    **{"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}
VAE = {
    **{"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "latent_channels": 16, "sample_size": 64},
    **{"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4},
    **{"scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False},
}
SCHEDULER = {
    True: {"use_dynamic_shifting": True, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15},
    False: {"shift": 1.0},
}
"""dev's and schnell's, as they were published."""


def make_parts(
    guided: bool = True,
    transformer: Mapping[str, Any] = TRANSFORMER,
    clip_width: int = CLIP["hidden_size"],
    t5_width: int = T5["d_model"],
) -> dict[str, Any]:
    """diffusers' and transformers' networks by the names of diffusers' folder, always with the same weights."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(0)
    parts = {
        "transformer": FluxTransformer2DModel(**{**transformer, "guidance_embeds": guided}),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(**CLIP | {"hidden_size": clip_width, "num_attention_heads": clip_width // 64})
        ),
        "text_encoder_2": T5EncoderModel(T5Config(**T5 | {"d_model": t5_width})),
        "vae": AutoencoderKL(**VAE),
    }
    generator = torch.Generator().manual_seed(1)
    for name, scale in (("transformer", 1.0), ("text_encoder_2", 0.7)):  # so that words and time show
        for path, parameter in parts[name].named_parameters():
            if parameter.ndim > 1 and "shared" not in path and "embed_tokens" not in path:
                parameter.data.normal_(generator=generator).mul_(scale / parameter.shape[1] ** 0.5)
    return {name: part.eval().requires_grad_(False) for name, part in parts.items()}


def stock_clip(folder: Path) -> Any:
    """transformers' tokenizer on the vocabulary that ships."""
    from transformers import CLIPTokenizer

    from webui.engine.tokens import _MERGES as MERGES

    folder.mkdir(parents=True, exist_ok=True)
    merges = gzip.decompress(MERGES.read_bytes()).decode("utf-8").split("\n")[:-1]
    shown = set(range(33, 127)) | set(range(161, 173)) | set(range(174, 256))
    letters = [chr(byte) for byte in sorted(shown)] + [chr(256 + k) for k in range(256 - len(shown))]
    words = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
    said = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(said), "utf-8")
    return CLIPTokenizer.from_pretrained(folder)


def stock_t5(folder: Path) -> Any:
    """transformers' tokenizer on the vocabulary that ships."""
    from transformers import T5TokenizerFast

    from webui.engine.text import vocabularies

    folder.mkdir(parents=True, exist_ok=True)
    shipped = Path(vocabularies.__file__).parent / "vocabulary/t5.json.gz"
    (folder / "tokenizer.json").write_bytes(gzip.decompress(shipped.read_bytes()))
    return T5TokenizerFast.from_pretrained(folder)


def save_folder(folder: Path, parts: Mapping[str, Any]) -> Path:
    """As the pipeline's ``save_pretrained`` lays it out."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    for name, part in parts.items():
        part.save_pretrained(folder / name)
    stock_clip(folder / "tokenizer")
    guided = parts["transformer"].config.guidance_embeds
    FlowMatchEulerDiscreteScheduler(**SCHEDULER[guided]).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    return folder


def theirs(parts: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The transformer under Black Forest Labs' names: several layers in one, the last norm's halves swapped."""
    from webui.engine.families.flux1 import original_name

    pieces: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for name, tensor in _state(parts["transformer"]).items():
        path, _, kind = name.rpartition(".")
        original, share = original_name(path)
        tensor = torch.cat(tensor.chunk(2)[::-1]) if path == "norm_out.linear" else tensor
        key = f"{prefix}{original}.{'scale' if original.endswith('_norm') else kind}"
        pieces.setdefault(key, []).append((share[0] if share else 0, tensor))
    return {
        key: torch.cat([piece for _, piece in sorted(found, key=lambda row: row[0])]) for key, found in pieces.items()
    }


def text_states(parts: Mapping[str, Any], clip: str, t5: str) -> dict[str, torch.Tensor]:
    """Both encoders as files have them, behind these prefixes."""
    own = {f"{clip}text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in _state(parts["text_encoder"]).items()}  # fmt: skip # noqa: E501
    words = {f"{t5}{name}": tensor for name, tensor in _state(parts["text_encoder_2"]).items() if "embed_tokens" not in name}  # fmt: skip # noqa: E501
    return own | words


def vae_state(parts: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The autoencoder under the original names."""
    from webui.engine.families.ldm import vae_keys
    from webui.engine.nets.autoencoder import Autoencoder

    made, found = Autoencoder(VAE), {}
    for name, tensor in _state(parts["vae"]).items():
        (key,) = vae_keys(name, made, "ldm", prefix)
        is_attention = ".attn_1." in key.name and tensor.ndim == 2
        found[key.name] = tensor[:, :, None, None] if is_attention else tensor
    return found


def save_whole(path: Path, parts: Mapping[str, Any]) -> Path:
    """All in one file, as ComfyUI saves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = text_states(parts, "text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer.")
    save_file(theirs(parts, "model.diffusion_model.") | text | vae_state(parts, "vae."), path)
    return path


def save_apart(models: Path, parts: Mapping[str, Any]) -> Path:
    """The transformer, the text encoders and the autoencoder in the folders that people keep them in."""
    text = text_states(parts, "", "")
    files = {
        "diffusion_models/flux1-tiny.safetensors": theirs(parts, ""),
        "text_encoders/clip_l.safetensors": {key: value for key, value in text.items() if key.startswith("text_model")},
        "text_encoders/t5xxl.safetensors": {key: value for key, value in text.items() if not key.startswith("text_")},
        "VAE/ae.safetensors": vae_state(parts, ""),
    }
    for place, state in files.items():
        (models / place).parent.mkdir(parents=True, exist_ok=True)
        save_file(state, models / place)
    return models / "diffusion_models/flux1-tiny.safetensors"


def _state(part: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in part.state_dict().items()}


STYLES: Mapping[str, Callable[[str], str]] = {
    "diffusers": lambda path: f"transformer.{path}",
    "ComfyUI": lambda path: f"diffusion_model.{path}",
    "kohya": lambda path: f"lora_unet_{path.replace('.', '_')}",
    "lycoris": lambda path: f"lycoris_{path.replace('.', '_')}",
}
"""How programs call a module of the transformer in LoRA files."""
ORIGINAL = ("ComfyUI", "kohya")
"""Those that go by the original names, in which several layers are one."""


def published(blocks: tuple[int, int] = (19, 38)) -> dict[str, tuple[int, ...]]:
    """Names and shapes of ``flux1-dev.safetensors``, or with so many double and single ``blocks``."""
    from webui.engine.families import flux1
    from webui.engine.weights import build_empty

    wide = {
        "num_layers": blocks[0],
        "num_single_layers": blocks[1],
        "attention_head_dim": 128,
        "num_attention_heads": 24,
    }
    wide |= {"joint_attention_dim": 4096, "pooled_projection_dim": 768, "axes_dims_rope": (16, 56, 56)}
    found: dict[str, tuple[int, ...]] = {}
    for name, part in build_empty(lambda: flux1.TRANSFORMER.make(TRANSFORMER | wide)).named_parameters():
        path, _, kind = name.rpartition(".")
        original, share = flux1.original_name(path)
        key = f"{original}.{'scale' if original.endswith('_norm') else kind}"
        rows = len(part) if share is None else len(part) // (share[1] - share[0]) * share[2]
        found[key] = (rows, *part.shape[1:])
    return found
