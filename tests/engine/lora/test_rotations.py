"""OFT and BOFT against the libraries that write them, and by their formulas: lycoris' and PEFT's own merged weights."""

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
from lycoris.modules import make_module
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from peft import OFTConfig, get_peft_model, get_peft_model_state_dict
from torch import nn

from webui.engine.lora.deltas import Difference, merge
from webui.engine.lora.rotations import OutputRotation

STRENGTHS = (1.0, 0.7, -1.0)
LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"  # (160, 192)
POINT = "down_blocks.1.resnets.0.conv_shortcut"  # (160, 64, 1, 1)
CONV = "down_blocks.1.resnets.0.conv1"  # (160, 64, 3, 3)
LAYERS = (LINEAR, POINT, CONV)

Tensors = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def _same_numbers_each_run() -> None:
    torch.manual_seed(1)


@pytest.fixture
def ours(demo_parts, write_lora, merge_file) -> Callable[..., torch.Tensor]:
    """``ours(path, tensors, strength)``: that layer's weight with the file; ``start`` begins its keys."""

    def merged(path: str, tensors: Mapping[str, torch.Tensor], strength=1.0, start="lora_unet_") -> torch.Tensor:
        name = start + (path if start.endswith(".") else path.replace(".", "_"))
        file = write_lora({f"{name}.{ending}": tensor for ending, tensor in tensors.items()})
        return merge_file(file, demo_parts, strength)["backbone", path, "weight"]

    return merged


@pytest.fixture
def layer(stock_demo_parts) -> Callable[[str], nn.Module]:
    return stock_demo_parts["backbone"].get_submodule


def check(result: torch.Tensor, expected: torch.Tensor, base: torch.Tensor) -> None:
    """Equal within float32's rounding, and both far from the base."""
    assert (expected - base).norm() > 0.005 * base.norm()
    assert result.shape == expected.shape and result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=2e-5, atol=2e-6)


def oft(kind: type, layer: nn.Module, constraint: float, rescaled: bool) -> Tensors:
    """What lycoris would save of a module with random blocks."""
    module = kind("x", layer, lora_dim=8 if kind is DiagOFTModule else 10, constraint=constraint, rescaled=rescaled)
    module.oft_blocks.data = 0.2 * torch.randn(module.oft_blocks.shape)
    tensors = {"oft_blocks": module.oft_blocks.data, "alpha": module.alpha}
    if rescaled:
        tensors["rescale"] = 1 + 0.1 * torch.randn(module.rescale.shape)
    return tensors


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize(("constraint", "rescaled"), [(0, False), (0.01, False), (0.01, True)])
@pytest.mark.parametrize("kind", [DiagOFTModule, ButterflyOFTModule])
@pytest.mark.parametrize("path", LAYERS)
def test_oft_and_boft_are_as_in_lycoris(ours, layer, path, kind, constraint, rescaled, strength):
    """At full strength; other strengths lead there in a straight line."""
    base, tensors = layer(path).weight, oft(kind, layer(path), constraint, rescaled)
    parts = tensors["oft_blocks"], tensors.get("rescale"), tensors["alpha"]
    whole, _ = make_module(kind, parts, "x", layer(path)).get_merged_weight(1.0)
    limited = 0.01 * len(base) < (tensors["oft_blocks"] - tensors["oft_blocks"].mT).norm()
    assert limited
    check(ours(path, tensors, strength), base + (whole - base) * strength, base)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("path", LAYERS)
def test_oft_is_by_kohya_s_formula(ours, layer, path, strength):
    """sd-scripts, networks/oft.py: w (R - I) + I turns the weight; the limit of the norm is alpha times the outputs."""
    base, blocks, alpha = layer(path).weight, 0.3 * torch.randn(4, 40, 40), 1e-2
    q = blocks - blocks.mT
    q = q * ((torch.clamp(q.norm(), max=alpha * 160) + 1e-8) / (q.norm() + 1e-8))
    eye = torch.eye(40)
    r = strength * ((eye + q) @ (eye - q).inverse() - eye) + eye
    expected = torch.einsum("k n m, k n p -> k m p", r, base.reshape(4, 40, -1)).reshape(base.shape)
    tensors = {"oft_blocks": blocks, "alpha": torch.tensor(alpha)}
    check(ours(path, tensors, strength, start="oft_unet_"), expected, base)


