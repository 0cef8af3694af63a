"""Qwen-Image: a transformer of words and patches side by side, told what Qwen2.5-VL thinks of the words."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from webui.core.checkpoint import Checkpoint
from webui.core.errors import RequestError
from webui.engine.families import qwen_image_vae
from webui.engine.families.base import Backbone, Conditioning
from webui.engine.families.family import (
    Config,
    EncodeOptions,
    Family,
    Parts,
    Shapes,
    Spelling,
    flow_config,
    own_keys,
)
from webui.engine.families.transformer import PATCH, PatchesBackbone, qwen_encoder, transformer, usual_spellings
from webui.engine.samplers import LAST_LEVEL
from webui.engine.text import qwen

BY_SIZE = {
    **{"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 0.9},
    **{"base_image_seq_len": 256, "max_image_seq_len": 8192, LAST_LEVEL: 0.02},
}
"""The published noise, for files that say nothing: shifted by the picture's tokens, down to this level."""
ROPE_THETA = 10_000
PLACES = 4096
"""So many places of a line have a position: half a side of the picture's patches, then the words."""
MOST_SIDE = 128
"""Patches along the longest side that can be drawn."""


def _config(_checkpoint: Checkpoint, shapes: Shapes, prefix: str) -> Config:
    width, channels = shapes[f"{prefix}img_in.weight"]
    (head,) = shapes[f"{prefix}transformer_blocks.0.attn.norm_q.weight"]
    blocks = {key[len(prefix) :].split(".")[1] for key in shapes if key.startswith(f"{prefix}transformer_blocks.")}
    across = 7 * head // 16
    return {
        "in_channels": channels,
        "out_channels": shapes[f"{prefix}proj_out.weight"][0] // PATCH**2,
        "num_layers": len(blocks),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shapes[f"{prefix}txt_in.weight"][1],
        "axes_dims_rope": (head - 2 * across, across, across),
    }


def _make(config: Config) -> nn.Module:
    from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope, QwenImageTransformer2DModel

    model: nn.Module = QwenImageTransformer2DModel.from_config(dict(config))
    own: Any = model.config
    with torch.device("cpu"):  # no file holds the frequencies of its positions
        model.pos_embed = QwenEmbedRope(ROPE_THETA, list(own.axes_dims_rope), scale_rope=True)
    return model


def _spellings(path: str, _root: nn.Module) -> Iterator[Spelling]:
    yield from usual_spellings(path)


def encode(parts: Parts, text: str, _options: EncodeOptions) -> Conditioning:
    """The states of the prompt's tokens and of what stands behind it, (1, tokens, width).

    Brackets are plain words, as in ComfyUI. RequestError for a prompt that is too long.
    """
    ids = qwen.asked_to_describe(parts.tokenizers["text_encoder"], text)
    if (told := len(ids) - qwen.NOT_TOLD) > (most := PLACES - MOST_SIDE // 2):
        raise RequestError(f"the prompt has {told:,} tokens; {most:,} are the most", "prompt")
    states, _ = qwen.states(parts["text_encoder"], torch.tensor([ids], device=parts.device))
    return {"context": states[:, qwen.NOT_TOLD :].to(parts["backbone"].dtype)}


class QwenImageBackbone(PatchesBackbone):
    """As Qwen-Image is asked. Words need no mask: prompts of different lengths are forwards of their own."""

    def given(self, told: Mapping[str, Any], rows: int, columns: int) -> dict[str, Any]:
        """As in ``PatchesBackbone``; the transformer counts the places itself."""
        context = told["context"]
        return {"encoder_hidden_states": context, "img_shapes": [[(1, rows, columns)]] * len(context)}


def _backbone(parts: Parts) -> Backbone:
    return QwenImageBackbone(parts["backbone"])


def _scheduler(checkpoint: Checkpoint, config: Config | None) -> Config:
    return flow_config(checkpoint, config, BY_SIZE)


TEXT_ENCODER = qwen_encoder("qwen25_7b", make=qwen.make_qwen2)
TRANSFORMER = transformer(_make, _config, own_keys, _spellings, "lora_transformer_", "lycoris_")
QWEN_IMAGE = Family(
    kinds=("Qwen-Image",),
    parts=(TEXT_ENCODER, TRANSFORMER, qwen_image_vae.VAE),
    latents=replace(qwen_image_vae.LATENTS, patch=PATCH),
    scheduler=_scheduler,
    encode=encode,
    backbone=_backbone,
    autoencoder=qwen_image_vae.autoencoder,
    lone_vae=qwen_image_vae.lone_vae,
)
