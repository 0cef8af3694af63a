"""Convolutions whose weights oneDNN has in its own order: the plain one's numbers, and the weights' bits back."""

import copy
import io

import pytest
import torch

from webui.engine.nets import layers
from webui.engine.nets.layers import Conv2d, make_lean, parameter_of

pytestmark = pytest.mark.skipif(not layers._packs(torch.float32), reason="oneDNN does not convolve here")
FORMATS = [kind for kind in (torch.float32, torch.bfloat16, torch.float16) if layers._packs(kind)]
CHANNELS = ((4, 320), (320, 4), (33, 17), (64, 128), (640, 320))
SHAPES = ((2, 64, 64), (1, 16, 24), (3, 9, 9))


@pytest.fixture(autouse=True)
def every_weight_is_large(monkeypatch) -> None:
    monkeypatch.setattr(layers, "LARGE_BYTES", 0)
    monkeypatch.setattr(layers, "ROOM_BYTES", 2**60)  # and there is no room for both


def make(into: int, out: int, stride: int = 1, dtype: torch.dtype = torch.float32) -> Conv2d:
    torch.manual_seed(into * out)
    return Conv2d(into, out, 3, stride=stride, padding=1).to(dtype).requires_grad_(False)


def picture(rows: int, channels: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, channels, height, width).to(dtype).contiguous(memory_format=torch.channels_last)


def is_empty(convolution: Conv2d) -> bool:
    return parameter_of(convolution, "weight").untyped_storage().nbytes() == 0


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize(("into", "out"), CHANNELS)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_lean_one_computes_the_same_and_has_its_bits_back(into: int, out: int, stride: int, dtype) -> None:
    usual, lean = (make(into, out, stride, dtype) for _ in range(2))
    weight = lean.weight.clone()
    make_lean(lean)
    for rows, height, width in SHAPES:  # each in an order of its own
        given = picture(rows, into, height, width, dtype)
        assert torch.equal(lean(given), usual(given))
        assert is_empty(lean) == layers._gives_back(dtype) and not is_empty(usual)
    lean.keep()
    assert torch.equal(lean.weight, weight)
    assert torch.equal(lean(given), usual(given)) and torch.equal(lean.weight, weight)


def test_where_sizes_change_and_there_is_room_the_weight_is_kept(monkeypatch) -> None:
    monkeypatch.setattr(layers, "ROOM_BYTES", 0)
    lean = make(64, 32)
    weight, told = lean.weight.clone(), []
    make_lean(lean)
    for rows, height, width in (*SHAPES, SHAPES[0]):
        lean(picture(rows, 64, height, width))
        told.append(is_empty(lean))
    assert told == [True, True, False, False]
    assert torch.equal(lean.weight, weight)


def test_float32_is_given_back() -> None:
    assert layers._gives_back(torch.float32)


def test_another_weight_in_its_place_and_the_first_one_again() -> None:
    usual, lean = make(64, 32), make(64, 32)
    given, base, other = picture(2, 64, 16, 16), lean.weight.data, torch.randn(32, 64, 3, 3)
    make_lean(lean)
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
        make_lean(convolution)
        convolution(picture(1, 64, 8, 8))
        assert not is_empty(convolution)
    monkeypatch.setattr(layers, "LARGE_BYTES", small.weight.nbytes + 1)
    make_lean(small)
    small(picture(1, 64, 8, 8))
    assert not is_empty(small)


def test_where_memory_ends_the_weight_can_still_be_had(monkeypatch) -> None:
    lean = make(64, 32)
    weight, given = lean.weight.clone(), picture(1, 64, 8, 8)
    make_lean(lean)
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
    make_lean(module)
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
    make_lean(lean)
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
    make_lean(lean)
    given = picture(1, 64, 8, 8)
    lean(given)
    for convolution in (usual, lean):
        write(convolution, new)
    assert torch.equal(lean(given), usual(given)) and torch.equal(lean.weight, new)


def test_a_moved_one_holds_nothing_of_what_it_was() -> None:
    lean = make(64, 32)
    make_lean(lean)
    lean(picture(1, 64, 8, 8))
    lean.to("meta")
    assert lean._of is None and lean._packed is None
