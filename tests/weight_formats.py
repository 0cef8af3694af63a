"""Models saved in the formats that people keep them in, to test a reader with: fp8, INT8 and GGUF.

Nothing here comes from ``webui``: GGUF is written and read by ``gguf``, the others follow ComfyUI's QUANTIZATION.md.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

from tests.checkpoints import published

Tensors = Mapping[str, torch.Tensor]
Saved = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
"""What is in the file of a layer's weight, and what that stands for, in float32."""

FP8 = torch.float8_e4m3fn
UNET = "model.diffusion_model."


def as_fp8(key: str, weight: torch.Tensor, dtype: torch.dtype = FP8) -> Saved:
    """A plain cast."""
    small = weight.to(dtype)
    return {key: small}, {key: small.float()}


def as_scaled_fp8(key: str, weight: torch.Tensor, by_row: bool = False, spelling: str = "weight_scale") -> Saved:
    """With a scale for the tensor or each row, under either of its names."""
    rows = weight.flatten(1)
    scale = (rows.abs().amax(1, keepdim=True) if by_row else rows.abs().amax()) / 448
    small = (rows / scale).to(FP8)
    name = key.removesuffix("weight") + spelling
    return {key: small.view(weight.shape), name: scale.float()}, {key: (small.float() * scale).view(weight.shape)}


def as_int8(key: str, weight: torch.Tensor, group: int = 0) -> Saved:
    """ComfyUI's INT8 with a scale a row and its note; linear layers rotated in groups, if ``group`` is not 0."""
    rows = weight.flatten(1)
    rotates = bool(group) and weight.dim() == 2 and weight.shape[1] % group == 0
    turn = regular_hadamard(group) if rotates else torch.eye(1)
    turned = (rows.view(len(rows), -1, len(turn)) @ turn.T).reshape(rows.shape)
    scale = (turned.abs().amax(1, keepdim=True) / 127).clamp(min=1e-30)
    small = (turned / scale).round().clamp(-128, 127).to(torch.int8)
    note = {"format": "int8_tensorwise"} | ({"convrot": True, "convrot_groupsize": group} if rotates else {})
    layer = key.removesuffix(".weight")
    stored = {key: small.view(weight.shape), f"{key}_scale": scale}
    stored[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)
    back = ((small.float() * scale).view(len(rows), -1, len(turn)) @ turn).reshape(weight.shape)
    return stored, {key: back}


def regular_hadamard(size: int) -> torch.Tensor:
    """As comfy-kitchen has it: Kronecker products of one of order 4."""
    four = torch.tensor([[1.0, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]])
    matrix = four
    while len(matrix) < size:
        matrix = torch.kron(matrix, four)
    return matrix / size**0.5


def save_small(path: Path, tensors: Tensors, form: Callable[[str, torch.Tensor], Saved], prefix: str = UNET) -> Tensors:
    """A safetensors file, the weights of layers below ``prefix`` in this form; gives what it stands for."""
    stored, meant = {}, {}
    for key, tensor in tensors.items():
        if key.startswith(prefix) and key.endswith(".weight") and tensor.dim() > 1:
            small, whole = form(key, tensor)
        else:
            small, whole = {key: tensor}, {key: tensor}
        stored |= small
        meant |= whole
    save_file({key: tensor.contiguous().clone() for key, tensor in stored.items()}, path)
    return meant


def random_blocks(kind: str, rows: int, columns: int, generator: np.random.Generator, size: float = 1.0) -> np.ndarray:
    """Valid blocks with random numbers, (rows, bytes), whose float16 scales are small and finite."""
    numbers, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = generator.integers(0, 256, (rows, columns // numbers, nbytes), dtype=np.uint8)
    scales = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
    for at in scales.get(kind, (0, 2) if kind.endswith("_1") else (0,)):
        drawn = (generator.standard_normal(blocks.shape[:2]) * size).astype(np.float16)
        blocks[..., at : at + 2] = drawn[..., None].view(np.uint8)
    return blocks.reshape(rows, -1)


def save_gguf(
    path: Path, tensors: Tensors, kind: str, architecture: str = "sdxl", seed: int = 0, noted: bool = True
) -> Tensors:
    """A GGUF file as ComfyUI-GGUF makes them; gives what it stands for.

    Weights whose rows are no whole blocks are stored in rows of 256, with their shape in a note (``noted``), or as F16.
    ``gguf`` writes no K-quants: such weights get random valid blocks of about the right size.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    type_ = gguf.GGMLQuantizationType[kind]
    numbers = gguf.GGML_QUANT_SIZES[type_][0]
    generator, meant = np.random.default_rng(seed), {}
    for key, tensor in tensors.items():
        array = tensor.float().numpy()
        if tensor.dim() < 2:
            writer.add_tensor(key, array, raw_dtype=gguf.GGMLQuantizationType.F32)
            meant[key] = tensor.float()
            continue
        if array.shape[-1] % numbers and array.size % 256 == 0 and noted:
            writer.add_array(f"comfy.gguf.orig_shape.{key}", [int(side) for side in array.shape])
            array = array.reshape(-1, 256)
        if array.shape[-1] % numbers:
            half = tensor.half()
            writer.add_tensor(key, half.numpy(), raw_dtype=gguf.GGMLQuantizationType.F16)
            meant[key] = half.float()
            continue
        try:
            data = gguf.quants.quantize(np.ascontiguousarray(array), type_)
        except NotImplementedError:
            size = float(array.std()) / 200
            rows = array.reshape(-1, array.shape[-1])
            data = random_blocks(kind, *rows.shape, generator, size).reshape(*array.shape[:-1], -1)
        writer.add_tensor(key, data, raw_dtype=type_)
        meant[key] = torch.from_numpy(gguf.quants.dequantize(data, type_).copy()).reshape(tensor.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


def write_published_gguf(path: Path, kind: str, convolutions: bool = True) -> None:
    """The UNet of full size, in Q8_0, small random numbers; weights that are no whole blocks are float16.

    Without ``convolutions`` these are float16 too, as diffusers' loader needs them.
    """
    form, generator = gguf.GGMLQuantizationType.Q8_0, np.random.default_rng(0)
    noise = (generator.standard_normal((2**15, 256)) * 0.02).astype(np.float32)
    blocks, halves = gguf.quants.quantize(noise, form), noise.astype(np.float16)
    writer = gguf.GGUFWriter(path, {"sd15": "sd1"}.get(kind, kind), use_temp_file=True)
    for name, (shape, _) in published(kind).items():
        if not name.startswith(UNET):
            continue
        numbers = int(np.prod(shape))
        if len(shape) == 1:
            writer.add_tensor(name, np.full(shape, 1.0 if name.endswith("weight") else 0.0, np.float32))
        elif numbers % 256 == 0 and (convolutions or (len(shape) == 2 and shape[1] % 32 == 0)):
            stored = (shape[0], shape[1])
            if shape[1] % 32 or len(shape) > 2:
                writer.add_array(f"comfy.gguf.orig_shape.{name}", list(shape))
                stored = (numbers // 256, 256)
            data = np.resize(blocks, numbers // 32 * 34).reshape(stored[0], stored[1] // 32 * 34)
            writer.add_tensor(name, data, raw_dtype=form)
        else:
            writer.add_tensor(name, np.resize(halves, numbers).reshape(shape))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
