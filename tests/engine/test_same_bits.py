"""Whatever the way from a request to latents is made of, its bits are those of the frozen one (tests/reference)."""

import functools
import json
import math
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from PIL import ImageDraw
from reference.denoise import Drawn
from reference.denoise import draw as draw_as_ever
from reference.samplers import CLASSES, SCHEDULES
from safetensors.torch import load_file, save_file

from webui.core.canvas import make_canvas
from webui.core.events import Image
from webui.core.request import Init
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine import preview
from webui.engine.families.latent import KlAutoencoder
from webui.engine.samplers import SAMPLERS
from webui.engine.speed.shortcuts import Shortcuts
from webui.library.library import DEMO_MODEL
from webui.workspace.preset import read_preset

EACH_DTYPE = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
OTHER_SCHEDULES = [  # a schedule is made in one place for all that go by its sigmas, and in another for DDIM and DDPM
    pytest.param(name, schedule, marks=() if name in ("DPM++ 2M", "DDIM") else pytest.mark.slow)
    for name in CLASSES
    for schedule in SAMPLERS[name].schedules[1:]
    if schedule in SCHEDULES
]
LONG = ", ".join(["a red apple, flat style, on a blue background"] * 10)
LATER = {"controls", "regions", "pag", "nag", "guidance_rescale"}  # what the loop as it was knew nothing of
PRESETS = [
    file
    for file in sorted((Path(__file__).parents[2] / "presets").glob("*.toml"))
    if not LATER & {*(held := tomllib.loads(file.read_text("utf-8"))), *held["fields"]}
]


def picture(width: int = 64, height: int = 64) -> PilImages.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    return PilImages.fromarray(coarse).resize((width, height), PilImages.Resampling.BICUBIC)


def mask(*levels: int) -> PilImages.Image:
    """Black, with one bar after another in these levels."""
    drawn = PilImages.new("L", (64, 64))
    for number, level in enumerate(levels or (255,)):
        ImageDraw.Draw(drawn).rectangle((8 + 16 * number, 16, 23 + 16 * number, 47), fill=level)
    return drawn


def start(**fields) -> Init:
    return Init(**({"image": picture(), "strength": 0.6} | fields))