@pytest.mark.parametrize("kind", [DiagOFTModule, ButterflyOFTModule])
@pytest.mark.parametrize("path", LAYERS)
def test_the_rotations_themselves_are_taken_as_they_are(ours, layer, path, kind):
    """``oft_diag`` of LyCORIS 2.0, which saved R instead of what makes it."""
    tensors = oft(kind, layer(path), 0, False)
    module = make_module(kind, (tensors["oft_blocks"], None, tensors["alpha"]), "x", layer(path))
    check(ours(path, {"oft_diag": module.get_r()}), module.get_merged_weight(1.0)[0], layer(path).weight)


CONFIGS = {
    "plain": {},
    "shared": {"block_share": True},
    **{f"{terms} terms": {"num_cayley_neumann_terms": terms} for terms in (1, 2, 3, 4, 7)},
    "exact": {"use_cayley_neumann": False},
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("path", LAYERS)
def test_oft_of_peft_is_as_merged_by_peft(ours, layer, demo_parts, write_lora, merge_file, config, path):
    root = nn.ModuleDict({"conv_in": copy.deepcopy(layer(path))})
    told = OFTConfig(oft_block_size=8, target_modules=["conv_in"], **CONFIGS[config])
    adapted = get_peft_model(root, told, adapter_name="turned")
    for parameter in (parameter for parameter in adapted.parameters() if parameter.requires_grad):
        parameter.data = 0.1 * torch.randn(parameter.shape)
    tensors = get_peft_model_state_dict(adapted, adapter_name="turned")
    file = write_lora({key.replace("conv_in", path): tensor for key, tensor in tensors.items()})
    told.save_pretrained(file.path.parent)
    merged = merge_file(file, demo_parts)["backbone", path, "weight"]
    expected = adapted.merge_and_unload()["conv_in"].weight
    if config == "1 terms":
        assert torch.equal(merged, expected) and torch.equal(merged, layer(path).weight)
    else:
        check(merged, expected, layer(path).weight)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("path", LAYERS)
def test_oft_of_onetrainer_is_by_its_formula(ours, layer, path, scaled):
    """OneTrainer, oft_utils.py: five terms; linear layers have their inputs turned, convolutions their weights."""
    base, vectors = layer(path).weight, 0.1 * torch.randn(layer(path).weight[0].numel() // 8, 28)
    q = torch.zeros(len(vectors), 8, 8)
    rows, columns = torch.triu_indices(8, 8, 1)
    q[:, rows, columns] = vectors / (2 * 7**0.5) if scaled else vectors
    q = q - q.mT
    r = torch.eye(8) + 2 * q + 2 * q @ q + 2 * q @ q @ q + q @ q @ q @ q
    turned = "onc, nkc -> onk" if path == LINEAR else "onk, nkc -> onc"
    expected = torch.einsum(turned, base.reshape(160, -1, 8), r).reshape(base.shape)
    tensors = {"oft_R.weight": vectors} | ({"oft_R.scaled_oft": torch.tensor(True)} if scaled else {})
    check(ours(path, tensors), expected, base)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("path", LAYERS)
def test_oft_of_old_peft_is_by_its_formula(ours, layer, path, shared):
    """PEFT 0.15, tuners/oft/layer.py: W^T times the block diagonal of (I - S)(I + S)^-1, S half of B - B^T."""
    base, blocks = layer(path).weight, 0.3 * torch.randn(1 if shared else 20, 8, 8)
    skew, eye = 0.5 * (blocks - blocks.mT), torch.eye(8)
    r = torch.block_diag(*((eye - skew) @ (eye + skew).inverse()).expand(20, 8, 8))
    expected = (base.flatten(1).T @ r).T.reshape(base.shape)
    check(ours(path, {"oft_r": blocks}, start="base_model.model."), expected, base)
    check(ours(path, {"oft_r.style": blocks}, start="unet."), expected, base)


def test_several_turn_the_model_s_own_weight_in_any_order(layer):
    base = layer(LINEAR).weight
    parts = [(OutputRotation(0.2 * torch.randn(20, 8, 8), 0.0, None), 0.8), (Difference(torch.randn(160, 192)), 0.5)]
    parts.append((OutputRotation(0.2 * torch.randn(4, 40, 40), 0.0, None), -0.3))
    expected = base + sum(merge(base, [part]) - base for part in parts)
    for order in (parts, parts[::-1]):
        torch.testing.assert_close(merge(base, order), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_blocks_are_computed_in_float32(ours, layer, dtype):
    blocks = (0.2 * torch.randn(20, 8, 8)).to(dtype)
    assert torch.equal(ours(CONV, {"oft_blocks": blocks}), ours(CONV, {"oft_blocks": blocks.float()}))
