"""Qwen3 and Qwen2.5 as text encoders: what files call their tensors, configurations from shapes, and states."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
from torch import nn

from webui.core.checkpoint import Checkpoint
from webui.engine.text.vocabularies import fitting, in_folder, shipped, whole_letters
from webui.engine.weights import Key

ROPE_THETA = 1_000_000.0
POSITIONS = 32_768
NORM_EPS = 1e-6
QWEN2_HEAD = 128
"""Numbers of one of Qwen2.5's heads, which no tensor has the shape of."""
BEFORE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
BEHIND = "<|im_end|>\n<|im_start|>assistant\n"
NOT_TOLD = 34
"""Tokens of ``BEFORE``: the encoder reads them, the transformer is not told them."""
_LAYER = re.compile(r"layers\.(\d+)\.")
_NOT_TOLD = ("dtype", "model_type")


def config(shapes: Mapping[str, tuple[int, ...]], prefix: str, theta: float = ROPE_THETA) -> dict[str, Any]:
    """What shapes say, and what all smaller models of theirs have in common; raises KeyError for a missing tensor."""
    vocabulary, width = shapes[f"{prefix}embed_tokens.weight"]
    (head,) = shapes.get(f"{prefix}layers.0.self_attn.q_norm.weight", (QWEN2_HEAD,))
    layers = {int(found[1]) for key in shapes if key.startswith(prefix) and (found := _LAYER.match(key, len(prefix)))}
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes[f"{prefix}layers.0.mlp.gate_proj.weight"][0],
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": shapes[f"{prefix}layers.0.self_attn.q_proj.weight"][0] // head,
        "num_key_value_heads": shapes[f"{prefix}layers.0.self_attn.k_proj.weight"][0] // head,
        "head_dim": head,
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": NORM_EPS,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
    }


def of_words(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a configuration; that of a model which sees too has it beside that of its eyes."""
    words: Mapping[str, Any] = config.get("text_config") or config
    return words


def make(config: Mapping[str, Any], read: int | None = None) -> nn.Module:
    """transformers' network of Qwen3 without weights, but with the frequencies of its positions, which no file holds.

    Of Qwen3-VL it is the half that reads: its words stand in a line, so that Qwen3's positions are its own. Where no
    more than the first ``read`` layers are read, it has no others, and no norm behind them.
    """
    from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
    from transformers.models.qwen3.modeling_qwen3 import Qwen3Model, Qwen3RotaryEmbedding

    known = Qwen3Config(**_told(config))
    known._attn_implementation = "sdpa"
    if read is not None:
        known.num_hidden_layers = read
    model: nn.Module = Qwen3Model(known)
    if read is not None:
        model.norm = nn.Identity()
    with torch.device("cpu"):
        model.rotary_emb = Qwen3RotaryEmbedding(known)
    return model


def make_qwen2(config: Mapping[str, Any]) -> nn.Module:
    """The same of Qwen2.5, and of the half of Qwen2.5-VL that reads."""
    from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
    from transformers.models.qwen2.modeling_qwen2 import Qwen2Model, Qwen2RotaryEmbedding

    known = Qwen2Config(**_told(config))
    known._attn_implementation = "sdpa"
    model: nn.Module = Qwen2Model(known)
    with torch.device("cpu"):
        model.rotary_emb = Qwen2RotaryEmbedding(known)
    return model


def _told(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says of the half that reads."""
    told = {name: value for name, value in of_words(config).items() if name[:1] != "_" and name not in _NOT_TOLD}
    for name in ("rope_parameters", "rope_scaling"):
        if isinstance(rope := told.get(name), dict):
            told[name] = {key: value for key, value in rope.items() if not key.startswith("mrope")}
    return told


def keys(parameter: str, _root: nn.Module, _names: str, prefix: str) -> Iterator[Key]:
    """transformers' names, with and without the language model around them, or one that sees."""
    for around in ("", "model.", "language_model.", "model.language_model."):
        yield Key(f"{prefix}{around}{parameter}")


def tokenizer(folder: Path | None, _checkpoint: Checkpoint, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Its vocabulary, from a diffusers folder, or the one that ships."""
    found = folder and in_folder(folder / "tokenizer") or shipped("qwen3")
    return fitting(found, of_words(config)["vocab_size"])


def asked_to_describe(vocabulary: tokenizers.Tokenizer, text: str) -> list[int]:
    """The ids of a prompt as a user's part of a talk, in which the system was asked to describe a picture."""
    return [*vocabulary.encode(BEFORE + whole_letters(text)).ids, *vocabulary.encode(BEHIND).ids]


def states(encoder: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(states, mask) of one text's ids (1, tokens): the last layer's, normalised. Nothing said is one of zeros."""
    mask = torch.ones_like(ids)
    if not ids.shape[-1]:
        ids, mask = ids.new_zeros(1, 1), mask.new_zeros(1, 1)
    found = encoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return found * mask.to(found)[..., None], mask


def tapped(encoder: Any, ids: torch.Tensor, layers: Sequence[int], mask: torch.Tensor | None = None) -> torch.Tensor:
    """The states of one text's ids (1, tokens) behind some layers, 0 before the first: (1, tokens, layers, width)."""
    found = encoder(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True).hidden_states
    return torch.stack([found[layer] for layer in layers], dim=2)
