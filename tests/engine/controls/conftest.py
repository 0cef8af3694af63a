"""Small models with small controls for them, in one data folder."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import control_models
import diffusers
import numpy as np
import pytest
import torch
from checkpoints import WORDS, small, to_ldm
from control_models import SIDE, guide
from safetensors.torch import save_file

from webui.core.events import Done, Image
from webui.core.groups.control import Control
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.tokens import Tokenizer

STEPS, SEED, GUIDANCE = 4, 21, 4.0
PROMPT, NEGATIVE = "a red apple, flat style, on a blue background", "green"


@pytest.fixture(scope="session")
def made(tmp_path_factory, device):
    """``made.pipes`` and ``made.nets``: the stock pipelines, and diffusers' controls by the names of their files."""
    data = tmp_path_factory.mktemp("controls")
    models, controls = data / "models/Stable-diffusion", data / "models/ControlNet"
    controls.mkdir(parents=True)
    pipes = {kind: small(kind, directory=models / kind) for kind in ("sd1", "sd2", "sdxl", "sd1-inpaint")}
    save_file(to_ldm(pipes["sd1"].unet, pipes["sd1"].vae, pipes["sd1"].text_encoder), models / "sd1-ldm.safetensors")
    nets: dict[str, Any] = {}
    for kind in ("sd1", "sd2", "sdxl"):
        nets[f"net-{kind}"] = control_models.control_net(pipes[kind].unet)
        nets[f"net-{kind}"].save_pretrained(controls / f"net-{kind}")
    nets["other-sd1"] = control_models.control_net(pipes["sd1"].unet, seed=9)
    control_models.save(controls / "other-sd1.safetensors", control_models.to_ldm(nets["other-sd1"]), "control_model.")
    nets["shuffle-sd1"] = control_models.control_net(pipes["sd1"].unet, seed=8, global_pool_conditions=True)
    control_models.save(controls / "shuffle-sd1_shuffle.safetensors", control_models.to_ldm(nets["shuffle-sd1"]))
    for name, kind, form in (("t2i-sd1", "sd1", "full_adapter"), ("t2i-sdxl", "sdxl", "full_adapter_xl")):
        nets[name] = control_models.adapter(pipes[kind].unet, form)
        control_models.save(controls / f"{name}.safetensors", control_models.to_original(nets[name]))
    nets["union-sdxl"] = control_models.union(pipes["sdxl"].unet)
    control_models.save(controls / "union-sdxl.safetensors", nets["union-sdxl"].state_dict())
    tensors, nets["lora-sd1"] = control_models.control_lora(pipes["sd1"].unet)
    control_models.save(controls / "lora-sd1.safetensors", tensors)
    for one in (*pipes.values(), *nets.values()):
        one.to(device)
    return SimpleNamespace(data=data, models=models, controls=controls, pipes=pipes, nets=nets)


@pytest.fixture
def small_words(made, monkeypatch):
    """The small text encoders know the embedded model's words, not CLIP's 49,408."""
    monkeypatch.setattr("webui.engine.families.clip.CLIP_WORDS", WORDS)
    folder = made.models / "sd1/tokenizer"
    monkeypatch.setattr(Tokenizer, "clip", lambda pad=None: Tokenizer.from_folder(folder))


@pytest.fixture(scope="session")
def room(made, device) -> Darkroom:
    return Darkroom(Settings(device=device, dtype="float32", data_dir=made.data))


@pytest.fixture
def draw(room, small_words) -> Callable[..., np.ndarray]:
    """``draw(model=..., controls=[(name, {...})])``: the picture, (height, width, 3) of 0..255."""

    def draw(darkroom: Darkroom = room, controls=(), **fields) -> np.ndarray:
        uses = tuple(Control(model=name, **({"image": guide()} | more)) for name, more in controls)
        quick = {"prompt": PROMPT, "negative": NEGATIVE, "width": SIDE, "height": SIDE, "steps": STEPS, "seed": SEED}
        quick |= {"guidance": GUIDANCE, "sampler": "DDIM", "schedule": "Default", "controls": uses}
        events = list(darkroom.generate(Request(**(quick | fields))))
        assert isinstance(events[-1], Done), events[-1]
        return np.asarray([event.image for event in events if isinstance(event, Image)][-1]).astype(int)

    return draw


@pytest.fixture(scope="session")
def stock(made) -> Callable[..., np.ndarray]:
    """``stock("StableDiffusionControlNetPipeline", "sd1", controlnet=...)``: what diffusers draws of the same."""

    def stock(pipeline: str, kind: str, parts: dict[str, Any], **options) -> np.ndarray:
        made_by = getattr(diffusers, pipeline)
        known = inspect.signature(made_by).parameters
        own = {name: part for name, part in made.pipes[kind].components.items() if name in known}
        pipe = made_by(**own, **parts)
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
        given = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "output_type": "np"}
        given |= {"guidance_scale": GUIDANCE, "generator": torch.Generator("cpu").manual_seed(SEED)}
        pixels = pipe(**(given | {"width": SIDE, "height": SIDE} | options)).images[0]
        return (pixels * 255).round().astype(int)

    return stock
