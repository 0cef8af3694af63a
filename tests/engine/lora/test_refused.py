"""LoRA files that cannot be used: each is refused with its reason, and none is opened that could run a program."""

import itertools
import json
import math
import re
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_files import CONV_IN, NORM, TO_K, Tensors, kohya

from webui.core.files import LoraFile
from webui.engine.lora.deltas import merge
from webui.engine.lora.formats import ENDINGS
from webui.engine.lora.reading import CannotApply


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (
            kohya("lora_unet_double_blocks_0_img_attn_qkv", 9, 8),
            "is made for FLUX.1, FLUX.2 Klein or FLUX.2 dev, but this model is a model with texts",
        ),
        (
            kohya("lora_te1_text_model_encoder_layers_0_mlp_fc1", 768, 192)
            | kohya("lora_unet_joint_blocks_0_x_block_attn_qkv", 9, 8),
            "is made for SD 3.x, but this model is",
        ),
        (
            {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(64, 4, 3, 3)},
            "is a checkpoint, a whole model; it belongs in the folder for models",
        ),
        (
            {"input_blocks.0.0.weight": torch.ones(4), "lora_controlnet": torch.ones(0)},
            "is a Control-LoRA; it belongs in the folder for controls",
        ),
        ({"emb_params": torch.ones(4, 192)}, "is an embedding; it belongs in the folder for embeddings (embeddings)"),
        ({"decoder.conv_in.weight": torch.ones(8, 4, 3, 3)}, "is a VAE; it belongs in the folder for VAEs"),
        ({}, "holds no weights"),
        ({f"{TO_K}.alpha": torch.tensor(4.0)}, "holds no weights"),
        ({"bundle_emb.zorb.clip_l": torch.ones(76, 192)}, "holds an embedding 'zorb' that has 76 rows; 75 are allowed"),
        (
            {f"{TO_K}.{end}": torch.ones(4) for end in ("vera_lambda_b", "vera_lambda_d")},
            "has only weights whose ending is not known here: .vera_lambda_b (VeRA), .vera_lambda_d (VeRA)",
        ),
        (
            {f"{TO_K}.lora_{part}": torch.ones(4, 4) for part in "ABE"},
            "has only weights whose ending is not known here: .lora_A, .lora_B, .lora_E (AdaLoRA)",
        ),
        (
            {f"unet.conv_in.lora_{part}.{name}.weight": torch.ones(4, 4) for part in "AB" for name in ("one", "two")},
            "holds 2 LoRAs, 'one' and 'two'; one file can hold one",
        ),
    ],
)
def test_what_is_no_lora_for_this_model_is_named(refusal, write_lora, tensors, reason):
    assert reason in refusal(write_lora(tensors))


