"""The one loop: equal to stock diffusers for every sampler and schedule, and right where the right answer is known."""

import json

import diffusers
import numpy as np
import pytest
import torch

from webui.core.samplers import SAMPLERS, SCHEDULES, SPACED
from webui.engine.denoise import Stopped, denoise, predicted_original
from webui.engine.families.loading import read_scheduler_config
from webui.engine.latents import Start
from webui.engine.samplers import make_scheduler
from webui.library.library import DEMO_MODEL

pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")

EVERY_PAIR = [(name, schedule) for name, row in SAMPLERS.items() for schedule in row.schedules]
SEED, STEPS, SIDE_PX = 11, 6, 64
PROMPT, NEGATIVE = "a red apple, flat style, on a blue background", "green, blurry"


@pytest.fixture
def stock(model, stock_parts):
    """``stock(sampler, schedule, ...)``: diffusers' own pipeline of the same model; its pictures as levels."""

    def draw(
        sampler, schedule="Default", prompt=PROMPT, scheduler_config=None, seeds=(SEED,), own_latents=False, **options
    ):
        config = scheduler_config or json.loads((DEMO_MODEL / "scheduler/scheduler_config.json").read_text("utf-8"))
        parts = {**stock_parts, "scheduler": stock_scheduler(sampler, schedule, config)}
        pipeline = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        if own_latents:
            shape = (1, 4, SIDE_PX // model.latent_scale, SIDE_PX // model.latent_scale)
            options["latents"] = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
        options = {"num_inference_steps": STEPS, "guidance_scale": 5.0, "height": SIDE_PX, "width": SIDE_PX} | options
        pictures = pipeline(prompt, num_images_per_prompt=len(seeds), generator=generators, **options).images
        return [np.asarray(picture).astype(np.int16) for picture in pictures]

    return draw


def stock_scheduler(sampler, schedule, config):
    """diffusers' own; where it has no such schedule, the same method over the sigmas of its Euler."""
    row = SAMPLERS[sampler]
    scheduler = getattr(diffusers, row.scheduler).from_config(config, **row.config, **SCHEDULES[schedule])
    if not row.spaced or schedule not in SPACED:
        return scheduler
    euler = diffusers.EulerDiscreteScheduler.from_config(config, **SCHEDULES[schedule])
    if sampler == "DDIM":
        return euler
    scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(config)

    def set_timesteps(steps, device=None):
        euler.set_timesteps(steps, device)
        scheduler.num_inference_steps = steps
        scheduler.sigmas, scheduler.timesteps = euler.sigmas, euler.timesteps

    scheduler.set_timesteps = set_timesteps
    return scheduler


def assert_same(ours, theirs):
    """Within 1 of 255 levels in every channel of every pixel."""
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        assert abs(mine - other).max() <= 1
        assert mine.std() > 1, "a picture of one colour shows nothing"


@pytest.mark.parametrize(("sampler", "schedule"), EVERY_PAIR)
def test_the_picture_is_stock_diffusers_picture(draw, stock, sampler, schedule):
    ours = draw(sampler=sampler, schedule=schedule)
    assert_same(ours, stock(sampler, schedule))
    if schedule == "Default":
        assert_same(ours, stock(sampler, own_latents=True))
    elif schedule in ("Karras", "Exponential"):
        (default,) = draw(sampler=sampler)
        assert abs(ours[0] - default).max() > 1, "the schedule changes nothing"


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler a", "DPM++ SDE", "PNDM"])
def test_it_is_also_stock_diffusers_picture_with_a_negative_prompt_in_a_batch(draw, stock, sampler):
    ours = draw(sampler=sampler, negative=NEGATIVE, count=2, guidance=7.5)
    assert_same(ours, stock(sampler, seeds=(SEED, SEED + 1), negative_prompt=NEGATIVE, guidance_scale=7.5))
    assert abs(ours[0] - draw(sampler=sampler, guidance=7.5)[0]).max() > 1, "the negative prompt changes nothing"


@pytest.mark.parametrize("guidance", [1.0, 1.01, 30.0])
def test_it_is_also_stock_diffusers_picture_at_any_guidance(draw, stock, guidance):
    assert_same(draw(sampler="Euler", guidance=guidance), stock("Euler", guidance_scale=guidance))


@pytest.mark.parametrize("guidance", [0.0, 0.5, 0.99])
def test_below_guidance_1_both_prompts_count_as_elsewhere(draw, stock, guidance, monkeypatch):
    """Stock diffusers draws the prompt alone there, unless it is told to guide all the same."""
    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "do_classifier_free_guidance", True)
    ours = draw(sampler="Euler", guidance=guidance, negative=NEGATIVE)
    assert_same(ours, stock("Euler", guidance_scale=guidance, negative_prompt=NEGATIVE))
    assert abs(ours[0] - draw(sampler="Euler", guidance=1.0)[0]).max() > 1
    if guidance == 0:
        assert_same(ours, draw(sampler="Euler", guidance=1.0, prompt=NEGATIVE))


