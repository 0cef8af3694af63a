"""Small models of both layouts, LoRA files for them, and what the files make of the weights."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from webui.core.files import LoraFile
from webui.engine.families.sdxl import STABLE_DIFFUSION_XL
from webui.engine.lora.deltas import merge
from webui.engine.lora.names import ModuleIndex
from webui.engine.lora.reading import CannotApply, LoraWeights, Parameter, read_lora
from webui.engine.nets.clip import ClipText
from webui.engine.nets.unet import UNet
from webui.library.library import DEMO_MODEL

PARTS = STABLE_DIFFUSION_XL.parts

CPU = torch.device("cpu")
Components = dict[str, nn.Module]
RESNET_LAYERS = ("in_layers.2", "emb_layers.1", "out_layers.3")
TRANSFORMER_LAYERS = (
    *(f"attn{number}.to_{part}" for number in (1, 2) for part in ("q", "k", "v", "out.0")),
    "ff.net.0.proj",
    "ff.net.2",
)


def make_ours(theirs: Components) -> Components:
    """Our modules with the same weights as diffusers' and transformers'."""
    parts: Components = {}
    for name, part in theirs.items():
        state = {key.removeprefix("text_model."): tensor for key, tensor in part.state_dict().items()}
        config = dict(part.config) if name == "backbone" else part.config.to_dict()
        parts[name] = UNet(config) if name == "backbone" else ClipText(config, projects=name == "text_encoder_2")
        parts[name].eval().requires_grad_(False).load_state_dict(state)
    return parts


@pytest.fixture(scope="session")
def stock_demo_parts() -> Components:
    """The embedded model's components as diffusers and transformers load them."""
    unet = UNet2DConditionModel.from_pretrained(DEMO_MODEL / "unet", torch_dtype=torch.float32)
    text_encoder = CLIPTextModel.from_pretrained(DEMO_MODEL / "text_encoder", dtype=torch.float32)
    return {"backbone": unet.requires_grad_(False), "text_encoder": text_encoder.requires_grad_(False)}


@pytest.fixture(scope="session")
def demo_parts(stock_demo_parts) -> Components:
    """The same, ours, apart from the shared manager's, which switches its own weights."""
    return make_ours(stock_demo_parts)


@pytest.fixture(scope="session")
def make_sdxl_unet() -> Callable[..., UNet2DConditionModel]:
    """``make_sdxl_unet(block_out_channels=..., ...)``: a UNet in SDXL's layout, with random weights."""

    def make(**config) -> UNet2DConditionModel:
        return UNet2DConditionModel(
            layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            use_linear_projection=True,
            addition_embed_type="text_time",
            **config,
        )

    return make


@pytest.fixture(scope="session")
def stock_sdxl_parts(make_sdxl_unet) -> Components:
    """SDXL in small, of diffusers and transformers: the same blocks and kinds of components, few channels."""
    torch.manual_seed(0)
    unet = make_sdxl_unet(
        block_out_channels=(32, 64, 96),
        norm_num_groups=8,
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(4, 8, 12),
        cross_attention_dim=64,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,
    )
    text = CLIPTextConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=32,
        bos_token_id=48,
        eos_token_id=49,
        pad_token_id=49,
    )
    parts = {"backbone": unet, "text_encoder": CLIPTextModel(text), "text_encoder_2": CLIPTextModelWithProjection(text)}
    return {name: part.requires_grad_(False) for name, part in parts.items()}


@pytest.fixture(scope="session")
def sdxl_parts(stock_sdxl_parts) -> Components:
    """The same, ours."""
    return make_ours(stock_sdxl_parts)


@pytest.fixture
def write_lora(tmp_path: Path) -> Callable[..., LoraFile]:
    """``write_lora({key: tensor}, {name: text}, "name")``: a file in the tests' folder."""

    def write(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None, name="test") -> LoraFile:
        path = tmp_path / f"{name}.safetensors"
        save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, path, metadata)
        return LoraFile(name, path)

    return write


@pytest.fixture(scope="session")
def merge_file() -> Callable[..., dict[Parameter, torch.Tensor]]:
    """``merge_file(file, components, strength)``: the weights that the file changes, merged."""

    def merged(file: LoraFile, components: Components, strength: float = 1.0) -> dict[Parameter, torch.Tensor]:
        index = ModuleIndex(components, PARTS)
        weights = read_lora(file, index, CPU)
        assert weights.unmatched == ()
        return {place: merge(index.parameter(*place), [(delta, strength)]) for place, delta in weights.deltas.items()}

    return merged


