"""One darkroom with the embedded model, shared: what it draws must not depend on what ran before."""

import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

from webui.core.events import Event, Image
from webui.core.request import LoraRef, Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.nets.encoder import Prepared
from webui.engine.speed import traced
from webui.library.library import DEMO_MODEL

SIDE_PX = 64
STEPS = 6


@pytest.fixture(scope="session")
def darkroom(tmp_path_factory: pytest.TempPathFactory, device: str) -> Darkroom:
    """With the embedded model loaded."""
    data = tmp_path_factory.mktemp("data")
    darkroom = Darkroom(Settings(device=device, dtype="float32", data_dir=data, model_cache="2GB"))
    for _ in darkroom.load("demo"):
        pass
    return darkroom


@pytest.fixture
def model(darkroom):
    """The resident model and its components."""
    return darkroom.manager._residence.model


@pytest.fixture(scope="session")
def stock_parts(device: str) -> Mapping[str, Any]:
    """The embedded model as diffusers and transformers load it: what a stock pipeline of theirs is made of."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(DEMO_MODEL, dtype=torch.float32, local_files_only=True)
    return pipeline.to(device).components


@pytest.fixture(scope="session")
def request_for() -> Callable[..., Request]:
    """``request_for(sampler=..., ...)``: a small, quick request, made different by what is given."""

    def make(**fields) -> Request:
        quick = {"prompt": "a red apple, flat style, on a blue background", "width": SIDE_PX, "height": SIDE_PX}
        return Request(**(quick | {"steps": STEPS, "guidance": 5.0, "seed": 11} | fields))

    return make


SWITCHES = 20


@pytest.fixture(scope="session")
def switching(request_for) -> Callable[..., Request]:
    """``switching("night", ...)``: a request with a LoRA that has another weight in each of ``SWITCHES`` + 1 steps."""

    def make(name: str, **fields) -> Request:
        points = [(step + k, (1.0, 0.5, 0.0)[step % 3]) for step in range(SWITCHES + 1) for k in (0, 1)]
        lora = LoraRef(name=name, weight=points)
        return request_for(**{"steps": SWITCHES + 1, "sampler": "Euler a", "loras": (lora,)} | fields)

    return make


@pytest.fixture(scope="session")
def run(darkroom, request_for) -> Callable[..., list[Event]]:
    """``run(sampler=..., ...)``: every event of such a job."""

    def run(**fields) -> list[Event]:
        return list(darkroom.generate(request_for(**fields)))

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
def unwritten(monkeypatch) -> None:
    """No forward is a program: Python sees each of its layers."""
    monkeypatch.setattr(traced, "FORWARDS_BEFORE", 10**9)


@pytest.fixture
def unet_rows(model, unwritten) -> Iterator[list[tuple[int, int]]]:
    """How many rows of latents each call of the UNet was given so far, and how many it was told to answer with."""
    rows: list[tuple[int, int]] = []

    def count(_module, args) -> None:
        latents, _timestep, told, *_ = args
        rows.append((len(latents), len(told.attended[0][0])))

    hook = model.network.register_forward_pre_hook(count)
    yield rows
    hook.remove()


@pytest.fixture
def encoded_prompts(model) -> Iterator[list[int]]:
    """How many rows each call of the text encoder had so far."""
    rows: list[int] = []
    encoder = model.components["text_encoder"]
    hook = encoder.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
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
    monkeypatch.setattr("webui.engine.preview.BUDGET", math.inf)


@pytest.fixture
def no_previews(monkeypatch) -> None:
    monkeypatch.setattr("webui.engine.preview.BUDGET", 0.0)


@pytest.fixture
def broken_output(monkeypatch, model, unwritten) -> Callable[[float], None]:
    """``broken_output(math.nan)``: from now on the UNet's output is that number everywhere."""

    def break_it(number: float) -> None:
        def forward(latents: torch.Tensor, _timestep: torch.Tensor, told: Prepared, *_) -> torch.Tensor:
            return latents.new_full((len(told.attended[0][0]), *latents.shape[1:]), number)

        monkeypatch.setattr(model.network, "forward", forward)

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


def kohya_name(component: str, path: str) -> str:
    prefixes = {"backbone": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    return f"{prefixes[component]}_{path.replace('.', '_')}"


def diffusers_name(component: str, path: str) -> str:
    return f"{'unet' if component == 'backbone' else component}.{path}"


@pytest.fixture(scope="session")
def random_lora() -> Callable[..., dict[str, torch.Tensor]]:
    """``random_lora(components, seed, only="attn", ...)``: a file's tensors for layers whose name ``only`` matches.

    ``name`` spells a layer, ``form`` is lora, dora, loha or oft; ``size`` is how large the change is beside the weight.
    """

    def make(
        components: Mapping[str, nn.Module],
        seed: int = 0,
        only: str = "",
        name: Callable[[str, str], str] = kohya_name,
        form: str = "lora",
        size: float = 0.3,
        rank: int = 4,
    ) -> dict[str, torch.Tensor]:
        generator, tensors = torch.Generator().manual_seed(seed), {}
        for component, root in components.items():
            for path, layer in root.named_modules():
                if not isinstance(layer, nn.Linear | nn.Conv2d) or not re.search(only, diffusers_name(component, path)):
                    continue
                key, (out, width, *kernel) = name(component, path), layer.weight.shape
                scale = size * float(layer.weight.std())
                up = torch.randn(out, rank, generator=generator) * (scale / rank**0.5)
                down = torch.randn(rank, width, *kernel, generator=generator)
                if form == "oft":
                    tensors[f"{key}.oft_blocks"] = torch.randn(out // 4, 4, 4, generator=generator) * (size / 4)
                    continue
                if form == "loha":
                    halves = {"hada_w1_a": up, "hada_w1_b": down.flatten(1)}
                    halves |= {"hada_w2_a": torch.ones(out, 1).expand(out, rank) / rank, "hada_w2_b": down.flatten(1)}
                    tensors |= {f"{key}.{part}": tensor.clone() for part, tensor in halves.items()}
                    continue
                ends = ("lora_B", "lora_A") if name is diffusers_name else ("lora_up", "lora_down")
                tensors[f"{key}.{ends[0]}.weight"] = up.view(out, rank, *(1 for _ in kernel))
                tensors[f"{key}.{ends[1]}.weight"] = down
                if form == "dora":
                    rows = torch.rand(out, 1, *(1 for _ in kernel), generator=generator) + 0.5
                    tensors[f"{key}.dora_scale"] = rows * layer.weight.flatten(1).norm(dim=1).view_as(rows)
        return tensors

    return make


@pytest.fixture(scope="session")
def by_diffusers() -> Callable[[str, str], str]:
    """How diffusers names a layer in a file."""
    return diffusers_name


@pytest.fixture
def restart(draw):
    """``restart(init, ...)``: the one picture of such a job; its size is the start picture's."""

    def restart(init, **fields):
        (picture,) = draw(init=init, **({"width": None, "height": None} | fields))
        return picture

    return restart
