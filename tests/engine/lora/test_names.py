"""Every dialect's spelling of a module leads to it; the oracle is diffusers' own converter."""

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from diffusers.utils import convert_state_dict_to_peft
from torch import nn

from webui.engine.families.sdxl import STABLE_DIFFUSION_XL
from webui.engine.lora.names import ModuleIndex
from webui.engine.nets.unet import UNet
from webui.engine.weights import build_empty

PARTS = STABLE_DIFFUSION_XL.parts

SDXL = {
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def layers(root: nn.Module) -> set[str]:
    return {path for path, module in root.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}


def unet_place(path: str) -> tuple[tuple[str, str, None]]:
    return (("backbone", path, None),)


@pytest.fixture(scope="module")
def sdxl_unet(make_sdxl_unet):
    """The real SDXL UNet, without memory."""
    with torch.device("meta"):
        return make_sdxl_unet(**SDXL)


@pytest.mark.parametrize("whose", ["diffusers'", "ours"])
def test_stability_s_names_lead_to_every_layer_of_sdxl_s_unet_as_in_diffusers(sdxl_unet, stability_paths, whose):
    paths = stability_paths(sdxl_unet)
    assert set(paths.values()) == layers(sdxl_unet) and len(paths) == 794
    index = ModuleIndex(
        {"backbone": build_empty(lambda: UNet(sdxl_unet.config)) if whose == "ours" else sdxl_unet},
        PARTS,
    )
    for prefix in ("diffusion_model.", "model.diffusion_model."):
        assert {name: index.find(prefix + name) for name in paths} == {name: unet_place(paths[name]) for name in paths}
    for name, path in paths.items():
        assert index.find(f"lora_unet_{name.replace('.', '_')}") == unet_place(path)


@pytest.mark.parametrize("whose", ["stock_", ""])
def test_kohya_s_names_lead_to_every_layer_of_the_unet_as_in_diffusers(stock_demo_parts, kohya_paths, whose, request):
    unet = stock_demo_parts["backbone"]
    index = ModuleIndex({"backbone": request.getfixturevalue(f"{whose}demo_parts")["backbone"]}, PARTS)
    names = [f"lora_unet_{path.replace('.', '_')}" for path in sorted(layers(unet))]
    paths = kohya_paths(names, unet)
    assert set(paths.values()) == layers(unet)
    assert {name: index.find(name) for name in names} == {name: unet_place(paths[name]) for name in names}


@pytest.mark.parametrize("whose", ["stock_", ""])
@pytest.mark.parametrize("prefix", ["lora_te_", "lora_te1_", "lora_te2_"])
def test_kohya_s_names_lead_to_every_layer_of_the_text_encoders_as_in_diffusers(prefix, whose, request):
    parts = request.getfixturevalue(f"{whose}sdxl_parts")
    component = "text_encoder_2" if prefix == "lora_te2_" else "text_encoder"
    own = sorted(layers(parts[component]))
    # Files have transformers 4's names, with text_model before all but the projection.
    saved = [path if path.startswith(("text_model.", "text_projection")) else f"text_model.{path}" for path in own]
    names = [prefix + path.replace(".", "_") for path in saved]
    keys = {f"{name}.lora_{part}.weight": torch.tensor(i) for part in ("down", "up") for i, name in enumerate(names)}
    converted = convert_state_dict_to_peft(_convert_non_diffusers_lora_to_diffusers(keys)[0])
    paths = {names[int(number)]: key for key, number in converted.items() if "lora_A" in key or "lora.down" in key}
    index = ModuleIndex(parts, PARTS)
    for name, path in zip(names, own, strict=True):
        assert paths[name].startswith(f"{component}.") and path.removeprefix("text_model.") in paths[name]
        assert index.find(name) == ((component, path, None),)


@pytest.mark.parametrize("parts", ["stock_demo_parts", "stock_sdxl_parts", "demo_parts", "sdxl_parts"])
def test_each_module_with_weights_is_found_by_its_own_path(parts, request):
    components = request.getfixturevalue(parts)
    index = ModuleIndex(components, PARTS)
    for component, root in components.items():
        for path in {name.rpartition(".")[0] for name, _ in root.named_parameters()}:
            named = f"{'unet' if component == 'backbone' else component}.{path}"
            assert index.find(named) == ((component, path, None),)


@pytest.mark.parametrize(("parts", "width"), [("demo_parts", 192), ("sdxl_parts", 64)])
@pytest.mark.parametrize("whose", ["stock_", ""])
def test_the_width_of_the_texts_is_known(whose, parts, width, request):
    assert ModuleIndex(request.getfixturevalue(f"{whose}{parts}"), PARTS).context_width == width
    assert ModuleIndex({"backbone": nn.Linear(2, 2)}, PARTS).context_width is None


@pytest.mark.parametrize(
    "name",
    ["", "unet", "unet.", "lora_unet_", "lora_te2_text_model_encoder_layers_0_mlp_fc1", "te.x", "unet.conv_in.x"]
    + ["lora_unet_down_blocks_9_attentions_0_proj_in", "lora_unet_input_blocks_99_1_proj_in", "unet/../conv_in"]
    + ["lora_te_text_model_encoder_layers_2_mlp_fc1", "transformer.single_transformer_blocks.0.proj_out", "\0", "💥"],
)
def test_other_names_lead_nowhere(name, demo_parts):
    assert ModuleIndex(demo_parts, PARTS).find(name) == ()


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.{}",
        "unet.base_model.model.{}",
        "base_model.model.unet.{}",
        "_orig_mod.{}",
        "unet._orig_mod.{}",
        "module.unet.{}",
    ],
)
def test_what_is_put_around_a_module_is_no_part_of_its_name(demo_parts, name):
    path = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    assert ModuleIndex(demo_parts, PARTS).find(name.format(path)) == unet_place(path)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.text_model.{}",
        "text_encoder.base_model.model.text_model.{}",
        "text_encoder_1.text_model.{}",
        "lycoris_text_model_{}",
    ],
)
def test_the_text_encoder_is_found_by_its_rarer_names(demo_parts, name):
    path = "encoder.layers.0.self_attn.q_proj"
    assert ModuleIndex(demo_parts, PARTS).find(name.format(path)) == (("text_encoder", path, None),)
