"""Anima: Cosmos-Predict2's transformer, told Qwen3's states through an adapter that asks them with T5's token ids."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from webui.core.checkpoint import Checkpoint
from webui.core.prompt import parse_weights
from webui.engine.families import qwen_image_vae
from webui.engine.families.base import Backbone, Conditioning
from webui.engine.families.family import Config, EncodeOptions, Family, Part, Parts, Shapes, Spelling, wanted_dtype
from webui.engine.families.transformer import (
    TransformerBackbone,
    qwen_encoder,
    shapes_by_name,
    transformer,
    usual_spellings,
)
from webui.engine.text import qwen
from webui.engine.text.vocabularies import Reading, check_length, fitting, in_folder, read, shipped
from webui.engine.weights import Key

SHIFT = 3.0
"""Of the noise levels that it was trained with."""
MOST_SIDES = (128, 1024, 1024)
"""Of latents, in frames, rows and columns: positions are computed for so many, whatever was trained on."""
ROPE_SCALE = (1.0, 4.0, 4.0)
"""What Cosmos-Predict2's pictures are drawn with (diffusers' conversion of it)."""
ADAPTER = "llm_adapter."

# diffusers' names -> Cosmos-Predict2's own, in this order
_RENAMED = (
    ("transformer_blocks.", "blocks."),
    ("norm1.linear_", "adaln_modulation_self_attn."),
    ("norm2.linear_", "adaln_modulation_cross_attn."),
    ("norm3.linear_", "adaln_modulation_mlp."),
    ("attn1.", "self_attn."),
    ("attn2.", "cross_attn."),
    ("to_q", "q_proj"),
    ("to_k", "k_proj"),
    ("to_v", "v_proj"),
    ("to_out.0", "output_proj"),
    ("norm_q", "q_norm"),
    ("norm_k", "k_norm"),
    ("ff.net.0.proj", "mlp.layer1"),
    ("ff.net.2", "mlp.layer2"),
    ("time_embed.t_embedder.", "t_embedder.1."),
    ("time_embed.norm", "t_embedding_norm"),
    ("patch_embed.proj", "x_embedder.proj.1"),
    ("norm_out.linear_", "final_layer.adaln_modulation."),
    ("proj_out", "final_layer.linear"),
)
_BLOCK = re.compile(r"(?:transformer_)?blocks\.(\d+)\.")


def cosmos_name(path: str) -> str:
    """What Cosmos-Predict2's own program calls a module or a tensor of diffusers' names."""
    for ours, theirs in _RENAMED:
        path = path.replace(ours, theirs)
    return path


def _transformer_keys(parameter: str, _root: nn.Module, names: str, prefix: str) -> Iterator[Key]:
    yield Key(prefix + (parameter if names == "diffusers" else cosmos_name(parameter)))


def _transformer_spellings(path: str, _root: nn.Module) -> Iterator[Spelling]:
    yield from usual_spellings(path)
    yield Spelling(cosmos_name(path))


def _blocks(shapes: Shapes, prefix: str) -> int:
    found = {int(block[1]) for key in shapes if key.startswith(prefix) and (block := _BLOCK.match(key, len(prefix)))}
    return max(found) + 1


def _transformer_config(checkpoint: Checkpoint, shapes: Shapes, prefix: str) -> Config:
    shape = shapes_by_name(_transformer_keys, checkpoint, shapes, prefix)
    block = "transformer_blocks.0"
    width = shape("patch_embed.proj.weight")[0]
    head = shape(f"{block}.attn1.norm_q.weight")[0]
    return {
        "in_channels": shape("patch_embed.proj.weight")[1] // 4 - 1,  # patches of 2 x 2, and the padding mask
        "out_channels": shape("proj_out.weight")[0] // 4,
        "num_attention_heads": width // head,
        "attention_head_dim": head,
        "num_layers": _blocks(shapes, prefix),
        "mlp_ratio": shape(f"{block}.ff.net.0.proj.weight")[0] / width,
        "text_embed_dim": shape(f"{block}.attn2.to_k.weight")[1],
        "adaln_lora_dim": shape(f"{block}.norm1.linear_1.weight")[0],
        "patch_size": (1, 2, 2),
        "rope_scale": ROPE_SCALE,
        "extra_pos_embed_type": None,
    }


def _make_transformer(config: Config) -> nn.Module:
    from diffusers.models.transformers import transformer_cosmos

    if not hasattr(transformer_cosmos, "transforms"):  # it wants torchvision for this alone
        modes = SimpleNamespace(NEAREST="nearest")
        nearest = SimpleNamespace(resize=lambda mask, size, interpolation: nn.functional.interpolate(mask, size))
        transformer_cosmos.transforms = SimpleNamespace(functional=nearest, InterpolationMode=modes)
    model: nn.Module = transformer_cosmos.CosmosTransformer3DModel.from_config({**config, "max_size": MOST_SIDES})
    return model


def _conditioner_config(_checkpoint: Checkpoint, shapes: Shapes, prefix: str) -> Config:
    words, target = shapes[f"{prefix}embed.weight"]
    block = f"{prefix}blocks.0"
    width = shapes[f"{prefix}out_proj.weight"][1]
    own = f"{block}.self_attn.q_norm.weight" in shapes
    return {
        "source_dim": shapes[f"{block}.cross_attn.k_proj.weight"][1],
        "target_dim": target,
        "model_dim": width,
        "num_layers": _blocks(shapes, prefix),
        "num_attention_heads": width // shapes[f"{block}.cross_attn.q_norm.weight"][0],
        "mlp_ratio": shapes[f"{block}.mlp.0.weight"][0] / width,
        "target_vocab_size": words,
        "use_self_attention": own,
        "use_layer_norm": f"{block}.norm_mlp.bias" in shapes,
    }


def _make_conditioner(config: Config) -> nn.Module:
    from diffusers.models.condition_embedders import condition_embedder_anima as module

    model: nn.Module = module.AnimaTextConditioner.from_config(dict(config))
    with torch.device("cpu"):  # no file holds the frequencies of its positions
        model.rotary_emb = module.AnimaRotaryEmbedding(config["model_dim"] // config["num_attention_heads"])
    return model


class Words:
    """What turns a prompt into Qwen's and T5's ids: the folder's vocabularies, or those that ship."""

    def __init__(self, folder: Path | None = None) -> None:
        self.qwen = folder and in_folder(folder / "tokenizer") or shipped("qwen3")
        self.t5 = folder and in_folder(folder / "t5_tokenizer") or shipped("t5")

    def read(self, text: str) -> tuple[Reading, Reading]:
        """The prompt as Qwen3 reads it, and as the adapter asks for it; RequestError for one that is too long."""
        words = parse_weights(text)
        found = read(self.qwen, words), read(self.t5, words)
        check_length(max(len(reading.ids) for reading in found))
        return found


