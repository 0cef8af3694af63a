"""Krea 2: a transformer that reads what several of Qwen3-VL's layers think of the words, and patches of the picture."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from webui.core.checkpoint import Checkpoint
from webui.engine.families import qwen_image_vae
from webui.engine.families.base import Backbone, CannotLoad, Conditioning
from webui.engine.families.family import (
    Config,
    EncodeOptions,
    Family,
    Parts,
    Shapes,
    Spelling,
    flow_config,
)
from webui.engine.families.transformer import (
    PATCH,
    PatchesBackbone,
    qwen_encoder,
    shapes_by_name,
    transformer,
    usual_spellings,
)
from webui.engine.text import qwen
from webui.engine.text.vocabularies import check_length
from webui.engine.weights import Key

ROPE_THETA = 5_000_000.0
"""Of Qwen3-VL's positions; those of words alone are a line, as in Qwen3."""

# diffusers' names -> the original ones: of whole modules, and within blocks
_WHOLE = {
    **{"img_in": "first", "time_embed.linear_1": "tmlp.0", "time_embed.linear_2": "tmlp.2", "time_mod_proj": "tproj.1"},
    **{"txt_in.norm": "txtmlp.0", "txt_in.linear_1": "txtmlp.1", "txt_in.linear_2": "txtmlp.3"},
    **{"final_layer.linear": "last.linear", "final_layer.norm": "last.norm", "final_layer": "last.modulation"},
}
_WITHIN = (
    *(("transformer_blocks.", "blocks."), ("text_fusion.", "txtfusion.")),
    *((".attn.to_q", ".attn.wq"), (".attn.to_k", ".attn.wk"), (".attn.to_v", ".attn.wv")),
    *((".attn.to_out.0", ".attn.wo"), (".attn.to_gate", ".attn.gate"), (".ff.", ".mlp.")),
    *((".attn.norm_q", ".attn.qknorm.qnorm"), (".attn.norm_k", ".attn.qknorm.knorm")),
    *((".norm1", ".prenorm"), (".norm2", ".postnorm")),
)
_BLOCK = re.compile(r"(?:transformer_)?blocks\.(\d+)\.")
_FUSED = re.compile(r"(.*\.attn\.)to_([qkv])")


def krea_name(path: str) -> str:
    """What Krea's own program calls a module of diffusers' names."""
    if path in _WHOLE:
        return _WHOLE[path]
    for ours, theirs in _WITHIN:
        path = path.replace(ours, theirs)
    return path


def krea_key(parameter: str) -> str:
    """What Krea's own program calls a tensor of diffusers' names."""
    path, _, kind = parameter.rpartition(".")
    if kind == "scale_shift_table":
        return f"{krea_name(path)}.{'lin' if path == 'final_layer' else 'mod.lin'}"
    is_norm = path.rpartition(".")[2].startswith("norm")
    return f"{krea_name(path)}.{'scale' if is_norm else kind}"


def _keys(parameter: str, _root: nn.Module, names: str, prefix: str) -> Iterator[Key]:
    name = parameter if names == "diffusers" else krea_key(parameter)
    yield Key(prefix + name, flat=name.endswith(".lin"))


def _spellings(path: str, root: nn.Module) -> Iterator[Spelling]:
    """Also for the three in one tensor that diffusers makes of queries, keys and values."""
    yield from usual_spellings(path)
    yield Spelling(krea_name(path))
    if found := _FUSED.fullmatch(path):
        before, own = found.groups()
        layers: list[Any] = [root.get_submodule(f"{before}to_{letter}") for letter in "qkv"]
        rows = [layer.out_features for layer in layers]
        first = sum(rows[: "qkv".index(own)])
        for begin in {before, before.removeprefix("transformer_")}:
            yield Spelling(f"{begin}to_qkv", (first, first + rows["qkv".index(own)]))


def _count(shapes: Shapes, prefix: str, pattern: str) -> int:
    begin = re.compile(re.escape(prefix) + pattern)
    return len({found[1] for key in shapes if (found := begin.match(key))})


