"""FLUX.2 Klein: Black Forest Labs' second transformer, told three layers of Qwen3's states."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from webui.core.checkpoint import Checkpoint
from webui.core.tensor_file import BadFile
from webui.engine.families import flux2_vae
from webui.engine.families.base import Autoencoder, Backbone, Conditioning
from webui.engine.families.family import (
    Config,
    EncodeOptions,
    Family,
    LatentFormat,
    Parts,
    Shapes,
    Spelling,
    flow_config,
)
from webui.engine.families.transformer import (
    PATCH,
    Keys,
    PatchesBackbone,
    original_spelling,
    qwen_encoder,
    shapes_by_name,
    transformer,
    usual_spellings,
)
from webui.engine.text import qwen
from webui.engine.text.vocabularies import check_length, whole_letters
from webui.engine.weights import Key

LAYERS = (9, 18, 27)
"""Of Qwen3, behind which its states are read."""
LEAST_TOKENS = 512
"""Of a prompt with what stands around it: shorter ones are filled up, as it was trained."""
PAD = "<|endoftext|>"
ASKED = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
"""A prompt as a message that Qwen3 is to answer without thinking."""

# diffusers' names -> Black Forest Labs' own
_OUTER = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_DOUBLE = {
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.to_out.0": "img_attn.proj",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "attn.to_add_out": "txt_attn.proj",
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
}
_SINGLE = {
    "attn.to_qkv_mlp_proj": "linear1",
    "attn.to_out": "linear2",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
}
_FUSED = {
    f"attn.{ours}": (f"{stream}_attn.qkv", third)
    for stream, every in {
        "img": ("to_q", "to_k", "to_v"),
        "txt": ("add_q_proj", "add_k_proj", "add_v_proj"),
    }.items()
    for third, ours in enumerate(every)
}
_BLOCK = re.compile(r"(single_)?transformer_blocks\.(\d+)\.(.+)")
_SWAPPED = "norm_out.linear"
"""Whose two halves stand the other way round in the original files."""


def original_name(path: str) -> tuple[str, int | None]:
    """What the original program calls a module of diffusers' names, and which third of that it is, if it is one."""
    if (block := _BLOCK.fullmatch(path)) is None:
        return _OUTER.get(path, path), None
    single, number, rest = block.groups()
    if single:
        return f"single_blocks.{number}.{_SINGLE.get(rest, rest)}", None
    name, third = _FUSED.get(rest, (_DOUBLE.get(rest, rest), None))
    return f"double_blocks.{number}.{name}", third


def _transformer_keys(parameter: str, _root: nn.Module, names: str, prefix: str) -> Iterator[Key]:
    path, _, kind = parameter.rpartition(".")
    if names == "diffusers":
        yield Key(prefix + parameter)
        return
    name, third = original_name(path)
    if name.endswith("_norm"):
        yield Key(f"{prefix}{name}.scale")
    yield Key(f"{prefix}{name}.{kind}", third, swapped=path == _SWAPPED)


def _transformer_spellings(path: str, root: nn.Module) -> Iterator[Spelling]:
    yield from usual_spellings(path)
    if path.startswith("transformer_"):
        yield Spelling(path.removeprefix("tran"))  # of some exports
    name, third = original_name(path)
    yield original_spelling(name, path, root, third, path == _SWAPPED)


