"""Weights from files into modules: what they are multiplied with, what is left over, and numbers that are none."""

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from webui.core.tensor_file import BadFile
from webui.engine.weights import Files, Key, WeightLoader, build_empty

CPU = torch.device("cpu")
FP8 = torch.float8_e4m3fn


def fill(path, tensors, keys=None, out=6, width=4, dtype=torch.float32) -> WeightLoader:
    """A linear layer's loader from a file of these tensors, read."""
    save_file(tensors, path)
    module = build_empty(lambda: nn.Linear(width, out, bias=False))
    loader = WeightLoader(module, Files([path]), keys or (lambda name: iter([Key(name)])))
    for _ in loader.read(dtype, CPU):
        pass
    return loader


def weight_of(*args, **options) -> torch.Tensor:
    return fill(*args, **options).module.weight


class TestScales:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "x.safetensors"

    @pytest.fixture
    def stored(self):
        return torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).mul(100).to(FP8)

    @pytest.mark.parametrize("spelling", ["weight_scale", "scale_weight"])
    @pytest.mark.parametrize("shape", [(), (1,), (1, 1), (6,), (6, 1)], ids=str)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_one_number_or_one_a_row(self, path, stored, spelling, shape, dtype):
        scale = torch.rand(shape) + 0.5
        found = weight_of(path, {"weight": stored, spelling: scale}, dtype=dtype)
        expected = stored.float() * (scale.flatten()[:, None] if len(shape) and shape[0] > 1 else scale.flatten()[0])
        assert torch.equal(found, expected.to(dtype)) and found.dtype == dtype

    def test_a_half_precision_scale_and_plain_weights(self, path):
        weight, scale = torch.randn(6, 4).half(), torch.tensor(0.25).bfloat16()
        assert torch.equal(weight_of(path, {"weight": weight, "weight_scale": scale}), weight.float() / 4)

    def test_it_belongs_to_the_rows_as_they_lie_in_the_file(self, path):
        fused = torch.randn(18, 4).to(FP8)
        rows = torch.rand(18) + 0.5
        tensors = {"in_proj_weight": fused, "in_proj_weight_scale": rows}
        found = weight_of(path, tensors, lambda name: iter([Key("in_proj_weight", third=1)]))
        assert torch.equal(found, (fused.float() * rows[:, None])[6:12])
        turned, rows = torch.randn(4, 6).to(FP8), torch.rand(4) + 0.5
        tensors = {"text_projection": turned, "text_projection_scale": rows}
        found = weight_of(path, tensors, lambda name: iter([Key("text_projection", transposed=True)]))
        assert torch.equal(found, (turned.float() * rows[:, None]).t())

    @pytest.mark.parametrize("shape", [(2,), (3, 2), (4,), (0,)])
    def test_one_of_another_shape_is_refused_by_name(self, path, stored, shape):
        with pytest.raises(BadFile, match="has weight_scale in the shape .*, where 1 or 6 numbers are known"):
            weight_of(path, {"weight": stored, "weight_scale": torch.ones(shape)})

    def test_one_in_an_unknown_format_is_refused_by_name(self, path, stored):
        scale = torch.ones((), dtype=torch.uint8)
        with pytest.raises(BadFile, match="has weight_scale in the format 'U8'"):
            weight_of(path, {"weight": stored, "weight_scale": scale})


def test_what_is_not_read_is_known_and_what_belongs_to_fp8_is_not_counted(tmp_path):
    weight = torch.randn(6, 4)
    tensors = {"weight": weight, "weight_scale": torch.ones(()), "input_scale": torch.ones(())}
    tensors |= {"scaled_fp8": torch.zeros(2).to(FP8), "more.weight": weight, "more.weight_scale": torch.ones(())}
    loader = fill(tmp_path / "x.safetensors", {f"unet.{key}": tensor.clone() for key, tensor in tensors.items()},
                   lambda name: iter([Key(f"unet.{name}")]))  # fmt: skip
    assert sorted(loader.unread("unet.")) == ["more.weight", "more.weight_scale"]
    assert loader.unread("other.") == []


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2], ids=str)
def test_numbers_that_are_none_are_found_in_what_is_read(tmp_path, number, dtype):
    path, weight = tmp_path / "x.safetensors", torch.randn(6, 4)
    assert fill(path, {"weight": weight.to(dtype), "more": torch.full((2,), math.nan)}).find_not_finite() is None
    weight[3, 2] = number
    assert fill(path, {"weight": weight.to(dtype)}).find_not_finite() == "weight"
