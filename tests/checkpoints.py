"""Checkpoints in the single-file layout that CompVis, Runway and Stability AI published, to test a loader with.

``published`` says what those files hold, from the architecture alone: LDM's ``openaimodel.UNetModel``, the encoder and
decoder of ``diffusionmodules.model`` and the two CLIP text encoders, with the numbers of the published yaml files.
``write_random`` makes a file of that shape, ``small`` makes models that fit a test, and ``to_ldm`` gives any model's
weights the published names. Nothing here comes from ``webui``: a test that compares the two proves something.

    python -m tests.checkpoints sd15 out.safetensors --dtype float16
"""

import argparse
import json
import math
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

Shape = tuple[int, ...]
Shapes = Iterator[tuple[str, Shape]]
Tensors = Iterator[tuple[str, torch.Tensor]]

TOKENIZER = Path(__file__).resolve().parents[1] / "webui" / "demo" / "tokenizer"
WORDS = len(json.loads((TOKENIZER / "vocab.json").read_text(encoding="utf-8")))
"""The embedded model's vocabulary; the beginning and the end of a text are its last two tokens."""
SMALL_UNET = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
}
"""diffusers' configuration of a UNet alone that fits a test."""
UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT = ("cond_stage_model.", "conditioner.")
PARTS = ("unet", "vae", "text")
DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I32": torch.int32,
    "I64": torch.int64,
}


# --- what the published files hold ---------------------------------------------------------------------------------


def _layer(name: str, *shape: int, bias: bool = True) -> Shapes:
    """One layer, or one norm: a weight of ``shape`` and a bias of its first axis."""
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def _under(prefix: str, shapes: Shapes) -> Shapes:
    return ((prefix + name, shape) for name, shape in shapes)


def _unet_resnet(name: str, before: int, after: int, time: int) -> Shapes:
    yield from _layer(f"{name}.in_layers.0", before)
    yield from _layer(f"{name}.in_layers.2", after, before, 3, 3)
    yield from _layer(f"{name}.emb_layers.1", after, time)
    yield from _layer(f"{name}.out_layers.0", after)
    yield from _layer(f"{name}.out_layers.3", after, after, 3, 3)
    if before != after:
        yield from _layer(f"{name}.skip_connection", after, before, 1, 1)