def stability_names(depths: tuple[int, ...]) -> list[str]:
    """The linear and convolution layers of Stability's UNet, in its own names and counted as its source counts them.

    ``depths`` are the transformer blocks at each level, 0 for a level that does not attend; two layers a level.
    """

    def resnet(at: str, shortcut: bool) -> list[str]:
        return [f"{at}.{layer}" for layer in (*RESNET_LAYERS, *(("skip_connection",) if shortcut else ()))]

    def transformer(at: str, depth: int) -> list[str]:
        blocks = [f"transformer_blocks.{number}.{layer}" for number in range(depth) for layer in TRANSFORMER_LAYERS]
        return [f"{at}.{layer}" for layer in ("proj_in", *blocks, "proj_out")] if depth else []

    names = ["time_embed.0", "time_embed.2", "label_emb.0.0", "label_emb.0.2", "input_blocks.0.0", "out.2"]
    number, last = 1, len(depths) - 1
    for level, depth in enumerate(depths):
        for layer in range(2):
            at = f"input_blocks.{number}"
            names += [*resnet(f"{at}.0", shortcut=level > 0 and layer == 0), *transformer(f"{at}.1", depth)]
            number += 1
        if level < last:
            names.append(f"input_blocks.{number}.0.op")
            number += 1
    names += [*resnet("middle_block.0", False), *transformer("middle_block.1", depths[-1])]
    names += resnet("middle_block.2", False)
    number = 0
    for level in range(last, -1, -1):
        for layer in range(3):
            at = f"output_blocks.{number}"
            names += [*resnet(f"{at}.0", shortcut=True), *transformer(f"{at}.1", depths[level])]
            if level > 0 and layer == 2:
                names.append(f"{at}.{2 if depths[level] else 1}.conv")
            number += 1
    return names


def diffusers_paths(kohya_names: list[str], unet_config) -> dict[str, str]:
    """Each of kohya's names for a UNet's layer -> the layer's path, as diffusers' own converter has it."""
    numbered = {}
    for number, name in enumerate(kohya_names):
        for part in ("down", "up"):
            numbered[f"{name}.lora_{part}.weight"] = torch.tensor(float(number))
    mapped = _maybe_map_sgm_blocks_to_diffusers(numbered, unet_config)
    converted = convert_unet_state_dict_to_peft(_convert_non_diffusers_lora_to_diffusers(mapped)[0])
    downs = {key: number for key, number in converted.items() if key.endswith(".lora_A.weight")}
    return {
        kohya_names[int(number)]: key.removeprefix("unet.").removesuffix(".lora_A.weight")
        for key, number in downs.items()
    }


@pytest.fixture(scope="session")
def stability_paths() -> Callable[..., dict[str, str]]:
    """``stability_paths(unet)``: Stability's name of each layer of a UNet in SDXL's layout -> diffusers' path."""

    def paths(unet: UNet2DConditionModel) -> dict[str, str]:
        levels = unet.config.transformer_layers_per_block
        names = stability_names((0, *levels[1:]))
        by_kohya = diffusers_paths([f"lora_unet_{name.replace('.', '_')}" for name in names], unet.config)
        return {name: by_kohya[f"lora_unet_{name.replace('.', '_')}"] for name in names}

    return paths


@pytest.fixture(scope="session")
def kohya_paths() -> Callable[[list[str], UNet2DConditionModel], dict[str, str]]:
    """``kohya_paths(names, unet)``: kohya's names -> paths by diffusers' converter."""
    return lambda names, unet: diffusers_paths(names, unet.config)


@pytest.fixture
def read(demo_parts) -> Callable[[LoraFile], LoraWeights]:
    """Reads a file for the embedded model."""
    index = ModuleIndex(demo_parts, PARTS)
    return lambda file: read_lora(file, index, CPU)


@pytest.fixture
def refusal(read) -> Callable[[LoraFile], str]:
    """The message with which a file is refused; it always names the file."""

    def refusal(file: LoraFile) -> str:
        with pytest.raises(CannotApply) as caught:
            read(file)
        text = str(caught.value)
        assert text.startswith(f"LoRA {file.name[:80]!r} ") and "\n" not in text and len(text) < 400
        return text

    return refusal
