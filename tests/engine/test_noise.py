"""A scheduler by evaluation: what belongs to which step, the noise at any index, and flow, where no model flows yet."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from webui.core.errors import RequestError
from webui.core.samplers import FLOWING, SAMPLERS
from webui.engine.denoise import ReadySpan, denoise
from webui.engine.families.family import shift_of
from webui.engine.guide import Branch
from webui.engine.noise import Noise, make_noise, scheduled_steps, steps_to_take

CPU = torch.device("cpu")
CONFIG = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "prediction_type": "epsilon",
}
EVERY_PAIR = [
    pytest.param(name, schedule, marks=pytest.mark.slow if schedule in row.schedules[1:] else ())
    for name, row in SAMPLERS.items()
    for schedule in row.schedules
]


def make(sampler, schedule="Default", steps=6, strength=1.0, **config) -> Noise:
    generators = [torch.Generator().manual_seed(0)]
    return make_noise(sampler, schedule, CONFIG | config, "auto", steps, strength, generators, CPU)


@pytest.mark.parametrize(
    ("steps", "strength", "scheduled", "taken"),
    [(20, 0.0, 20, 0), (20, 0.05, 20, 1), (20, 0.5, 20, 10), (20, 1.0, 20, 20), (1, 1.0, 1, 1), (100, 0.29, 100, 28)]
    + [(20, 0.049, 21, 1), (4, 0.2, 5, 1), (4, 0.249, 5, 1), (1, 0.5, 2, 1), (1, 0.01, 100, 1), (3, 1e-9, 150, 1)],
)
def test_a_strength_below_one_step_is_one_step_of_a_finer_schedule(steps, strength, scheduled, taken):
    assert (scheduled_steps(steps, strength), steps_to_take(steps, strength)) == (scheduled, taken)
    assert scheduled_steps(steps, strength, most=50) == min(scheduled, max(steps, 50))


class TestSteps:
    @pytest.mark.parametrize("sampler", SAMPLERS)
    @pytest.mark.parametrize(("strength", "steps"), [(1.0, 6), (0.5, 3), (0.1, 1)])
    def test_a_step_has_the_evaluations_that_lead_to_the_next_ones_level(self, sampler, strength, steps):
        noise = make(sampler, strength=strength)
        firsts = [noise.first(step) for step in range(noise.steps + 1)]
        each = list(np.diff(firsts))
        assert noise.steps == steps and firsts[0] == 0 and firsts[-1] == len(noise)
        if sampler in ("Heun", "DPM2", "DPM2 a"):
            assert each == [2] * (steps - 1) + [1]
        elif sampler == "PNDM":
            assert each == [2] + [1] * (steps - 1)
        else:
            assert each == [1] * steps

    def test_a_refiner_goes_on_behind_its_share_of_the_noise(self):
        noise = make("Euler", steps=10)
        times = [float(noise.time(index)) for index in range(len(noise))]
        for share in (0.0, 0.25, 0.5, 0.99, 1.0):
            assert noise.handover(share) == sum(time >= 1000 - 1000 * share for time in times)
        assert noise.handover(0.0) == 0 and noise.handover(1.0) == len(noise)

    def test_steps_that_the_sampler_cannot_do_are_named(self):
        with pytest.raises(RequestError, match="steps 60 does not work with sampler 'LCM'"):
            make("LCM", steps=60)

    def test_a_prediction_that_nobody_knows_is_named(self):
        scheduler = diffusers.EulerDiscreteScheduler(prediction_type="score")
        scheduler.set_timesteps(3)
        with pytest.raises(ValueError, match="'score'"):
            Noise(scheduler)


@pytest.mark.parametrize(("sampler", "schedule"), EVERY_PAIR)
def test_the_noise_at_an_index_is_the_same_whenever_it_is_asked_for(sampler, schedule):
    clean, drawn = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = []
    for index in range(len(make(sampler, schedule))):
        scheduler = make(sampler, schedule).scheduler
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(index)
        expected.append(scheduler.add_noise(clean, drawn, scheduler.timesteps[index : index + 1]))
    expected.append(clean)
    noise = make(sampler, schedule)
    latents = noise.full(drawn)
    for index in range(len(noise)):
        for asked in (len(noise), index, 0, len(noise) - 1):
            assert torch.equal(noise.add(clean, drawn, asked), expected[asked])
        latents = noise.step(noise.model_input(latents, index) * 0.1, index, latents)
    assert torch.equal(noise.add(clean, drawn, 1), expected[1])
    away = [float((noised - clean).norm()) for noised in expected]
    assert all(away[noise.first(step)] > away[noise.first(step + 1)] for step in range(noise.steps))


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "DPM++ 2M SDE", "UniPC"])
@pytest.mark.parametrize("schedule", ["Karras", "Exponential"])
def test_a_first_timestep_that_repeats_is_the_first_one(sampler, schedule):
    """At zero terminal SNR several of the first sigmas round to the last timestep of the training."""
    noise = make_noise(sampler, schedule, CONFIG, "v zero-SNR", 25, 1.0, [torch.Generator().manual_seed(0)], CPU)
    assert noise.scheduler.timesteps[0] == noise.scheduler.timesteps[1]
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for index in range(len(noise)):
        latents = noise.step(noise.model_input(latents, index) * 0.1, index, latents)
        assert noise.scheduler.step_index == index + 1
    assert torch.isfinite(latents).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_x0_is_found_from_what_is_predicted(prediction):
    noise = make("DDIM", prediction_type=prediction)
    clean, drawn = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for index in range(len(noise)):
        alpha = float(noise.scheduler.alphas_cumprod[int(noise.time(index))])
        signal, level = alpha**0.5, (1 - alpha) ** 0.5
        output = {"epsilon": drawn, "v_prediction": signal * drawn - level * clean, "sample": clean}[prediction]
        seen = noise.model_input(noise.add(clean, drawn, index), index)
        torch.testing.assert_close(noise.original(seen, output, index), clean, atol=1e-4, rtol=1e-4)


class GaussianFlow:
    """What a perfect network says of pictures whose numbers are normal, 1 with a standard deviation of 0.5."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def prepare(self, _conditionings, _count, _shown):
        return [None]

    def predict(self, latents, time, _prepared, _shortcuts):
        self.times.append(float(time))
        return [self.flow(latents, float(time) / 1000)]

    def flow(self, latents, sigma):
        signal = 1 - sigma
        original = 1 + signal * 0.25 / (signal**2 * 0.25 + sigma**2) * (latents - signal)
        return (latents - original) / sigma


