"""T5 v1.1's encoder: what its files call its tensors, its configuration from their shapes, and its states."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from webui.core.kinds.parts import t5_words
from webui.engine.families.family import Spelling
from webui.engine.text.vocabularies import Reading
from webui.engine.weights import Key

USUAL_DISTANCE = 128
_BLOCK = re.compile(r"encoder\.block\.(\d+)\.")


def keys(parameter: str, _root: nn.Module, _names: str, prefix: str) -> Iterator[Key]:
    """transformers' names."""
    if parameter.startswith("embed_tokens."):
        yield Key(f"{prefix}shared.weight")
    yield Key(f"{prefix}encoder.{parameter}")


def spellings(path: str, _root: nn.Module) -> Iterator[Spelling]:
    """What LoRA files call a module: with the encoder's name, and without."""
    yield Spelling(f"encoder.{path}")
    yield Spelling(path)


def config(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> dict[str, Any]:
    """What shapes say, and what all of T5 v1.1 have in common; raises KeyError for a missing tensor."""

    def shape(parameter: str) -> tuple[int, ...]:
        names = [key.name for key in keys(parameter, nn.Identity(), "", prefix)]
        return shapes[next((name for name in names if name in shapes), names[0])]

    words, width = t5_words(shapes, prefix)
    blocks = {int(found[1]) for key in shapes if key.startswith(prefix) and (found := _BLOCK.match(key, len(prefix)))}
    buckets, heads = shape("block.0.layer.0.SelfAttention.relative_attention_bias.weight")
    return {
        "vocab_size": words,
        "d_model": width,
        "d_kv": shape("block.0.layer.0.SelfAttention.q.weight")[0] // heads,
        "d_ff": shape("block.0.layer.1.DenseReluDense.wi_0.weight")[0],
        "num_layers": max(blocks) + 1,
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": USUAL_DISTANCE,
        "feed_forward_proj": "gated-gelu",
        "layer_norm_epsilon": 1e-6,
    }


def make(config: Mapping[str, Any]) -> nn.Module:
    """transformers' network without weights."""
    from transformers.models.t5.configuration_t5 import T5Config
    from transformers.models.t5.modeling_t5 import T5Stack

    told = {name: value for name, value in config.items() if name[:1] != "_" and name != "dtype"}
    model: nn.Module = T5Stack(T5Config(**told | {"is_encoder_decoder": False, "use_cache": False}))
    return model


def states(encoder: Any, text: Reading, least: int, device: torch.device) -> torch.Tensor:
    """(1, tokens, width) of a text that is filled up to ``least`` tokens, none of which is hidden from the others.

    A weight takes a token's states so far from those of an empty text (ComfyUI).
    """
    found = _read(encoder, text.ids, least, device)
    if not text.is_weighted:
        return found
    nothing = _read(encoder, text.ids[-1:], found.shape[1], device)
    scale = torch.ones(found.shape[1], device=device, dtype=found.dtype)
    scale[: len(text.weights)] = torch.tensor(text.weights, dtype=found.dtype)
    return nothing + (found - nothing) * scale[:, None]


def _read(encoder: Any, ids: Sequence[int], least: int, device: torch.device) -> torch.Tensor:
    filled = [*ids, *[0] * (least - len(ids))]
    found: torch.Tensor = encoder(input_ids=torch.tensor([filled], device=device)).last_hidden_state
    return found
