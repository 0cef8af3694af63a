"""Each sampler and each schedule does what its name says."""

import math

import numpy as np
import pytest
import torch

from webui.core.samplers import SAMPLERS, SCHEDULES
from webui.engine.samplers import make_scheduler
from webui.engine.schedulers import SpacedEulerAncestralScheduler

STABLE_DIFFUSION_1_5 = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
}
# What diffusers' own page lists for these names: huggingface.co/docs/diffusers/api/schedulers/overview.
PROMISED = {
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "DPM++ SDE": ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "LCM": ("LCMScheduler", {}),
    "TCD": ("TCDScheduler", {}),
}
EVERY_PAIR = [(name, schedule) for name, row in SAMPLERS.items() for schedule in row.schedules]


def prepared(sampler: str, schedule: str, steps: int = 10):
    scheduler = make_scheduler(sampler, schedule, STABLE_DIFFUSION_1_5)
    scheduler.set_timesteps(steps)
    return scheduler


def path_of(scheduler) -> list[float]:
    """Where the steps are: sigmas where the scheduler goes by these, else timesteps."""
    return [float(value) for value in getattr(scheduler, "sigmas", scheduler.timesteps)]


def test_two_that_are_asked_for_alike_have_nothing_in_common():
    one, other = (make_scheduler("DPM2", "Default", STABLE_DIFFUSION_1_5) for _ in range(2))
    before = len(other.timesteps)
    one.set_timesteps(3)
    assert len(other.timesteps) == before > len(one.timesteps)
    assert type(one) is type(other) and one.config == other.config and one.betas is not other.betas


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "told", [{}, {"_class_name": "EulerDiscreteScheduler", "_use_default_values": ["beta_end", "set_alpha_to_one"]}]
)
def test_a_configuration_becomes_what_diffusers_makes_of_it(name, told):
    # DPM2's class goes through all timesteps of the training whenever it is made: few here
    row, config = SAMPLERS[name], STABLE_DIFFUSION_1_5 | {"num_train_timesteps": 100} | told
    for schedule in row.schedules:
        made = make_scheduler(name, schedule, config)
        stock = type(made).from_config(
            config | (SCHEDULES[schedule] if isinstance(made, SpacedEulerAncestralScheduler) else {}),
            **row.config,
            **SCHEDULES[schedule],
        )
        kept, theirs = (
            {**of.config, "_use_default_values": {*of.config["_use_default_values"]}} for of in (made, stock)
        )
        assert kept == theirs


@pytest.mark.parametrize("name", PROMISED)
def test_a_promised_sampler_is_the_one_that_diffusers_lists_under_its_name(name):
    class_name, config = PROMISED[name]
    scheduler = prepared(name, "Default")
    assert type(scheduler).__name__ == class_name
    assert config.items() <= dict(scheduler.config).items()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_keeps_the_noise_that_the_model_was_trained_on(name):
    scheduler = prepared(name, "Default")
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert np.allclose(scheduler.alphas_cumprod, np.cumprod(1 - betas), rtol=1e-4)
    for prediction_type in ("epsilon", "v_prediction"):
        config = STABLE_DIFFUSION_1_5 | {"prediction_type": prediction_type}
        assert make_scheduler(name, "Default", config).config.prediction_type == prediction_type


@pytest.mark.parametrize(("name", "schedule"), [pair for pair in EVERY_PAIR if pair[1] != "Default"])
def test_an_offered_schedule_is_not_the_default_under_another_name(name, schedule):
    default, other = path_of(prepared(name, "Default")), path_of(prepared(name, schedule))
    assert not np.allclose(default[: len(other)], other[: len(default)], rtol=1e-3)


@pytest.mark.parametrize("name", [name for name, row in SAMPLERS.items() if "Karras" in row.schedules])
def test_karras_spaces_the_sigmas_as_the_paper_says(name):
    """Karras et al. 2022, equation 5, rho 7."""
    sigmas = [sigma for sigma in path_of(prepared(name, "Karras", 10)) if sigma > 0]
    high, low = max(sigmas), min(sigmas)
    expected = (high ** (1 / 7) + np.linspace(0, 1, 10) * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    assert all(min(abs(sigma - one) / sigma for one in sigmas) < 1e-3 for sigma in expected)


@pytest.mark.parametrize("name", [name for name, row in SAMPLERS.items() if "Exponential" in row.schedules])
def test_exponential_spaces_the_logarithms_of_the_sigmas_evenly(name):
    sigmas = [sigma for sigma in path_of(prepared(name, "Exponential", 10)) if sigma > 0]
    expected = np.exp(np.linspace(math.log(max(sigmas)), math.log(min(sigmas)), 10))
    assert all(min(abs(sigma - one) / sigma for one in sigmas) < 1e-3 for sigma in expected)


@pytest.mark.parametrize("name", [name for name, row in SAMPLERS.items() if "Trailing" in row.schedules])
def test_trailing_begins_on_the_last_training_timestep(name):
    """Lin et al. 2023, table 2."""
    assert float(prepared(name, "Trailing").timesteps[0]) == 999


@pytest.mark.parametrize(("name", "same"), [("DDIM", "Euler"), ("DDPM", "Euler a")])
def test_what_draws_karras_sigmas_for_a_sampler_is_the_same_method(name, same):
    """DDIM is Euler's method over sigmas, DDPM ancestral Euler: shown where both have the same timesteps."""
    assert type(prepared(name, "Karras")) is type(prepared(same, "Karras"))
    one, other = prepared(name, "Trailing"), prepared(same, "Trailing")
    generator, again = torch.manual_seed(1), torch.Generator().manual_seed(1)
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    start = one.timesteps[:1]
    latents, scaled = one.add_noise(clean, noise, start.long()), other.add_noise(clean, noise, other.timesteps[:1])
    for timestep, again_timestep in zip(one.timesteps[:-1], other.timesteps[:-1], strict=True):
        seen = other.scale_model_input(scaled, again_timestep)
        assert torch.allclose(seen, latents, atol=1e-3)
        output = torch.tanh(seen + 0.1)  # of a network, whatever it is
        latents = one.step(output, timestep, latents, generator=generator).prev_sample
        scaled = other.step(output, again_timestep, scaled, **({"generator": again} if same == "Euler a" else {}))[0]
