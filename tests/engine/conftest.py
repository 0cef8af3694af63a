"""One manager with the embedded model, shared: what it draws must not depend on what ran before."""

import functools
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from webui.core.events import Event, Image
from webui.core.library import DEMO_MODEL
from webui.core.request import Request
from webui.core.settings import Settings
from webui.engine.manager import PipelineManager
from webui.engine.preview import Previewer

SIDE_PX = 64
STEPS = 6


@pytest.fixture(scope="session")
def manager(tmp_path_factory: pytest.TempPathFactory) -> PipelineManager:
    """With the embedded model loaded."""
    manager = PipelineManager(Settings(device="cpu", dtype="float32", data_dir=tmp_path_factory.mktemp("data")))
    for _ in manager.load("demo"):
        pass
    return manager


@pytest.fixture
def model(manager):
    """The resident model and its components."""
    return manager._model


@pytest.fixture(scope="session")
def request_for() -> Callable[..., Request]:
    """``request_for(sampler=..., ...)``: a small, quick request, made different by what is given."""

    def make(**fields) -> Request:
        quick = {"prompt": "a red apple, flat style, on a blue background", "width": SIDE_PX, "height": SIDE_PX}
        return Request(**(quick | {"steps": STEPS, "seed": 11} | fields))

    return make


@pytest.fixture(scope="session")
def run(manager, request_for) -> Callable[..., list[Event]]:
    """``run(sampler=..., ...)``: every event of such a job."""

    def run(**fields) -> list[Event]:
        return list(manager.generate(request_for(**fields)))

    return run


@pytest.fixture(scope="session")
def draw(run) -> Callable[..., list[np.ndarray]]:
    """``draw(sampler=..., ...)``: the pictures of such a job, (height, width, 3) of levels 0..255 as int16."""

    def draw(**fields) -> list[np.ndarray]:
        return [levels(event.image) for event in run(**fields) if isinstance(event, Image)]

    return draw


def levels(image) -> np.ndarray:
    return np.asarray(image).astype(np.int16)


@pytest.fixture
def unet_rows(model) -> Iterator[list[int]]:
    """How many rows each call of the UNet had so far."""
    rows: list[int] = []
    hook = model.unet.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    yield rows
    hook.remove()


@pytest.fixture
def encoded_prompts(model) -> Iterator[list[int]]:
    """How many rows each call of the text encoder had so far."""
    rows: list[int] = []

    def count(_module, args, kwargs) -> None:
        rows.append(len(args[0] if args else kwargs["input_ids"]))

    hook = model.text_encoder.register_forward_pre_hook(count, with_kwargs=True)
    yield rows
    hook.remove()


@pytest.fixture
def decoded_pictures(model) -> Iterator[list[int]]:
    """How many rows each call of the autoencoder's decoder had so far."""
    rows: list[int] = []
    hook = model.vae.decoder.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    yield rows
    hook.remove()


@pytest.fixture
def preview_each_step(monkeypatch) -> None:
    """Lifts the budget: a preview at every step, whatever it costs."""
    monkeypatch.setattr("webui.engine.manager.Previewer", functools.partial(Previewer, budget=math.inf))


@pytest.fixture
def no_previews(monkeypatch) -> None:
    monkeypatch.setattr("webui.engine.manager.Previewer", functools.partial(Previewer, budget=0.0))


@pytest.fixture
def broken_output(monkeypatch, model) -> Callable[[float], None]:
    """``broken_output(math.nan)``: from now on the UNet's output is that number everywhere."""

    def break_it(number: float) -> None:
        def forward(latents: torch.Tensor, *_args, **_kwargs) -> tuple[torch.Tensor]:
            return (torch.full_like(latents, number),)

        monkeypatch.setattr(model.unet, "forward", forward)

    return break_it


@pytest.fixture
def clone_demo() -> Callable[..., Path]:
    """``clone_demo(folder, own=("vae",))``: the embedded model under another name; parts in ``own`` are real copies."""

    def clone(folder: Path, own: tuple[str, ...] = ()) -> Path:
        folder.mkdir(parents=True)
        for entry in DEMO_MODEL.iterdir():
            if entry.name in own and entry.is_dir():
                shutil.copytree(entry, folder / entry.name)
            elif entry.is_dir():
                os.symlink(entry, folder / entry.name)
            else:
                shutil.copy(entry, folder / entry.name)
        return folder

    return clone
