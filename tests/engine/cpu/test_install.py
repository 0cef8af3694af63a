"""The CPU's ways are put into a plain network and taken out again; in it they give the bits that they always gave."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import SMALL_UNET
from reference import kernels
from reference import winograd as frozen_winograd
from safetensors.torch import save_file
from torch import nn

from webui.core.events import Image
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.cpu import conv, parts, strips, winograd
from webui.engine.cpu.conv import PackedConv2d
from webui.engine.cpu.fused import fuses
from webui.engine.cpu.install import FASTER, install, uninstall
from webui.engine.nets.autoencoder import Autoencoder, Half, Resnet, Upsampler
from webui.engine.nets.tiny import TinyAutoencoder
from webui.engine.nets.transformer import FeedForward
from webui.engine.nets.unet import UNet
from webui.engine.provenance import describe_environment

pytestmark = pytest.mark.skipif(not conv.convolves(torch.float32), reason="oneDNN does not convolve here")
FORMATS = [kind for kind in (torch.float32, torch.bfloat16, torch.float16) if conv.convolves(kind)]
FROZEN: dict[type[nn.Module], Callable[..., torch.Tensor]] = {
    nn.Conv2d: kernels.convolve,
    FeedForward: kernels.feed_forward,
    Half: kernels.half,
    Resnet: kernels.resnet,
    Upsampler: kernels.upsampler,
}
VAE = {"block_out_channels": (16, 32, 32), "layers_per_block": 2, "norm_num_groups": 8}


@pytest.fixture(params=["as they are", "for all"])
def limits(request, monkeypatch) -> str:
    """The sizes from which on something is done another way: all are small enough for a test, or none is."""
    if request.param == "for all":
        for module in (winograd, frozen_winograd):
            for name in ("LEAST_CHANNELS", "LEAST_CHANNELS_IN_ALL", "LEAST_PIXELS"):
                monkeypatch.setattr(module, name, 32)
        for module in (parts, kernels):
            monkeypatch.setattr(module, "HEAP_BYTES", 20 * 8 * 32 * 4)
        for module in (strips, kernels):
            monkeypatch.setattr(module, "LARGE_BYTES", 1)
            monkeypatch.setattr(module, "STRIP_BYTES", 8 * 1024)
        monkeypatch.setattr(conv, "LARGE_BYTES", 0)
    return request.param


def run_unet(unet: Any, dtype: torch.dtype) -> list[torch.Tensor]:
    """For one prompt and two, a LoRA's weight in between."""
    found = []
    for rows, height, width in ((1, 8, 8), (2, 12, 20), (2, 8, 8)):
        generator = torch.Generator().manual_seed(rows * height)
        latents, context = (
            torch.randn(shape, generator=generator).to(dtype) for shape in ((1, 4, height, width), (rows, 5, 24))
        )
        found.append(unet(latents, torch.tensor(300), unet.prepare(context)))
        weight = unet.mid_block.resnets[0].conv1.weight
        weight.data = (weight.data.float() * 0.9).to(dtype)
    return found


def run_vae(vae: Any, dtype: torch.dtype) -> list[torch.Tensor]:
    found = []
    for rows, height, width in ((1, 8, 8), (1, 9, 13), (2, 8, 8)):
        latents = torch.randn(rows, 4, height, width, generator=torch.Generator().manual_seed(height)).to(dtype)
        picture = vae.decode(latents)
        found += [picture, *vae.encode(picture)]
    return found


NETWORKS = {
    "unet": (lambda: UNet(SMALL_UNET), run_unet),
    "vae": (lambda: Autoencoder(VAE), run_vae),
    "tiny": (TinyAutoencoder, run_vae),
}