def _config(checkpoint: Checkpoint, shapes: Shapes, prefix: str) -> Config:
    shape = shapes_by_name(_keys, checkpoint, shapes, prefix)
    theirs = checkpoint.names != "diffusers"
    fusion = "txtfusion" if theirs else "text_fusion"
    block, reader = "transformer_blocks.0", "text_fusion.refiner_blocks.0"
    width, channels = shape("img_in.weight")
    head, read = shape(f"{block}.attn.norm_q.weight")[0], shape(f"{reader}.attn.norm_q.weight")[0]
    told = shape("txt_in.linear_1.weight")[1]
    across = 3 * head // 8
    return {
        "in_channels": channels,
        "num_layers": _count(shapes, prefix, rf"{'blocks' if theirs else 'transformer_blocks'}\.(\d+)\."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "num_key_value_heads": shape(f"{block}.attn.to_k.weight")[0] // head,
        "intermediate_size": shape(f"{block}.ff.gate.weight")[0],
        "timestep_embed_dim": shape("time_embed.linear_1.weight")[1],
        "text_hidden_dim": told,
        "num_text_layers": shape("text_fusion.projector.weight")[1],
        "text_num_attention_heads": told // read,
        "text_num_key_value_heads": shape(f"{reader}.attn.to_k.weight")[0] // read,
        "text_intermediate_size": shape(f"{reader}.ff.gate.weight")[0],
        "num_layerwise_text_blocks": _count(shapes, prefix, rf"{fusion}\.layerwise_blocks\.(\d+)\."),
        "num_refiner_text_blocks": _count(shapes, prefix, rf"{fusion}\.refiner_blocks\.(\d+)\."),
        "axes_dims_rope": (head - 2 * across, across, across),
    }


def _make(config: Config) -> nn.Module:
    from diffusers.models.transformers.transformer_krea2 import Krea2Transformer2DModel

    model: nn.Module = Krea2Transformer2DModel.from_config(dict(config))
    return model


def taps(layers: int) -> range:
    """Behind which of the encoder's layers its states are taken, where no folder says it: every third."""
    return range(2, 3 * layers, 3)


def _layers(parts: Parts) -> Sequence[int]:
    """The same for this model; CannotLoad where its encoder has not so many, or a folder says what cannot be."""
    asked, own = parts["backbone"].config.num_text_layers, parts["text_encoder"].config.num_hidden_layers
    said = parts.pipeline_config.get("text_encoder_select_layers") or taps(asked)
    layers = [layer for layer in said if isinstance(layer, int) and 0 <= layer <= own]
    if len(layers) != len(said) or len(layers) != asked:
        raise CannotLoad(
            f"the text encoder has {own} layers, and the transformer asks for states behind {asked}, up to"
            f" {max(map(str, said), key=len)[:20]}: it belongs to another model"
        )
    return layers


def encode(parts: Parts, text: str, _options: EncodeOptions) -> Conditioning:
    """The states of the prompt's tokens and of what stands behind it, (1, tokens, layers, width).

    diffusers fills them up to 512, masks what it filled in everywhere and gives it no positions: it changes nothing.
    Brackets are plain words, as in ComfyUI. RequestError for a prompt that is too long.
    """
    ids = qwen.asked_to_describe(parts.tokenizers["text_encoder"], text)
    check_length(len(ids) - qwen.NOT_TOLD)
    found = qwen.tapped(parts["text_encoder"], torch.tensor([ids], device=parts.device), _layers(parts))
    return {"context": found[:, qwen.NOT_TOLD :].to(parts["backbone"].dtype)}


class Krea2Backbone(PatchesBackbone):
    """As Krea 2 is asked: pictures' tokens stand behind those of the words.

    Words need no mask: prompts of different lengths are forwards of their own.
    """

    def given(self, told: Mapping[str, Any], rows: int, columns: int) -> dict[str, Any]:
        """As in ``PatchesBackbone``."""
        context = told["context"]
        positions = _places(context.shape[1], rows, columns, context.device)
        return {"encoder_hidden_states": context, "position_ids": positions}


def _places(words: int, rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """(tokens, 3): where each is in time, down and across. Words are at the origin."""
    sides = (range(1), range(rows), range(columns))
    grid = torch.cartesian_prod(*(torch.arange(len(side), dtype=torch.float32, device=device) for side in sides))
    return torch.cat([grid.new_zeros(words, 3), grid.view(-1, 3)])


def _backbone(parts: Parts) -> Backbone:
    _layers(parts)  # so that it is known when it is loaded
    return Krea2Backbone(parts["backbone"])


def _scheduler(checkpoint: Checkpoint, config: Config | None) -> Config:
    """Turbo's folder has the other one's configuration; diffusers' pipeline draws it with a shift of its own."""
    form = checkpoint.formed
    return flow_config(checkpoint, None if form and form.is_distilled else config)


TEXT_ENCODER = qwen_encoder("qwen3vl_4b", theta=ROPE_THETA)
TRANSFORMER = transformer(_make, _config, _keys, _spellings, "lora_transformer_", "lycoris_")
KREA2 = Family(
    kinds=("Krea 2",),
    parts=(TEXT_ENCODER, TRANSFORMER, qwen_image_vae.VAE),
    latents=replace(qwen_image_vae.LATENTS, patch=PATCH),
    scheduler=_scheduler,
    encode=encode,
    backbone=_backbone,
    autoencoder=qwen_image_vae.autoencoder,
    lone_vae=qwen_image_vae.lone_vae,
)
