"""Convolutions whose weights oneDNN has in its own order: the plain one's numbers, and the weights' bits back."""

import copy
import io

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from webui.engine.cpu import conv
from webui.engine.cpu.conv import PackedConv2d, parameter_of
from webui.engine.cpu.install import install
from webui.engine.weights import Files, Key, WeightLoader, build_empty

pytestmark = pytest.mark.skipif(not conv.convolves(torch.float32), reason="oneDNN does not convolve here")
FORMATS = [kind for kind in (torch.float32, torch.bfloat16, torch.float16) if conv.convolves(kind)]
CHANNELS = ((4, 320), (320, 4), (33, 17), (64, 128), (640, 320))
SHAPES = ((2, 64, 64), (1, 16, 24), (3, 9, 9))


@pytest.fixture(autouse=True)
def every_weight_is_large(monkeypatch) -> None:
    monkeypatch.setattr(conv, "LARGE_BYTES", 0)
    monkeypatch.setattr(conv, "ROOM_BYTES", 2**60)  # and there is no room for both


def make(into: int, out: int, stride: int = 1, dtype: torch.dtype = torch.float32) -> PackedConv2d:
    torch.manual_seed(into * out)
    return PackedConv2d(into, out, 3, stride=stride, padding=1).to(dtype).requires_grad_(False)


def picture(rows: int, channels: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, channels, height, width).to(dtype).contiguous(memory_format=torch.channels_last)


def is_empty(convolution: PackedConv2d) -> bool:
    return parameter_of(convolution, "weight").untyped_storage().nbytes() == 0


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize(("into", "out"), CHANNELS)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_lean_one_computes_the_same_and_has_its_bits_back(into: int, out: int, stride: int, dtype) -> None:
    usual, lean = (make(into, out, stride, dtype) for _ in range(2))
    weight = lean.weight.clone()
    install(lean, low_memory=True)
    for rows, height, width in SHAPES:  # each in an order of its own
        given = picture(rows, into, height, width, dtype)
        assert torch.equal(lean(given), usual(given))
        assert is_empty(lean) == conv._gives_back(dtype) and not is_empty(usual)
    lean.keep()
    assert torch.equal(lean.weight, weight)
    assert torch.equal(lean(given), usual(given)) and torch.equal(lean.weight, weight)


def test_where_sizes_change_and_there_is_room_the_weight_is_kept(monkeypatch) -> None:
    monkeypatch.setattr(conv, "ROOM_BYTES", 0)
    lean = make(64, 32)
    weight, told = lean.weight.clone(), []
    install(lean, low_memory=True)
    for rows, height, width in (*SHAPES, SHAPES[0]):
        lean(picture(rows, 64, height, width))
        told.append(is_empty(lean))
    assert told == [True, True, False, False]
    assert torch.equal(lean.weight, weight)


def test_what_many_let_go_of_is_handed_back_to_the_system_now_and_then(monkeypatch) -> None:
    lean, trims = [make(64, 32) for _ in range(5)], []
    monkeypatch.setattr(conv, "TRIM_AFTER_BYTES", 2 * lean[0].weight.nbytes)
    monkeypatch.setattr(conv, "_HOLES", conv._Holes())
    monkeypatch.setattr(conv, "trim_heap", lambda: trims.append(sum(map(is_empty, lean))))
    for convolution in lean:
        install(convolution, low_memory=True)
        convolution(picture(1, 64, 8, 8))
    assert trims == [2, 4]
    for convolution in lean:  # its former order goes, and then its weight, which came back for the new one
        convolution(picture(1, 64, 16, 16))
    assert len(trims) > 4 and all(map(is_empty, lean))


def test_float32_is_given_back() -> None:
    assert conv._gives_back(torch.float32)


def test_another_weight_in_its_place_and_the_first_one_again() -> None:
    usual, lean = make(64, 32), make(64, 32)
    given, base, other = picture(2, 64, 16, 16), lean.weight.data, torch.randn(32, 64, 3, 3)
    install(lean, low_memory=True)
    plain = usual(given)
    assert torch.equal(lean(given), plain) and is_empty(lean)
    for weight in (other, base, other.double().float(), base):
        usual.weight.data = parameter_of(lean, "weight").data = weight
        assert torch.equal(lean(given), usual(given)) and torch.equal(parameter_of(lean, "weight"), weight)
    assert torch.equal(lean(given), plain)


