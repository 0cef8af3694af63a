"""Stable Diffusion 3 and 3.5: Stability's transformer, told the states and summaries of two CLIPs, and T5's states."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from webui.core.checkpoint import Checkpoint
from webui.core.errors import RequestError
from webui.core.images import Size
from webui.core.prompt import parse_weights
from webui.engine.families import clip, latent
from webui.engine.families.base import Backbone, Conditioning
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
from webui.engine.families.flux1 import T5_ENCODER
from webui.engine.families.transformer import (
    PATCH,
    TransformerBackbone,
    original_spelling,
    transformer,
    usual_spellings,
)
from webui.engine.nets.clip import ClipText
from webui.engine.samplers import DOWN_TO_LEAST
from webui.engine.text import t5
from webui.engine.text.vocabularies import check_length, read
from webui.engine.tokens import split_chunks
from webui.engine.weights import Key

SCALING, SHIFT = 1.5305, 0.0609
LEAST_TOKENS = 256
"""Of T5's that a prompt is filled up to; so many zeros stand for it where it was left out."""
HEAD = 64
"""The width of attention's heads in all that were published."""

# diffusers' names -> Stability's own
_OUTER = {
    "pos_embed.proj": "x_embedder.proj",
    **{
        f"time_text_embed.{ours}.linear_{number}": f"{theirs}.mlp.{layer}"
        for ours, theirs in (("timestep_embedder", "t_embedder"), ("text_embedder", "y_embedder"))
        for number, layer in ((1, 0), (2, 2))
    },
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_INNER = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_FUSED = {
    f"{ours}{letter}{end}": (f"{theirs}.qkv", third)
    for ours, end, theirs in (
        ("attn.to_", "", "x_block.attn"),
        ("attn2.to_", "", "x_block.attn2"),
        ("attn.add_", "_proj", "context_block.attn"),
    )
    for third, letter in enumerate("qkv")
}
_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.(.+)")
_POSITIONS = "pos_embed.pos_embed"


def original_name(path: str) -> tuple[str, int | None]:
    """What Stability's program calls a module of diffusers' names, and which third of that it is, if not all."""
    if (block := _BLOCK.fullmatch(path)) is None:
        return _OUTER.get(path, path), None
    number, rest = block.groups()
    name, third = _FUSED.get(rest, (_INNER.get(rest, rest), None))
    return f"joint_blocks.{number}.{name}", third


def is_swapped(path: str, root: nn.Module) -> bool:
    """Whether shift and scale stand the other way round in the original files: where nothing but these two is told."""
    if path != "norm_out.linear" and not path.endswith(".norm1_context.linear"):
        return False
    layer: Any = root.get_submodule(path)
    return bool(layer.out_features == 2 * layer.in_features)


def _transformer_keys(parameter: str, root: nn.Module, names: str, prefix: str) -> Iterator[Key]:
    if names == "diffusers":
        yield Key(prefix + parameter)
        return
    if parameter == _POSITIONS:
        yield Key(f"{prefix}pos_embed")
        return
    path, _, kind = parameter.rpartition(".")
    name, third = original_name(path)
    yield Key(f"{prefix}{name}.{kind}", third, swapped=is_swapped(path, root))


def _transformer_spellings(path: str, root: nn.Module) -> Iterator[Spelling]:
    yield from usual_spellings(path)
    name, third = original_name(path)
    yield original_spelling(name, path, root, third, is_swapped(path, root))


def _transformer_config(checkpoint: Checkpoint, shapes: Shapes, prefix: str) -> Config:
    own = checkpoint.names != "diffusers"

    def named(parameter: str) -> str:
        path, _, kind = parameter.rpartition(".")
        return f"{prefix}{original_name(path)[0] if own else path}.{kind}"

    blocks = f"{prefix}{'joint_blocks' if own else 'transformer_blocks'}."
    count = len({key[len(blocks) :].split(".")[0] for key in shapes if key.startswith(blocks)})
    width, channels, patch, _ = shapes[named("pos_embed.proj.weight")]
    (head,) = shapes.get(named("transformer_blocks.0.attn.norm_q.weight"), (HEAD,))
    positions = shapes[f"{prefix}pos_embed" if own else prefix + _POSITIONS][1]
    twice = (number for number in range(count) if named(f"transformer_blocks.{number}.attn2.to_q.weight") in shapes)
    return {
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": channels,
        "num_layers": count,
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shapes[named("context_embedder.weight")][1],
        "caption_projection_dim": width,
        "pooled_projection_dim": shapes[named("time_text_embed.text_embedder.linear_1.weight")][1],
        "pos_embed_max_size": math.isqrt(positions),
        "dual_attention_layers": tuple(twice),
        "qk_norm": "rms_norm" if named("transformer_blocks.0.attn.norm_q.weight") in shapes else None,
    }


def _make_transformer(config: Config) -> nn.Module:
    """Positions are a weight, as files have them: diffusers computes them where it makes the network."""
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    model: Any = SD3Transformer2DModel.from_config(dict(config))
    positions = model.pos_embed.pos_embed
    del model.pos_embed.pos_embed
    model.pos_embed.pos_embed = nn.Parameter(positions)
    made: nn.Module = model
    return made


def _make_clip(config: Config) -> nn.Module:
    """CLIP-L, whose summary a diffusers folder projects; in single files it is as it is (ComfyUI, diffusers)."""
    projects = "CLIPTextModelWithProjection" in (config.get("architectures") or ())
    encoder: Any = ClipText(config, projects)
    if not projects:
        encoder.text_projection = nn.Identity()
    made: nn.Module = encoder
    return made


def encode(parts: Parts, text: str, options: EncodeOptions) -> Conditioning:
    """Both CLIPs' last layer but one, side by side and with zeros as wide as T5's states, which follow; and summaries.

    RequestError for a prompt that is too long, and for more layers to skip than there are.
    """
    contexts, summaries = [], []
    for role in ("text_encoder", "text_encoder_2"):
        encoder = parts[role]
        clip.check_skip(options.clip_skip, encoder.depth)
        chunks = split_chunks(text, parts.tokenizers[role])
        context, summary = clip.encode(encoder, role, chunks, -(options.clip_skip + 1), False, {}, parts.device)
        assert summary is not None
        contexts.append(context)
        summaries.append(summary)
    both, width = torch.cat(contexts, dim=-1), parts.checkpoint.context_width
    context = torch.cat([functional.pad(both, (0, width - both.shape[-1])), _t5_states(parts, text)], dim=1)
    dtype = parts["backbone"].dtype
    return {"context": context.to(dtype), "summary": torch.cat(summaries, dim=-1).to(dtype)}


def _t5_states(parts: Parts, text: str) -> torch.Tensor:
    """Zeros where it was left out (diffusers)."""
    if "text_encoder_3" not in parts.modules:
        return torch.zeros(1, LEAST_TOKENS, parts.checkpoint.context_width, device=parts.device)
    reading = read(parts.tokenizers["text_encoder_3"], parse_weights(text))
    check_length(len(reading.ids))
    return t5.states(parts["text_encoder_3"], reading, LEAST_TOKENS, parts.device).float()


def condition(parts: Parts, prompt: Conditioning, size: Size, _guidance: float, _negative: bool) -> Conditioning:
    """RequestError for a picture of more patches a side than the model has positions for."""
    scale = PATCH * 2 ** (len(parts["vae"].block_out_channels) - 1)
    most = parts["backbone"].config.pos_embed_max_size * scale
    if max(size) > most:
        raise RequestError(f"this model draws up to {most:,} px a side, not {max(size):,}", "width")
    return prompt


class Sd3Backbone(TransformerBackbone):
    """As SD 3 is asked: it cuts latents into patches by itself, and its time is 0..1000."""

    def moment(self, time: torch.Tensor) -> torch.Tensor:
        """As in ``TransformerBackbone``."""
        return time

    def flow(self, seen: torch.Tensor, now: torch.Tensor, told: Mapping[str, Any]) -> torch.Tensor:
        """As in ``TransformerBackbone``."""
        flow: torch.Tensor = self.run(
            hidden_states=seen,
            encoder_hidden_states=told["context"],
            pooled_projections=told["summary"],
            timestep=now,
            return_dict=False,
        )[0]
        return flow


def _backbone(parts: Parts) -> Backbone:
    return Sd3Backbone(parts["backbone"])


def _scheduler(checkpoint: Checkpoint, config: Config | None) -> Config:
    """Spaced as diffusers' pipeline does, and Stability's own program, unlike other families' pipelines."""
    return {**flow_config(checkpoint, config), DOWN_TO_LEAST: True}


TRANSFORMER = transformer(
    *(_make_transformer, _transformer_config, _transformer_keys, _transformer_spellings),
    *("lora_transformer_", "lycoris_"),
)
STABLE_DIFFUSION_3 = Family(
    kinds=("SD 3.x",),
    parts=(
        replace(clip.text_encoder("text_encoder"), make=_make_clip),
        clip.text_encoder("text_encoder_2"),
        replace(
            T5_ENCODER,
            role="text_encoder_3",
            title="third text encoder",
            lora_prefixes=("text_encoder_3_", "lora_te3_", "text_encoders_t5xxl_transformer_"),
        ),
        TRANSFORMER,
        latent.vae(SCALING, SHIFT),
    ),
    latents=LatentFormat(
        16,
        rgb=(
            *((-0.0922, -0.0175, 0.0749), (0.0311, 0.0633, 0.0954), (0.1994, 0.0927, 0.0458)),
            *((0.0856, 0.0339, 0.0902), (0.0587, 0.0272, -0.0496), (-0.0006, 0.1104, 0.0309)),
            *((0.0978, 0.0306, 0.0427), (-0.0042, 0.1038, 0.1358), (-0.0194, 0.0020, 0.0669)),
            *((-0.0488, 0.0130, -0.0268), (0.0922, 0.0988, 0.0951), (-0.0278, 0.0524, -0.0542)),
            *((0.0332, 0.0456, 0.0895), (-0.0069, -0.0030, -0.0810), (-0.0596, -0.0465, -0.0293)),
            (-0.1448, -0.1463, -0.1189),
        ),
        rgb_offset=(0.2394, 0.2135, 0.1925),  # both from ComfyUI's latent_formats.py, SD3
        patch=PATCH,
    ),
    scheduler=_scheduler,
    encode=encode,
    condition=condition,
    backbone=_backbone,
    autoencoder=latent.vae_of,
    lone_vae=latent.lone_vae(SCALING, SHIFT, 16),
)
