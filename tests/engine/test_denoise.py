"""The one loop: equal to stock diffusers for every sampler and schedule, and right where the right answer is known."""

import functools
import json
from dataclasses import replace
from functools import partial

import diffusers
import numpy as np
import pytest
import torch

from webui.core.request import LoraRef
from webui.core.samplers import SAMPLERS, SCHEDULES, SPACED
from webui.engine import denoise as denoise_module
from webui.engine.denoise import ReadySpan, Stopped, denoise, guided_until
from webui.engine.families import latent
from webui.engine.families.sd import STABLE_DIFFUSION
from webui.engine.guide import Branch
from webui.engine.latents import make_generators
from webui.engine.noise import Noise, make_noise
from webui.library.library import DEMO_MODEL

pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")

EVERY_PAIR = [  # each sampler, and each schedule with one sampler of each kind that has one
    pytest.param(
        name,
        schedule,
        marks=() if schedule == "Default" or name in ("Euler", "DPM++ 2M", "DDIM") else pytest.mark.slow,
    )
    for name, row in SAMPLERS.items()
    for schedule in row.schedules
]
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


@pytest.fixture(scope="module")
def default_picture(draw):
    """``default_picture(sampler)``: ours with the schedule that the sampler has by itself, drawn once."""
    return functools.cache(lambda sampler: draw(sampler=sampler)[0])


@pytest.mark.parametrize(("sampler", "schedule"), EVERY_PAIR)
def test_the_picture_is_stock_diffusers_picture(draw, default_picture, stock, sampler, schedule):
    ours = default_picture(sampler) if schedule == "Default" else draw(sampler=sampler, schedule=schedule)[0]
    assert_same([ours], stock(sampler, schedule))
    if schedule in ("Karras", "Exponential"):
        assert abs(ours - default_picture(sampler)).max() > 1, "the schedule changes nothing"


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ SDE"])
def test_it_is_also_stock_diffusers_picture_from_latents_that_are_given(default_picture, stock, sampler):
    assert_same([default_picture(sampler)], stock(sampler, own_latents=True))


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


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        pytest.param(sampler, kind, marks=() if sampler in ("DDIM", "Euler") or kind == "PNDM's" else pytest.mark.slow)
        for sampler in ("DDIM", "DDPM", "LCM", "TCD", "Euler", "DPM++ 2M")
        for kind in FOREIGN_CONFIGS
    ],
)
def test_it_is_also_stock_diffusers_picture_whatever_scheduler_the_folder_names(
    draw, stock, model, monkeypatch, kind, sampler, clone_demo, tmp_path
):
    own = json.loads((DEMO_MODEL / "scheduler/scheduler_config.json").read_text("utf-8"))
    shared = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    config = {name: own[name] for name in shared} | FOREIGN_CONFIGS[kind]
    folder = clone_demo(tmp_path / "foreign", own=("scheduler",))
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(config), "utf-8")
    monkeypatch.setattr(model, "scheduler_config", STABLE_DIFFUSION.scheduler(model.file.checkpoint, config))
    assert_same(draw(sampler=sampler), stock(sampler, scheduler_config=config))


class Oracle:
    """A network for a world with one picture: it always knows the noise exactly."""

    def __init__(self, answer: torch.Tensor, alphas_cumprod: torch.Tensor, prediction_type: str) -> None:
        self._answer, self._prediction_type = answer, prediction_type
        self._log_sigmas = (((1 - alphas_cumprod) / alphas_cumprod) ** 0.5).log().double().numpy()

    def prepare(self, _conditionings, _count, _shown):
        return [None]

    def predict(self, latents, time, _prepared, _shortcuts):
        sigma = float(np.exp(np.interp(float(time), np.arange(len(self._log_sigmas)), self._log_sigmas)))
        signal, noise = 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5
        epsilon = (latents - signal * self._answer) / noise
        return [epsilon if self._prediction_type == "epsilon" else signal * epsilon - noise * self._answer]


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


def make(sampler, schedule="Default", steps=5, generators=(), **config) -> Noise:
    return make_noise(sampler, schedule, CONFIG | config, "auto", steps, 1.0, generators, torch.device("cpu"))


def never() -> bool:
    return False


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("sampler", "schedule"), EVERY_PAIR)
def test_with_a_unet_that_knows_the_answer_every_preview_and_the_end_are_the_answer(sampler, schedule, prediction_type):
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    noise = make(sampler, schedule, 20, generators, prediction_type=prediction_type)
    drawn = torch.cat([torch.randn(1, 4, 4, 4, generator=generator) for generator in generators])
    answer = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    oracle = Oracle(answer, noise.scheduler.alphas_cumprod, prediction_type)
    for step in denoise(oracle, noise, noise.full(drawn), [ReadySpan(len(noise), [Branch({})])], never):
        assert abs(noise.original(step.seen, step.output, step.index - 1) - answer).max() < 0.02
        latents = step.latents
    assert step.index == step.total == len(noise)
    # DDIM, PNDM and TCD stop at the first training timestep's noise, 0.03 of unit variance, as published models do.
    assert abs(latents - answer).max() < 0.15


