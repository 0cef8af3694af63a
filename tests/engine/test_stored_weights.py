"""Weights that stay in the small numbers of their file: what they stand for, and layers that compute with them."""

from functools import partial

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from weight_formats import as_fp8, as_int8, as_scaled_fp8, random_blocks, save_gguf

from webui.core.gguf_file import BLOCKS
from webui.core.tensor_file import BadFile
from webui.engine.nets.layers import Conv1x1
from webui.engine.weights import Files, Key, WeightLoader, build_empty
from webui.engine.weights.gguf import Blocks
from webui.engine.weights.layers import Pair, StoredLayer
from webui.engine.weights.scaled import Rotated, hadamard
from webui.engine.weights.stored import Stored

CPU = torch.device("cpu")
FORMS = {
    "fp8": as_fp8,
    "e5m2": partial(as_fp8, dtype=torch.float8_e5m2),
    "scaled": as_scaled_fp8,
    "rows": partial(as_scaled_fp8, by_row=True, spelling="scale_weight"),
    "int8": as_int8,
    "rotated": partial(as_int8, group=16),
}
LAYERS = {
    "linear": (lambda: nn.Linear(48, 32), (5, 48)),
    "no bias": (lambda: nn.Linear(64, 32, bias=False), (2, 3, 64)),
    "convolution": (lambda: nn.Conv2d(8, 16, 3, padding=1, stride=2), (2, 8, 6, 6)),
    "one by one": (lambda: Conv1x1(16, 24), (2, 5, 16)),
    "embedding": (lambda: nn.Embedding(12, 32), None),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_are_made_dense_as_gguf_makes_them(kind):
    """Random blocks, also such as no program writes, with the same bits in float32."""
    type_, rows, columns = gguf.GGMLQuantizationType[kind], 40, 512
    dice = np.random.default_rng(1)
    wild = dice.integers(0, 256, (rows, columns // BLOCKS[kind].numbers * BLOCKS[kind].nbytes), dtype=np.uint8)
    for raw in (random_blocks(kind, rows, columns, dice), wild):
        with np.errstate(all="ignore"):
            expected = gguf.quants.dequantize(raw, type_)
        stored = Blocks(torch.from_numpy(raw.copy()), kind, (rows, columns), torch.float32)
        dense = stored.dense().numpy()
        finite = ~np.isnan(expected)
        assert np.array_equal(np.isnan(dense), ~finite)
        assert np.array_equal(dense[finite].view(np.uint32), expected[finite].view(np.uint32))
        some = torch.tensor([[3, 0], [39, 3]])
        assert torch.equal(stored.rows(some).nan_to_num(), torch.from_numpy(expected).nan_to_num()[some])
        assert stored.nbytes == raw.nbytes and stored.dense(torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("group", [4, 16, 64, 256])
def test_a_rotation_is_undone(group):
    matrix = hadamard(group)
    assert torch.equal(matrix, matrix.T) and torch.allclose(matrix @ matrix, torch.eye(group), atol=1e-6)
    weight = torch.randn(8, 512, generator=torch.Generator().manual_seed(0))
    turned = (weight.view(8, -1, group) @ matrix).view(8, 512)
    back = Rotated(turned, None, group, (8, 512), torch.float32).dense()
    assert torch.allclose(back, weight, atol=1e-5)


def load(path, layer, meant_keys=("weight", "bias"), keeps_small=True):
    module = nn.ModuleDict({"layer": build_empty(layer)})
    loader = WeightLoader(module, Files([path]), lambda name: iter([Key(name)]), keeps_small)
    read = sum(loader.read(torch.float32, CPU))
    assert read == loader.file_bytes and loader.nbytes(torch.float32) == sum(p.nbytes for p in module.parameters())
    return module["layer"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_compute_with_the_plain_arithmetic_of_their_numbers(tmp_path, form, name):
    make, shape = LAYERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(2)
        plain = make().requires_grad_(False)
        given = torch.randint(0, 12, (2, 5)) if shape is None else torch.randn(shape)
        up, down = torch.randn(plain.weight.shape[0], 3), torch.randn(3, plain.weight[0].numel())
    stored, meant = FORMS[form]("layer.weight", plain.weight)
    more = {} if getattr(plain, "bias", None) is None else {"layer.bias": plain.bias}
    save_file({key: tensor.contiguous().clone() for key, tensor in (stored | more).items()}, tmp_path / "x.safetensors")
    plain.weight.data = meant["layer.weight"].contiguous()
    layer = load(tmp_path / "x.safetensors", make)
    assert isinstance(layer, StoredLayer) and isinstance(layer.weight, Stored)
    assert torch.allclose(layer.weight.dense(), plain.weight, atol=1e-6)
    assert layer.weight.nbytes < 0.4 * plain.weight.nbytes + 4 * len(plain.weight)
    close = partial(torch.allclose, atol=0 if form != "rotated" else 1e-5, rtol=0)
    before = layer(given)
    assert close(before, plain(given))
    layer.change(Pair(up, down))
    whole = plain.weight + (up @ down).view(plain.weight.shape)
    beside = layer(given)
    plain.weight.data = whole
    assert torch.allclose(beside, plain(given), atol=1e-3)
    layer.change(whole)
    assert torch.equal(layer(given), plain(given))
    layer.change(None)
    assert torch.equal(layer(given), before), "off again bit for bit"
    dense = load(tmp_path / "x.safetensors", make, keeps_small=False)
    assert not isinstance(dense, StoredLayer) and torch.equal(dense.weight, layer.weight.dense())


def test_thirds_of_rows_stay_small(tmp_path):
    fused = torch.randn(96, 64, generator=torch.Generator().manual_seed(0))
    stored, meant = as_scaled_fp8("qkv.weight", fused, by_row=True)
    save_file(stored, tmp_path / "x.safetensors")
    blocks = save_gguf(tmp_path / "x.gguf", {"qkv.weight": fused}, "Q8_0")
    for path, whole in ((tmp_path / "x.safetensors", meant), (tmp_path / "x.gguf", blocks)):
        module = nn.ModuleDict({"k": build_empty(lambda: nn.Linear(64, 32, bias=False))})
        loader = WeightLoader(module, Files([path]), lambda name: iter([Key("qkv.weight", third=1)]), True)
        list(loader.read(torch.float32, CPU))
        assert isinstance(module["k"].weight, Stored)
        assert torch.equal(module["k"].weight.dense(), whole["qkv.weight"][32:64])


def test_a_network_moves_and_is_saved_with_its_small_weights(tmp_path):
    save_gguf(tmp_path / "x.gguf", {"layer.weight": torch.randn(32, 64), "layer.bias": torch.zeros(32)}, "Q5_0")
    layer = load(tmp_path / "x.gguf", lambda: nn.Linear(64, 32))
    assert layer.weight.numbers.dtype == torch.uint8 and set(layer.state_dict()) == {"bias", "weight.numbers"}
    layer.to("meta")
    assert layer.weight.device.type == "meta" and layer.weight.numbers.is_meta


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"layer.weight": torch.ones(32, 48).to(torch.int8)}, "has layer.weight as INT8 without a scale"),
        (
            {"layer.weight": torch.ones(32, 48).to(torch.int8), "layer.weight_scale": torch.ones(7)},
            "has layer.weight_scale in the shape 7, where 1 or 32 numbers are known",
        ),
        (
            {"layer.weight": torch.ones(32, 40).to(torch.float8_e5m2)},
            "has layer.weight in the shape 32 x 40, where 32 x 48",
        ),
        ({"layer.weight": torch.ones(32, 48).to(torch.int16)}, "has layer.weight in the format 'I16'; known are F64"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, tensors, reason):
    save_file(tensors | {"layer.bias": torch.zeros(32)}, tmp_path / "x.safetensors")
    with pytest.raises(BadFile) as caught:
        load(tmp_path / "x.safetensors", lambda: nn.Linear(48, 32))
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("note", [b'{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": %d}' % size
                                  for size in (3, 8, 0, 256, -4)])  # fmt: skip
def test_a_rotation_that_cannot_be_is_refused(tmp_path, note):
    tensors = {"layer.weight": torch.ones(32, 48).to(torch.int8), "layer.weight_scale": torch.ones(32, 1)}
    tensors["layer.comfy_quant"] = torch.tensor(list(note), dtype=torch.uint8)
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(BadFile, match="is damaged: layer, 32 x 48, is rotated in groups of"):
        Files([tmp_path / "x.safetensors"])
