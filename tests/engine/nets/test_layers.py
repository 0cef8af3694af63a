"""Convolutions whose weights oneDNN has in its own order: the plain one's numbers, and the weights' bits back."""

import pytest
import torch

from webui.engine.nets import layers
from webui.engine.nets.layers import Conv2d, make_lean

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
    return convolution.weight.untyped_storage().nbytes() == 0


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize(("into", "out"), CHANNELS)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_lean_one_computes_the_same_and_has_its_bits_back(into: int, out: int, stride: int, dtype) -> None:
    usual, lean = (make(into, out, stride, dtype) for _ in range(2))
    make_lean(lean)
    weight = lean.weight.clone()
    for rows, height, width in SHAPES:  # each in an order of its own
        given = picture(rows, into, height, width, dtype)
        assert torch.equal(lean(given), usual(given))
        assert is_empty(lean) == layers._gives_back(dtype) and not is_empty(usual)
        assert (lean.weight.shape, lean.weight.dtype) == (weight.shape, weight.dtype)
    lean.keep()
    assert torch.equal(lean.weight, weight)
    assert torch.equal(lean(given), usual(given)) and torch.equal(lean.weight, weight)


def test_where_sizes_change_and_there_is_room_the_weight_is_kept(monkeypatch) -> None:
    monkeypatch.setattr(layers, "ROOM_BYTES", 0)
    lean = make(64, 32)
    make_lean(lean)
    weight, told = lean.weight.clone(), []
    for rows, height, width in (*SHAPES, SHAPES[0]):
        lean(picture(rows, 64, height, width))
        told.append(is_empty(lean))
    assert told == [True, True, False, False]
    assert torch.equal(lean.weight, weight)


def test_float32_is_given_back() -> None:
    assert layers._gives_back(torch.float32)


def test_another_weight_in_its_place_and_the_first_one_again() -> None:
    usual, lean = make(64, 32), make(64, 32)
    make_lean(lean)
    given, base, other = picture(2, 64, 16, 16), lean.weight.data, torch.randn(32, 64, 3, 3)
    plain = usual(given)
    assert torch.equal(lean(given), plain) and is_empty(lean)
    for weight in (other, base, other.double().float(), base):
        usual.weight.data = lean.weight.data = weight
        assert torch.equal(lean(given), usual(given)) and torch.equal(lean.weight, weight)
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
    make_lean(lean)
    weight, given = lean.weight.clone(), picture(1, 64, 8, 8)
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