class Sum:
    """A network whose output is the sum of its conditioning, so that guidance can be checked by hand."""

    def __init__(self) -> None:
        self.prepared: list[list[float]] = []

    def prepare(self, conditionings, _count, _shown):
        self.prepared.append([float(told["c"].sum()) for told in conditionings])
        return [self.prepared[-1]]

    def predict(self, latents, _time, prepared, _shortcuts):
        return [torch.full_like(latents, value) for value in prepared]


ZEROS = torch.zeros(2, 4, 2, 2)


def told(*values: float) -> dict[str, torch.Tensor]:
    return {"c": torch.tensor([values])}


def outputs_of(spans, noise, **options) -> list[float]:
    return [float(step.output.unique()) for step in denoise(Sum(), noise, ZEROS, spans, never, **options)]


def test_guidance_goes_from_the_unconditional_answer_through_the_conditional_one():
    noise = make("Euler", steps=3)
    spans = [ReadySpan(3, [Branch(told(2.0, 1.0))], told(1.0), 7.5)]
    assert outputs_of(spans, noise) == [1 + 7.5 * (3 - 1)] * 3


def test_each_span_is_told_its_own_and_entered_before_it_is_prepared():
    noise, network, entered = make("Euler"), Sum(), []

    def enter(name):
        return lambda: entered.append((name, len(network.prepared)))

    spans = [
        ReadySpan(2, [Branch(told(1.0))], told(0.5), 3.0, enter("one")),
        ReadySpan(2, [Branch(told(9.0))], enter=enter("never")),
        ReadySpan(4, [Branch(told(2.0))], enter=enter("two")),
        ReadySpan(5, [Branch(told(3.0)), Branch(told(5.0), 0.5)], told(1.0), 2.0, enter("three")),
    ]
    found = [float(step.output.unique()) for step in denoise(network, noise, ZEROS, spans, never)]
    assert found == [0.5 + 3 * 0.5] * 2 + [2.0] * 2 + [1 + 2 * (2 + 0.5 * 4)]
    assert entered == [("one", 0), ("two", 1), ("three", 2)]
    assert network.prepared == [[0.5, 1], [2], [1, 3, 5]]


def test_spans_that_come_back_are_prepared_once_for_the_weights_that_they_have():
    noise, network, weights = make("Euler", steps=8), Sum(), [0.0]
    one, other = [Branch(told(1.0))], [Branch(told(2.0))]

    def night():
        weights.append(1.0)

    spans = [ReadySpan(stop, (one, other)[stop % 2]) for stop in range(1, 5)]
    spans += [ReadySpan(5, one, enter=night), *(ReadySpan(stop, (one, other)[stop % 2]) for stop in range(6, 9))]
    found = [float(step.output.unique()) for step in denoise(network, noise, ZEROS, spans, never)]
    assert found == [2, 1, 2, 1, 1, 1, 2, 1]
    assert network.prepared == [[2], [1], [1], [2]], "with other weights all is prepared anew"


def test_more_spans_than_are_kept_are_prepared_anew(monkeypatch):
    monkeypatch.setattr(denoise_module, "KEPT_SPANS", (4, 4))
    noise, network = make("Euler", steps=12), Sum()
    terms = [[Branch(told(float(value)))] for value in range(1, 7)]
    spans = [ReadySpan(stop, terms[(stop - 1) % 6]) for stop in range(1, 13)]
    assert [float(step.output.unique()) for step in denoise(network, noise, ZEROS, spans, never)] == [*range(1, 7)] * 2
    assert len(network.prepared) == 12


