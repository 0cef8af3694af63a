"""Guides together: each counts beside the others, in batches, under every memory plan, as diffusers has it."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import control_models
import diffusers
import numpy as np
import pytest
import torch
from checkpoints import small
from control_models import guide
from ip_adapter_models import as_diffusers_takes, small_adapter, small_encoder
from PIL import Image as PilImages
from safetensors.torch import save_file
from transformers import CLIPImageProcessor
from weight_formats import as_fp8, save_small

from webui.core.events import Done, Image
from webui.core.memory import PLANS
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom

SIDE, STEPS, SEED, GUIDANCE, LORA = 64, 2, 21, 4.0, 0.8
PROMPT, NEGATIVE = "a red apple, flat style, on a blue background", "green"
Draw = Callable[..., list[np.ndarray]]


def picture(number: int = 0) -> PilImages.Image:
    numbers = np.random.default_rng(number).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return PilImages.fromarray(numbers).resize((90, 60), PilImages.Resampling.BICUBIC)


def control(model: str, **more: Any) -> dict[str, Any]:
    return {"controls": ({"model": model, "image": guide()} | more,)}


PARTS: dict[str, dict[str, Any]] = {
    "ip": control("plus", image=picture()),
    "second ip": control("full", image=picture(1), end=0.5),
    "net": control("net", weight=0.7),
    "net of the prompt": control("net", mode="control"),
    "t2i": control("t2i"),
    "lora": {"prompt": f"<lora:change:{LORA}>"},
    "changing lora": {"prompt": "<lora:change:1@0,0.2@0.5>"},
    "region": {"regions": ({"box": (0, 0, 0.5, 1), "prompt": "a blue whale", "feather": 0},)},
    "hires": {"hires": {"scale": 1.5, "upscaler": "Latent", "strength": 0.9, "steps": 2}},
    "pag": {"pag": {"scale": 3.0}},
    "nag": {"nag": {"scale": 6.0}},
    "merging": {"token_merging": 0.5},
    "reuse": {"reuse": 2},
}
LONG = (
    "ip, net",
    "ip, lora",
    "ip, changing lora",
    "ip, region",
    "ip, hires",
    "ip, pag, nag",
    "net of the prompt, pag, nag",
    "t2i, pag, nag",
    "t2i, merging, reuse",
    "ip, net, t2i, changing lora, hires, pag, nag",
)
TOGETHER = (
    *(pytest.param(names, PLANS[1:], marks=pytest.mark.slow) for names in LONG),
    ("ip, second ip, net, t2i, changing lora, region, pag, nag, merging", ("blocks",)),
)


def joined(names: Iterable[str], **more: Any) -> dict[str, Any]:
    """The request that asks for all of these."""
    fields: dict[str, Any] = {"prompt": PROMPT}
    for name in names:
        for field, value in PARTS[name].items():
            if field == "prompt":
                value = f"{fields[field]} {value}"
            elif field == "controls":
                value = (*fields.get(field, ()), *value)
            fields[field] = value
    return fields | more


@pytest.fixture(scope="module")
def made(tmp_path_factory, device, random_lora):
    """The folder, the stock pipeline, diffusers' ControlNet, an adapter as diffusers takes it, and a LoRA's tensors."""
    data = tmp_path_factory.mktemp("together")
    pipe = small("sd1", directory=data / "models/Stable-diffusion/sd1")
    controls = data / "models/ControlNet"
    net, t2i = control_models.control_net(pipe.unet), control_models.adapter(pipe.unet)
    adapters = {form: small_adapter(form, pipe.unet, seed) for seed, form in enumerate(("plus", "full"))}
    encoder = small_encoder(data / "models/clip_vision/small")
    lora = random_lora({"backbone": pipe.unet}, only="attn", size=0.8)
    for folder in (controls, data / "models/Lora"):
        folder.mkdir(parents=True)
    control_models.save(controls / "net.safetensors", control_models.to_ldm(net))
    control_models.save(controls / "t2i.safetensors", control_models.to_original(t2i))
    for form, adapter in adapters.items():
        save_file(adapter, controls / f"{form}.safetensors")
    save_file(lora, data / "models/Lora/change.safetensors")
    side = encoder.config.image_size
    sight = {"image_encoder": encoder.to(device), "feature_extractor": CLIPImageProcessor(size=side, crop_size=side)}
    return data, pipe.to(device), {"controlnet": net.to(device)}, sight, adapters, lora


@pytest.fixture(scope="module")
def draw(made, device) -> Draw:
    """``draw(plan, ...)``: the pictures, (height, width, 3) of 0..255 each, drawn under that memory plan."""
    rooms: dict[str, Darkroom] = {}

    def draw(plan: str = PLANS[0], **fields: Any) -> list[np.ndarray]:
        settings = Settings(device=device, dtype="float32", data_dir=made[0], memory=plan)
        room = rooms.setdefault(plan, Darkroom(settings))
        quick = {"model": "sd1", "negative": NEGATIVE, "width": SIDE, "height": SIDE, "steps": STEPS, "seed": SEED}
        quick |= {"guidance": GUIDANCE, "sampler": "DDIM", "schedule": "Default"}
        events = list(room.generate(Request(**quick | fields)))
        assert isinstance(events[-1], Done)
        return [np.asarray(event.image).astype(int) for event in events if isinstance(event, Image)]

    return draw


@pytest.mark.parametrize(("names", "plans"), TOGETHER)
def test_each_counts_beside_the_others_alone_and_in_a_batch_under_every_plan(draw, names, plans):
    parts = names.split(", ")
    (found,) = draw(**joined(parts))
    assert (draw(**joined(parts))[0] == found).all()
    for part in parts:
        (without,) = draw(**joined(other for other in parts if other != part))
        assert without.shape != found.shape or (without != found).any(), part
    for plan in plans:
        assert (draw(plan, **joined(parts))[0] == found).all(), plan
    batch = draw(**joined(parts, seed=SEED - 1, count=2))
    assert abs(batch[1] - found).max() <= 1 < abs(batch[0] - found).max()


def stock(made, pipeline: str, lora: bool = False, **options: Any) -> np.ndarray:
    """diffusers' picture after a picture, with what else the pipeline takes; ``lora`` merged by hand."""
    _, pipe, parts, sight, adapters, tensors = made
    own = {**pipe.components, **sight, **(parts if "ControlNet" in pipeline else {})}
    own["unet"] = copy.deepcopy(pipe.unet)
    for path, layer in own["unet"].named_modules() if lora else ():
        name = f"lora_unet_{path.replace('.', '_')}"
        if f"{name}.lora_up.weight" in tensors:
            more = tensors[f"{name}.lora_up.weight"].flatten(1) @ tensors[f"{name}.lora_down.weight"].flatten(1)
            layer.weight.data += (LORA * more).view(layer.weight.shape).to(layer.weight.device)
    made_by = getattr(diffusers, pipeline)(**own)
    made_by.set_progress_bar_config(disable=True)
    made_by.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
    made_by.load_ip_adapter([as_diffusers_takes(adapters["plus"])], subfolder="", weight_name=[""])
    given = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "width": SIDE, "height": SIDE}
    pixels = made_by(
        PROMPT,
        negative_prompt=NEGATIVE,
        ip_adapter_image=[picture()],
        generator=torch.Generator("cpu").manual_seed(SEED),
        output_type="np",
        **given,
        **options,
    ).images[0]
    return (pixels * 255).round().astype(int)