def test_it_is_also_stock_diffusers_picture_in_other_sizes(draw, stock):
    for width, height in ((128, 64), (72, 104)):
        assert_same(draw(sampler="DDIM", width=width, height=height), stock("DDIM", width=width, height=height))


def test_it_is_also_stock_diffusers_picture_when_the_last_text_layer_is_skipped(draw, stock, stock_parts, monkeypatch):
    """Ours counts as A1111 does, 1 is the last layer, for both prompts; diffusers counts the layers left out, and
    only for the prompt, therefore guidance 1."""
    encoder = stock_parts["text_encoder"]
    monkeypatch.setitem(vars(encoder), "text_model", encoder)  # where diffusers 0.42 looks for it
    skipped = draw(clip_skip=2, guidance=1)
    assert_same(skipped, stock("DPM++ 2M", clip_skip=1, guidance_scale=1.0))
    assert abs(skipped[0] - draw(clip_skip=1, guidance=1)[0]).max() > 1


def test_prompts_of_different_length_are_drawn_as_each_alone_would_be(draw, model, stock):
    """A long prompt has several chunks; where the negative one has fewer, the UNet is asked for each by itself."""
    long = ", ".join([PROMPT] * 10)
    context = model.encode_prompt(long, 1, {})["context"]
    empty = model.encode_prompt("", 1, {})["context"]
    assert context.shape[1] > empty.shape[1] == 77
    ours = draw(prompt=long, guidance=1)
    assert_same(ours, stock("DPM++ 2M", prompt=None, prompt_embeds=context, guidance_scale=1.0))
    assert abs(ours[0] - draw(prompt=PROMPT, guidance=1)[0]).max() > 1
    guided, half = draw(prompt=long, guidance=4), draw(prompt=long, guidance=4, negative=long)
    assert abs(guided[0] - half[0]).max() > 1


# A folder may name any scheduler; its file then lacks settings that the others would take at their own defaults.
FOREIGN_CONFIGS = {
    "Euler's": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
    "PNDM's": {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False},
    "trailing, zero terminal noise": {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
}


@pytest.mark.parametrize("kind", FOREIGN_CONFIGS)
@pytest.mark.parametrize("sampler", ["DDIM", "DDPM", "LCM", "TCD", "Euler", "DPM++ 2M"])
def test_it_is_also_stock_diffusers_picture_whatever_scheduler_the_folder_names(
    draw, stock, model, monkeypatch, kind, sampler, clone_demo, tmp_path
):
    own = json.loads((DEMO_MODEL / "scheduler/scheduler_config.json").read_text("utf-8"))
    shared = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    config = {name: own[name] for name in shared} | FOREIGN_CONFIGS[kind]
    folder = clone_demo(tmp_path / "foreign", own=("scheduler",))
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(config), "utf-8")
    monkeypatch.setattr(model, "scheduler_config", read_scheduler_config(folder))
    assert_same(draw(sampler=sampler), stock(sampler, scheduler_config=config))


