"""The maths of each format against the libraries that made it: lycoris' and PEFT's own merged weights, in float32."""

import copy
import json
from collections.abc import Callable, Mapping

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers
from lycoris.functional.loha import diff_weight as loha_weight
from lycoris.functional.lokr import kron_weight
from lycoris.modules import get_module, make_module
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.tlora import TLoraModule
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from webui.core.files import LoraFile
from webui.engine.lora.deltas import Difference, LowRank, merge

RTOL, ATOL = 1e-5, 1e-6  # weights are of about 0.01 to 1
STRENGTHS = (1.0, 0.7, -1.0)
RANK = 4
LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"  # (160, 192)
SQUARE = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"  # (160, 160)
POINT = "down_blocks.1.resnets.0.conv_shortcut"  # (160, 64, 1, 1)
CONV = "down_blocks.1.resnets.0.conv1"  # (160, 64, 3, 3)
GROUP_NORM, LAYER_NORM = "conv_norm_out", "down_blocks.1.attentions.0.transformer_blocks.0.norm1"
LAYERS = (LINEAR, SQUARE, POINT, CONV)

Tensors = dict[str, torch.Tensor]


def noise(*shape: int, scale: float = 0.2) -> torch.Tensor:
    return torch.randn(shape) * scale


def lora(layer: nn.Module, tucker: bool = False) -> Tensors:
    out, inside, *kernel = layer.weight.shape
    ones = [1] * len(kernel)
    tensors = {"lora_up.weight": noise(out, RANK, *ones)}
    if tucker:
        return tensors | {"lora_down.weight": noise(RANK, inside, *ones), "lora_mid.weight": noise(RANK, RANK, *kernel)}
    return tensors | {"lora_down.weight": noise(RANK, inside, *kernel)}


def loha(layer: nn.Module, tucker: bool = False) -> Tensors:
    out, inside, *kernel = layer.weight.shape
    if tucker:
        shapes = {"w{}_a": (RANK, out), "w{}_b": (RANK, inside), "t{}": (RANK, RANK, *kernel)}
    else:
        shapes = {"w{}_a": (out, RANK), "w{}_b": (RANK, inside * torch.Size(kernel).numel())}
    return {f"hada_{name.format(n)}": noise(*shape, scale=0.5) for n in (1, 2) for name, shape in shapes.items()}


def glora(layer: nn.Module) -> Tensors:
    out, inside, *kernel = layer.weight.shape
    ones = [1] * len(kernel)
    shapes = {"a1": (inside, RANK, *ones), "a2": (RANK, inside, *ones), "b1": (out, RANK, *ones)}
    return {f"{name}.weight": noise(*shape) for name, shape in {**shapes, "b2": (RANK, inside, *kernel)}.items()}


def lokr(layer: nn.Module, pairs: str = "", tucker: bool = False, left: tuple[int, int] = (8, 4)) -> Tensors:
    """``pairs`` names the halves that are factored: "", "1", "2" or "12"; ``left`` is the shape of the first half."""
    out, inside, *kernel = layer.weight.shape
    out, inside = out // left[0], inside // left[1]
    if "1" in pairs:
        tensors = {"lokr_w1_a": noise(left[0], RANK), "lokr_w1_b": noise(RANK, left[1])}
    else:
        tensors = {"lokr_w1": noise(*left)}
    if tucker:
        pair = {"lokr_w2_a": noise(RANK, out), "lokr_w2_b": noise(RANK, inside)}
        return tensors | pair | {"lokr_t2": noise(RANK, RANK, *kernel)}
    if "2" in pairs:
        width = inside * torch.Size(kernel).numel()
        return tensors | {"lokr_w2_a": noise(out, RANK), "lokr_w2_b": noise(RANK, width)}
    return tensors | {"lokr_w2": noise(out, inside, *kernel)}


@pytest.fixture(autouse=True)
def _same_numbers_each_run() -> None:
    torch.manual_seed(1)


@pytest.fixture
def ours(demo_parts, write_lora, merge_file) -> Callable[..., torch.Tensor]:
    """``ours(path, tensors, strength)``: the weight (or ``kind``) of that layer, the tensors read from a file."""

    def merged(path: str, tensors: Mapping[str, torch.Tensor], strength=1.0, kind="weight") -> torch.Tensor:
        file = write_lora({f"lora_unet_{path.replace('.', '_')}.{ending}": t for ending, t in tensors.items()})
        return merge_file(file, demo_parts, strength)["backbone", path, kind]

    return merged