@pytest.mark.parametrize(
    ("names", "pipeline", "options"),
    [
        (
            "ip, net, pag",
            "StableDiffusionControlNetPAGPipeline",
            {"image": guide(), "controlnet_conditioning_scale": 0.7, "pag_scale": 3.0},
        ),
        ("ip, lora", "StableDiffusionPipeline", {"lora": True}),
    ],
)
def test_together_they_are_stock_diffusers(made, draw, names, pipeline, options):
    assert abs(draw(**joined(names.split(", ")))[0] - stock(made, pipeline, **options)).max() <= 1


def test_what_is_turned_down_to_nothing_beside_a_guide_changes_not_one_bit(draw):
    everywhere = ({"box": (0, 0, 1, 1), "prompt": PROMPT},)
    for part in ("ip", "net", "t2i"):
        (alone,) = draw(**joined([part]))
        for off in ({"prompt": "a panda", "regions": everywhere}, {"nag": {"alpha": 0.0}}, {"pag": {"scale": 0.0}}):
            assert (draw(**joined([part], **off))[0] == alone).all(), (part, off)


@pytest.mark.parametrize(
    "form", [*(pytest.param(form, marks=pytest.mark.slow) for form in ("float16", "bfloat16")), "fp8"]
)
def test_an_ip_adapter_in_small_numbers_is_near_the_whole_one(made, draw, form):
    data, *_, adapters, _ = made
    path = data / f"models/ControlNet/plus {form}.safetensors"
    if form == "fp8":
        save_small(path, adapters["plus"], as_fp8, prefix="")
    else:
        control_models.save(path, adapters["plus"], dtype=getattr(torch, form))
    (whole,), (without,) = draw(**joined(["ip"])), draw(prompt=PROMPT)
    (found,) = draw(**joined([], **control(path.stem, image=picture())))
    assert abs(found - whole).mean() < abs(without - whole).mean() / (4 if form == "fp8" else 20)