class Oracle:
    """A UNet for a world with one picture: it always knows the noise exactly. ``predict`` as in ``base.Model``."""

    def __init__(self, answer: torch.Tensor, alphas_cumprod: torch.Tensor, prediction_type: str) -> None:
        self._answer, self._prediction_type = answer, prediction_type
        self._log_sigmas = (((1 - alphas_cumprod) / alphas_cumprod) ** 0.5).log().double().numpy()

    def tell(self, _conditioning):
        return None

    def predict(self, latents, timestep, _told, _shortcuts):
        sigma = float(np.exp(np.interp(float(timestep), np.arange(len(self._log_sigmas)), self._log_sigmas)))
        signal, noise = 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5
        epsilon = (latents - signal * self._answer) / noise
        return epsilon if self._prediction_type == "epsilon" else signal * epsilon - noise * self._answer


CONFIG = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "clip_sample": False,
    "set_alpha_to_one": False,
}


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("sampler", "schedule"), EVERY_PAIR)
def test_with_a_unet_that_knows_the_answer_every_preview_and_the_end_are_the_answer(sampler, schedule, prediction_type):
    scheduler = make_scheduler(sampler, schedule, CONFIG | {"prediction_type": prediction_type})
    scheduler.set_timesteps(20)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    noise = torch.cat([torch.randn(1, 4, 4, 4, generator=generator) for generator in generators])
    answer = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    oracle = Oracle(answer, scheduler.alphas_cumprod, prediction_type)
    start = Start(noise * scheduler.init_noise_sigma, scheduler.timesteps)
    for step in denoise(oracle, scheduler, start, {}, None, 1.0, generators, lambda: False):
        original = predicted_original(step, scheduler.alphas_cumprod, prediction_type)
        assert abs(original - answer).max() < 0.02
        latents = step.latents
    assert step.index == step.total == len(scheduler.timesteps)
    # DDIM, PNDM and TCD stop at the first training timestep's noise, 0.03 of unit variance, as published models do.
    assert abs(latents - answer).max() < 0.15


class Sum:
    """A UNet whose output is the sum of its conditioning, so that guidance can be checked by hand."""

    def tell(self, conditioning):
        return conditioning["c"].sum(dim=1)

    def predict(self, latents, _timestep, told, _shortcuts):
        return told[:, None, None, None].expand(-1, *latents.shape[1:])


def test_guidance_goes_from_the_unconditional_answer_through_the_conditional_one():
    scheduler = make_scheduler("Euler", "Default", CONFIG)
    scheduler.set_timesteps(3)
    generators = [torch.Generator() for _ in range(2)]
    positive, negative = {"c": torch.tensor([[3.0]])}, {"c": torch.tensor([[1.0]])}
    start = Start(torch.zeros(2, 4, 2, 2), scheduler.timesteps)
    loop = denoise(Sum(), scheduler, start, positive, negative, 7.5, generators, lambda: False)
    assert [float(step.output.unique()) for step in loop] == [1 + 7.5 * (3 - 1)] * 3


def test_it_stops_before_the_next_evaluation_once_it_is_cancelled():
    scheduler = make_scheduler("Heun", "Default", CONFIG)
    scheduler.set_timesteps(5)
    calls, seen = [], []

    class Counting(Sum):
        def predict(self, *args):
            calls.append(1)
            return super().predict(*args)

    positive, generators = {"c": torch.zeros(1, 1)}, [torch.Generator()]
    start = Start(torch.zeros(1, 4, 2, 2), scheduler.timesteps)
    loop = denoise(Counting(), scheduler, start, positive, None, 1.0, generators, lambda: len(seen) == 3)
    with pytest.raises(Stopped):
        for step in loop:
            seen.append(step.index)
    assert seen == [1, 2, 3] and len(calls) == 3
