"""Convolutions with a quarter of the multiplications: the plain convolution's numbers, but for rounding."""

import pytest
import torch
from torch.nn import functional

from webui.engine.cpu import winograd
from webui.engine.cpu.conv import PackedConv2d, define_packed_conv, parameter_of
from webui.engine.cpu.install import install


@pytest.fixture
def used_for_all(monkeypatch):
    """For small convolutions too; the list has the shape of each input that came by."""
    for name in ("LEAST_CHANNELS", "LEAST_CHANNELS_IN_ALL", "LEAST_PIXELS"):
        monkeypatch.setattr(winograd, name, 1)
    seen: list[tuple[int, ...]] = []
    convolve = winograd.convolve
    monkeypatch.setattr(
        winograd, "convolve", lambda input, *rest: seen.append(tuple(input.shape)) or convolve(input, *rest)
    )
    return seen


def picture_of(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(count, height, width, channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [(1, 3, 5, 7, 9), (2, 8, 6, 12, 10), (3, 4, 4, 6, 5), (2, 5, 7, 33, 4)])
@pytest.mark.parametrize("padding", [(1, 1), (0, 1), (0, 0)])
@pytest.mark.parametrize("some_bytes", [1, 4000, 2**20])
@torch.inference_mode()
def test_it_is_the_plain_convolution_in_parts_or_at_once(size, padding, some_bytes, monkeypatch):
    monkeypatch.setattr(winograd, "FIELDS_BYTES", some_bytes)
    monkeypatch.setattr(winograd, "KERNEL_BYTES", some_bytes)
    torch.manual_seed(1)
    count, channels, out, height, width = size
    picture, weight, bias = (
        picture_of(count, channels, height, width),
        torch.randn(out, channels, 3, 3),
        torch.randn(out),
    )
    before = picture.clone()
    made = winograd.convolve(picture, weight, bias, padding)
    expected = functional.conv2d(picture.double(), weight.double(), bias.double(), padding=padding)
    assert made.shape == expected.shape and made.is_contiguous(memory_format=torch.channels_last)
    assert (made - expected).abs().max() < 1e-5 * expected.abs().max()
    assert torch.equal(picture, before)


@torch.inference_mode()
def test_a_large_one_is_about_as_exact_as_the_plain_one():
    torch.manual_seed(2)
    conv, picture = PackedConv2d(256, 128, 3, padding=1), picture_of(2, 256, 32, 36)
    assert winograd.suits(picture, conv.weight, conv.stride)
    made, truth = (
        conv(picture),
        functional.conv2d(picture.double(), conv.weight.double(), conv.bias.double(), padding=1),
    )
    assert 0 < (made - truth).abs().max() < 2e-5 * truth.abs().max()
    alone = torch.cat([conv(picture[k : k + 1]) for k in range(2)])
    assert (made - alone).abs().max() < 2e-5 * truth.abs().max(), "one of a batch is what it is alone"


def test_it_is_for_large_plain_convolutions_in_float32_without_gradients():
    picture, weight = picture_of(1, 256, 32, 32), torch.empty(128, 256, 3, 3)
    with torch.inference_mode():
        assert winograd.suits(picture, weight, (1, 1))
        assert not winograd.suits(picture, weight, (2, 2))
        assert not winograd.suits(picture[:, :, :31], weight, (1, 1))
        assert not winograd.suits(picture.bfloat16(), weight.bfloat16(), (1, 1))
        assert not winograd.suits(picture, weight[:64], (1, 1))
        assert not winograd.suits(picture[:, :128], weight[:, :128], (1, 1))
        assert not winograd.suits(picture.to("meta"), weight.to("meta"), (1, 1))
    assert not winograd.suits(picture, weight, (1, 1))


@torch.inference_mode()
def test_sizes_and_weights_come_and_go(used_for_all, monkeypatch):
    """Small ones in oneDNN's order, which alone has a large weight's numbers; a LoRA's weight in its place and back."""
    torch.manual_seed(3)
    conv = PackedConv2d(128, 1024, 3, padding=1)
    own, small, large = conv.weight.data, picture_of(1, 128, 4, 4), picture_of(1, 128, 8, 8)
    base = own.clone()
    install(conv, low_memory=True)
    monkeypatch.setattr(winograd, "LEAST_PIXELS", 64)

    def check(weight: torch.Tensor) -> None:
        for picture in (small, large, small, small):
            expected = functional.conv2d(picture, weight, conv.bias, padding=1)
            torch.testing.assert_close(conv(picture), expected, rtol=1e-3, atol=1e-4)

    check(base)
    merged = base + 0.1 * torch.randn_like(base)
    parameter_of(conv, "weight").data = merged
    check(merged)
    parameter_of(conv, "weight").data = own
    check(base)
    conv.keep()
    assert torch.equal(conv.weight, base), "to the bit"
    assert used_for_all == [tuple(large.shape)] * 3


@torch.inference_mode()
def test_compiled_code_has_it_too(used_for_all):
    define_packed_conv()
    conv, picture = PackedConv2d(6, 5, 3, padding=1), picture_of(1, 6, 8, 8)
    made = torch.ops.darkroom.packed_conv(picture, conv.weight, conv.bias, conv.stride, conv.padding)
    torch.testing.assert_close(
        made, functional.conv2d(picture, conv.weight, conv.bias, padding=1), rtol=1e-4, atol=1e-5
    )
    assert used_for_all == [tuple(picture.shape)]