class TestAhead:
    """Spans that are prepared before the first evaluation."""

    class Weighed(Sum):
        """The weights and the number of evaluations when something was prepared, and how large it is."""

        def __init__(self, nbytes=0):
            super().__init__()
            self.weights, self.predicted, self.seen, self.nbytes = 0.0, 0, [], nbytes

        def prepare(self, conditionings, *_):
            class Values(list):
                nbytes = self.nbytes

            self.seen.append((self.predicted, self.weights))
            return [Values(self.weights * float(told["c"].sum()) for told in conditionings)]

        def predict(self, *args):
            self.predicted += 1
            return super().predict(*args)

    @staticmethod
    def run(network, cancelled=never):
        enters = [partial(setattr, network, "weights", weights) for weights in (1.0, 10.0)]
        terms = [[Branch(told(1.0))], [Branch(told(2.0))]]
        spans = [ReadySpan(stop, terms[stop // 4], enter=enters[stop % 2]) for stop in range(1, 7)]
        steps = denoise(network, make("Euler", steps=6), ZEROS, spans, cancelled, ahead=True)
        return [float(step.output.unique()) for step in steps]

    def test_each_is_prepared_once_under_its_own_weights(self):
        network = self.Weighed()
        assert self.run(network) == [10, 1, 10, 2, 20, 2]
        assert network.seen == [(0, 10), (0, 1), (0, 1), (0, 10)], "the last first"

    def test_where_not_all_have_room_they_are_prepared_at_their_steps(self, monkeypatch):
        monkeypatch.setattr(denoise_module, "KEPT_SPANS", (1, 64))
        network = self.Weighed(denoise_module.KEPT_BYTES // 3)
        assert self.run(network) == [10, 1, 10, 2, 20, 2]
        assert [predicted for predicted, _ in network.seen] == [0, 0, 1, 3, 4]

    def test_it_can_be_stopped_between_them(self):
        network = self.Weighed()
        with pytest.raises(Stopped):
            self.run(network, lambda: len(network.seen) == 2)
        assert len(network.seen) == 2 and not network.predicted


def test_it_takes_the_evaluations_it_is_asked_for():
    noise = make("Euler")
    spans = [ReadySpan(2, [Branch(told(1.0))]), ReadySpan(5, [Branch(told(2.0))])]
    assert outputs_of(spans, noise, stop=3) == [1, 1, 2]
    noise = make("Euler")
    noise.begin(3)
    assert outputs_of(spans, noise, first=3) == [2, 2]
    assert outputs_of(spans, noise, first=5) == outputs_of([], noise, stop=0) == []


def test_spans_that_end_too_early_are_an_error_and_no_unfinished_picture():
    with pytest.raises(ValueError, match="the spans end at evaluation 4 of 5"):
        outputs_of([ReadySpan(4, [Branch(told(1.0))])], make("Euler"))


def test_what_is_kept_is_put_back_after_each_evaluation():
    noise, kept = make("Euler"), []

    def keep(latents, index):
        kept.append(index)
        return torch.full_like(latents, index)

    steps = denoise(Sum(), noise, ZEROS, [ReadySpan(5, [Branch(told(1.0))])], never, keep=keep)
    assert [float(step.latents.unique()) for step in steps] == kept == [1, 2, 3, 4, 5]


class TestGuidedUntil:
    SPANS = (ReadySpan(2, [Branch(told(1.0))], told(0.5), 3.0), ReadySpan(5, [Branch(told(2.0))], told(0.5), 3.0))

    @pytest.mark.parametrize("index", range(7))
    def test_behind_it_the_prompt_goes_on_alone(self, index):
        guided = [0.5 + 3 * (value - 0.5) for value in (1, 1, 2, 2, 2)]
        found = outputs_of(guided_until(self.SPANS, index), make("Euler"))
        assert found == guided[:index] + [1.0, 1, 2, 2, 2][index:]

    def test_no_unconditional_answer_is_asked_for_there(self):
        network = Sum()
        list(denoise(network, make("Euler"), ZEROS, guided_until(self.SPANS, 3), never))
        assert network.prepared == [[0.5, 1], [0.5, 2], [2]]

    def test_terms_that_are_not_whole_keep_it_at_guidance_1(self):
        both = [ReadySpan(5, [Branch(told(2.0)), Branch(told(3.0))], told(0.5), 3.0)]
        assert outputs_of(guided_until(both, 4), make("Euler")) == [0.5 + 3 * 4] * 4 + [0.5 + 4]
        with pytest.raises(ValueError, match="sum to 1"):
            ReadySpan(5, both[0].positive)


def test_it_stops_before_the_next_evaluation_once_it_is_cancelled():
    calls, seen = [], []

    class Counting(Sum):
        def predict(self, *args):
            calls.append(1)
            return super().predict(*args)

    loop = denoise(Counting(), make("Heun"), ZEROS, [ReadySpan(9, [Branch(told(0.0))])], lambda: len(seen) == 3)
    with pytest.raises(Stopped):
        for step in loop:
            seen.append(step.index)
    assert seen == [1, 2, 3] and len(calls) == 3


class TestSpans:
    """Of the embedded model: what changes in the middle is what two halves, each told its own, come to."""

    WORDS = ("a red apple, flat style", "a panda, 3d style")
    LORA = (LoraRef(name="blueprint", weight=0.9),)

    @pytest.fixture
    def switch(self, darkroom, request_for):
        def switch(loras):
            darkroom.manager._residence.loras.switch(darkroom.plan(request_for(loras=loras)).stages[0].loras)

        yield switch
        switch(())

    @pytest.fixture
    def draw(self, darkroom, model):
        """``draw(sampler, [(spans, until), ...], between)``: one run, or several that each go on with its latents."""

        def draw(sampler, runs, between=lambda: None):
            config, generators = model.scheduler_config, make_generators((5, 6))
            noise = make_noise(sampler, "Default", config, "auto", 6, 1.0, generators, darkroom.manager.device)
            latents = torch.cat([torch.randn(1, 4, 8, 8, generator=generator) for generator in generators])
            latents, first = noise.full(latents), 0
            for spans, step in runs:
                if first:
                    between()
                stop = noise.first(step)
                ready = [ReadySpan(noise.first(last), *rest) for last, *rest in spans]
                for done in denoise(model.backbone, noise, latents, ready, never, first, stop):
                    latents = done.latents
                first = stop
            return latents

        return draw

    @pytest.fixture
    def prompts(self, model):
        with torch.inference_mode():
            one, other = ([Branch(model.encode_prompt(text, 1, {}))] for text in self.WORDS)
            return one, other, model.encode_prompt("", 1, {}, True)

    @pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M", "DPM++ SDE", "UniPC", "Heun", "PNDM"])
    def test_a_prompt_and_a_lora_that_change_in_the_middle(self, draw, switch, prompts, sampler):
        one, other, negative = prompts

        def night():
            switch(self.LORA)

        switch(())
        spans = [(3, one, negative, 4.0), (6, other, negative, 4.0, night)]
        whole = draw(sampler, [(spans, 6)])
        switch(())
        halves = draw(sampler, [([(6, one, negative, 4.0)], 3), ([(6, other, negative, 4.0)], 6)], between=night)
        assert torch.equal(whole, halves)
        switch(())
        plain = draw(sampler, [([(3, one, negative, 4.0), (6, other, negative, 4.0)], 6)])
        same = draw(sampler, [([(6, one, negative, 4.0)], 6)])
        assert not torch.equal(whole, plain) and not torch.equal(plain, same), "something changes nothing"

    def test_a_term_of_weight_0_changes_no_bit_and_is_no_work(self, draw, prompts, unet_rows):
        (one,), (other,), negative = prompts
        plain = draw("Euler a", [([(6, [one], negative, 4.0)], 6)])
        both = draw("Euler a", [([(6, [one, replace(other, weight=0.0)], negative, 4.0)], 6)])
        assert torch.equal(both, plain) and unet_rows == [(2, 4)] * 12
        none = draw("Euler a", [([(6, [replace(one, weight=0.0)], negative, 4.0)], 6)])
        assert torch.equal(none, draw("Euler a", [([(6, [Branch(negative)], None, 1.0)], 6)]))

    def test_several_terms_are_asked_in_one_forward_where_they_have_one_length(self, model, draw, prompts, unet_rows):
        (one,), (other,), negative = prompts
        with torch.inference_mode():
            long = Branch(model.encode_prompt(", ".join(self.WORDS * 20), 1, {}), 0.5)
        weighed = [one, replace(other, weight=0.6)]
        plain = draw("Euler", [([(6, [one], negative, 4.0)], 6)])
        both = draw("Euler", [([(6, weighed, negative, 4.0)], 6)])
        mixed = draw("Euler", [([(6, [*weighed, long], negative, 4.0)], 6)])
        assert unet_rows == [(2, 4)] * 6 + [(2, 6)] * 6 + [(2, 6), (2, 2)] * 6
        assert not torch.equal(both, plain) and not torch.equal(mixed, both)

    def test_no_forward_has_more_rows_than_16_pictures_with_a_negative_prompt(
        self, model, draw, prompts, unet_rows, monkeypatch
    ):
        (one,), (other,), negative = prompts
        span = (6, [one, replace(other, weight=0.6)], negative, 4.0)
        whole = draw("Euler", [([span], 6)])
        monkeypatch.setattr(latent, "FORWARD_ROWS", 4)
        parts = draw("Euler", [([span], 6)])
        assert unet_rows == [(2, 6)] * 6 + [(2, 4), (2, 2)] * 6
        torch.testing.assert_close(parts, whole, atol=1e-4, rtol=0)
        monkeypatch.undo()
        with torch.inference_mode():
            rows = [forward.prompts.attended[0][0].shape[0] for forward in model.backbone.prepare([negative] * 33, 16)]
        assert rows == [32] * 16 + [16]

    def test_the_same_in_two_spans_is_the_same_in_one(self, draw, prompts):
        one, _, negative = prompts
        assert torch.equal(
            draw("DPM2", [([(2, one, negative, 4.0), (6, one, negative, 4.0)], 6)]),
            draw("DPM2", [([(6, one, negative, 4.0)], 6)]),
        )
