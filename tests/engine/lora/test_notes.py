"""PEFT's configuration beside a file: alphas and variants as PEFT itself takes them, for the file that it is for."""

import copy
import json

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model

from webui.core.files import LoraFile
from webui.engine.families.sdxl import STABLE_DIFFUSION_XL
from webui.engine.lora.names import ModuleIndex
from webui.engine.lora.reading import CannotApply, read_lora

PARTS = STABLE_DIFFUSION_XL.parts

CPU = torch.device("cpu")
ONLY = r"down_blocks\.1\.attentions\.0\..*attn2\.to_(k|out\.0)|mid_block\.resnets\.0\.conv1"
CONFIGS = {
    "LoRA": LoraConfig(r=4, lora_alpha=10, target_modules=ONLY),
    "rsLoRA": LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=ONLY),
    "patterns": LoraConfig(
        r=4,
        lora_alpha=10,
        target_modules=ONLY,
        rank_pattern={"to_k": 2},
        alpha_pattern={"attn2.to_k": 3, "^mid_block.resnets.0.conv1": 1},
    ),
    "with biases": LoraConfig(r=4, lora_alpha=10, target_modules=ONLY.replace("k|", ""), lora_bias=True),
    "DoRA": LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=ONLY),
    "LoHa": LoHaConfig(r=4, alpha=10, target_modules=ONLY),
    "LoKr": LoKrConfig(r=4, alpha=10, target_modules=ONLY),
    "LoKr, both whole": LoKrConfig(r=64, alpha=10, decompose_factor=4, target_modules=ONLY),
}


@pytest.fixture
def saved(stock_demo_parts, tmp_path):
    """``saved(config)``: PEFT's folder of an adapter with random weights, and the weights that PEFT merges."""

    def save(config):
        torch.manual_seed(3)
        adapted = get_peft_model(copy.deepcopy(stock_demo_parts["backbone"]), config)
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape) * (0 if "magnitude" in name else 1)
        adapted.save_pretrained(tmp_path)
        merged = adapted.merge_and_unload()
        return LoraFile("style", tmp_path / "adapter_model.safetensors"), dict(merged.named_parameters())

    return save


@pytest.mark.parametrize("config", CONFIGS)
def test_a_folder_of_peft_s_is_as_merged_by_peft(saved, stock_demo_parts, demo_parts, merge_file, config):
    file, expected = saved(CONFIGS[config])
    merged = merge_file(file, demo_parts)
    base = dict(stock_demo_parts["backbone"].named_parameters())
    changed = {name for name, tensor in expected.items() if not torch.equal(tensor, base[name])}
    assert {f"{path}.{kind}" for _, path, kind in merged} == changed and changed
    for (_, path, kind), weight in merged.items():
        assert (weight - expected[f"{path}.{kind}"]).norm() < 2e-6 * weight.norm(), path


@pytest.fixture
def scale(demo_parts, write_lora):
    """``scale({name: content})``: what a plain LoRA of rank 4 is multiplied with, with these files beside it."""

    def scale(beside: dict[str, bytes], name="style", key="unet.conv_in.lora_{}.weight"):
        file = write_lora(
            {key.format("A"): torch.ones(4, 4, 3, 3), key.format("B"): torch.ones(64, 4, 1, 1)}, name=name
        )
        for other, content in beside.items():
            (file.path.parent / other).write_bytes(content)
        weights = read_lora(file, ModuleIndex(demo_parts, PARTS), CPU)
        return next(iter(weights.deltas.values())).scale, weights.warnings

    return scale


ALPHA_8 = json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}).encode()


def test_the_configuration_of_the_only_file_in_a_folder_is_its_own(scale):
    assert scale({"adapter_config.json": ALPHA_8}) == (2.0, ())


def test_among_several_files_it_belongs_to_the_one_with_peft_s_name(scale):
    beside = {"adapter_config.json": ALPHA_8, "other.safetensors": b"x"}
    assert scale(beside, "adapter_model") == (2.0, ())
    value, (warning,) = scale(beside)
    assert value == 1.0 and "adapter_config.json beside it was not used, since other files lie there too" in warning


@pytest.mark.parametrize("content", [b"{}", b'{"lora_alpha": 8}', b'{"peft_type": "LORA", "lora_alpha": "x"}'])
def test_what_says_nothing_of_an_alpha_changes_nothing(scale, content):
    assert scale({"adapter_config.json": content}) == (1.0, ())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "has an adapter_config.json beside it that cannot be read"),
        (b"[]", "has an adapter_config.json beside it that cannot be read"),
        (b" " * (2**20 + 1) + b"{}", "has an adapter_config.json beside it that cannot be read"),
        (
            json.dumps({"peft_type": "LORA", "alpha_pattern": {"(a+)+$": 3}}).encode(),
            "has settings by the expression '(a+)+$', where only names of modules are read",
        ),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(scale, content, reason):
    with pytest.raises(CannotApply) as caught:
        scale({"adapter_config.json": content})
    assert reason in str(caught.value)


def test_a_constrained_oft_is_refused_by_name(demo_parts, write_lora):
    file = write_lora({"unet.conv_out.oft_R.weight": torch.zeros(1, 28)})
    config = {"peft_type": "OFT", "coft": True}
    file.path.with_name("adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CannotApply, match=r"is a constrained OFT \(COFT\) of PEFT, a format that is not known here"):
        read_lora(file, ModuleIndex(demo_parts, PARTS), CPU)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ({"use_data_init": "False"}, "is a T-LoRA that began from random numbers, which are not in its file"),
        ({"sig_type": "some"}, "is a T-LoRA of a kind that is not known here, 'some'"),
    ],
)
def test_a_tlora_whose_beginning_is_not_known_is_refused(demo_parts, write_lora, args, reason):
    shapes = {"p_layer.weight": (4, 2, 1, 1), "q_layer.weight": (2, 64, 1, 1), "lambda_layer": (1, 2)}
    tensors = {f"lora_unet_conv_out.{name}": torch.ones(shape) for name, shape in shapes.items()}
    with pytest.raises(CannotApply) as caught:
        read_lora(
            write_lora(tensors, {"ss_network_args": json.dumps(args)}),
            ModuleIndex(demo_parts, PARTS),
            CPU,
        )
    assert reason in str(caught.value)