def test_a_lora_for_sdxl_is_refused_by_name_of_both_models(refusal, write_lora):
    tensors = kohya("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 640, 2048) | kohya(TO_K, 640, 2048)
    assert refusal(write_lora(tensors)).endswith("is made for SDXL, but this model is a model with texts 192 wide")


@pytest.mark.parametrize(("width", "name"), [(768, "SD 1.x"), (1024, "SD 2.x"), (1280, "SDXL refiner")])
@pytest.mark.parametrize("key", ["lora_down.weight", "hada_w1_b"])
def test_other_architectures_are_named_too(refusal, write_lora, width, name, key):
    assert f"is made for {name}, but" in refusal(write_lora({f"{TO_K}.{key}": torch.ones(4, width)}))


def test_an_unknown_architecture_is_named_as_the_file_names_it(refusal, write_lora):
    file = write_lora(kohya(TO_K, 640, 4096), {"modelspec.architecture": "flux-1-dev/lora"})
    assert "is made for flux-1-dev/lora, but this model is" in refusal(file)


@pytest.mark.parametrize(
    "tensors",
    [{"a": torch.ones(2)}, kohya("transformer.blocks.0.attn.to_q", 8, 8)],
)
def test_a_file_with_nothing_for_the_model_is_refused(refusal, write_lora, tensors):
    file = write_lora(tensors, {"ss_base_model_version": "flux1"})
    assert "has no weights that this model, a model with texts 192 wide, has a place for; it says" in refusal(file)


def ones(**shapes: tuple[int, ...]) -> Tensors:
    """Tensors of a weight of (160, 192), by ending."""
    return {f"{TO_K}.{ending.replace('__', '.')}": torch.ones(shape) for ending, shape in shapes.items()}


SHAPE = "has weights of another shape than this model's"
FIT = "does not fit together"


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (ones(lora_down__weight=(4, 192), lora_up__weight=(161, 4)), SHAPE),
        (ones(lora_down__weight=(4, 192, 3, 3), lora_up__weight=(160, 4, 1, 1)), SHAPE),
        (ones(lora_down__weight=(160, 4), lora_up__weight=(4, 192)), "is made for a model with texts 4 wide"),
        (ones(lora_down__weight=(4, 192), lora_up__weight=(160, 5)), f"{FIT}: rank 4 of its down part and 5 of its up"),
        (ones(lora_down__weight=(0, 192), lora_up__weight=(160, 0)), f"{FIT}: its rank is 0"),
        (ones(lora_down__weight=(4, 192), lora_up__weight=(160,)), FIT),
        (ones(lora_down__weight=(), lora_up__weight=()), FIT),
        (ones(lora_down__weight=(4, 192)), "is incomplete: down_blocks.1.* has only down"),
        (ones(lora_up__weight=(160, 4)), "is incomplete: down_blocks.1.* has only up"),
        (ones(lora_up__weight=(160, 4), dora_scale=(160, 1)), "is incomplete: .* has only magnitude, up"),
        (ones(dora_scale=(160, 1)), "is incomplete: .* has only magnitude"),
        (ones(hada_w1_a=(160, 4), hada_w1_b=(4, 192)), "is incomplete: .* has only hada_a1, hada_b1"),
        (ones(hada_w1_a=(160, 0), hada_w1_b=(0, 192), hada_w2_a=(160, 0), hada_w2_b=(0, 192)), "its rank is 0"),
        (ones(hada_w1_a=(192, 4), hada_w1_b=(4, 192), hada_w2_a=(160, 4), hada_w2_b=(4, 192)), SHAPE),
        (ones(lokr_w1=(8, 4), lokr_w2=(20, 47)), SHAPE),
        (ones(lokr_w1=(4, 8), lokr_w2=(48, 20)), SHAPE),  # as many numbers, but turned
        (ones(lokr_w1=(8, 4), lokr_w2_a=(20, 0), lokr_w2_b=(0, 48), alpha=()), "its rank is 0"),
        (ones(diff=(192, 160)), SHAPE),
        (ones(diff=()), SHAPE),
        (ones(w_norm=(160,)), SHAPE),
        (ones(diff_b=(160,)), "changes a bias that down_blocks.1.*attn2.to_k does not have"),
        (ones(weight=(161,), on_input=()), SHAPE),
        (ones(weight=(160, 192)), "has only weights whose ending is not known here: .*weight"),
        (ones(oft_blocks=(19, 8, 8)), SHAPE),
        (ones(oft_blocks=(10, 8, 8)), SHAPE),
        (ones(oft_blocks=(160, 8)), SHAPE),
        (ones(oft_blocks=(2, 19, 8, 8)), SHAPE),
        (ones(oft_blocks=(20, 8, 8), rescale=(161,)), SHAPE),
        (ones(oft_R__weight=(24, 27)), SHAPE),
        (ones(oft_R__weight=(23, 28)), SHAPE),
        (ones(rescale=(160,)), "is incomplete: .* has only rescale"),
        (ones(a1__weight=(191, 4), a2__weight=(4, 191), b1__weight=(160, 4), b2__weight=(4, 192)), SHAPE),
        (ones(a1__weight=(192, 4), a2__weight=(4, 192), b1__weight=(160, 4)), "is incomplete: .* has only a1, a2, b1"),
        (ones(p_layer__weight=(161, 4), q_layer__weight=(4, 192), lambda_layer=(1, 4)), SHAPE),
        (ones(set_weight=(160, 191)), SHAPE),
        (ones(diff=(160, 192), dora_scale=(161, 1)), SHAPE),
        (ones(diff=(160, 192), dora_scale=()), SHAPE),
        ({f"{CONV_IN}.lora_down.weight": torch.ones(4, 4, 3), f"{CONV_IN}.lora_up.weight": torch.ones(64, 4)}, SHAPE),
        ({f"{NORM}.weight": torch.ones(64), f"{NORM}.on_input": torch.tensor(1)}, SHAPE),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_refused_by_reason(refusal, write_lora, tensors, reason):
    assert re.search(reason, refusal(write_lora(tensors)))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("ending", ["lora_up.weight", "lora_down.weight", "alpha"])
def test_numbers_that_are_none_are_refused_by_key(refusal, write_lora, number, ending):
    tensors = kohya(TO_K, 160, 192) | {f"{TO_K}.alpha": torch.tensor(1.0)}
    tensors[f"{TO_K}.{ending}"].view(-1)[-1] = number
    assert f"has not-a-number or infinite values in '{TO_K}.{ending}'" in refusal(write_lora(tensors))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_tensors_of_other_types_are_refused_by_type(refusal, write_lora, dtype):
    tensors = {key: tensor.to(dtype) for key, tensor in kohya(TO_K, 160, 192).items()}
    assert f"has {dtype} numbers in '{TO_K}.lora_" in refusal(write_lora(tensors))


@pytest.mark.parametrize("alpha", [torch.tensor(2), torch.tensor([2.0]), torch.tensor([2], dtype=torch.int32)])
def test_an_alpha_may_be_an_integer_or_a_list_of_one(read, write_lora, alpha):
    weights = read(write_lora(kohya(TO_K, 160, 192) | {f"{TO_K}.alpha": alpha}))
    assert next(iter(weights.deltas.values())).scale == 0.5


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\x05", "is not a safetensors file"),
        (b"<!DOCTYPE html><html>Sign in to download</html>", "is not a safetensors file, whatever its name says"),
        (struct.pack("<Q", 2**63) + b"{}", "has a header of 8,796,093,022,208 MiB; 16 MiB are allowed"),
        (struct.pack("<Q", 2) + b"[]", "is not a safetensors file"),
        (struct.pack("<Q", 2) + b"{]", "is damaged: its header cannot be read"),
    ],
)
def test_files_that_are_no_safetensors_are_refused(refusal, tmp_path, content, reason):
    (tmp_path / "x.safetensors").write_bytes(content)
    assert reason in refusal(LoraFile("x", tmp_path / "x.safetensors"))


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01])
def test_a_half_downloaded_file_is_refused(refusal, write_lora, kept):
    file = write_lora(kohya(TO_K, 160, 192))
    content = file.path.read_bytes()
    file.path.write_bytes(content[: int(len(content) * kept)])
    assert "is cut short" in refusal(file)