@pytest.fixture
def layer(stock_demo_parts) -> Callable[[str], nn.Module]:
    return stock_demo_parts["backbone"].get_submodule


def check(result: torch.Tensor, expected: torch.Tensor, base: torch.Tensor) -> None:
    """Equal within float32's rounding, and both far from the base."""
    assert (expected - base).norm() > 0.005 * base.norm()
    assert result.shape == expected.shape and result.dtype == torch.float32
    assert ((result - expected).abs() <= ATOL + RTOL * expected.abs()).all()


def lycoris_weight(layer: nn.Module, tensors: Tensors, strength: float) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What lycoris makes of the layer, its weight and its bias."""
    kind, parts = get_module({f"x.{ending}": tensor for ending, tensor in tensors.items()}, "x")
    return make_module(kind, parts, "x", layer).get_merged_weight(strength, layer.weight.shape)


@pytest.mark.parametrize(("strength", "alpha"), [(1.0, RANK), (1.0, 1.5), (0.7, 1.5), (-1.0, 10)])
@pytest.mark.parametrize(("path", "tucker"), [*((path, False) for path in LAYERS), (CONV, True)])
def test_lora_is_as_in_lycoris(ours, layer, path, tucker, strength, alpha):
    tensors = lora(layer(path), tucker) | {"alpha": torch.tensor(float(alpha))}
    expected, _ = lycoris_weight(layer(path), tensors, strength)
    check(ours(path, tensors, strength), expected, layer(path).weight)


# lycoris 4.1.3 multiplies by alpha / rank twice where it merges LoHa and LoKr, once where it runs them, which is what
# was trained. So alphas other than the rank are compared with the function that its modules run.
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize(("path", "tucker"), [*((path, False) for path in LAYERS), (CONV, True)])
def test_loha_is_as_in_lycoris(ours, layer, path, tucker, strength):
    base = layer(path).weight
    tensors = loha(layer(path), tucker) | {"alpha": torch.tensor(float(RANK))}
    expected, _ = lycoris_weight(layer(path), tensors, strength)
    check(ours(path, tensors, strength), expected, base)

    four = [tensors[f"hada_w{number}_{letter}"] for number in "12" for letter in "ba"]
    change = loha_weight(*four, tensors.get("hada_t1"), tensors.get("hada_t2"), gamma=torch.tensor(1.5 / RANK))
    tensors["alpha"] = torch.tensor(1.5)
    check(ours(path, tensors, strength), base + change.view(base.shape) * strength, base)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize(
    ("path", "pairs", "tucker"),
    [*((path, pairs, False) for path in LAYERS for pairs in ("", "1", "2", "12")), (CONV, "", True), (CONV, "1", True)],
)
def test_lokr_is_as_in_lycoris(ours, layer, path, pairs, tucker, strength):
    base = layer(path).weight
    tensors = lokr(layer(path), pairs, tucker) | {"alpha": torch.tensor(1.5)}
    parts = [tensors.get(f"lokr_{part}") for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")]
    change = kron_weight(*parts, scale=1.5 / RANK if pairs or tucker else 1.0).view(base.shape)  # whole: no scale
    check(ours(path, tensors, strength), base + change * strength, base)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("pairs", ["", "2"])
@pytest.mark.parametrize("path", LAYERS)
def test_lokr_is_as_merged_by_lycoris(ours, layer, path, pairs, strength):
    tensors = lokr(layer(path), pairs, left=(8, 8)) | {"alpha": torch.tensor(float(RANK))}
    expected, _ = lycoris_weight(layer(path), tensors, strength)
    check(ours(path, tensors, strength), expected, layer(path).weight)


@pytest.mark.parametrize(("strength", "alpha"), [(1.0, RANK), (0.7, 1.5), (-1.0, 10)])
@pytest.mark.parametrize("path", LAYERS)
def test_glora_is_as_in_lycoris(ours, layer, path, strength, alpha):
    tensors = glora(layer(path)) | {"alpha": torch.tensor(float(alpha))}
    expected, _ = lycoris_weight(layer(path), tensors, strength)
    check(ours(path, tensors, strength), expected, layer(path).weight)


@pytest.mark.parametrize("path", [LINEAR, SQUARE, POINT])
def test_glora_of_old_lycoris_has_its_pairs_the_other_way_round(ours, layer, path):
    new = glora(layer(path))
    old = {f"{a}{b}.weight": new[f"{a}{c}.weight"] for a in "ab" for b, c in ("12", "21")}
    assert torch.equal(ours(path, old), ours(path, new))


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("part", [None, "principal", "middle", "last"])
@pytest.mark.parametrize("path", [LINEAR, *(pytest.param(path, marks=pytest.mark.slow) for path in (SQUARE, POINT))])
def test_tlora_is_as_in_lycoris_without_a_mask(layer, demo_parts, write_lora, merge_file, path, part, strength):
    module = TLoraModule("x", layer(path), lora_dim=RANK, alpha=1.5, sig_type=part or "principal")
    for parameter in (module.q_layer.weight, module.p_layer.weight, module.lambda_layer):
        parameter.data += noise(*parameter.shape)
    expected, _ = module.get_merged_weight(strength)
    name = f"lora_unet_{path.replace('.', '_')}"
    noted = {"ss_network_args": json.dumps({"algo": "tlora", "sig_type": part})} if part else None
    file = write_lora({f"{name}.{ending}": tensor for ending, tensor in module.custom_state_dict().items()}, noted)
    merged = merge_file(file, demo_parts, strength)["backbone", path, "weight"]
    assert (merged - expected).norm() < 1e-5 * expected.norm()  # of a decomposition, twice
    assert (expected - layer(path).weight).norm() > 0.005 * expected.norm()


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("on_input", [True, False])
@pytest.mark.parametrize("path", LAYERS)
def test_ia3_is_as_in_lycoris(ours, layer, path, on_input, strength):
    module = IA3Module("x", layer(path), train_on_input=on_input)
    module.weight.data = noise(*module.weight.shape)
    expected, _ = module.get_merged_weight(strength)
    tensors = {"weight": module.weight.data, "on_input": module.on_input}
    check(ours(path, tensors, strength), expected, layer(path).weight)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize(
    ("path", "endings"),
    [*((path, ("diff", "diff_b")) for path in (CONV, POINT, "time_embedding.linear_1")), (LINEAR, ("diff",))]
    + [(path, ("w_norm", "b_norm")) for path in (GROUP_NORM, LAYER_NORM)],
)
def test_whole_differences_are_as_in_lycoris(ours, layer, path, endings, strength):
    kinds = dict(zip(endings, ("weight", "bias"), strict=False))
    tensors = {ending: noise(*getattr(layer(path), kind).shape) for ending, kind in kinds.items()}
    expected = dict(zip(("weight", "bias"), lycoris_weight(layer(path), tensors, strength), strict=True))
    for kind in kinds.values():
        base = getattr(layer(path), kind)
        check(ours(path, tensors, strength, kind), expected[kind].view(base.shape), base)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize(("maker", "kind"), [(lora, LoConModule), (loha, LohaModule)])
@pytest.mark.parametrize("path", LAYERS)
def test_dora_is_as_in_lycoris(ours, layer, path, maker, kind, by_row, strength):
    """At full strength; other strengths lead there in a straight line."""
    base = layer(path).weight
    module = kind("x", layer(path), 1, RANK, RANK, weight_decompose=True, wd_on_out=by_row).requires_grad_(False)
    tensors = maker(layer(path))
    for ending, tensor in tensors.items():
        module.get_parameter(ending).copy_(tensor)
    module.dora_scale.mul_(1 + noise(*module.dora_scale.shape).abs())
    tensors["dora_scale"] = module.dora_scale
    expected, _ = module.get_merged_weight(1.0, base.shape)
    check(ours(path, tensors, strength), base + (expected - base) * strength, base)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_files_are_computed_in_float32(ours, layer, dtype):
    tensors = {ending: tensor.to(dtype) for ending, tensor in lora(layer(CONV), tucker=True).items()}
    exact = {ending: tensor.float() for ending, tensor in tensors.items()}
    check(ours(CONV, tensors), ours(CONV, exact), layer(CONV).weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_is_rounded_once(layer, dtype):
    base = layer(CONV).weight.to(dtype).to(memory_format=torch.channels_last)
    before = base.clone()
    parts = [(LowRank(noise(160, 4), noise(4, 576), 0.5), 0.7), (Difference(noise(160, 64, 3, 3)), -1.0)]
    exact = base.float() + sum(delta.change(base.float(), strength) for delta, strength in parts)
    merged = merge(base, parts)
    assert merged.dtype == dtype and merged.stride() == base.stride() and torch.equal(base, before)
    torch.testing.assert_close(merged, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)
    assert (merged == exact.to(dtype)).float().mean() > 0.999


# ---- PEFT, saved by its own and diffusers' code ----

CONFIGS = {
    "plain": {},
    "alpha": {"lora_alpha": 10},
    "patterns": {
        "lora_alpha": 10,
        "alpha_pattern": {"attn2.to_k": 3, "down_blocks.1.resnets.0.conv1": 1},
        "rank_pattern": {"attn2.to_k": 2, "to_v": 6},
    },
    "rslora": {"lora_alpha": 3, "use_rslora": True, "rank_pattern": {"to_v": 6}, "alpha_pattern": {"to_q": 5}},
    "dora": {"lora_alpha": 6, "use_dora": True},
}
TARGETS = r"(down_blocks\.1|mid_block)\..*(to_[qkv]|to_out\.0|proj_in|resnets\.0\.conv1)|conv_in"
TEXT_TARGETS = ["q_proj", "out_proj", "fc1"]


def setup(targets: str | list[str], **config) -> LoraConfig:
    return LoraConfig(r=RANK, target_modules=targets, init_lora_weights=False, **({"lora_alpha": RANK} | config))


def move_magnitudes(root: nn.Module) -> None:
    """As training would: away from the lengths that the base has."""
    for name, parameter in root.named_parameters():
        if "lora_magnitude_vector" in name:
            parameter.data *= 1 + noise(*parameter.shape).abs()


def peft_weights(root: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of adapted layers after PEFT's own merge, by path."""
    merged = {}
    for path, module in root.named_modules():
        if isinstance(module, BaseTunerLayer):
            module.merge()
            merged[path] = module.get_base_layer().weight
    return merged


