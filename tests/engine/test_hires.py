"""Pictures drawn again in the same job: bit for bit what enlarging them and img2img make of them by hand."""

from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from torch.nn import functional

from webui.core.events import Cancelled, Image, Step, to_json
from webui.core.groups.hires import Hires
from webui.core.groups.init import Init
from webui.core.groups.upscale import DEFAULT_UPSCALER
from webui.core.groups.upscale import Upscale as UpscaleGroup
from webui.core.groups.variation import Variation
from webui.core.images import ResizeMode
from webui.core.latent_filters import LATENT_FILTERS
from webui.core.request import LoraRef
from webui.engine.decode import decode
from webui.engine.latents import enlarge

LARGE = (96, 96)
STRENGTH = 0.6
HIRES = Hires(scale=1.5, strength=STRENGTH)
MASK = PilImages.new("L", (64, 64))
MASK.paste(255, (0, 0, 32, 64))
START = Init(image=PilImages.linear_gradient("L").resize((64, 64)).convert("RGB"), mask=MASK, mask_blur=2)
WIDE_MASK = PilImages.new("L", (160, 64))
WIDE_MASK.paste(255, (24, 0, 90, 40))
WIDE = Init(image=PilImages.linear_gradient("L").resize((160, 64)).convert("RGB"), mask=WIDE_MASK, strength=0.5)


@pytest.fixture
def again(darkroom, request_for):
    """``again(count=2, ...)``: the order of such a request with a hires pass."""

    def make(hires=HIRES, **fields):
        return darkroom.plan(request_for(**{"steps": 4, "hires": hires} | fields))

    return make


def pictures(events):
    return [event for event in events if isinstance(event, Image)]


def hashes(events):
    return [picture.pixels_sha256 for picture in pictures(events)]


@pytest.fixture
def by_hand(darkroom, request_for):
    """The pictures of the same in single jobs: the first pass, its files enlarged, and each drawn again."""

    def enlarge_only(image, size, upscaler=DEFAULT_UPSCALER):
        group = UpscaleGroup(width=size[0], height=size[1], upscaler=upscaler, only=True)
        (large,) = darkroom.draw(request_for(init=Init(image=image), upscale=group))
        return large.image

    def mask_at_first_size(request):
        """As the picture beside it was brought there."""
        init = Init(image=request.init.mask, resize=request.init.resize, strength=0)
        (mask,) = darkroom.draw(request_for(init=init))
        return mask.image

    def make(then, size=LARGE, **fields):
        request = request_for(**{"steps": 4} | fields)
        begun = {"strength": STRENGTH}
        if request.init:
            mask = request.init.mask if request.init.only_masked else mask_at_first_size(request)
            begun |= {"mask": enlarge_only(mask, size, "Lanczos"), "only_masked": request.init.only_masked}
            begun |= {"mask_blur": round(1.5 * request.init.mask_blur), "padding": round(1.5 * request.init.padding)}
        found = []
        for k, first in enumerate(darkroom.draw(request)):
            init = Init(image=enlarge_only(first.image, size), **begun)
            own = {"init": init, "width": size[0], "height": size[1]} | then
            found += hashes(darkroom.generate(request.picture(k).model_copy(update=own)))
        return found

    return make


OTHER = {
    "sampler": "Euler a",
    "schedule": "Default",
    "guidance": 3.0,
    "prompt": "a panda",
    "negative": "blurry",
    "steps": 6,
}
LORA = LoraRef(name="blueprint", weight=0.8, hires_weight=0.3)


@pytest.mark.parametrize(
    ("fields", "then"),
    [
        ({"count": 2, "sampler": "Euler a"}, {}),
        (
            {"count": 2, "variation": Variation(seed=3, strength=0.3), "loras": (LORA,)},
            {"loras": (LoraRef(name="blueprint", weight=0.3),)},
        ),
        ({"prompt": "[a red apple:a panda:0.5] [on grass:at night:1.5] <lora:sepia:1@0;0@1>"}, {}),
        ({"hires": HIRES.model_copy(update=OTHER)}, OTHER),
        ({"init": START.model_copy(update={"strength": 0.5})}, {}),
        ({"init": START.model_copy(update={"only_masked": True, "padding": 4}), "count": 2}, {}),
        ({"init": START, "hires": Hires(width=96, height=64, strength=STRENGTH)}, {}),
        *(({"init": WIDE.model_copy(update={"resize": mode})}, {}) for mode in get_args(ResizeMode)),
    ],
    ids=[
        *("ancestral", "variation and LoRA", "scheduled", "other settings"),
        *("mask", "only masked", "mask and another shape", *get_args(ResizeMode)),
    ],
)
def test_pictures_drawn_again_are_those_made_by_hand(darkroom, again, by_hand, fields, then):
    if "1.5" in fields.get("prompt", ""):  # what is from 1.0 on belongs to the second pass, and what is below is over
        then = {"prompt": "a panda [on grass:at night:0.5] <lora:sepia:1@0;0@1>"}
    drawn = hashes(darkroom.manager.draw(again(**fields)))
    hires = fields.get("hires", HIRES)
    size = (hires.width, hires.height) if hires.width else LARGE
    assert drawn == by_hand(then, size, **{name: value for name, value in fields.items() if name != "hires"})
    assert len(set(drawn)) == fields.get("count", 1)


