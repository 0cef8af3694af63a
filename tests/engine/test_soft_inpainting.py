"""Per-place strength: a grey mask is Levin and Fried's differential diffusion over stock parts, in diffusers' form."""

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image as PilImages

from webui.core.canvas import make_canvas
from webui.core.groups.init import Init

SEED, STEPS, STRENGTH, SIDE_PX, GUIDANCE = 11, 8, 0.75, 64, 5.0
TAKEN = int(STEPS * STRENGTH)
QUICK = {"steps": STEPS, "sampler": "Euler", "guidance": GUIDANCE, "seed": SEED}
PROMPT = "a red apple, flat style, on a blue background"


@pytest.fixture(scope="module")
def picture() -> PilImages.Image:
    return PilImages.effect_noise((SIDE_PX, SIDE_PX), 90).convert("RGB")


@pytest.fixture(scope="module")
def bands() -> PilImages.Image:
    """Levels that no rounding of steps tells apart, in columns of whole latents."""
    shares = [1 - (step + 0.25) / TAKEN for step in range(TAKEN)]
    columns = np.repeat([1.0, 1.0, *shares], SIDE_PX // 8)
    return PilImages.fromarray(np.tile(np.round(columns * 255), (SIDE_PX, 1)).astype(np.uint8))


@torch.inference_mode()
def differential(parts, picture, change) -> PilImages.Image:
    """The loop of diffusers' community pipeline, written out; ``change`` (h, w) is how much latents may change."""
    vae, unet = parts["vae"], parts["unet"]
    scheduler = diffusers.EulerDiscreteScheduler.from_config(parts["scheduler"].config)
    pipeline = diffusers.StableDiffusionPipeline(**{**parts, "scheduler": scheduler}, requires_safety_checker=False)
    told = torch.cat(pipeline.encode_prompt(PROMPT, unet.device, 1, True)[::-1])
    pixels = torch.from_numpy(np.asarray(picture)).permute(2, 0, 1)[None].float().div(127.5).sub(1).to(unet.device)
    generator = torch.Generator("cpu").manual_seed(SEED)
    original = vae.encode(pixels).latent_dist.sample(generator) * vae.config.scaling_factor
    noise = torch.randn(original.shape, generator=generator).to(unet.device)
    scheduler.set_timesteps(STEPS, device=unet.device)
    times = scheduler.timesteps[-TAKEN:]
    noised = [scheduler.add_noise(original, noise, time[None]) for time in times]
    scheduler.set_begin_index(STEPS - TAKEN)
    keep = 1 - torch.from_numpy(change).to(unet.device)
    latents = noised[0]
    for step, time in enumerate(times):
        if step:
            latents = torch.where(keep > step / TAKEN, noised[step], latents)
        seen = scheduler.scale_model_input(latents.repeat(2, 1, 1, 1), time)
        without, with_prompt = unet(seen, time, told, return_dict=False)[0].chunk(2)
        latents = scheduler.step(without + GUIDANCE * (with_prompt - without), time, latents, return_dict=False)[0]
    decoded = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return pipeline.image_processor.postprocess(decoded)[0]


def test_a_grey_mask_is_differential_diffusion(draw, stock_parts, picture, bands):
    init = Init(image=picture, mask=bands, mask_blur=0, strength=STRENGTH)
    ours = draw(**QUICK, init=init)[0]
    scale = 2 ** (len(stock_parts["vae"].config.block_out_channels) - 1)
    change = np.asarray(bands)[::scale, ::scale].astype(np.float32) / 255
    theirs = make_canvas(init, (SIDE_PX, SIDE_PX)).finish(differential(stock_parts, picture, change))
    assert abs(ours - np.asarray(theirs).astype(np.int16)).max() <= 1
    hard = draw(**QUICK, init=Init(image=picture, mask=bands.point(lambda _: 255), mask_blur=0, strength=STRENGTH))[0]
    assert abs(ours - hard).max() > 20


def test_softness_keeps_more_of_the_picture_towards_the_edge_and_all_outside(draw, picture):
    mask = PilImages.fromarray(np.pad(np.full((48, 48), 255, np.uint8), 8))
    hard, soft = (
        draw(**QUICK, init=Init(image=picture, mask=mask, mask_blur=0, strength=1.0, softness=softness))[0]
        for softness in (0.0, 1.0)
    )
    before, masked = np.asarray(picture).astype(np.int16), np.asarray(mask) > 0
    assert (soft[~masked] == before[~masked]).all() and (hard[~masked] == before[~masked]).all()
    edge = masked & (np.pad(np.zeros((40, 40), bool), 12, constant_values=True))
    assert abs(soft - before)[edge].mean() < abs(hard - before)[edge].mean() / 2
