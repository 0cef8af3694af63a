"""Prompts by area: where each counts by the formula, and pictures that are a hand-made sum over stock parts."""

import json

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image as PilImages

from webui.core.errors import RequestError
from webui.core.events import Image
from webui.core.groups.init import Init
from webui.core.groups.region import Region
from webui.core.stages import Area, RegionUse
from webui.engine.areas import shares
from webui.library.library import DEMO_MODEL

PROMPT, NEGATIVE = "a red apple, flat style, on a blue background", "green, blurry"
BOXES = [{"box": (0, 0, 0.6, 1), "prompt": "a panda, 3d style"}, {"box": (0.4, 0.25, 1, 1), "prompt": "a rocket"}]


def use(weight=1.0, **area):
    return RegionUse("a", weight, Area(**area))


def box(*sides, weight=1.0, feather=0.0):
    return use(weight, box=sides, feather=feather)


def half(size, where, level=255):
    image = PilImages.new("L", size)
    image.paste(level, where)
    return Region(mask=image, prompt="a").mask


def test_the_rest_is_the_pictures_prompts_and_all_sum_to_1():
    found = shares([box(0, 0, 0.5, 1, weight=0.8), box(0.25, 0, 0.75, 1)], (8, 2))
    rows = [share[0] for share in found]
    assert np.allclose(rows[0], [0.2, 0.2, 0, 0, 0, 0, 1, 1])
    assert np.allclose(rows[1], [0.8, 0.8, 0.8 / 1.8, 0.8 / 1.8, 0, 0, 0, 0])
    assert np.allclose(rows[2], [0, 0, 1 / 1.8, 1 / 1.8, 1, 1, 0, 0])


@pytest.mark.parametrize("feather", [0.0, 0.1, 0.37])
def test_areas_that_share_an_edge_leave_nothing_between_them(feather):
    thirds = [box(0, 0, 0.33, 1, feather=feather), box(0.33, 0, 0.7, 1, feather=feather)]
    rest, *own = shares([*thirds, box(0.7, 0, 1, 1, feather=feather)], (13, 7))
    assert not rest.any() and np.allclose(sum(own), 1)


def test_an_edge_is_as_wide_as_it_says_and_the_pictures_edge_is_none():
    soft = shares([box(0, 0, 0.5, 1, feather=0.5)], (16, 8))[1]
    assert np.allclose(soft, soft[0]) and np.allclose(soft[0], [1] * 6 + [0.875, 0.625, 0.375, 0.125] + [0] * 6)
    cut = shares([box(0, 0, 0.3, 1)], (5, 2))[1]
    assert np.allclose(cut[0], [1, 0.5, 0, 0, 0])


def test_a_mask_is_the_box_that_it_shows():
    for feather in (0.0, 0.25):
        masked = use(mask=half((64, 64), (0, 0, 32, 48)), feather=feather)
        assert np.allclose(shares([masked], (16, 16))[1], shares([box(0, 0, 0.5, 0.75, feather=feather)], (16, 16))[1])
    assert np.allclose(shares([use(mask=half((64, 64), (0, 0, 64, 64), 51))], (16, 16))[1], 0.2)


def test_a_part_of_the_picture_has_its_part_of_them():
    whole = shares([box(0, 0, 0.5, 0.4, feather=0.2), use(mask=half((64, 64), (0, 0, 64, 32)))], (16, 16))
    part = shares(
        [box(0, 0, 0.5, 0.4, feather=0.2), use(mask=half((64, 64), (0, 0, 64, 32)))], (8, 8), (0.25, 0, 0.75, 0.5)
    )
    for large, small in zip(whole, part, strict=True):
        assert np.allclose(large[0:8, 4:12], small)


def test_one_region_over_everything_is_the_plain_prompt_bit_for_bit(draw):
    (plain,), everything = draw(), {"box": (0, 0, 1, 1), "prompt": PROMPT}
    for region in (everything, {"mask": PilImages.new("L", (64, 64), 255), "prompt": PROMPT}):
        (covered,) = draw(prompt="a panda", regions=(region,))
        assert (covered == plain).all()
    (none,) = draw(regions=({**everything, "prompt": "a panda", "weight": 0},))
    assert (none == plain).all()


