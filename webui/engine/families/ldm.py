"""The names that Stable Diffusion's original programs (LDM) give to what diffusers calls otherwise.

The UNet's blocks are counted through: first the convolution, then each level's layers, a downsampler being a layer of
its own. OpenCLIP keeps query, key and value in one tensor and its projection the other way round.
"""

import re
from collections.abc import Iterator

from torch import nn

from webui.engine.weights import Key

RESNET_NAMES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTER_NAMES = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "time_embedding.cond_proj": "time_embed.cond_proj",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION_NAMES = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OLD_VAE_ATTENTION_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
OPEN_CLIP_NAMES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
IN_PROJECTION = ("q_proj", "k_proj", "v_proj")


def unet_keys(parameter: str, root: nn.Module, names: str, prefix: str) -> Iterator[Key]:
    """Where a UNet's parameter may be found; ``names`` is ldm or diffusers."""
    path, _, kind = parameter.rpartition(".")
    yield Key(f"{prefix}{unet_name(path, root) if names == 'ldm' else path}.{kind}")


def vae_keys(parameter: str, root: nn.Module, names: str, prefix: str) -> Iterator[Key]:
    """Where an autoencoder's parameter may be found; ``names`` is ldm or diffusers."""
    path, _, kind = parameter.rpartition(".")
    yield from _vae_keys(path, kind, root, names, prefix)


def text_keys(parameter: str, _root: nn.Module, names: str, prefix: str) -> Iterator[Key]:
    """Where a CLIP text encoder's parameter may be found; ``names`` is ldm, for OpenCLIP's, or transformers'."""
    inner = parameter.removeprefix("text_model.")
    if names == "ldm":
        yield _open_clip_key(inner, prefix)
    elif inner.startswith("text_projection"):
        yield Key(f"{prefix}{inner}")
    else:
        yield Key(f"{prefix}text_model.{inner}")
        yield Key(f"{prefix}{inner}")


def unet_name(path: str, root: nn.Module) -> str | None:
    """The original name of a UNet's module; None where it has none."""
    if path in OUTER_NAMES:
        return OUTER_NAMES[path]
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", path):
        kind, number, rest = match.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}.{_inner_name(kind, rest)}"
    if not (match := re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", path)):
        return None
    side, block, kind, number, rest = match.groups()
    down = side == "down"
    layers = [len(blocks.resnets) for blocks in getattr(root, f"{side}_blocks")]
    # Before this block: the first convolution (down only), and each earlier block with its layers; going down, the
    # downsampler counts as a layer of its own.
    first = sum(layers[: int(block)]) + (1 + int(block) if down else 0)
    if kind in ("resnets", "attentions"):
        place = 0 if kind == "resnets" else 1
        name = f"{first + int(number)}.{place}.{_inner_name(kind, rest)}"
    elif down:
        name = f"{first + layers[int(block)]}.0.op"
    else:
        attends = len(getattr(getattr(root, f"{side}_blocks")[int(block)], "attentions", ())) > 0
        name = f"{first + layers[int(block)] - 1}.{2 if attends else 1}.conv"
    return f"{'input' if down else 'output'}_blocks.{name}"


def _inner_name(kind: str, rest: str) -> str:
    return RESNET_NAMES.get(rest, rest) if kind == "resnets" else rest


def _vae_keys(path: str, kind: str, root: nn.Module, names: str, prefix: str) -> Iterator[Key]:
    if names == "ldm":
        yield Key(f"{prefix}{_vae_name(path, root)}.{kind}")
        return
    yield Key(f"{prefix}{path}.{kind}")
    for new, old in OLD_VAE_ATTENTION_NAMES.items():  # files from before diffusers 0.17
        if path.endswith(f"attentions.0.{new}"):
            yield Key(f"{prefix}{path.removesuffix(new)}{old}.{kind}")


def _vae_name(path: str, root: nn.Module) -> str:
    """The autoencoder's levels go by ``down`` and ``up``; the decoder's are counted from the picture's side."""
    name = path.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if match := re.fullmatch(r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        half, part, number, rest = match.groups()
        if part == "attentions":
            return f"{half}.mid.attn_1.{VAE_ATTENTION_NAMES[rest]}"
        return f"{half}.mid.block_{int(number) + 1}.{rest}"
    if match := re.fullmatch(r"(encoder|decoder)\.(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", name):
        half, side, block, part, number, rest = match.groups()
        level = int(block) if side == "down" else len(root.get_submodule("decoder.up_blocks")._modules) - 1 - int(block)
        return f"{half}.{side}.{level}." + (f"block.{number}.{rest}" if part == "resnets" else f"{side}sample.{rest}")
    return name


def _open_clip_key(inner: str, prefix: str) -> Key:
    if inner == "text_projection.weight":
        return Key(f"{prefix}text_projection", transposed=True)
    if inner == "embeddings.position_embedding.weight":
        return Key(f"{prefix}positional_embedding")
    if match := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(\w+)", inner):
        number, rest, kind = match.groups()
        start = f"{prefix}transformer.resblocks.{number}"
        part = rest.rpartition(".")[2]
        if part in IN_PROJECTION:
            return Key(f"{start}.attn.in_proj_{kind}", third=IN_PROJECTION.index(part))
        return Key(f"{start}.{OPEN_CLIP_NAMES.get(rest, rest)}.{kind}")
    return Key(prefix + inner.replace("embeddings.", "").replace("final_layer_norm", "ln_final"))
