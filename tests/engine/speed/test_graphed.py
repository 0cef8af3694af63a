"""``--cuda-graphs`` without a GPU: a stand-in for torch's recorder, which as a graph does keeps to fixed addresses."""

import weakref

import numpy as np
import pytest
import torch
from checkpoints import SMALL_UNET
from recorder import Recorder

from webui.core.engine_options import EngineOptions
from webui.core.errors import RequestError
from webui.core.events import Done, Image
from webui.core.request import LoraRef, Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.manager import PipelineManager
from webui.engine.nets.unet import UNet
from webui.engine.residence import Residence
from webui.engine.speed import graphed
from webui.engine.speed.graphed import MAX_GRAPHS, GraphedUNet
from webui.engine.speed.shortcuts import Shortcuts

LORAS = ("", "blueprint:0.8", "night:1 sepia:0.5", "blueprint:-0.5", "blueprint:0.8", "")


@pytest.fixture
def unet() -> UNet:
    torch.manual_seed(0)
    return UNet(SMALL_UNET).eval().requires_grad_(False)


@pytest.fixture
def recorder(unet, monkeypatch) -> Recorder:
    made = Recorder(lambda: unet)
    monkeypatch.setattr(graphed, "record", made)
    return made


def given(side: int = 8, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, 4, side, side, generator=generator)
    return latents, torch.tensor(300 + seed), torch.randn(2, 5, 24, generator=generator)


@torch.inference_mode()
def test_it_is_the_plain_unet_for_any_latents_time_and_prompt(unet, recorder) -> None:
    run = GraphedUNet(unet)
    kept = []
    for seed in (1, 2, 1):
        latents, timestep, context = given(seed=seed)
        prepared = unet.prepare(context)
        for factor in (1.0, 0.5):
            kept.append((run(latents * factor, timestep, prepared), unet(latents * factor, timestep, prepared)))
    assert all(torch.equal(found, expected) for found, expected in kept)  # none was overwritten by a later one
    assert recorded(recorder) == (1, 6)


@torch.inference_mode()
def test_each_size_is_recorded_once_and_only_some_are_kept(unet, recorder) -> None:
    run = GraphedUNet(unet)
    sides = [8 * k for k in range(1, MAX_GRAPHS + 2)]
    for side in (*sides, sides[-1], sides[0]):
        latents, timestep, context = given(side)
        prepared = unet.prepare(context)
        assert torch.equal(run(latents, timestep, prepared), unet(latents, timestep, prepared))
    assert recorder.recorded == len(sides) + 1  # the first was dropped for the last


@torch.inference_mode()
def test_shortcuts_are_taken_by_the_plain_unet(unet, recorder) -> None:
    latents, timestep, context = given()
    prepared = unet.prepare(context)
    found = GraphedUNet(unet)(latents, timestep, prepared, Shortcuts(merging=0.5))
    assert torch.equal(found, unet(latents, timestep, prepared, Shortcuts(merging=0.5)))
    assert recorded(recorder) == (0, 0)


@torch.inference_mode()
def test_where_recording_fails_the_plain_unet_draws_and_the_log_says_why_once(unet, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(graphed.logger, "warning", lambda text, *values: said.append(text % values))

    def refuse(run):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate much")

    monkeypatch.setattr(graphed, "record", refuse)
    run = GraphedUNet(unet)
    for side in (8, 8, 16):
        latents, timestep, context = given(side)
        prepared = unet.prepare(context)
        assert torch.equal(run(latents, timestep, prepared), unet(latents, timestep, prepared))
    assert said == ["The UNet is not recorded and runs as it is: CUDA out of memory."]


@torch.inference_mode()
def test_what_a_recording_that_failed_had_made_is_gone_when_the_plain_unet_runs(unet, monkeypatch) -> None:
    """Memory is what it failed for."""
    made: list[weakref.ref[torch.Tensor]] = []

    def refuse(run):
        large = run()
        made.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def there(*_) -> None:
        alive.append(made[0]() is not None) if made else None

    monkeypatch.setattr(graphed, "record", refuse)
    alive: list[bool] = []
    unet.register_forward_pre_hook(there)
    latents, timestep, context = given()
    GraphedUNet(unet)(latents, timestep, unet.prepare(context))
    assert alive == [False]


def test_pictures_with_and_without_loras_are_the_same_as_with_the_plain_unet(tmp_path, monkeypatch, switching) -> None:
    settings = {"device": "cpu", "dtype": "float32", "data_dir": tmp_path, "cpu_kernels": False}  # as on a GPU
    plain, replaying = (Darkroom(Settings(**settings)) for _ in range(2))
    options = Settings(**settings, cuda_graphs=True).engine_options
    home = Residence(options, plain.manager.device, plain.manager.dtype)
    monkeypatch.setattr(replaying.manager, "_residence", home)
    recorder = Recorder(lambda: home.model.network)
    monkeypatch.setattr(graphed, "record", recorder)
    pictures = [(draw(plain, loras), draw(replaying, loras)) for loras in LORAS]
    assert all(np.array_equal(one, other) for one, other in pictures)
    assert len({one.tobytes() for one, _ in pictures}) == len(set(LORAS))
    assert recorded(recorder) == (1, 2 * len(LORAS))
    request = switching("night")  # another weight in each step
    assert np.array_equal(draw_request(plain, request), draw_request(replaying, request))
    assert recorded(recorder) == (1, 2 * len(LORAS) + request.steps)


def test_without_an_nvidia_gpu_it_is_refused(tmp_path) -> None:
    with pytest.raises(RequestError, match="CUDA graphs need an NVIDIA GPU, and this is cpu"):
        PipelineManager(EngineOptions(tmp_path, device="cpu", cuda_graphs=True))


def recorded(recorder: Recorder) -> tuple[int, int]:
    return recorder.recorded, recorder.replayed


def draw(darkroom: Darkroom, loras: str) -> np.ndarray:
    refs = tuple(LoraRef.model_validate(text) for text in loras.split())
    return draw_request(
        darkroom,
        Request(
            prompt="a house, 3d style", width=64, height=64, steps=2, seed=3, guidance=3.0, sampler="Euler", loras=refs
        ),
    )


def draw_request(darkroom: Darkroom, request: Request) -> np.ndarray:
    events = list(darkroom.generate(request))
    assert isinstance(events[-1], Done)
    (picture,) = (event.image for event in events if isinstance(event, Image))
    return np.asarray(picture)