def _transformer(name: str, width: int, context: int, depth: int, linear: bool) -> Shapes:
    projection = (width, width) if linear else (width, width, 1, 1)
    yield from _layer(f"{name}.norm", width)
    yield from _layer(f"{name}.proj_in", *projection)
    for block in (f"{name}.transformer_blocks.{index}" for index in range(depth)):
        for attention, source in (("attn1", width), ("attn2", context)):
            yield from _layer(f"{block}.{attention}.to_q", width, width, bias=False)
            yield from _layer(f"{block}.{attention}.to_k", width, source, bias=False)
            yield from _layer(f"{block}.{attention}.to_v", width, source, bias=False)
            yield from _layer(f"{block}.{attention}.to_out.0", width, width)
        yield from _layer(f"{block}.ff.net.0.proj", 8 * width, width)  # GEGLU: twice four times the width
        yield from _layer(f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            yield from _layer(f"{block}.{norm}", width)
    yield from _layer(f"{name}.proj_out", *projection)


def _unet(
    base: int,
    multiples: Shape,
    depths: Shape,
    middle: int,
    context: int,
    *,
    linear: bool = True,
    channels: int = 4,
    label: int | None = None,
) -> Shapes:
    """``depths``: transformer blocks at each level, 0 for none; ``middle``: in between; ``label``: the width of y."""
    time, widths = 4 * base, [base * multiple for multiple in multiples]
    yield from _layer("time_embed.0", time, base)
    yield from _layer("time_embed.2", time, time)
    if label is not None:
        yield from _layer("label_emb.0.0", time, label)
        yield from _layer("label_emb.0.2", time, time)

    yield from _layer("input_blocks.0.0", base, channels, 3, 3)
    width, skips = base, [base]
    for level, (after, depth) in enumerate(zip(widths, depths, strict=True)):
        for _ in range(2):
            block = f"input_blocks.{len(skips)}"
            yield from _unet_resnet(f"{block}.0", width, after, time)
            if depth:
                yield from _transformer(f"{block}.1", after, context, depth, linear)
            width = after
            skips.append(width)
        if level < len(widths) - 1:
            yield from _layer(f"input_blocks.{len(skips)}.0.op", width, width, 3, 3)
            skips.append(width)

    yield from _unet_resnet("middle_block.0", width, width, time)
    yield from _transformer("middle_block.1", width, context, middle, linear)
    yield from _unet_resnet("middle_block.2", width, width, time)

    index = 0
    for level in reversed(range(len(widths))):
        for position in range(3):
            after, depth, block = widths[level], depths[level], f"output_blocks.{index}"
            yield from _unet_resnet(f"{block}.0", width + skips.pop(), after, time)
            if depth:
                yield from _transformer(f"{block}.1", after, context, depth, linear)
            if level and position == 2:
                yield from _layer(f"{block}.{2 if depth else 1}.conv", after, after, 3, 3)
            width, index = after, index + 1
    yield from _layer("out.0", base)
    yield from _layer("out.2", 4, base, 3, 3)


def _vae_resnet(name: str, before: int, after: int) -> Shapes:
    yield from _layer(f"{name}.norm1", before)
    yield from _layer(f"{name}.conv1", after, before, 3, 3)
    yield from _layer(f"{name}.norm2", after)
    yield from _layer(f"{name}.conv2", after, after, 3, 3)
    if before != after:
        yield from _layer(f"{name}.nin_shortcut", after, before, 1, 1)


def _vae_middle(width: int) -> Shapes:
    yield from _vae_resnet("mid.block_1", width, width)
    yield from _layer("mid.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        yield from _layer(f"mid.attn_1.{part}", width, width, 1, 1)
    yield from _vae_resnet("mid.block_2", width, width)


def _vae(widths: Shape = (128, 256, 512, 512), latents: int = 4) -> Shapes:
    last = len(widths) - 1
    yield from _layer("encoder.conv_in", widths[0], 3, 3, 3)
    width = widths[0]
    for level, after in enumerate(widths):
        for index in range(2):
            yield from _vae_resnet(f"encoder.down.{level}.block.{index}", width, after)
            width = after
        if level < last:
            yield from _layer(f"encoder.down.{level}.downsample.conv", width, width, 3, 3)
    yield from _under("encoder.", _vae_middle(width))
    yield from _layer("encoder.norm_out", width)
    yield from _layer("encoder.conv_out", 2 * latents, width, 3, 3)
    yield from _layer("quant_conv", 2 * latents, 2 * latents, 1, 1)
    yield from _layer("post_quant_conv", latents, latents, 1, 1)
    yield from _layer("decoder.conv_in", width, latents, 3, 3)
    yield from _under("decoder.", _vae_middle(width))
    for level in reversed(range(len(widths))):
        for index in range(3):
            yield from _vae_resnet(f"decoder.up.{level}.block.{index}", width, widths[level])
            width = widths[level]
        if level:
            yield from _layer(f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
    yield from _layer("decoder.norm_out", width)
    yield from _layer("decoder.conv_out", 3, width, 3, 3)


def _clip(width: int = 768, layers: int = 12) -> Shapes:
    """OpenAI's text encoder as transformers 4 named it."""
    yield "text_model.embeddings.position_ids", (1, 77)
    yield from _layer("text_model.embeddings.token_embedding", 49408, width, bias=False)
    yield from _layer("text_model.embeddings.position_embedding", 77, width, bias=False)
    for layer in (f"text_model.encoder.layers.{index}" for index in range(layers)):
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from _layer(f"{layer}.self_attn.{part}", width, width)
        yield from _layer(f"{layer}.layer_norm1", width)
        yield from _layer(f"{layer}.mlp.fc1", 4 * width, width)
        yield from _layer(f"{layer}.mlp.fc2", width, 4 * width)
        yield from _layer(f"{layer}.layer_norm2", width)
    yield from _layer("text_model.final_layer_norm", width)


def _open_clip(width: int, layers: int) -> Shapes:
    """OpenCLIP's text encoder, with all its layers, whichever of them the UNet reads."""
    yield "positional_embedding", (77, width)
    yield "text_projection", (width, width)
    yield "logit_scale", ()
    yield from _layer("token_embedding", 49408, width, bias=False)
    for block in (f"transformer.resblocks.{index}" for index in range(layers)):
        yield f"{block}.attn.in_proj_weight", (3 * width, width)
        yield f"{block}.attn.in_proj_bias", (3 * width,)
        yield from _layer(f"{block}.attn.out_proj", width, width)
        yield from _layer(f"{block}.ln_1", width)
        yield from _layer(f"{block}.mlp.c_fc", 4 * width, width)
        yield from _layer(f"{block}.mlp.c_proj", width, 4 * width)
        yield from _layer(f"{block}.ln_2", width)
    yield from _layer("ln_final", width)


def schedule(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> dict[str, np.ndarray]:
    """The buffers of LDM's ``DDPM.register_schedule``: "scaled linear" betas and what follows from them."""
    betas = np.linspace(start**0.5, end**0.5, steps) ** 2
    alphas = np.cumprod(1 - betas)
    before = np.append(1.0, alphas[:-1])
    variance = betas * (1 - before) / (1 - alphas)
    return {
        "betas": betas,
        "alphas_cumprod": alphas,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": np.sqrt(alphas),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - alphas),
        "log_one_minus_alphas_cumprod": np.log(1 - alphas),
        "sqrt_recip_alphas_cumprod": np.sqrt(1 / alphas),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / alphas - 1),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
        "posterior_mean_coef1": betas * np.sqrt(before) / (1 - alphas),
        "posterior_mean_coef2": (1 - before) * np.sqrt(1 - betas) / (1 - alphas),
    }


EMA_STATE = {"model_ema.decay": ((), "F32"), "model_ema.num_updates": ((), "I32")}
SD1 = {"base": 320, "multiples": (1, 2, 4, 4), "depths": (1, 1, 1, 0), "middle": 1}
CLIP_L = ("cond_stage_model.transformer.", _clip, ())
CLIP_H = ("cond_stage_model.model.", _open_clip, (1024, 24))
CLIP_G = (1280, 32)
KINDS: dict[str, tuple[dict[str, Any], list[tuple[str, Callable[..., Shapes], Shape]]]] = {
    "sd15": (SD1 | {"context": 768, "linear": False}, [CLIP_L]),
    "sd15-inpainting": (SD1 | {"context": 768, "linear": False, "channels": 9}, [CLIP_L]),
    "sd21": (SD1 | {"context": 1024}, [CLIP_H]),
    "sdxl": (
        {"base": 320, "multiples": (1, 2, 4), "depths": (0, 2, 10), "middle": 10, "context": 2048, "label": 2816},
        [
            ("conditioner.embedders.0.transformer.", _clip, ()),
            ("conditioner.embedders.1.model.", _open_clip, CLIP_G),
        ],
    ),
    "sdxl-refiner": (
        {"base": 384, "multiples": (1, 2, 4, 4), "depths": (0, 4, 4, 0), "middle": 4, "context": 1280, "label": 2560},
        [("conditioner.embedders.0.model.", _open_clip, CLIP_G)],
    ),
}
SMALLER: dict[str, tuple[dict[str, Any], list[tuple[str, Callable[..., Shapes], Shape]]]] = {
    "sdxl-small": (
        {"base": 64, "multiples": (1, 2, 4), "depths": (0, 1, 2), "middle": 2, "context": 192, "label": 1664},
        [
            ("conditioner.embedders.0.transformer.", _clip, (64, 2)),
            ("conditioner.embedders.1.model.", _open_clip, (128, 3)),
        ],
    ),
}
"""Nobody published these: a kind's build at a hundredth of its size, for what draws with the large one elsewhere."""


def published(kind: str) -> dict[str, tuple[Shape, str]]:
    """Every tensor of the published file of ``kind`` (a key of ``KINDS``, or one in ``SMALLER``): its name, shape and
    safetensors dtype.

    v1-5-pruned-emaonly, sd-v1-5-inpainting and v2-1_768-ema-pruned (float32, with the schedule and what an EMA left
    behind), sd_xl_base_1.0 and sd_xl_refiner_1.0 (float16, with neither).
    """
    unet, text = (KINDS | SMALLER)[kind]
    shapes = [*_under(UNET, _unet(**unet)), *_under(VAE, _vae())]
    for prefix, encoder, arguments in text:
        shapes += _under(prefix, encoder(*arguments))
    xl = kind.startswith("sdxl")
    found = {
        name: (shape, "I64" if name.endswith("position_ids") else "F16" if xl else "F32") for name, shape in shapes
    }
    return found if xl else found | {name: ((1000,), "F32") for name in schedule()} | EMA_STATE


# --- a whole file of random weights --------------------------------------------------------------------------------


def _part(name: str) -> str:
    return "vae" if name.startswith(VAE) else "text" if name.startswith(TEXT) else "unet"


def _bytes(values: torch.Tensor) -> memoryview:
    return memoryview(values.contiguous().view(torch.uint8).numpy())


def write_random(
    path: str | Path,
    kind: str,
    dtype: str = "F16",
    parts: tuple[str, ...] = PARTS,
    ema: bool = False,
    seed: int = 0,
    sparse: bool = False,
) -> None:
    """A full-size file of ``kind`` with small random weights, at the disk's speed and in some 100 MB of memory.

    ``dtype``: F32, F16, BF16 or, for the UNet alone (the rest is then F16), F8_E4M3. ``parts``: of the three, those to
    write; the schedule goes with the UNet. ``ema``: a second, other set of the UNet's weights under ``model_ema``.
    ``sparse``: zeros that take no room on the disk, for what reads the header alone.
    """
    tensors = {name: value for name, value in published(kind).items() if _part(name) in parts}
    if ema:
        shadows = {f"model_ema.{name.removeprefix('model.').replace('.', '')}": name for name in tensors}
        tensors |= {shadow: tensors[name] for shadow, name in shadows.items() if name.startswith(UNET)} | EMA_STATE
    exact = {name: torch.from_numpy(values).float() for name, values in schedule().items()}
    exact |= {"model_ema.decay": torch.tensor([0.9999]), "model_ema.num_updates": torch.tensor([0]).int()}
    exact |= {name: torch.arange(77) for name in tensors if name.endswith("position_ids")}
    stored = {}
    for name, (shape, original) in tensors.items():
        unet = name.startswith((UNET, "model_ema.diffusion_model"))
        weights = "F16" if dtype == "F8_E4M3" and not unet else dtype
        stored[name] = (shape, original if name in exact else weights)

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    names = sorted(stored, key=lambda name: (-DTYPES[stored[name][1]].itemsize, name))  # keeps every tensor aligned
    for name in names:
        shape, code = stored[name]
        begin, end = end, end + math.prod(shape) * DTYPES[code].itemsize
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    # One block, read round and round; its length is prime, so that no two tensors of a file begin alike.
    noise = torch.randn(8_388_593, generator=torch.Generator().manual_seed(seed)) * 0.02
    blocks = {code: _bytes(noise.to(DTYPES[code])) for code in {code for _, code in stored.values()} if code[0] != "I"}
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if sparse:
            file.truncate(8 + len(text) + end)
            return
        for name in names:
            shape, code = stored[name]
            begin, end = header[name]["data_offsets"]
            if name in exact:
                file.write(_bytes(exact[name]))
            elif len(shape) == 1 and name.endswith("weight"):  # a norm
                file.write(_bytes((1 + noise[begin % 8_000_000 :][: shape[0]]).to(DTYPES[code])))
            else:
                _repeat(file, blocks[code], begin, end - begin)


def _repeat(file: Any, block: memoryview, begin: int, size: int) -> None:
    """Write ``size`` bytes of ``block`` from ``begin`` on, as if it went on for ever."""
    while size:
        piece = block[begin % len(block) :][:size]
        file.write(piece)
        begin, size = begin + len(piece), size - len(piece)


# --- diffusers' modules under the published names ------------------------------------------------------------------

UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_RESNET = {"conv_shortcut": "nin_shortcut"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def _named(name: str, module: nn.Module, renames: dict[str, str] | None = None) -> Tensors:
    """``module``'s weights under ``name``, its children called as ``renames`` has it."""
    for key, value in module.state_dict().items():
        child, _, leaf = key.rpartition(".")
        child = (renames or {}).get(child, child)
        yield ".".join(filter(None, (name, child, leaf))), value


def _sequence(name: str, modules: list[nn.Module]) -> Tensors:
    """LDM's ``TimestepEmbedSequential``: numbered modules."""
    for index, module in enumerate(modules):
        renames = {"ResnetBlock2D": UNET_RESNET, "Downsample2D": {"conv": "op"}}.get(type(module).__name__)
        yield from _named(f"{name}.{index}", module, renames)


def _layers(block: nn.Module) -> list[list[nn.Module]]:
    """A diffusers block's layers: its resnets, each with its transformer where the block has them."""
    attentions = getattr(block, "attentions", None)
    return [[*pair] for pair in (zip(block.resnets, attentions, strict=True) if attentions else zip(block.resnets))]


def _unet_to_ldm(unet: diffusers.UNet2DConditionModel) -> Tensors:
    yield from _named("time_embed", unet.time_embedding, {"linear_1": "0", "linear_2": "2"})
    if hasattr(unet, "add_embedding"):
        yield from _named("label_emb.0", unet.add_embedding, {"linear_1": "0", "linear_2": "2"})
    inputs: list[list[nn.Module]] = [[unet.conv_in]]
    for block in unet.down_blocks:
        inputs += _layers(block) + [[module] for module in block.downsamplers or ()]
    outputs: list[list[nn.Module]] = []
    for block in unet.up_blocks:
        outputs += _layers(block)
        outputs[-1] += block.upsamplers or ()
    for index, modules in enumerate(inputs):
        yield from _sequence(f"input_blocks.{index}", modules)
    first, last = unet.mid_block.resnets
    yield from _sequence("middle_block", [first, unet.mid_block.attentions[0], last])
    for index, modules in enumerate(outputs):
        yield from _sequence(f"output_blocks.{index}", modules)
    yield from _named("out.0", unet.conv_norm_out)
    yield from _named("out.2", unet.conv_out)


def _vae_half(name: str, half: nn.Module, way: str, blocks: list[nn.Module]) -> Tensors:
    """``name``: encoder or decoder; ``way``: down or up; ``blocks``: its levels, the one at full size first."""
    yield from _named(f"{name}.conv_in", half.conv_in)
    for level, block in enumerate(blocks):
        for index, resnet in enumerate(block.resnets):
            yield from _named(f"{name}.{way}.{level}.block.{index}", resnet, VAE_RESNET)
        for module in getattr(block, f"{way}samplers") or ():
            yield from _named(f"{name}.{way}.{level}.{way}sample", module)
    yield from _named(f"{name}.mid.block_1", half.mid_block.resnets[0], VAE_RESNET)
    for key, value in _named(f"{name}.mid.attn_1", half.mid_block.attentions[0], VAE_ATTENTION):
        yield key, value[:, :, None, None] if value.dim() == 2 else value  # LDM's are convolutions
    yield from _named(f"{name}.mid.block_2", half.mid_block.resnets[1], VAE_RESNET)
    yield from _named(f"{name}.norm_out", half.conv_norm_out)
    yield from _named(f"{name}.conv_out", half.conv_out)


def _vae_to_ldm(vae: diffusers.AutoencoderKL) -> Tensors:
    yield from _vae_half("encoder", vae.encoder, "down", list(vae.encoder.down_blocks))
    yield from _vae_half("decoder", vae.decoder, "up", list(vae.decoder.up_blocks)[::-1])
    yield from _named("quant_conv", vae.quant_conv)
    yield from _named("post_quant_conv", vae.post_quant_conv)


def _clip_to_ldm(encoder: nn.Module) -> Tensors:
    yield "text_model.embeddings.position_ids", torch.arange(encoder.config.max_position_embeddings)[None]
    for key, value in encoder.state_dict().items():
        yield f"text_model.{key.removeprefix('text_model.')}", value


def _open_clip_to_ldm(encoder: nn.Module, extra_layer: bool) -> Tensors:
    state = {key.removeprefix("text_model."): value for key, value in encoder.state_dict().items()}
    width, count = encoder.config.hidden_size, encoder.config.num_hidden_layers
    token = state["embeddings.token_embedding.weight"]
    projection = state.get("text_projection.weight", 0.02 * torch.randn_like(token[:1].expand(width, width)))
    yield "positional_embedding", state["embeddings.position_embedding.weight"]
    yield "text_projection", projection.T.contiguous()  # x @ text_projection, no nn.Linear
    yield "logit_scale", torch.full_like(token[0, 0], math.log(100))
    yield "token_embedding.weight", token
    for index in range(count + extra_layer):
        source = f"encoder.layers.{min(index, count - 1)}."
        layer = {key.removeprefix(source): value for key, value in state.items() if key.startswith(source)}
        if index == count:
            layer = {key: 0.02 * torch.randn_like(value) for key, value in layer.items()}
        block = f"transformer.resblocks.{index}"
        for leaf in ("weight", "bias"):
            parts = [layer[f"self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            yield f"{block}.attn.in_proj_{leaf}", torch.cat(parts)
            yield f"{block}.attn.out_proj.{leaf}", layer[f"self_attn.out_proj.{leaf}"]
            yield f"{block}.ln_1.{leaf}", layer[f"layer_norm1.{leaf}"]
            yield f"{block}.ln_2.{leaf}", layer[f"layer_norm2.{leaf}"]
            yield f"{block}.mlp.c_fc.{leaf}", layer[f"mlp.fc1.{leaf}"]
            yield f"{block}.mlp.c_proj.{leaf}", layer[f"mlp.fc2.{leaf}"]
    yield "ln_final.weight", state["final_layer_norm.weight"]
    yield "ln_final.bias", state["final_layer_norm.bias"]


def to_ldm(
    unet: diffusers.UNet2DConditionModel | None = None,
    vae: diffusers.AutoencoderKL | None = None,
    text_encoder: nn.Module | None = None,
    text_encoder_2: nn.Module | None = None,
    *,
    open_clip: bool = False,
    extra_layer: bool = False,
) -> dict[str, torch.Tensor]:
    """The weights of models of any size under the published names and in the published layouts; ``None`` is left out.

    ``open_clip``: ``text_encoder`` is Stable Diffusion 2's. ``extra_layer``: with one random layer more than it has, as
    the published file has 24 where the pipeline uses 23. ``text_encoder_2`` alone is the SDXL refiner's.
    """
    tensors: list[tuple[str, Tensors]] = []
    if unet is not None:
        tensors.append((UNET, _unet_to_ldm(unet)))
    if vae is not None:
        tensors.append((VAE, _vae_to_ldm(vae)))
    if text_encoder is not None:
        xl = text_encoder_2 is not None
        root = "conditioner.embedders.0." if xl else "cond_stage_model."
        if open_clip:
            tensors.append((f"{root}model.", _open_clip_to_ldm(text_encoder, extra_layer)))
        else:
            tensors.append((f"{root}transformer.", _clip_to_ldm(text_encoder)))
    if text_encoder_2 is not None:
        index = 0 if text_encoder is None else 1
        tensors.append((f"conditioner.embedders.{index}.model.", _open_clip_to_ldm(text_encoder_2, extra_layer)))
    return {prefix + name: value.contiguous() for prefix, part in tensors for name, value in part}


# --- small models --------------------------------------------------------------------------------------------------

BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "timestep_spacing": "leading",
}
CROSS, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")
SMALL_SD1 = {"block_out_channels": (32, 64), "attention_head_dim": 8, "cross_attention_dim": 64}
SMALL_SD2 = {
    "block_out_channels": (64, 128),
    "attention_head_dim": (1, 2),
    "cross_attention_dim": 64,
    "use_linear_projection": True,
}
SMALL_SDXL = {
    "block_out_channels": (64, 128, 128),
    "attention_head_dim": (1, 2, 2),
    "transformer_layers_per_block": (1, 1, 2),
    "cross_attention_dim": 64 + 128,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 128 + 6 * 256,
}
SMALL_REFINER = SMALL_SDXL | {
    "block_out_channels": (64, 64, 128, 128),
    "attention_head_dim": (1, 1, 2, 2),
    "transformer_layers_per_block": 1,
    "cross_attention_dim": 128,
    "projection_class_embeddings_input_dim": 128 + 5 * 256,
}
XL_LEVELS = (PLAIN, CROSS, CROSS)
SMALL: dict[str, tuple[str, dict[str, Any], tuple[tuple[str, str], ...]]] = {
    "sd1": ("StableDiffusionPipeline", SMALL_SD1, (CROSS, PLAIN)),
    "sd1-inpaint": ("StableDiffusionInpaintPipeline", SMALL_SD1, (CROSS, PLAIN)),
    "sd2": ("StableDiffusionPipeline", SMALL_SD2 | {"upcast_attention": True}, (CROSS, PLAIN)),
    "sd2-inpaint": ("StableDiffusionInpaintPipeline", SMALL_SD2, (CROSS, PLAIN)),
    "sdxl": ("StableDiffusionXLPipeline", SMALL_SDXL, XL_LEVELS),
    "sdxl-inpaint": ("StableDiffusionXLInpaintPipeline", SMALL_SDXL, XL_LEVELS),
    "sdxl-refiner": ("StableDiffusionXLImg2ImgPipeline", SMALL_REFINER, (*XL_LEVELS, PLAIN)),
}


def _text_config(width: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=WORDS,
        bos_token_id=WORDS - 2,
        eos_token_id=WORDS - 1,
        pad_token_id=WORDS - 1,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_attention_heads=width // 64,
        num_hidden_layers=3,
        hidden_act=activation,
    )


def small(
    kind: str, seed: int = 0, directory: str | Path | None = None, **unet_settings: Any
) -> diffusers.DiffusionPipeline:
    """The stock pipeline of ``kind`` (a key of ``SMALL``) with small random models, saved in ``directory`` if given.

    Each family's rules hold: eight heads (SD1) or heads 64 wide, its blocks, its text encoders, its schedule.
    """
    pipeline_name, settings, levels = SMALL[kind]
    settings = settings | unet_settings
    xl, refiner = kind.startswith("sdxl"), kind == "sdxl-refiner"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=9 if kind.endswith("inpaint") else 4,
            down_block_types=[down for down, _ in levels],
            up_block_types=[up for _, up in reversed(levels)],
            **settings,
        )
        vae = diffusers.AutoencoderKL(
            sample_size=64,
            block_out_channels=(32, 32, 32, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            scaling_factor=0.13025 if xl else 0.18215,
        )
        text_encoder = CLIPTextModel(_text_config(64, "gelu" if kind.startswith("sd2") else "quick_gelu"))
        text_encoder_2 = CLIPTextModelWithProjection(_text_config(128, "gelu"))

    prediction = "v_prediction" if kind == "sd2" else "epsilon"
    make_scheduler = diffusers.EulerDiscreteScheduler if xl else diffusers.DDIMScheduler
    components = {
        "unet": unet.eval(),
        "vae": vae.eval(),
        "scheduler": make_scheduler.from_config(BETAS | {"prediction_type": prediction}),
        "text_encoder": None if refiner else text_encoder.eval(),
        "tokenizer": None if refiner else CLIPTokenizer.from_pretrained(TOKENIZER),
    }
    if xl:
        components |= {"text_encoder_2": text_encoder_2.eval(), "tokenizer_2": CLIPTokenizer.from_pretrained(TOKENIZER)}
        components["force_zeros_for_empty_prompt"] = not refiner
        if refiner:
            components["requires_aesthetics_score"] = True
    else:
        components |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = getattr(diffusers, pipeline_name)(**components)
    if directory is not None:
        pipeline.save_pretrained(directory)
        for saved in Path(directory).glob("tokenizer*"):
            shutil.copytree(TOKENIZER, saved, dirs_exist_ok=True)
    return pipeline


def main() -> None:
    names = {str(dtype).removeprefix("torch."): code for code, dtype in DTYPES.items() if dtype.is_floating_point}
    parser = argparse.ArgumentParser(description=write_random.__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("path", type=Path)
    parser.add_argument("--dtype", choices=names, default="float16")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--ema", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    parts = tuple(options.parts)
    write_random(options.path, options.kind, names[options.dtype], parts, options.ema, options.seed)


if __name__ == "__main__":
    main()