def solution(latents: torch.Tensor) -> torch.Tensor:
    """Where the flow leads from pure noise: each number keeps its place in the distribution."""
    return 1 + 0.5 * latents


FLOW = {"prediction_type": "flow_prediction", "shift": 3.0}
FLOWS = {  # how far from the solution 40 steps may be at most, and their standard deviation from 0.5
    "Euler": (0.25, 0.06),
    "Heun": (0.03, 0.03),
    "DPM++ 2M": (0.03, 0.03),
    "UniPC": (0.03, 0.03),
    "DPM++ 2M SDE": (None, 0.03),
    "DPM++ SDE": (None, 0.12),
    "LCM": (None, 0.2),
}


def test_samplers_without_a_form_for_flow_are_named():
    assert set(FLOWS) == set(FLOWING)
    for sampler in SAMPLERS.keys() - FLOWING:
        with pytest.raises(RequestError, match=f"{sampler}.* flow") as caught:
            make_noise(sampler, "Default", FLOW, "auto", 4, 1.0, [], CPU)
        assert caught.value.field == "sampler"


@pytest.mark.parametrize("sampler", FLOWING)
def test_the_shift_is_the_models_or_the_pictures(sampler):
    """diffusers' exponential shift by mu is a fixed one of its exponential, and each sampler has the same."""
    for shift in (None, 1.0, 2.2):
        noise = make_noise(sampler, "Default", FLOW, "auto", 8, 1.0, [], CPU, shift)
        whole = shift or FLOW["shift"]
        even = [level / (whole - (whole - 1) * level) for level in (float(noise.time(k)) / 1000 for k in range(2))]
        assert even[0] == pytest.approx(1, abs=2e-3) and even[1] == pytest.approx(1 - 1 / 8, abs=0.02)