def test_a_header_that_contradicts_itself_is_refused(refusal, tmp_path):
    entry = {"dtype": "F32", "shape": [4, 192], "data_offsets": [0, 8]}
    header = json.dumps({f"{TO_K}.lora_down.weight": entry}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    assert "has 8 bytes, and its shape needs others" in refusal(LoraFile("x", tmp_path / "x.safetensors"))


def test_metadata_in_metadata_is_refused(refusal, write_lora):
    file = write_lora(kohya(TO_K, 160, 192))
    length = struct.unpack("<Q", file.path.read_bytes()[:8])[0]
    header = json.loads(file.path.read_bytes()[8 : 8 + length]) | {"__metadata__": {"a": {"b": {"c": 1}}}}
    text = json.dumps(header).encode()
    file.path.write_bytes(struct.pack("<Q", len(text)) + text + file.path.read_bytes()[8 + length :])
    assert "cannot be read" in refusal(file)


def test_a_file_that_is_gone_is_refused(refusal, tmp_path):
    assert "cannot be read: No such file" in refusal(LoraFile("x", tmp_path / "x.safetensors"))


class _Trap:
    """A pickle of this writes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return self.path.write_text, ("sprung",)


@pytest.mark.parametrize("ending", [".pt", ".pth", ".ckpt", ".bin", ".CKPT"])
def test_a_pickle_is_refused_unopened(refusal, tmp_path, ending):
    path, sprung = tmp_path / f"x{ending}", tmp_path / "sprung"
    torch.save({"x": _Trap(sprung)}, path)
    assert "is a pickle, and opening a pickle can run any program" in refusal(LoraFile("x", path))
    assert not sprung.exists()
    path.unlink()  # the ending is enough: what is refused is not even looked for
    assert "is a pickle" in refusal(LoraFile("x", path))


numbers = itertools.count()
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple) | st.sampled_from([(160, 192), (160, 4), (4, 192), (160,)])
endings = sorted(ENDINGS)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(endings), shapes, min_size=1, max_size=5), st.sampled_from([TO_K, CONV_IN]))
def test_any_mixture_of_tensors_is_refused_or_can_be_merged(demo_parts, read, write_lora, mixture, name):
    tensors = {f"{name}{ending}": torch.ones(shape) for ending, shape in mixture.items()}
    file = write_lora(tensors, name=f"mixture-{next(numbers)}")
    try:
        weights = read(file)
    except CannotApply:
        return
    finally:
        file.path.unlink()
    assert weights.deltas
    for (component, path, kind), delta in weights.deltas.items():
        base = getattr(demo_parts[component].get_submodule(path), kind)
        assert merge(base, [(delta, 0.5)]).shape == base.shape