def test_steps_tell_their_stage_and_count_through_all_of_them(darkroom, again):
    events = list(darkroom.manager.draw(again(count=2, repeat=2)))
    steps = [event for event in events if isinstance(event, Step)]
    assert [step.index for step in steps] == sorted(step.index for step in steps)
    assert steps[-1].index == steps[-1].total == 2 * (4 + 1 + 2)
    assert list(dict.fromkeys(step.stage for step in steps)) == [("base", 0), ("hires", 1)]
    assert [step.share for step in steps] == sorted(step.share for step in steps) and steps[-1].share == 1
    assert next(step for step in steps if step.index == 5).share < 5 / 14  # a step of the second pass costs more
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)
    assert to_json(steps[-1]).items() >= {"stage": "hires", "stage_index": 1}.items()
    assert [picture.recipe.sampler["hires"]["class"] for picture in pictures(events)] == [
        "DPMSolverMultistepScheduler"
    ] * 4


def test_it_stops_within_a_step(darkroom, again):
    seen = []
    for event in darkroom.manager.draw(again(count=2), lambda: bool(seen)):
        if isinstance(event, Step) and event.stage == ("hires", 1):
            seen.append(event)
    assert len(seen) == 1 and isinstance(event, Cancelled)


def test_at_strength_0_the_enlarged_picture_is_kept(darkroom, again, request_for):
    kept = hashes(darkroom.manager.draw(again(HIRES.model_copy(update={"strength": 0.0}))))
    assert kept == hashes(darkroom.generate(request_for(steps=4, upscale=UpscaleGroup(scale=1.5))))


@pytest.fixture
def decoded(monkeypatch):
    """The latents of each picture that was decoded."""
    found = []

    def record(model, latents, unhooked):
        found.append(latents.clone())
        return decode(model, latents, unhooked)

    monkeypatch.setattr("webui.engine.passes.decode", record)
    return found


@pytest.mark.parametrize("name", LATENT_FILTERS)
def test_latents_are_enlarged_as_a1111_enlarges_them(name):
    latents, (mode, antialias) = torch.randn(2, 4, 8, 8), LATENT_FILTERS[name]
    theirs = functional.interpolate(latents, size=(12, 12), mode=mode, antialias=antialias)
    assert torch.equal(enlarge(latents, (64, 64), (96, 96), name, 8), theirs)
    wide = functional.interpolate(latents, size=(16, 16), mode=mode, antialias=antialias)
    truncate_y = (128 - 72) // 8  # as its hires fix cuts off what is too much
    theirs = wide[:, :, truncate_y // 2 : wide.shape[2] - (truncate_y + 1) // 2]
    assert torch.equal(enlarge(latents, (64, 64), (128, 72), name, 8), theirs)


def test_a_latent_pass_goes_on_with_the_very_latents_of_the_first(darkroom, again, request_for, decoded):
    list(darkroom.generate(request_for(steps=4, count=2)))
    first = [*decoded]
    decoded.clear()
    only_enlarged = Hires(scale=1.5, strength=0.0, upscaler="Latent (bicubic)")
    list(darkroom.manager.draw(again(only_enlarged, count=2)))
    assert len(decoded) == 2
    for own, large in zip(first, decoded, strict=True):
        assert torch.equal(large, functional.interpolate(own, size=(12, 12), mode="bicubic"))


def test_a_latent_pass_draws_each_picture_by_its_own_seed_and_keeps_what_is_masked(darkroom, again, run, request_for):
    hires = Hires(scale=1.5, strength=0.7, upscaler="latent")
    both = pictures(darkroom.manager.draw(again(hires, strict=True, count=2)))
    (second,) = pictures(darkroom.manager.draw(again(hires, seed=12)))
    assert both[1].pixels_sha256 == second.pixels_sha256 != both[0].pixels_sha256
    assert both[0].image.size == LARGE and both[0].recipe.hashes.keys() == {"model"}
    for height in (96, 72):  # latents are cut where they begin, 8 px from the top
        shape = hires.model_copy(update={"width": 96, "height": height})
        (masked,) = pictures(darkroom.manager.draw(again(shape, init=START)))
        large = START.image.resize(LARGE).crop((0, 8, 96, 80) if height == 72 else (0, 0, 96, 96))
        kept = np.asarray(masked.image, np.int16)[:, 70:] - np.asarray(large, np.int16)[:, 70:]
        assert masked.image.size == (96, height) and np.abs(kept).max() <= 3