def test_the_shift_goes_by_tokens_as_in_diffusers():
    dynamic = FLOW | {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    assert shift_of(FLOW, 4096, 20) == 3.0 and shift_of({}, 4096, 20) == 1.0
    for tokens in (256, 1024, 4096):
        mu = calculate_shift(tokens, 256, 4096, 0.5, 1.15)
        assert shift_of(dynamic | {"time_shift_type": "linear"}, tokens, 20) == pytest.approx(mu)
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / 8, 8), mu=mu)
        ours = make_noise("Euler", "Default", dynamic, "auto", 8, 1.0, [], CPU, shift_of(dynamic, tokens, 8))
        torch.testing.assert_close(ours.scheduler.sigmas, scheduler.sigmas, atol=1e-6, rtol=1e-6)


class TestFlow:
    SPAN = (ReadySpan(1000, [Branch({})]),)

    def make(self, name, steps=40, strength=1.0) -> Noise:
        return make_noise(name, "Default", FLOW, "auto", steps, strength, [torch.Generator().manual_seed(3)], CPU)

    def latents(self, size=64):
        return torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(0))

    def draw(self, noise, latents, network=None, first=0):
        steps = list(denoise(network or GaussianFlow(), noise, latents, self.SPAN, lambda: False, first))
        return steps[-1].latents, steps

    def test_euler_is_stock_diffusers_loop_bit_for_bit(self):
        def scheduler():
            made = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
            made.set_timesteps(sigmas=np.linspace(1.0, 1 / 8, 8), mu=0.8)
            return made

        network, stock, latents = GaussianFlow(), scheduler(), self.latents(8)
        ours, steps = self.draw(Noise(scheduler()), latents, network)
        for timestep in stock.timesteps:
            latents = stock.step(network.flow(latents, float(timestep) / 1000), timestep, latents).prev_sample
        assert torch.equal(ours, latents) and len(steps) == 8
        assert network.times == [float(timestep) for timestep in stock.timesteps]

    @pytest.mark.parametrize("name", FLOWS)
    def test_the_pictures_are_those_of_the_flow(self, name):
        noise, network, latents = self.make(name), GaussianFlow(), self.latents()
        assert noise.prediction == "flow" and torch.equal(noise.full(latents), latents)
        found, _ = self.draw(noise, latents, network)
        assert len(noise) == (79 if name == "Heun" else 40) and noise.first(40) == len(noise)
        assert torch.isfinite(found).all() and abs(float(found.mean()) - 1) < 0.02
        most, spread = FLOWS[name]
        assert abs(float(found.std()) - 0.5) < spread
        if most is not None:
            assert abs(found - solution(latents)).max() < most

    @pytest.mark.parametrize("name", FLOWS)
    def test_the_time_is_the_noise_s_level_and_not_rounded(self, name):
        noise, network = self.make(name), GaussianFlow()
        self.draw(noise, self.latents(8), network)
        assert network.times == pytest.approx((noise.scheduler.sigmas[: len(noise)] * 1000).tolist(), rel=1e-7)
        assert any(time != round(time) for time in network.times)

    @pytest.mark.parametrize("name", FLOWS)
    def test_the_last_x0_is_the_result(self, name):
        noise = self.make(name, 12)
        found, steps = self.draw(noise, self.latents(8))
        originals = [noise.original(step.seen, step.output, step.index - 1) for step in steps]
        torch.testing.assert_close(originals[-1], found, atol=1e-6, rtol=1e-6)
        if name in ("Euler", "Heun"):
            assert torch.equal(originals[-1], found)

    @pytest.mark.parametrize("name", FLOWS)
    def test_a_picture_with_noise_in_it_comes_to_a_picture_again(self, name):
        noise = self.make(name, strength=0.5)
        clean = 1 + 0.5 * self.latents()
        drawn = torch.randn(clean.shape, generator=torch.Generator().manual_seed(9))
        level = float(noise.time(0)) / 1000
        noised = noise.add(clean, drawn, 0)
        torch.testing.assert_close(noised, level * drawn + (1 - level) * clean)
        assert torch.equal(noise.add(clean, drawn, len(noise)), clean) and noise.steps == 20 and 0.5 < level < 0.95
        found, steps = self.draw(noise, noised)
        assert len(steps) == len(noise) == (39 if name == "Heun" else 20)
        assert abs(float(found.mean()) - 1) < 0.02 and abs(float(found.std()) - 0.5) < FLOWS[name][1]

    def test_a_refiner_goes_on_where_the_time_says(self):
        noise = self.make("UniPC", 10)
        times = [float(noise.time(index)) for index in range(10)]
        assert 0 < noise.handover(0.5) == sum(time >= 500 for time in times) < 10