def read_streams(
    keys: Keys, checkpoint: Checkpoint, shapes: Shapes, prefix: str
) -> tuple[dict[str, Any], Callable[[str], tuple[int, ...]]]:
    """What shapes say of a transformer with blocks of two streams and of one, as FLUX.1 and FLUX.2 have them, in
    diffusers' words; and the shape of a parameter by diffusers' name. ``keys`` are its names in files."""
    shape = shapes_by_name(keys, checkpoint, shapes, prefix)

    def blocks(of: str) -> int:
        own = {"transformer_blocks": "double_blocks", "single_transformer_blocks": "single_blocks"}
        start = f"{prefix}{of if checkpoint.names == 'diffusers' else own[of]}."
        return len({key[len(start) :].split(".")[0] for key in shapes if key.startswith(start)})

    width, channels = shape("x_embedder.weight")
    (head,) = shape("transformer_blocks.0.attn.norm_q.weight")
    config = {
        "in_channels": channels,
        "num_layers": blocks("transformer_blocks"),
        "num_single_layers": blocks("single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shape("context_embedder.weight")[1],
    }
    return config, shape


def _transformer_config(checkpoint: Checkpoint, shapes: Shapes, prefix: str) -> Config:
    config, shape = read_streams(_transformer_keys, checkpoint, shapes, prefix)
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return config | {
        "timestep_guidance_channels": shape("time_guidance_embed.timestep_embedder.linear_1.weight")[1],
        "mlp_ratio": shape("transformer_blocks.0.ff.linear_out.weight")[1] / width,
        "axes_dims_rope": (config["attention_head_dim"] // 4,) * 4,
        "guidance_embeds": False,
    }


def _make_transformer(config: Config) -> nn.Module:
    from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel

    model: nn.Module = Flux2Transformer2DModel.from_config(dict(config))
    return model


def _make_encoder(config: Config) -> nn.Module:
    """The layers that are read; those behind them are neither loaded nor asked."""
    if (layers := config["num_hidden_layers"]) < LAYERS[-1]:
        raise BadFile(f"has a text encoder of {layers} layers, of which the {LAYERS[-1]}th is to be read")
    return qwen.make(config, LAYERS[-1])


def encode(parts: Parts, text: str, _options: EncodeOptions) -> Conditioning:
    """Qwen3's states behind ``LAYERS``, side by side, for the prompt as a message (diffusers' pipeline).

    What it is filled up with is told as well: no one hides it from the transformer. RequestError for one that is too
    long.
    """
    tokenizer, device = parts.tokenizers["text_encoder"], parts.device
    ids = tokenizer.encode(ASKED.format(whole_letters(text))).ids
    check_length(len(ids))
    filled = ids + [tokenizer.token_to_id(PAD)] * (LEAST_TOKENS - len(ids))
    mask = (torch.arange(len(filled), device=device) < len(ids)).long()[None]
    states = qwen.tapped(parts["text_encoder"], torch.tensor([filled], device=device), LAYERS, mask)
    return {"context": states.flatten(2).to(parts["backbone"].dtype)}


@lru_cache(maxsize=8)
def places(rows: int, columns: int, words: int, device: torch.device) -> torch.Tensor:
    """Where tokens are: (tokens, 4), of which the first counts pictures, the second and third rows and columns, and
    the last one words."""
    axes = (torch.arange(count, device=device) for count in (1, rows, columns, words))
    return torch.cartesian_prod(*axes)


class Flux2Backbone(PatchesBackbone):
    """As FLUX.2 is asked."""

    def given(self, told: Mapping[str, Any], rows: int, columns: int) -> dict[str, Any]:
        """As in ``PatchesBackbone``."""
        context = told["context"]
        return {
            "encoder_hidden_states": context,
            "txt_ids": places(1, 1, context.shape[1], context.device),
            "img_ids": places(rows, columns, 1, context.device),
        }


def _backbone(parts: Parts) -> Backbone:
    return Flux2Backbone(parts["backbone"])


def _autoencoder(parts: Parts) -> Autoencoder:
    return flux2_vae.Flux2Autoencoder(parts["vae"], parts.device)


def shift(config: Config, tokens: int, steps: int) -> float:
    """By how much the schedule is shifted, which goes by tokens and steps: fitted by Black Forest Labs (their
    ``sampling.py``, diffusers' ``compute_empirical_mu``), between 10 steps and 200 in a straight line."""
    if not config.get("use_dynamic_shifting", True):
        return float(config.get("shift", 1.0))
    many = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return math.exp(many)
    few = 8.73809524e-05 * tokens + 1.89833333
    return math.exp(many + (few - many) * (200 - steps) / 190)


TEXT_ENCODER = qwen_encoder("qwen3_4b", "qwen3_8b", make=_make_encoder)
TRANSFORMER = transformer(_make_transformer, _transformer_config, _transformer_keys, _transformer_spellings, "lycoris_")
FLUX2_KLEIN = Family(
    kinds=("FLUX.2 Klein",),
    parts=(TEXT_ENCODER, TRANSFORMER, flux2_vae.VAE),
    latents=LatentFormat(flux2_vae.CHANNELS, flux2_vae.RGB, flux2_vae.RGB_OFFSET, PATCH, packs_noise=True),
    scheduler=flow_config,
    encode=encode,
    backbone=_backbone,
    autoencoder=_autoencoder,
    lone_vae=flux2_vae.lone_vae,
    shift=shift,
)
