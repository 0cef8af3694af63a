"""FLUX.1: Black Forest Labs' first transformer, told T5's states, CLIP's summary and, but for schnell, the guidance."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import tokenizers
import torch
from torch import nn

from webui.core.checkpoint import Checkpoint
from webui.core.images import Size
from webui.core.kinds.parts import T5
from webui.core.prompt import parse_weights
from webui.engine.families import clip, flux_vae
from webui.engine.families.base import Backbone, Conditioning
from webui.engine.families.family import (
    Config,
    EncodeOptions,
    Family,
    Part,
    Parts,
    Shapes,
    Spelling,
    flow_config,
    without_float16,
)
from webui.engine.families.flux2 import places, read_streams
from webui.engine.families.latent import vae_of
from webui.engine.families.transformer import PatchesBackbone, original_spelling, transformer, usual_spellings
from webui.engine.text import t5
from webui.engine.text.vocabularies import check_length, fitting, in_folder, read, shipped
from webui.engine.tokens import split_chunks
from webui.engine.weights import Key

LEAST_TOKENS = {True: 512, False: 256}
"""Of T5's that a prompt is filled up to, by whether the model is told the guidance: schnell was trained with fewer."""

# diffusers' names -> Black Forest Labs' own
_OUTER = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    **{
        f"time_text_embed.{ours}.linear_{number}": f"{theirs}.{layer}"
        for ours, theirs in (
            ("timestep_embedder", "time_in"),
            ("text_embedder", "vector_in"),
            ("guidance_embedder", "guidance_in"),
        )
        for number, layer in ((1, "in_layer"), (2, "out_layer"))
    },
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.to_out.0": "img_attn.proj",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_SINGLE = {
    "norm.linear": "modulation.lin",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
    "proj_out": "linear2",
}
Share = tuple[int, int, int]
"""Which rows of a tensor: from the first part to before the second, of so many equal ones."""
_DOUBLE_FUSED = {
    f"attn.{ours}": (f"{stream}_attn.qkv", (third, third + 1, 3))
    for stream, every in {"img": ("to_q", "to_k", "to_v"), "txt": ("add_q_proj", "add_k_proj", "add_v_proj")}.items()
    for third, ours in enumerate(every)
}
_SINGLE_FUSED: dict[str, tuple[str, Share]] = {
    **{f"attn.{ours}": ("linear1", (place, place + 1, 7)) for place, ours in enumerate(("to_q", "to_k", "to_v"))},
    "proj_mlp": ("linear1", (3, 7, 7)),
}
_XLABS = {
    "img_attn.qkv": "qkv_lora1",
    "txt_attn.qkv": "qkv_lora2",
    "img_attn.proj": "proj_lora1",
    "txt_attn.proj": "proj_lora2",
    "linear1": "qkv_lora",
    "linear2": "proj_lora",
}
"""What XLabs' first LoRAs call a block's layers; of ``linear1`` these are query, key and value alone."""
_BLOCK = re.compile(r"(single_)?transformer_blocks\.(\d+)\.(.+)")
_ORIGINAL_BLOCK = re.compile(r"((?:single|double)_blocks\.\d+)\.(.+)")
_SWAPPED = "norm_out.linear"
"""Whose two halves stand the other way round in the original files."""


def original_name(path: str) -> tuple[str, Share | None]:
    """What the original program calls a module of diffusers' names, and which rows of that it is, if not all."""
    if (block := _BLOCK.fullmatch(path)) is None:
        return _OUTER.get(path, path), None
    single, number, rest = block.groups()
    names, fused = (_SINGLE, _SINGLE_FUSED) if single else (_DOUBLE, _DOUBLE_FUSED)
    name, share = fused.get(rest, (names.get(rest, rest), None))
    return f"{'single' if single else 'double'}_blocks.{number}.{name}", share


def _transformer_keys(parameter: str, _root: nn.Module, names: str, prefix: str) -> Iterator[Key]:
    path, _, kind = parameter.rpartition(".")
    if names == "diffusers":
        yield Key(prefix + parameter)
        return
    name, share = original_name(path)
    if name.endswith("_norm"):
        yield Key(f"{prefix}{name}.scale")
    yield Key(f"{prefix}{name}.{kind}", share=share, swapped=path == _SWAPPED)


def _transformer_spellings(path: str, root: nn.Module) -> Iterator[Spelling]:
    yield from usual_spellings(path)
    name, share = original_name(path)
    block = _ORIGINAL_BLOCK.fullmatch(name)
    xlabs = block and block[2] in _XLABS and f"{block[1]}.processor.{_XLABS[block[2]]}"
    if share is None:
        yield original_spelling(name, path, root, swapped=path == _SWAPPED)
        if xlabs:
            yield Spelling(xlabs)
        return
    layer: Any = root.get_submodule(path)
    rows = layer.out_features
    first, behind, _ = share
    part = rows // (behind - first)
    own = first * part, behind * part
    yield Spelling(name, own)
    if xlabs and behind - first == 1:
        yield Spelling(xlabs, own)


