"""Large pictures go through the autoencoder a strip of rows at a time: the same numbers, but for a last bit."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from webui.engine.cpu import strips
from webui.engine.cpu.conv import PackedConv2d
from webui.engine.cpu.install import install
from webui.engine.nets.autoencoder import Autoencoder, PixelNorm, Resnet, Upsampler

WIDTHS = {"block_out_channels": (16, 32, 32), "layers_per_block": 2, "norm_num_groups": 8}


def by_strips(patch: pytest.MonkeyPatch, yes: bool) -> None:
    patch.setattr(strips, "LARGE_BYTES", 1 if yes else 2**40)
    patch.setattr(strips, "STRIP_BYTES", 8 * 1024)


def heights_of(patch: pytest.MonkeyPatch) -> list[int]:
    """The heights of the strips that are convolved from here on."""
    seen: list[int] = []
    forward = PackedConv2d.forward

    def watched(conv: PackedConv2d, input: torch.Tensor, padding: tuple[int, ...] | None = None) -> torch.Tensor:
        seen.extend([input.shape[2]] if padding else [])
        return forward(conv, input, padding)

    patch.setattr(PackedConv2d, "forward", watched)
    return seen


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (5, 11)])
@torch.inference_mode()
def test_pictures_and_latents_are_those_of_the_whole(size, monkeypatch):
    torch.manual_seed(1)
    vae, latents = Autoencoder(WIDTHS).eval(), torch.randn(1, 4, *size)
    install(vae)
    by_strips(monkeypatch, False)
    picture = vae.decode(latents)
    mean, _ = vae.encode(picture)
    by_strips(monkeypatch, True)
    heights = heights_of(monkeypatch)
    torch.testing.assert_close(vae.decode(latents), picture, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vae.encode(picture)[0], mean, rtol=1e-4, atol=1e-5)
    assert heights and max(heights) < 4 * size[0], "in several strips"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision_is_no_further_from_float32_than_the_whole(dtype, monkeypatch):
    torch.manual_seed(2)
    vae, latents = Autoencoder(WIDTHS).to(dtype).eval(), torch.randn(1, 4, 12, 12).to(dtype)
    by_strips(monkeypatch, False)
    exact = Autoencoder(WIDTHS).eval()
    exact.load_state_dict(vae.state_dict())
    install(vae)
    truth, whole = exact.decode(latents.float()), vae.decode(latents)
    by_strips(monkeypatch, True)
    drawn = vae.decode(latents)
    assert drawn.dtype == dtype
    assert (drawn - truth).square().mean() < 1.1 * (whole - truth).square().mean()


@torch.inference_mode()
def test_a_norm_of_values_far_from_zero_is_no_further_off_than_torch_s(monkeypatch):
    by_strips(monkeypatch, True)
    torch.manual_seed(3)
    norm, conv = nn.GroupNorm(4, 8, eps=1e-6), PackedConv2d(8, 8, 3, padding=1)
    values = 100 + torch.linspace(0, 1, 40)[:, None, None] + 0.1 * torch.randn(1, 40, 24, 8)
    picture = values.permute(0, 3, 1, 2)
    whole = conv(functional.silu(norm(picture)))
    onto = torch.zeros_like(picture)
    assert strips.convolve_normed(norm, conv, picture, onto=onto) is onto
    truth = conv.double()(functional.silu(norm.double()(picture.double())))
    assert (onto - truth).abs().max() <= (whole - truth).abs().max()


@torch.inference_mode()
def test_batches_and_small_pictures_go_as_a_whole():
    small, large = torch.empty(1, 8, 64, 64), torch.empty(1, 128, 512, 512)
    assert strips.is_large(large) and not strips.is_large(small)
    assert not strips.is_large(large.expand(2, -1, -1, -1))
    assert strips.is_large(torch.empty(1, 256, 256, 256)[:, :128], grows=2)


def peak_bytes(call: Callable[[], object]) -> int:
    """How much more memory the process has at its peak during a call than before it."""

    def status(name: str) -> int:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))

    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak is measured from here on
    call()
    return status("VmHWM") - before


@pytest.mark.skipif(sys.platform != "linux", reason="memory is given back on Linux alone")
@pytest.mark.parametrize("make_norm", [partial(nn.GroupNorm, 8), PixelNorm])
@torch.inference_mode()
def test_a_layer_that_narrows_takes_no_memory_beside_what_it_is_given(make_norm):
    torch.manual_seed(4)
    layer = Resnet(64, 32, make_norm).eval()
    network = nn.Sequential(layer)
    install(network)
    small = torch.randn(1, 64, 64, 64).contiguous(memory_format=torch.channels_last)
    layer(small)
    large = torch.randn(1, 512, 1024, 64).permute(0, 3, 1, 2)
    assert strips.is_large(large) and large.nbytes == 2**27
    assert peak_bytes(lambda: layer(large)) < 2**27 // 2, "and the norm's strips leave no holes in the heap"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is given back on Linux alone")
@torch.inference_mode()
def test_what_is_enlarged_is_given_back_row_by_row():
    network = nn.Sequential(Upsampler(64, 64).eval())
    install(network)
    picture = torch.randn(1, 256, 512, 64).permute(0, 3, 1, 2)
    whole = network[0](picture.clone(memory_format=torch.preserve_format))
    assert torch.equal(network[0](picture), whole)
    assert not picture[:, :, 1:250].any(), "its memory is the system's again"
