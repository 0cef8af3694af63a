"""Pictures with controls against stock diffusers' pipelines, for all three tasks."""

from typing import Any

import numpy as np
import pytest
import torch
from control_models import SIDE, guide
from PIL import Image as PilImages

from webui.core.groups.init import Init

LEVELS = 1
SOFT = 0.825


def photo(seed: int = 0) -> PilImages.Image:
    numbers = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return PilImages.fromarray(numbers).resize((SIDE, SIDE), PilImages.Resampling.BICUBIC)


def mask() -> PilImages.Image:
    image = PilImages.new("L", (SIDE, SIDE), 0)
    image.paste(255, (16, 16, 48, 48))
    return image


def slow(*case: Any) -> Any:
    return pytest.param(*case, marks=pytest.mark.slow)


PLAIN, XL = "StableDiffusionControlNetPipeline", "StableDiffusionXLControlNetPipeline"
BEGUN = {"image": photo(), "strength": 0.8}
PAINTED = {"image": photo(), "mask_image": mask(), "strength": 1.0}


@pytest.mark.parametrize(
    ("pipeline", "kind", "net", "task"),
    [
        (PLAIN, "sd1", "net-sd1", "words"),
        slow(PLAIN, "sd2", "net-sd2", "words"),
        slow(XL, "sdxl", "net-sdxl", "words"),
        slow(PLAIN.replace("Pipe", "Img2ImgPipe"), "sd1", "net-sd1", "picture"),
        slow(XL.replace("Pipe", "Img2ImgPipe"), "sdxl", "net-sdxl", "picture"),
        slow(PLAIN.replace("Pipe", "InpaintPipe"), "sd1", "net-sd1", "mask"),
        slow(PLAIN.replace("Pipe", "InpaintPipe"), "sd1-inpaint", "net-sd1", "mask"),
        slow(XL.replace("Pipe", "InpaintPipe"), "sdxl", "net-sdxl", "mask"),
    ],
)
def test_a_picture_with_a_controlnet_is_stock_diffusers(made, draw, stock, pipeline, kind, net, task):
    given, init = {"controlnet_conditioning_scale": 0.8}, None
    given |= {"words": {"image": guide()}, "picture": BEGUN | {"control_image": guide()}}.get(
        task, PAINTED | {"control_image": guide()}
    )
    if task != "words":
        init = Init(image=photo(), mask=mask() if task == "mask" else None, strength=given["strength"], mask_blur=0)
    theirs = stock(pipeline, kind, {"controlnet": made.nets[net]}, **given)
    ours = draw(model=kind, controls=[(net, {"weight": 0.8})], init=init)
    inside = np.asarray(mask()) == 255 if task == "mask" else np.full((SIDE, SIDE), True)
    assert abs(ours - theirs)[inside].max() <= LEVELS
    assert abs(ours - draw(model=kind, init=init))[inside].max() > 10, "it acts"


def test_several_are_summed_each_in_its_own_steps(made, draw, stock):
    nets = [made.nets["net-sd1"], made.nets["other-sd1"]]
    theirs = stock(
        PLAIN,
        "sd1",
        {"controlnet": nets},
        image=[guide(), guide(7)],
        controlnet_conditioning_scale=[0.9, 0.6],
        control_guidance_start=[0.0, 0.25],
        control_guidance_end=[0.5, 1.0],
    )
    second = ("other-sd1", {"image": guide(7), "weight": 0.6, "start": 0.25})
    ours = draw(model="sd1", controls=[("net-sd1", {"weight": 0.9, "end": 0.5}), second])
    assert abs(ours - theirs).max() <= LEVELS


@pytest.mark.parametrize("mode", [slow("prompt"), "control"])
def test_modes_are_lllyasviel_s(made, draw, stock, monkeypatch, mode):
    """diffusers' guess mode is "control" with other weights; with theirs as ours it is the same."""
    net = made.nets["net-sd1"]
    monkeypatch.setattr(
        torch, "logspace", lambda _, __, n, **___: torch.tensor([SOFT ** (n - 1 - k) for k in range(n)])
    )
    if mode == "control":
        theirs = stock(PLAIN, "sd1", {"controlnet": net}, image=guide(), guess_mode=True)
    else:
        plain = type(net).forward
        monkeypatch.setattr(type(net), "forward", lambda *args, **more: plain(*args, **more | {"guess_mode": True}))
        theirs = stock(PLAIN, "sd1", {"controlnet": net}, image=guide())
    ours = draw(model="sd1", controls=[("net-sd1", {"mode": mode})])
    assert abs(ours - theirs).max() <= LEVELS


def test_a_shuffled_picture_says_nothing_of_places(made, draw, stock):
    theirs = stock(PLAIN, "sd1", {"controlnet": made.nets["shuffle-sd1"]}, image=guide())
    assert abs(draw(model="sd1", controls=[("shuffle-sd1_shuffle", {})]) - theirs).max() <= LEVELS


@pytest.mark.parametrize(("kind", "xl"), [("sd1", ""), slow("sdxl", "XL")])
def test_a_picture_with_a_t2i_adapter_is_stock_diffusers(made, draw, stock, kind, xl):
    name = f"t2i-{kind}"
    parts, scale = {"adapter": made.nets[name]}, {"adapter_conditioning_scale": 0.7}
    theirs = stock(f"StableDiffusion{xl}AdapterPipeline", kind, parts, image=guide(), **scale)
    ours = draw(model=kind, controls=[(name, {"weight": 0.7})])
    assert abs(ours - theirs).max() <= LEVELS
    assert abs(ours - draw(model=kind)).max() > 10, "it acts"


def test_a_union_that_is_told_what_its_map_shows_is_stock_diffusers(made, draw, stock):
    net = made.nets["union-sdxl"]
    theirs = stock(
        "StableDiffusionXLControlNetUnionPipeline",
        "sdxl",
        {"controlnet": net},
        control_image=[guide()],
        control_mode=[3],
    )
    assert abs(draw(model="sdxl", controls=[("union-sdxl", {"kind": "hard edge"})]) - theirs).max() <= LEVELS


def test_a_control_lora_is_the_controlnet_that_it_makes_of_the_model(made, draw, stock):
    theirs = stock(PLAIN, "sd1", {"controlnet": made.nets["lora-sd1"]}, image=guide())
    assert abs(draw(model="sd1", controls=[("lora-sd1", {})]) - theirs).max() <= LEVELS
    assert abs(draw(model="sd1-ldm", controls=[("lora-sd1", {})]) - theirs).max() <= LEVELS