def _transformer_config(checkpoint: Checkpoint, shapes: Shapes, prefix: str) -> Config:
    config, shape = read_streams(_transformer_keys, checkpoint, shapes, prefix)
    head = config["attention_head_dim"]
    return config | {
        "pooled_projection_dim": shape("time_text_embed.text_embedder.linear_1.weight")[1],
        "axes_dims_rope": (head // 8, head * 7 // 16, head * 7 // 16),
        "guidance_embeds": checkpoint.guides_itself,
    }


def _make_transformer(config: Config) -> nn.Module:
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    model: nn.Module = FluxTransformer2DModel.from_config(dict(config))
    return model


def _words(folder: Path | None, checkpoint: Checkpoint, config: Config) -> tokenizers.Tokenizer:
    """T5's: a folder has them under the number that T5 has in it."""
    role = next(role for role, network in checkpoint.networks.items() if network == T5)
    words = (folder and in_folder(folder / role.replace("text_encoder", "tokenizer"))) or shipped("t5")
    return fitting(words, config["vocab_size"])


def encode(parts: Parts, text: str, _options: EncodeOptions) -> Conditioning:
    """T5's states, and CLIP's of the token that ends the prompt, of which it reads what is in its first chunk.

    RequestError for a prompt that is too long.
    """
    device, dtype = parts.device, parts["backbone"].dtype
    reading = read(parts.tokenizers["text_encoder_2"], parse_weights(text))
    check_length(len(reading.ids))
    least = LEAST_TOKENS[parts.checkpoint.guides_itself]
    states = t5.states(parts["text_encoder_2"], reading, least, device)
    tokenizer = parts.tokenizers["text_encoder"]
    chunk, *_ = split_chunks(text, tokenizer)
    summed, _ = parts["text_encoder"](torch.tensor([chunk.ids], device=device), -1, True)
    return {"context": states.to(dtype), "summary": summed[:, chunk.ids.index(tokenizer.end)].to(dtype)}


def condition(parts: Parts, prompt: Conditioning, _size: Size, guidance: float, _negative: bool) -> Conditioning:
    """Adds the guidance, where the model is told it."""
    if not parts.checkpoint.guides_itself:
        return prompt
    return {**prompt, "guidance": torch.tensor([max(guidance, 1.0)], device=parts.device)}


@lru_cache(maxsize=8)
def _nowhere(words: int, device: torch.device) -> torch.Tensor:
    return torch.zeros(words, 3, device=device)


class Flux1Backbone(PatchesBackbone):
    """As FLUX.1 is asked: words have no place, and more is told than they."""

    def given(self, told: Mapping[str, Any], rows: int, columns: int) -> dict[str, Any]:
        """As in ``PatchesBackbone``."""
        context = told["context"]
        return {
            "encoder_hidden_states": context,
            "pooled_projections": told["summary"],
            "guidance": told.get("guidance"),
            "txt_ids": _nowhere(context.shape[1], context.device),
            "img_ids": places(rows, columns, 1, context.device)[:, :3],
        }


def _backbone(parts: Parts) -> Backbone:
    return Flux1Backbone(parts["backbone"])


def _scheduler(checkpoint: Checkpoint, config: Config | None) -> Config:
    """That of dev is shifted by the size, with diffusers' own numbers; schnell's is not at all."""
    usual: Config = {"use_dynamic_shifting": True} if checkpoint.guides_itself else {"shift": 1.0}
    return flow_config(checkpoint, config, usual)


T5_ENCODER = Part(
    role="text_encoder_2",
    title="second text encoder",
    make=t5.make,
    config=lambda _checkpoint, shapes, prefix: t5.config(shapes, prefix),
    keys=t5.keys,
    lora_prefixes=("text_encoder_2_", "lora_te2_", "lora_te3_", "text_encoders_t5xxl_transformer_"),
    spellings=t5.spellings,
    dtype=without_float16,
    tokenizer=_words,
)
TRANSFORMER = transformer(_make_transformer, _transformer_config, _transformer_keys, _transformer_spellings, "lycoris_")
FLUX1 = Family(
    kinds=("FLUX.1",),
    parts=(clip.text_encoder("text_encoder"), T5_ENCODER, TRANSFORMER, flux_vae.VAE),
    latents=flux_vae.LATENTS,
    scheduler=_scheduler,
    encode=encode,
    condition=condition,
    backbone=_backbone,
    autoencoder=vae_of,
    lone_vae=flux_vae.lone_vae,
)