def make(name: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(1)
    return NETWORKS[name][0]().to(dtype).eval().requires_grad_(False)


def freeze(network: nn.Module) -> nn.Module:
    """Each part computes as it did when ``reference.kernels`` was frozen."""
    for part in network.modules():
        if type(part) in FROZEN:
            part.forward = partial(FROZEN[type(part)], part)
    return network


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("lean", [False, True], ids=["usual", "lean"])
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_a_network_with_them_gives_the_bits_of_the_frozen_one(name, dtype, lean, limits) -> None:
    run = NETWORKS[name][1]
    network = make(name, dtype)
    install(network, lean)
    found, frozen = run(network, dtype), run(freeze(make(name, dtype)), dtype)
    if name == "unet" and fuses(dtype):
        assert all(
            (one - other).abs().max() <= 0.1 * other.abs().max() for one, other in zip(found, frozen, strict=True)
        )
    else:
        assert equal(found, frozen)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_taken_out_they_leave_the_plain_network(name, dtype, limits) -> None:
    run, network = NETWORKS[name][1], make(name, dtype)
    classes, state = [type(part) for part in network.modules()], [set(part.__dict__) for part in network.modules()]
    parameters = list(network.parameters())
    plain = run(copy.deepcopy(network), dtype)
    install(network, low_memory=True)
    fast = run(network, dtype)
    uninstall(network)
    assert classes == [type(part) for part in network.modules()]
    assert state == [set(part.__dict__) for part in network.modules()]
    assert all(one is other for one, other in zip(network.parameters(), parameters, strict=True))
    network.load_state_dict(make(name, dtype).state_dict())
    assert equal(run(network, dtype), plain)
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    pairs = list(zip(fast, plain, strict=True))
    assert all((one - other).abs().max() <= tolerance * other.abs().max() for one, other in pairs)


def test_twice_is_as_once_and_what_is_not_3_by_3_stays() -> None:
    others = [nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 3, dilation=2), nn.Linear(8, 8)]
    others.append(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"))
    network = nn.Sequential(nn.Conv2d(8, 8, 3), *others)
    for _ in range(2):
        install(network)
    assert [type(part) for part in network] == [PackedConv2d, *(type(part) for part in others)]
    uninstall(network)
    assert type(network[0]) is nn.Conv2d


def test_every_part_of_the_networks_that_has_a_faster_way_gets_it() -> None:
    for name in NETWORKS:
        network = make(name, torch.float32)
        install(network)
        assert not [part for part in network.modules() if type(part) in FASTER and type(part) is not nn.Conv2d]
        assert {part.kernel_size for part in network.modules() if type(part) is nn.Conv2d} <= {(1, 1)}


def test_a_manager_draws_without_them_and_its_recipe_says_so(darkroom, draw, request_for, tmp_path) -> None:
    plain = Darkroom(Settings(device="cpu", dtype="float32", data_dir=tmp_path, cpu_kernels=False))
    (done,) = (event for event in plain.generate(request_for()) if isinstance(event, Image))
    assert not [part for part in plain.manager._residence.model.network.modules() if type(part) in FASTER.values()]
    assert not [part for part in plain.manager._residence.model.vae.modules() if type(part) in FASTER.values()]
    assert [part for part in darkroom.manager._residence.model.network.modules() if isinstance(part, PackedConv2d)]
    assert np.abs(np.asarray(done.image).astype(int) - draw()[0]).max() <= 1
    assert done.recipe is not None and done.recipe.environment["cpu_kernels"] is False


def test_recipes_of_pictures_with_them_say_what_they_always_said() -> None:
    cpu, mps = torch.device("cpu"), torch.device("mps")
    assert "cpu_kernels" not in describe_environment(cpu, torch.float32)
    assert "cpu_kernels" not in describe_environment(mps, torch.float32, cpu_kernels=False)


def test_another_autoencoder_gets_them_too(tmp_path, request_for) -> None:
    save_file(TinyAutoencoder().state_dict(), tmp_path / "taesd.safetensors")
    folder = tmp_path / "models/VAE"
    folder.mkdir(parents=True)
    (tmp_path / "taesd.safetensors").rename(folder / "taesd.safetensors")
    for own in (True, False):
        made = Darkroom(Settings(device="cpu", dtype="float32", data_dir=tmp_path, cpu_kernels=own))
        list(made.generate(request_for(vae="taesd", steps=1)))
        found = {type(part) for part in made.manager._residence.model.vae.modules() if isinstance(part, nn.Conv2d)}
        assert found == {PackedConv2d if own else nn.Conv2d}