def _words(folder: Path | None, _checkpoint: Checkpoint, config: Config) -> Words:
    words = Words(folder)
    fitting(words.qwen, config["vocab_size"])
    return words


def encode(parts: Parts, text: str, _options: EncodeOptions) -> Conditioning:
    """The adapter's states, one for each of T5's tokens and zeros up to 512 of them; each times its word's weight.

    Qwen3 reads the words without weights: these belong to what the transformer is told of them (as in ComfyUI).
    """
    encoder, conditioner, device = parts["text_encoder"], parts["text_conditioner"], parts.device
    own, asked = parts.tokenizers["text_encoder"].read(text)
    states, mask = qwen.states(encoder, torch.tensor([own.ids], dtype=torch.long, device=device))
    ids = torch.tensor([asked.ids], device=device)
    context = conditioner(
        source_hidden_states=states.to(conditioner.dtype),
        target_input_ids=ids,
        target_attention_mask=torch.ones_like(ids),
        source_attention_mask=mask,
    )
    if asked.is_weighted:
        context[:, : len(asked.weights)] *= torch.tensor(asked.weights, device=device).to(context)[None, :, None]
    return {"context": context.to(parts["backbone"].dtype)}


class CosmosBackbone(TransformerBackbone):
    """As Cosmos-Predict2 is asked: a picture is a film of one frame to it."""

    def flow(self, seen: torch.Tensor, now: torch.Tensor, told: Mapping[str, Any]) -> torch.Tensor:
        """As in ``TransformerBackbone``."""
        padding = seen.new_zeros(1, 1, *seen.shape[-2:])
        output = self.run(seen[:, :, None], now, told["context"], padding_mask=padding, return_dict=False)[0]
        flow: torch.Tensor = output[:, :, 0]
        return flow


def _backbone(parts: Parts) -> Backbone:
    return CosmosBackbone(parts["backbone"])


def _scheduler(_checkpoint: Checkpoint, config: Config | None) -> Config:
    return {**(config or {"shift": SHIFT}), "prediction_type": "flow_prediction"}


TEXT_ENCODER = replace(qwen_encoder("qwen3_06b"), dtype=wanted_dtype, tokenizer=_words)
TEXT_CONDITIONER = Part(
    role="text_conditioner",
    title="text adapter",
    make=_make_conditioner,
    config=_conditioner_config,
    lora_prefixes=tuple(
        f"{before}llm_adapter_" for before in ("lora_unet_", "diffusion_model_", "net_", "model_diffusion_model_", "")
    )
    + ("text_conditioner_",),
)
TRANSFORMER = replace(
    transformer(_make_transformer, _transformer_config, _transformer_keys, _transformer_spellings, "net_"),
    dtype=wanted_dtype,
)
ANIMA = Family(
    kinds=("Anima",),
    parts=(TEXT_ENCODER, TEXT_CONDITIONER, TRANSFORMER, qwen_image_vae.VAE),
    latents=qwen_image_vae.LATENTS,
    scheduler=_scheduler,
    encode=encode,
    backbone=_backbone,
    autoencoder=qwen_image_vae.autoencoder,
    lone_vae=qwen_image_vae.lone_vae,
)
