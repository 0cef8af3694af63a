"""Z-Image: a transformer that reads Qwen3's states and FLUX.1's latents as one row of tokens."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import nn

from webui.core.checkpoint import Checkpoint
from webui.core.memory import FORWARD_ROWS
from webui.engine.families import flux_vae
from webui.engine.families.base import Backbone, Conditioning
from webui.engine.families.family import (
    Config,
    EncodeOptions,
    Family,
    Parts,
    Shapes,
    Spelling,
    flow_config,
)
from webui.engine.families.latent import vae_of
from webui.engine.families.transformer import (
    Forward,
    TransformerBackbone,
    original_spelling,
    qwen_encoder,
    shapes_by_name,
    transformer,
    usual_spellings,
)
from webui.engine.text import qwen
from webui.engine.text.vocabularies import MOST_TOKENS, check_length, whole_letters
from webui.engine.weights import Key

ASKED = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
"""How Qwen3 is told a prompt: as a person's words that it is about to answer (its chat template, thinking allowed)."""
TOGETHER = 32
"""Tokens of words and of pictures are filled up to multiples of it."""
MOST_SIDES = (MOST_TOKENS + 2 * TOGETHER, 1024, 1024)
"""Of words, rows and columns: positions are computed for so many, whatever was trained on."""
PROJECTIONS = ("to_q", "to_k", "to_v")
"""In the order in which Z-Image's own program has them in one tensor, ``qkv``."""

# diffusers' names -> Z-Image's own
_RENAMED = (
    ("all_x_embedder.2-1.", "x_embedder."),
    ("all_final_layer.2-1.", "final_layer."),
    (".to_out.0", ".out"),
    (".norm_q", ".q_norm"),
    (".norm_k", ".k_norm"),
)
_LAYER = re.compile(r"(layers|noise_refiner)\.(\d+)\.")


def own_name(path: str) -> str:
    """What Z-Image's own program calls a module or a tensor of diffusers' names; of a third of ``qkv`` it is qkv."""
    for ours, theirs in _RENAMED:
        path = path.replace(ours, theirs)
    for projection in PROJECTIONS:
        path = path.replace(f".attention.{projection}", ".attention.qkv")
    return path


def _third(path: str) -> int | None:
    return next((number for number, name in enumerate(PROJECTIONS) if f".attention.{name}" in path), None)


def _transformer_keys(parameter: str, _root: nn.Module, names: str, prefix: str) -> Iterator[Key]:
    if names == "diffusers":
        yield Key(prefix + parameter)
        return
    yield Key(prefix + own_name(parameter), third=_third(parameter))


def _transformer_spellings(path: str, root: nn.Module) -> Iterator[Spelling]:
    yield from usual_spellings(path)
    yield original_spelling(own_name(path), path, root, _third(path))


def _transformer_config(checkpoint: Checkpoint, shapes: Shapes, prefix: str) -> Config:
    shape = shapes_by_name(_transformer_keys, checkpoint, shapes, prefix)
    layers: dict[str, set[int]] = {"layers": set(), "noise_refiner": set()}
    for key in shapes:
        if key.startswith(prefix) and (found := _LAYER.match(key, len(prefix))):
            layers[found[1]].add(int(found[2]))
    width, patch = shape("all_x_embedder.2-1.weight")
    head = shape("layers.0.attention.norm_q.weight")[0]
    if head % 8 or width % head:
        raise ValueError("attention's norm has another width than its heads")
    return {
        "in_channels": patch // 4,
        "dim": width,
        "n_layers": len(layers["layers"]),
        "n_refiner_layers": len(layers["noise_refiner"]),
        "n_heads": width // head,
        "n_kv_heads": width // head,
        "cap_feat_dim": shape("cap_embedder.1.weight")[1],
        "axes_dims": [head // 4, head * 3 // 8, head * 3 // 8],
    }


class Dense(nn.Linear):
    """A layer that computes with dense weights, whatever the file has: the network looks at the format of these."""


def _make_transformer(config: Config) -> nn.Module:
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

    model: Any = ZImageTransformer2DModel.from_config({**config, "axes_lens": list(MOST_SIDES)})
    for layer in model.t_embedder.mlp:
        if isinstance(layer, nn.Linear):
            layer.__class__ = Dense
    found: nn.Module = model
    return found


def _make_encoder(config: Config) -> nn.Module:
    """Without the last layer, whose states are not read."""
    return qwen.make(config, read=config["num_hidden_layers"] - 1)


def encode(parts: Parts, text: str, _options: EncodeOptions) -> Conditioning:
    """Qwen3's states before its last layer, one for each token of the prompt and of what stands around it."""
    ids = parts.tokenizers["text_encoder"].encode(ASKED.format(whole_letters(text))).ids
    check_length(len(ids))
    told = torch.tensor([ids], device=parts.device)
    found = parts["text_encoder"](input_ids=told, attention_mask=torch.ones_like(told), use_cache=False)
    return {"context": found.last_hidden_state.to(parts["backbone"].dtype)}


class ZImageBackbone(TransformerBackbone):
    """As Z-Image is asked: its time runs from noise to picture, and it says minus the flow."""

    def prepare(
        self, conditionings: Sequence[Conditioning], count: int, shown: torch.Tensor | None = None
    ) -> list[Forward]:
        """As in ``Backbone``: the states for each row; those that are filled up to one length go together."""
        alike = [list(group) for _, group in groupby((told["context"][0] for told in conditionings), key=_filled)]
        most = max(FORWARD_ROWS // count, 1)
        forwards = [group[k : k + most] for group in alike for k in range(0, len(group), most)]
        return [Forward({"context": [states for states in group for _ in range(count)]}) for group in forwards]

    def moment(self, time: torch.Tensor) -> torch.Tensor:
        """As in ``TransformerBackbone``."""
        return (1000 - time) / 1000

    def flow(self, seen: torch.Tensor, now: torch.Tensor, told: Mapping[str, Any]) -> torch.Tensor:
        """As in ``TransformerBackbone``."""
        output = self.run(list(seen[:, :, None].unbind()), now, told["context"], return_dict=False)[0]
        return -torch.stack(list(output))[:, :, 0]


def _filled(states: torch.Tensor) -> int:
    """How many multiples of tokens the network fills states up to."""
    return -(-len(states) // TOGETHER)


def _backbone(parts: Parts) -> Backbone:
    return ZImageBackbone(parts["backbone"])


TEXT_ENCODER = qwen_encoder("qwen3_4b", make=_make_encoder)
TRANSFORMER = transformer(_make_transformer, _transformer_config, _transformer_keys, _transformer_spellings)
Z_IMAGE = Family(
    kinds=("Z-Image",),
    parts=(TEXT_ENCODER, TRANSFORMER, flux_vae.VAE),
    latents=flux_vae.LATENTS,
    scheduler=flow_config,
    encode=encode,
    backbone=_backbone,
    autoencoder=vae_of,
    lone_vae=flux_vae.lone_vae,
)