class Network:
    """The product's resident model as the frozen loop asks it; this and the fixtures follow the product."""

    def __init__(self, model):
        self._model = model
        self.scheduler_config, self.inpaints = model.scheduler_config, model.inpaints
        self.latent_channels, self.latent_scale = model.latent_channels, model.latent_scale

    def prompts(self, request):
        size, guidance = (request.width, request.height), request.guidance

        def encode(text, negative):
            encoded = self._model.encode_prompt(text, request.clip_skip, {}, negative)
            return self._model.condition(encoded, size, guidance, negative=negative)

        guided = guidance != 1 and not self._model.guides_itself
        return encode(request.prompt, False), encode(request.negative, True) if guided else None

    def tell(self, conditioning):
        return self._model.network.prepare(**conditioning)

    def predict(self, latents, timestep, told, shortcuts):
        return self._model.network(latents.to(self._model.network.dtype), timestep, told, shortcuts).float()

    def encode(self, pixels):
        vae = self._model.vae
        mean, std = vae.encode(pixels.to(vae.dtype).contiguous())  # rows first, as the product gives it
        return mean.float() * vae.scaling_factor, std.float() * vae.scaling_factor


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A data folder with kin of the embedded model: ``second``, one that inpaints and one that guides itself."""
    folder = tmp_path_factory.mktemp("same-bits")
    generator = torch.Generator().manual_seed(0)
    weights = load_file(DEMO_MODEL / "unet/diffusion_pytorch_model.safetensors")
    entry = weights["conv_in.weight"]
    width = entry.shape[0]
    more = torch.randn(width, 5, 3, 3, generator=generator) * entry.std()
    variants = {
        "second": ({}, {"conv_in.weight": entry * 1.05}),
        "inpaints": ({"in_channels": 9}, {"conv_in.weight": torch.cat([entry, more], 1)}),
        "guides-itself": (
            {"time_cond_proj_dim": 32},
            {"time_embedding.cond_proj.weight": torch.randn(width, 32, generator=generator) * 0.1},
        ),
    }
    for name, (config, changed) in variants.items():
        unet = folder / "models/Stable-diffusion" / name / "unet"
        shutil.copytree(DEMO_MODEL, unet.parent)
        known = json.loads((unet / "config.json").read_text("utf-8"))
        (unet / "config.json").write_text(json.dumps(known | config), "utf-8")
        save_file(weights | changed, unet / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def manager_of(models):
    """``manager_of("bfloat16")``: one that draws in this number format."""
    return functools.cache(lambda dtype: Darkroom(Settings(device="cpu", dtype=dtype, data_dir=models)))


@pytest.fixture
def draw_now(monkeypatch):
    """``draw_now(darkroom, request)``: what comes to the decoder, which is left out, and what previews are made of."""

    def draw(darkroom, request):
        drawn = Drawn()

        def decode(autoencoder, latents, _in_float32=False):
            drawn.latents.append(latents)
            rows, _, height, width = latents.shape
            return latents.new_zeros(rows, 3, height * autoencoder.scale, width * autoencoder.scale)

        with monkeypatch.context() as patch:
            patch.setattr(preview, "BUDGET", math.inf)
            patch.setattr(preview, "to_jpeg", lambda latents, _map: drawn.originals.append(latents) or b"")
            patch.setattr(KlAutoencoder, "decode", decode)
            pictures = [event for event in darkroom.generate(request) if isinstance(event, Image)]
        assert len(pictures) == len(drawn.latents) == request.count * request.repeat
        return drawn

    return draw


@pytest.fixture
def assert_same(manager_of, request_for, draw_now):
    """``assert_same("float32", sampler=...)``: this request is drawn as it ever was, bit for bit."""

    def use(darkroom, name, request):
        for _ in darkroom.load(name):
            pass
        first = darkroom.plan(request).stages[0]
        darkroom.manager._residence.loras.switch(first.loras if name == request.model else ())
        return Network(darkroom.manager._residence.model)

    def check(dtype, request=None, **fields):
        request, darkroom = request or request_for(**({"model": "demo", "steps": 4} | fields)), manager_of(dtype)
        now = draw_now(darkroom, request)
        shortcuts = Shortcuts(request.token_merging, request.reuse)
        canvas = None if request.init is None else make_canvas(request.init, (request.width, request.height))
        ever = draw_as_ever(
            request,
            functools.partial(use, darkroom, request=request),
            shortcuts if shortcuts.taken else None,
            canvas,
        )
        assert len(now.originals) == len(ever.originals) > 0
        for mine, other in zip(now.originals, ever.originals, strict=True):
            assert torch.equal(mine, other)
        for mine, other in zip(now.latents, ever.latents, strict=True):
            assert mine.dtype == other.dtype == torch.float32 and mine.std() > 0.1
            assert torch.equal(mine, other)
        return now

    return check


def test_every_frozen_sampler_is_still_there():
    """One that came later has no bits to keep."""
    assert [name for name in SAMPLERS if name in CLASSES] == list(CLASSES)


@pytest.mark.parametrize(("sampler", "schedule"), OTHER_SCHEDULES)
def test_every_other_schedule_of_every_sampler(assert_same, sampler, schedule):
    assert_same("float32", sampler=sampler, schedule=schedule, guidance_until=0.6)


TASKS = {
    "txt2img": {"count": 2, "guidance_until": 0.6},
    "img2img": {"init": start()},
    "inpaint": {"init": start(mask=mask(64, 128, 255))},
}


# The first of each way of stepping begins with a picture too; the others differ in how they step alone.
WAYS = ("DPM++ 2M", "Euler a", "Heun", "PNDM", "DPM++ SDE", "LCM")


@pytest.mark.parametrize(
    ("sampler", "task"),
    [
        pytest.param(sampler, task, marks=() if task == "txt2img" or sampler in WAYS else pytest.mark.slow)
        for sampler in CLASSES
        for task in TASKS
    ],
)
def test_every_sampler_in_every_task(assert_same, sampler, task):
    assert_same("float32", sampler=sampler, steps=5, **TASKS[task])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["txt2img", "inpaint"])
@pytest.mark.parametrize("sampler", CLASSES)
def test_every_sampler_in_half_precision(assert_same, sampler, task):
    assert_same("bfloat16", sampler=sampler, steps=5, **TASKS[task])


CASES = {
    "a LoRA in a batch": {"loras": ("blueprint:0.8",), "count": 2, "sampler": "Euler a"},
    "two LoRAs": {"loras": ("night:0.5", "sepia:0.7")},
    "no guidance": {"guidance": 1.0, "negative": "blurry"},
    "guidance below 1": {"guidance": 0.5, "negative": "blurry"},
    "a negative prompt, some of the way": {"negative": "blurry, green", "guidance_until": 0.5, "sampler": "Heun"},
    "guidance until 0": {"guidance_until": 0.0},
    "a long prompt": {"prompt": LONG, "count": 2, "guidance_until": 0.7},
    "a long prompt and reuse": {"prompt": LONG, "reuse": 2},
    "reuse": {"reuse": 3, "steps": 7, "guidance_until": 0.6},
    "merged tokens": {"token_merging": 0.5, "width": 128, "height": 128},
    "all shortcuts": {"reuse": 2, "token_merging": 0.25, "guidance_until": 0.8, "count": 2, "init": start()},
    "all shortcuts while inpainting": {"reuse": 2, "token_merging": 0.25, "init": start(mask=mask())},
    "a layer of text skipped": {"clip_skip": 2},
    "another prediction": {"prediction": "epsilon"},
    "zero-SNR": {"prediction": "v zero-SNR", "sampler": "DDIM"},
    "several batches": {"repeat": 2, "count": 2, "sampler": "DPM++ SDE"},
    "another size": {"width": 96, "height": 72},
    "the whole strength": {"init": start(strength=1.0)},
    "less than a step": {"init": start(strength=0.1), "sampler": "Heun"},
    "less than LCM takes": {"init": start(strength=0.01), "sampler": "LCM"},
    "latents resized": {"init": start(image=picture(96, 64), resize="latent resize")},
    "inpainting at the whole strength": {"init": start(mask=mask(), strength=1.0), "sampler": "Euler a"},
    "inpainting from noise": {"init": start(mask=mask(), mask_fill="noise"), "sampler": "PNDM"},
    "inpainting from nothing": {"init": start(mask=mask(), mask_fill="nothing"), "sampler": "DPM2"},
    "inpainting the masked part alone": {"init": start(mask=mask(), only_masked=True), "count": 2},
    "a model that inpaints": {"model": "inpaints", "init": start(mask=mask())},
    "a model that inpaints, at the whole strength": {"model": "inpaints", "init": start(mask=mask(), strength=1.0)},
    "a model that inpaints, from a picture": {"model": "inpaints", "init": start()},
    "a model that inpaints, from noise": {"model": "inpaints", "count": 2},
    "a model that guides itself": {"model": "guides-itself", "sampler": "LCM"},
    "few steps": {"sampler": "LCM", "loras": ("few-steps:1",), "guidance": 1.0, "steps": 4},
    "a refiner": {"refiner": "second", "refiner_at": 0.5},
    "a refiner with all else": {
        "refiner": "second",
        "refiner_at": 0.4,
        "loras": ("night:0.8",),
        "guidance_until": 0.8,
        "reuse": 2,
        "count": 2,
        "sampler": "DPM++ 2M SDE",
    },
    "a refiner without guidance": {"refiner": "second", "refiner_at": 0.6, "guidance_until": 0.3, "sampler": "PNDM"},
    "a refiner after inpainting": {"refiner": "second", "init": start(mask=mask(64, 255)), "sampler": "Heun"},
    "a refiner after a model that inpaints": {"model": "inpaints", "refiner": "second", "init": start(mask=mask())},
}


IN_HALF = (
    "a LoRA in a batch",
    "all shortcuts while inpainting",
    "less than a step",
    "a model that inpaints",
    "a refiner with all else",
)
"""What comes by each place where numbers change their format; the others are slow."""


@pytest.mark.parametrize("case", CASES)
def test_every_other_thing_that_can_be_asked_for(assert_same, case):
    assert_same("float32", **CASES[case])


@pytest.mark.parametrize(
    "case", [case if case in IN_HALF else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_every_other_thing_in_half_precision(assert_same, case):
    assert_same("bfloat16", **CASES[case])


OWN_PRESETS = [file for file in PRESETS if tomllib.loads(file.read_text("utf-8"))["fields"].get("model") == "demo"]


@pytest.mark.parametrize("file", OWN_PRESETS, ids=lambda file: file.stem)
def test_the_presets_that_ship_in_fewer_steps(assert_same, file):
    request = read_preset(file.read_bytes(), file.stem).request()
    assert_same("float32", request.model_copy(update={"steps": min(request.steps, 3)}))


@pytest.mark.slow
@EACH_DTYPE
@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_the_presets_that_ship(assert_same, file, dtype):
    """Those for larger models are drawn by the embedded one, as many steps and as they say, smaller."""
    request = read_preset(file.read_bytes(), file.stem).request(overrides={"seed": 11})
    if file not in OWN_PRESETS:
        request = request.model_copy(update={"model": "demo", "prompt": LONG, "width": 128, "height": 192})
    assert_same(dtype, request)
