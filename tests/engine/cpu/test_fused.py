"""A UNet's layers in few operations: float32's bits, and in bfloat16 no farther from these than the plain ones."""

import pytest
import torch
from checkpoints import SMALL_UNET
from torch.utils import _pytree as pytree

from webui.engine.cpu import conv, fused
from webui.engine.cpu.fused import FusedUNet
from webui.engine.cpu.install import install
from webui.engine.nets.unet import UNet

pytestmark = pytest.mark.skipif(not conv.convolves(torch.float32), reason="oneDNN does not convolve here")


def make(dtype: torch.dtype) -> UNet:
    torch.manual_seed(3)
    return UNet(SMALL_UNET).to(torch.bfloat16).to(dtype).eval().requires_grad_(False)


@pytest.mark.skipif(not fused.fuses(torch.bfloat16), reason="without bfloat16 nothing is fused")
@pytest.mark.parametrize("few", [0, fused.FEW_PIXELS], ids=["many pixels", "few"])
@torch.inference_mode()
def test_in_bfloat16_it_is_as_near_to_float32_as_the_plain_one(few, monkeypatch) -> None:
    monkeypatch.setattr(fused, "FEW_PIXELS", few)
    whole, plain, fast = make(torch.float32), make(torch.bfloat16), make(torch.bfloat16)
    install(fast)
    off = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        latents, context = (torch.randn(shape, generator=generator).bfloat16() for shape in ((1, 4, 8, 8), (2, 5, 24)))
        told = latents, torch.tensor(400), plain.prepare(context)
        wide = pytree.tree_map_only(torch.Tensor, torch.Tensor.float, told)
        true = whole(wide[0], told[1], wide[2])
        off.append([(unet(*told).float() - true).square().mean() for unet in (plain, fast)])
    plainly, fused_off = torch.tensor(off).mean(0).sqrt()
    assert 0 < fused_off <= 1.2 * plainly


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.inference_mode()
def test_who_waits_for_a_part_is_told(dtype) -> None:
    if not conv.convolves(dtype):
        pytest.skip("not in this format")
    unet = make(dtype)
    install(unet)
    prepared, heard = unet.prepare(torch.ones(1, 5, 24, dtype=dtype)), list[str]()
    parts = {
        name: part
        for name, part in unet.named_modules()
        if not list(part.children()) and name.rpartition(".")[2] not in ("to_k", "to_v", "1") or name.endswith("attn1")
    }
    for name, part in parts.items():
        if type(part) in fused.PARTS:
            part.register_forward_pre_hook(lambda _part, _given, name=name: heard.append(name))
    unet(torch.ones(1, 4, 8, 8, dtype=dtype), torch.tensor(3), prepared)
    assert sorted(heard) == sorted(name for name, part in parts.items() if type(part) in fused.PARTS)


@torch.inference_mode()
def test_repeated_pictures_stay_channels_last_in_bfloat16() -> None:
    values = torch.randn(1, 3, 4, 5).bfloat16().contiguous(memory_format=torch.channels_last)
    spread = FusedUNet.spread(values, 2, 1)
    assert torch.equal(spread, values.repeat(3, 1, 1, 1))
    assert spread.is_contiguous(memory_format=torch.channels_last) or not fused.fuses(torch.bfloat16)
