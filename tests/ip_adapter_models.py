"""IP-Adapters and image encoders in the layout that h94 published, to test with: small ones of random numbers, and
what the headers of the published files hold, from their architectures alone. Nothing here comes from ``webui``.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

Shape = tuple[int, ...]

HEAD = 64
SMALL_ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 20,
    "hidden_act": "gelu",
}
SD15_WIDTHS = (*(320,) * 2, *(640,) * 2, *(1280,) * 2, *(1280,) * 3, *(640,) * 3, *(320,) * 3, 1280)
SDXL_WIDTHS = (*(640,) * 4, *(1280,) * 20, *(1280,) * 30, *(640,) * 6, *(1280,) * 10)
"""Of the cross-attentions as files number them: down, up, middle."""
VIT_H = {"width": 1280, "inner": 5120, "layers": 32, "projected": 1024, "patch": 14, "side": 224}
VIT_BIG_G = {"width": 1664, "inner": 8192, "layers": 48, "projected": 1280, "patch": 14, "side": 224}
PUBLISHED: dict[str, tuple[str, Shape, dict[str, int]]] = {
    "ip-adapter_sd15": ("plain", SD15_WIDTHS, {"context": 768, "sees": 1024}),
    "ip-adapter_sd15_light": ("plain", SD15_WIDTHS, {"context": 768, "sees": 1024}),
    "ip-adapter_sd15_vit-G": ("plain", SD15_WIDTHS, {"context": 768, "sees": 1280}),
    "ip-adapter-plus_sd15": ("plus", SD15_WIDTHS, {"context": 768, "sees": 1280, "inner": 768}),
    "ip-adapter-plus-face_sd15": ("plus", SD15_WIDTHS, {"context": 768, "sees": 1280, "inner": 768}),
    "ip-adapter-full-face_sd15": ("full", SD15_WIDTHS, {"context": 768, "sees": 1280}),
    "ip-adapter_sdxl": ("plain", SDXL_WIDTHS, {"context": 2048, "sees": 1280}),
    "ip-adapter_sdxl_vit-h": ("plain", SDXL_WIDTHS, {"context": 2048, "sees": 1024}),
    "ip-adapter-plus_sdxl_vit-h": ("plus", SDXL_WIDTHS, {"context": 2048, "sees": 1280, "inner": 1280}),
    "ip-adapter-plus-face_sdxl_vit-h": ("plus", SDXL_WIDTHS, {"context": 2048, "sees": 1280, "inner": 1280}),
}


def adapter_shapes(
    form: str, widths: Shape, context: int, sees: int, inner: int = HEAD, tokens: int = 4, depth: int = 4
) -> Iterator[tuple[str, Shape]]:
    """The tensors of an IP-Adapter; ``inner`` is the width of a resampler, ``tokens`` what a plain one makes."""
    image = "image_proj."
    if form == "plain":
        yield from _layer(f"{image}proj", tokens * context, sees)
        yield from _norm(f"{image}norm", context)
    elif form == "full":
        yield from _layer(f"{image}proj.0", sees, sees)
        yield from _layer(f"{image}proj.2", context, sees)
        yield from _norm(f"{image}proj.3", context)
    else:
        yield f"{image}latents", (1, 16, inner)
        yield from _layer(f"{image}proj_in", inner, sees)
        yield from _layer(f"{image}proj_out", context, inner)
        yield from _norm(f"{image}norm_out", context)
        for layer in (f"{image}layers.{number}" for number in range(depth)):
            yield from _norm(f"{layer}.0.norm1", inner)
            yield from _norm(f"{layer}.0.norm2", inner)
            yield f"{layer}.0.to_q.weight", (inner, inner)
            yield f"{layer}.0.to_kv.weight", (2 * inner, inner)
            yield f"{layer}.0.to_out.weight", (inner, inner)
            yield from _norm(f"{layer}.1.0", inner)
            yield f"{layer}.1.1.weight", (4 * inner, inner)
            yield f"{layer}.1.3.weight", (inner, 4 * inner)
    for number, width in enumerate(widths):
        for name in ("to_k_ip", "to_v_ip"):
            yield f"ip_adapter.{2 * number + 1}.{name}.weight", (width, context)


def encoder_shapes(
    width: int, inner: int, layers: int, projected: int, patch: int, side: int
) -> Iterator[tuple[str, Shape]]:
    """The tensors of an image encoder in transformers' names."""
    tower = "vision_model."
    yield f"{tower}embeddings.class_embedding", (width,)
    yield f"{tower}embeddings.patch_embedding.weight", (width, 3, patch, patch)
    yield f"{tower}embeddings.position_embedding.weight", ((side // patch) ** 2 + 1, width)
    yield f"{tower}embeddings.position_ids", (1, (side // patch) ** 2 + 1)
    yield from _norm(f"{tower}pre_layrnorm", width)
    yield from _norm(f"{tower}post_layernorm", width)
    yield "visual_projection.weight", (projected, width)
    for layer in (f"{tower}encoder.layers.{number}" for number in range(layers)):
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _layer(f"{layer}.self_attn.{name}", width, width)
        yield from _norm(f"{layer}.layer_norm1", width)
        yield from _norm(f"{layer}.layer_norm2", width)
        yield from _layer(f"{layer}.mlp.fc1", inner, width)
        yield from _layer(f"{layer}.mlp.fc2", width, inner)


def _layer(name: str, rows: int, columns: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def cross_widths(unet: Any) -> Shape:
    """Of diffusers' UNet, in the order in which files number them."""
    modules = dict(unet.named_modules())
    names = (name.removesuffix(".processor") for name in unet.attn_processors if ".attn2." in name)
    return tuple(modules[name].to_q.out_features for name in names)


def small_adapter(form: str, unet: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random numbers for a small UNet of diffusers' and ``SMALL_ENCODER``, strong enough to be seen in a picture."""
    sees = SMALL_ENCODER["projection_dim" if form == "plain" else "hidden_size"]
    shapes = adapter_shapes(form, cross_widths(unet), unet.config.cross_attention_dim, int(sees))
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes:
        numbers = torch.randn(shape, generator=generator)
        norm = len(shape) == 1 and name.endswith("weight")
        scale = 2 if "ip_adapter" in name else 1
        made[name] = 1 + numbers / 10 if norm else numbers * scale / shape[-1] ** 0.5
    return made


def small_encoder(folder: Path, **config: Any) -> CLIPVisionModelWithProjection:
    """Random numbers in transformers' class, saved into a folder."""
    torch.manual_seed(5)
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**(SMALL_ENCODER | config))).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) / 20)
    encoder.save_pretrained(folder)
    return encoder


def as_diffusers_takes(adapter: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """What its loader makes of such a file."""
    parts = ("image_proj", "ip_adapter")
    return {
        part: {name.removeprefix(f"{part}."): tensor for name, tensor in adapter.items() if name.startswith(f"{part}.")}
        for part in parts
    }


def write_header(path: Path, shapes: Iterator[tuple[str, Shape]], dtype: str = "F16") -> Path:
    """A file with a header of full size and a hole for the numbers."""
    itemsize, place, header = {"F16": 2, "F32": 4}[dtype], 0, {}
    for name, shape in shapes:
        nbytes = itemsize * torch.Size(shape).numel()
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + nbytes]}
        place += nbytes
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + place)
    return path


def save(adapter: dict[str, torch.Tensor], path: Path) -> Path:
    """As a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in adapter.items()}, path)
    return path