def test_a_small_weight_and_one_that_shares_its_memory_are_left_alone(monkeypatch) -> None:
    together = torch.randn(2, 32, 64, 3, 3)
    first, second, small = (make(64, 32) for _ in range(3))
    first.weight.data, second.weight.data = together
    for convolution in (first, second):
        install(convolution, low_memory=True)
        convolution(picture(1, 64, 8, 8))
        assert not is_empty(convolution)
    monkeypatch.setattr(conv, "LARGE_BYTES", small.weight.nbytes + 1)
    install(small, low_memory=True)
    small(picture(1, 64, 8, 8))
    assert not is_empty(small)


def test_one_that_was_read_from_a_file_in_its_own_format_is_emptied_too(tmp_path) -> None:
    usual = make(64, 32)
    save_file({"weight": usual.weight.data, "bias": usual.bias.data}, tmp_path / "x.safetensors")
    lean = build_empty(lambda: nn.Conv2d(64, 32, 3, padding=1))
    list(
        WeightLoader(lean, Files([tmp_path / "x.safetensors"]), lambda name: iter([Key(name)])).read(
            torch.float32, torch.device("cpu")
        )
    )
    install(lean, low_memory=True)
    given = picture(1, 64, 8, 8)
    assert torch.equal(lean(given), usual(given)) and is_empty(lean)


def test_where_memory_ends_the_weight_can_still_be_had(monkeypatch) -> None:
    lean = make(64, 32)
    weight, given = lean.weight.clone(), picture(1, 64, 8, 8)
    install(lean, low_memory=True)
    expected = lean(given)

    class Full:
        def to_dense(self):
            raise MemoryError

    packed, lean._packed = lean._packed, Full()
    with pytest.raises(MemoryError):
        lean(picture(1, 64, 16, 16))
    lean._packed = packed
    assert torch.equal(lean(given), expected)
    lean.keep()
    assert torch.equal(lean.weight, weight)


def saved(module: torch.nn.Module) -> torch.Tensor:
    file = io.BytesIO()
    torch.save(module, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)[0].weight


WAYS_TO_A_WEIGHT = {
    "attribute": lambda module: module[0].weight,
    "parameters": lambda module: next(module.parameters()),
    "state_dict": lambda module: module.state_dict()["0.weight"],
    "get_parameter": lambda module: module.get_parameter("0.weight"),
    "save": saved,
    "deepcopy": lambda module: copy.deepcopy(module)[0].weight,
    "to": lambda module: module.to(torch.float64).to(torch.float32)[0].weight,
}


@pytest.mark.parametrize("way", WAYS_TO_A_WEIGHT)
def test_whoever_asks_for_an_empty_weight_gets_its_numbers_and_they_stay(way: str) -> None:
    module, given = torch.nn.Sequential(make(64, 32)), picture(1, 64, 8, 8)
    weight = module[0].weight.clone()
    install(module, low_memory=True)
    expected = module(given)
    assert is_empty(module[0])
    found = WAYS_TO_A_WEIGHT[way](module)
    assert torch.equal(found, weight)
    for side in (8, 12, 16):
        module(picture(1, 64, side, side))
    assert torch.equal(found, weight), "and not only until the next picture"
    assert torch.equal(module(given), expected)


def test_a_weight_that_was_asked_for_before_stays_too() -> None:
    lean = make(64, 32)
    install(lean, low_memory=True)
    weight = lean.weight
    expected = weight.clone()
    lean(picture(1, 64, 8, 8))
    assert torch.equal(weight, expected)


@pytest.mark.parametrize(
    "write",
    [lambda conv, new: conv.load_state_dict({"weight": new}, strict=False), lambda conv, new: conv.weight.copy_(new)],
    ids=["state_dict", "copy_"],
)
def test_what_is_written_into_a_weight_counts_from_then_on(write) -> None:
    usual, lean, new = make(64, 32), make(64, 32), torch.randn(32, 64, 3, 3)
    install(lean, low_memory=True)
    given = picture(1, 64, 8, 8)
    lean(given)
    for convolution in (usual, lean):
        write(convolution, new)
    assert torch.equal(lean(given), usual(given)) and torch.equal(lean.weight, new)