@pytest.fixture
def by_hand(stock_parts):
    """``by_hand(prompts, areas, ...)``: the sum over diffusers' UNet and scheduler, with transformers' text encoder."""

    @torch.no_grad()
    def draw(prompts, areas, guidance, steps, side_px, seeds):
        tokenizer, encoder, unet, vae = (stock_parts[part] for part in ("tokenizer", "text_encoder", "unet", "vae"))
        config = json.loads((DEMO_MODEL / "scheduler/scheduler_config.json").read_text("utf-8"))
        scheduler = diffusers.EulerDiscreteScheduler.from_config(config)
        scheduler.set_timesteps(steps)
        ids = tokenizer([NEGATIVE, *prompts], padding="max_length", truncation=True, return_tensors="pt").input_ids
        words = encoder(ids)[0]
        side = side_px // 2 ** (len(vae.config.block_out_channels) - 1)
        noise = [torch.randn((1, 4, side, side), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        latents = torch.cat(noise) * scheduler.init_noise_sigma
        for time in scheduler.timesteps:
            seen = scheduler.scale_model_input(latents, time)
            said = [unet(seen, time, word[None].expand(len(seeds), -1, -1)).sample for word in words]
            guided = sum(area * (one - said[0]) for area, one in zip(areas, said[1:], strict=True))
            latents = scheduler.step(said[0] + guidance * guided, time, latents).prev_sample
        pixels = vae.decode(latents / vae.config.scaling_factor).sample
        return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy().astype(np.int16)

    return draw


def test_the_pictures_are_a_hand_made_sum_over_stock_parts(draw, by_hand, unet_rows, model):
    side = 64 // model.latent_scale
    edges = (torch.arange(side) + 0.5) / side
    first = (edges < 0.6).float().expand(side, side)
    second = ((edges > 0.4).float()[None] * (edges > 0.25).float()[:, None]) * 0.5
    if not float(0.6 * side).is_integer():  # a cell that is partly in an area counts so far
        first = (0.6 * side - torch.arange(side)).clamp(0, 1).expand(side, side)
        second = (1 - (0.4 * side - torch.arange(side)).clamp(0, 1))[None] * (edges > 0.25).float()[:, None] * 0.5
    total = first + second
    areas = [(1 - total).clamp(min=0), first / total.clamp(min=1), second / total.clamp(min=1)]
    regions = ({**BOXES[0], "feather": 0}, {**BOXES[1], "feather": 0, "weight": 0.5})
    ours = draw(regions=regions, sampler="Euler", negative=NEGATIVE, count=2)
    theirs = by_hand([PROMPT, *(part["prompt"] for part in BOXES)], areas, 5.0, 6, 64, (11, 12))
    assert abs(np.stack(ours) - theirs).max() <= 1
    assert len(unet_rows) == 6 and unet_rows[0] == (2, 8)  # one row more for each region and picture
    assert abs(ours[0] - draw(sampler="Euler", negative=NEGATIVE)[0]).max() > 32


def test_from_a_picture_in_a_part_and_again_larger_they_are_where_they_were(run):
    picture = PilImages.new("RGB", (128, 128), "white")
    hole = PilImages.new("L", (128, 128))
    hole.paste(255, (0, 32, 64, 96))
    left = {"box": (0, 0, 0.5, 1), "prompt": PROMPT, "feather": 0}

    def drawn(**fields):
        *_, event = (event for event in run(steps=3, **fields) if isinstance(event, Image))
        return np.asarray(event.image)

    inside = Init(image=picture, mask=hole, only_masked=True, padding=0, strength=0.9)
    same = drawn(prompt=PROMPT, init=inside)
    assert (drawn(prompt="a panda", init=inside, regions=(left,)) == same).all()
    right = {**left, "box": (0.5, 0, 1, 1)}
    assert (drawn(init=inside, regions=({**right, "prompt": "a panda"},)) == same).all()
    whole, hires = Init(image=picture, strength=0.5), {"scale": 1.5, "upscaler": "Lanczos"}
    both = (left, {**right, "prompt": "a panda, 3d style"})
    assert (drawn(init=whole, regions=both, width=64, height=64) != drawn(init=whole, width=64, height=64)).any()
    everywhere = {**left, "box": (0, 0, 1, 1)}
    assert (drawn(prompt="a panda", hires=hires, regions=(everywhere,)) == drawn(prompt=PROMPT, hires=hires)).all()


def test_what_counts_nowhere_is_said(run):

    parts = tuple({"box": sides, "prompt": "a panda"} for sides in ((0, 0, 0.5, 1), (0.5, 0, 1, 1)))
    events = run(steps=1, regions=parts)
    assert any("counts nowhere" in str(event) for event in events)
    events = run(steps=1, regions=tuple({**part, "prompt": "a panda, [PROMPT]"} for part in parts))
    assert not any("counts nowhere" in str(event) for event in events)


@pytest.mark.parametrize(
    ("region", "said", "field"),
    [
        ({"prompt": "a <lora:night:1>"}, "a LoRA acts on the whole picture", "regions.1.prompt"),
        ({"box": None, "mask": PilImages.new("L", (64, 32), 255)}, "has the shape of 64 x 32 px", "regions.1.mask"),
    ],
)
def test_what_only_the_picture_shows_is_refused_before_anything_is_drawn(run, region, said, field):
    with pytest.raises(RequestError) as error:
        run(regions=({**BOXES[0], **region},))
    assert said in str(error.value) and error.value.field == field