def check_all(result: dict, expected: dict[tuple[str, str], torch.Tensor]) -> None:
    """Within 1e-6 of PEFT's: norm of the difference over norm of the weight."""
    assert {place[:2] for place in result} == set(expected)
    for (component, path), weight in expected.items():
        error = (result[component, path, "weight"] - weight).norm() / weight.norm()
        assert error < 1e-6, (path, error)


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match")  # in the other component
@pytest.mark.parametrize("config", CONFIGS)
def test_peft_files_saved_by_diffusers_are_as_merged_by_peft(
    stock_demo_parts, demo_parts, merge_file, tmp_path, config
):
    adapted = {name: copy.deepcopy(part) for name, part in stock_demo_parts.items()}
    for name, targets in (("backbone", TARGETS), ("text_encoder", TEXT_TARGETS)):
        adapted[name].add_adapter(setup(targets, **CONFIGS[config]))
        move_magnitudes(adapted[name])
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(adapted["backbone"])),
        text_encoder_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(adapted["text_encoder"])),
        **_collate_lora_metadata({"unet": adapted["backbone"], "text_encoder": adapted["text_encoder"]}),
    )
    expected = {(name, path): weight for name, root in adapted.items() for path, weight in peft_weights(root).items()}
    assert len(expected) == 27
    file = LoraFile("saved", tmp_path / "pytorch_lora_weights.safetensors")
    check_all(merge_file(file, demo_parts), expected)


@pytest.mark.parametrize("config", ["plain", "dora"])
def test_peft_state_dicts_are_as_merged_by_peft(stock_demo_parts, demo_parts, write_lora, merge_file, config):
    own = CONFIGS[config] | {"lora_alpha": RANK}  # a bare state dict does not say its alpha
    model = get_peft_model(copy.deepcopy(stock_demo_parts["backbone"]), setup(TARGETS, **own))
    move_magnitudes(model)
    file = write_lora(get_peft_model_state_dict(model))
    paths = {path for path, module in model.base_model.model.named_modules() if isinstance(module, BaseTunerLayer)}
    merged = model.merge_and_unload()
    expected = {("backbone", path): merged.get_submodule(path).weight for path in paths}
    check_all(merge_file(file, demo_parts), expected)