def test_a_moved_one_holds_nothing_of_what_it_was() -> None:
    lean = make(64, 32)
    install(lean, low_memory=True)
    lean(picture(1, 64, 8, 8))
    lean.to("meta")
    assert lean._of is None and lean._packed is None


@torch.inference_mode()
def test_another_weight_counts_at_once() -> None:
    convolution, given = make(64, 64), picture(1, 64, 4, 4)
    before, base = convolution(given), convolution.weight.data
    convolution.weight.data = base * 2
    doubled = convolution(given)
    convolution.weight.data = base
    assert torch.equal(convolution(given), before)
    bias = convolution.bias[:, None, None]
    assert torch.allclose(doubled - bias, 2 * (before - bias), atol=1e-5)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@torch.inference_mode()
def test_a_convolution_does_not_remember_earlier_sizes(dtype: torch.dtype) -> None:
    one, other = (make(16, 32, dtype=dtype) for _ in range(2))
    one(picture(1, 16, 4, 4, dtype))
    given = picture(2, 16, 32, 24, dtype)
    assert torch.equal(one(given), other(given))
    expected = torch.nn.functional.conv2d(given.float(), one.weight.float(), one.bias.float(), padding=1)
    assert torch.allclose(one(given).float(), expected, atol=1e-5 if dtype == torch.float32 else 2e-2)


class TestExchange:
    """A LoRA's weight in the place of the model's own, and back."""

    @torch.inference_mode()
    def test_an_ordered_copy_comes_back_with_its_weight(self, monkeypatch) -> None:
        usual, convolution, given = make(64, 32), make(64, 32), picture(1, 64, 8, 8)
        base, other = convolution.weight.data, torch.randn(32, 64, 3, 3)
        orders: list[torch.Tensor] = []
        pack = conv._pack
        monkeypatch.setattr(conv, "_pack", lambda weight, *rest: orders.append(weight) or pack(weight, *rest))
        kept, expected = {}, {}
        for name, weight in {"base": base, "other": other}.items():
            usual.weight.data = weight
            expected[name] = usual(given)
        convolution(given)
        orders.clear()
        for now, then, weight in (("base", "other", other), ("other", "base", base), ("base", "other", other)):
            kept[now] = convolution.exchange(weight, kept.pop(then, None))
            assert torch.equal(convolution(given), expected[then])
        assert len(orders) == 1, "the other's, once"

    @torch.inference_mode()
    def test_one_that_was_never_used_has_none_and_one_in_its_place_stays(self) -> None:
        convolution, given = make(64, 32), picture(1, 64, 8, 8)
        assert convolution.exchange(torch.randn(32, 64, 3, 3)) is None
        convolution(given)
        packed = convolution._packed
        assert convolution.exchange(convolution.weight.data) is None and convolution._packed is packed

    def test_what_was_written_into_the_weight_is_not_forgotten(self) -> None:
        usual, convolution, given = make(64, 32), make(64, 32), picture(1, 64, 8, 8)
        convolution(given)
        with torch.no_grad():
            for one in (usual, convolution):
                one.weight.mul_(2)
        weight = convolution.weight.data
        assert convolution.exchange(torch.zeros_like(weight)) is None
        convolution.exchange(weight)
        assert torch.equal(convolution(given), usual(given))

    @torch.inference_mode()
    def test_a_lean_one_s_weight_has_its_numbers_while_it_is_away(self) -> None:
        lean, given = make(64, 32), picture(1, 64, 8, 8)
        weight, base = lean.weight.clone(), lean.weight.data
        install(lean, low_memory=True)
        expected = lean(given)
        assert is_empty(lean)
        ordered = lean.exchange(torch.zeros_like(weight))
        assert ordered is not None and torch.equal(base, weight)
        lean.exchange(base, ordered)
        assert torch.equal(lean(given), expected)
