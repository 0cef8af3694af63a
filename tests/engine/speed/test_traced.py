"""A small UNet's program does what the UNet does, to the bit, whatever its weights are by then."""

import copy
from typing import Any

import pytest
import torch
from checkpoints import SMALL_UNET

from webui.engine.cpu import conv, winograd
from webui.engine.cpu.install import install
from webui.engine.nets.encoder import Added
from webui.engine.nets.unet import UNet
from webui.engine.speed import traced
from webui.engine.speed.shortcuts import Shortcuts
from webui.engine.speed.traced import FORWARDS_BEFORE, TracedUNet, suits

pytestmark = pytest.mark.skipif(not conv.convolves(torch.float32), reason="oneDNN does not convolve here")
FORMATS = [kind for kind in (torch.float32, torch.bfloat16) if conv.convolves(kind)]


def make(dtype: torch.dtype = torch.float32) -> UNet:
    torch.manual_seed(0)
    unet = UNet(SMALL_UNET).to(dtype).eval().requires_grad_(False)
    install(unet, low_memory=True)
    return unet


def told(unet: UNet, side: int = 8, prompts: int = 2, **more: Any) -> tuple[Any, ...]:
    context = torch.randn(prompts, 5, 24, generator=torch.Generator().manual_seed(1)).to(unet.dtype)
    latents = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(side)).to(unet.dtype)
    return latents, unet.prepare(context, **more)


def programs(unet: TracedUNet) -> int:
    return sum(known.program is not None for known in unet._known.values())


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@torch.inference_mode()
def test_it_is_the_plain_one_at_each_size_with_each_lora_and_with_what_guides(dtype) -> None:
    plain, own = make(dtype), make(dtype)
    fast = TracedUNet(own)
    strengths = torch.tensor([3.0, 2.5, 0.5])
    sizes = [
        told(plain),
        told(plain, 12, 1),
        told(plain, perturbed=1, against=(torch.ones(1, 3, 24, dtype=dtype), strengths)),
    ]
    for step in range(FORWARDS_BEFORE + 3):
        time = torch.tensor(900 - 100 * step)
        for latents, prepared in sizes:
            assert torch.equal(fast(latents, time, prepared), plain(latents, time, prepared))
        assert programs(fast) == (0 if step < FORWARDS_BEFORE else len(sizes))
        for unet in (plain, own):  # as LoRAs change them: a convolution, a linear layer, a 1 x 1 convolution
            middle = unet.mid_block
            middle.resnets[0].conv1.exchange(torch.roll(conv.parameter_of(middle.resnets[0].conv1, "weight"), 1, 0))
            for part in (middle.attentions[0].transformer_blocks[0].ff.net[0].proj, middle.attentions[0].proj_in):
                part.weight.data = part.weight.data * 0.9
    latents, prepared = sizes[0]
    for either in (latents, latents.repeat(1, 1, 2, 2)):  # the very same prompts
        assert torch.equal(fast(either, time, prepared), plain(either, time, prepared))
    assert len(fast._known) == len(sizes) + 1
    added = Added(middle=torch.ones(1, 64, 4, 4, dtype=dtype))
    for _ in range(FORWARDS_BEFORE + 2):
        assert torch.equal(fast(latents, time, prepared, None, added), plain(latents, time, prepared, None, added))
    assert programs(fast) == len(sizes) + 1


@torch.inference_mode()
def test_shortcuts_and_convolutions_by_another_way_are_the_plain_ones(monkeypatch) -> None:
    fast = TracedUNet(make())
    latents, prepared = told(fast._unet)
    for _ in range(FORWARDS_BEFORE + 2):
        fast(latents, torch.tensor(500), prepared, Shortcuts(reuse=2))
    assert not fast._known
    for name in ("LEAST_CHANNELS", "LEAST_CHANNELS_IN_ALL", "LEAST_PIXELS"):
        monkeypatch.setattr(winograd, name, 32)
    for _ in range(FORWARDS_BEFORE + 2):
        found = fast(latents, torch.tensor(500), prepared)
    assert torch.equal(found, fast._unet(latents, torch.tensor(500), prepared)) and programs(fast) == 0


@torch.inference_mode()
def test_where_no_program_can_be_written_the_log_says_so_once(monkeypatch, caplog) -> None:
    def fail(*_arguments: object, **_more: object) -> None:
        raise RuntimeError("an operation that it does not know\nand more")

    monkeypatch.setattr(traced.torch.jit, "trace", fail)
    fast = TracedUNet(make())
    latents, prepared = told(fast._unet)
    for _ in range(FORWARDS_BEFORE + 3):
        assert torch.equal(fast(latents, torch.tensor(7), prepared), fast._unet(latents, torch.tensor(7), prepared))
    assert caplog.messages == ["The UNet runs without a program: an operation that it does not know"]


def test_it_is_for_small_networks_with_ordered_weights(monkeypatch) -> None:
    plain = UNet(SMALL_UNET)
    assert suits(make()) and not suits(plain)
    monkeypatch.setattr(traced, "MAX_BYTES", 1000)
    assert not suits(make())


def test_pictures_are_drawn_with_it(darkroom, draw) -> None:
    faster = darkroom.manager._residence.faster
    if not isinstance(faster, TracedUNet):
        pytest.skip("another way is faster here")
    before = copy.copy(faster._known)
    picture = draw(width=72, height=64, steps=FORWARDS_BEFORE + 2)[0]
    assert any(known.program and key not in before for key, known in faster._known.items())
    faster._failed = True
    try:
        assert (draw(width=72, height=64, steps=FORWARDS_BEFORE + 2)[0] == picture).all()
    finally:
        faster._failed = False
