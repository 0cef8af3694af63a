"""The samplers: one row each. To add one, add a row; page, CLI, API and the parity test take it from here.

Names follow A1111 and k-diffusion, since that is what people paste. Nothing here imports torch.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from webui.core.names import choose
from webui.core.request import RequestError
from webui.core.sampler_names import does_not_go

SCHEDULES: Mapping[str, Mapping[str, Any]] = {
    "Default": {},  # the spacing that the model was published with
    "Karras": {"use_karras_sigmas": True},  # Karras et al. 2022, equation 5, rho 7
    "Exponential": {"use_exponential_sigmas": True},  # sigmas evenly spaced in their logarithm
    "Trailing": {"timestep_spacing": "trailing"},  # Lin et al. 2023, table 2: ends on the last timestep
}
BY_SIGMA = ("Default", "Karras", "Exponential", "Trailing")
BY_TIMESTEP = ("Default", "Trailing")
SPACED = ("Karras", "Exponential")
NO_SPACING = ("Default", "Karras", "Exponential")  # diffusers' singlestep solver has no timestep_spacing


@dataclass(frozen=True)
class Sampler:
    """A diffusers scheduler under the name people know, with the schedules that make sense for it.

    ``spaced`` is the same method by another class, for the sigmas of ``SPACED``, where the scheduler takes none.
    """

    name: str
    scheduler: str
    schedules: tuple[str, ...] = BY_SIGMA
    config: Mapping[str, Any] = field(default_factory=dict)
    spaced: str = ""


ANCESTRAL = "webui.engine.schedulers.SpacedEulerAncestralScheduler"

_ROWS = (
    Sampler("DPM++ 2M", "DPMSolverMultistepScheduler", config={"algorithm_type": "dpmsolver++"}),
    Sampler("DPM++ 2M SDE", "DPMSolverMultistepScheduler", config={"algorithm_type": "sde-dpmsolver++"}),
    Sampler(
        "DPM++ SDE",
        "DPMSolverSinglestepScheduler",
        NO_SPACING,
        config={"algorithm_type": "sde-dpmsolver++", "lower_order_final": True},
    ),
    Sampler("Euler", "EulerDiscreteScheduler"),
    Sampler("Euler a", "EulerAncestralDiscreteScheduler", spaced=ANCESTRAL),
    Sampler("Heun", "HeunDiscreteScheduler"),
    Sampler("LMS", "LMSDiscreteScheduler"),
    Sampler("DPM2", "KDPM2DiscreteScheduler"),
    Sampler("DPM2 a", "KDPM2AncestralDiscreteScheduler"),
    Sampler("UniPC", "UniPCMultistepScheduler"),
    Sampler("DDIM", "DDIMScheduler", spaced="diffusers.schedulers.EulerDiscreteScheduler"),
    Sampler("DDPM", "DDPMScheduler", spaced=ANCESTRAL),
    Sampler("PNDM", "PNDMScheduler", BY_TIMESTEP, {"skip_prk_steps": True}),
    Sampler("LCM", "LCMScheduler", ("Default",)),
    Sampler("TCD", "TCDScheduler", ("Default",)),
)
SAMPLERS: Mapping[str, Sampler] = {row.name: row for row in _ROWS}
FROM_PURE_NOISE = ("DPM++ 2M", "DPM++ 2M SDE", "Euler", "Euler a", "UniPC", "DDIM", "DDPM", "LCM", "TCD")
"""Those whose diffusers class knows zero terminal SNR (Lin et al. 2023): the first timestep holds no signal."""


PREDICTIONS: Mapping[str, Mapping[str, Any]] = {
    "epsilon": {"prediction_type": "epsilon", "rescale_betas_zero_snr": False},
    "v": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": False},
    "v zero-SNR": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
}


def resolve(sampler: str, schedule: str) -> tuple[str, str]:
    """The names as the table spells them; "DPM++ 2M Karras" sets both.

    RequestError for unknown names, and for a schedule that the sampler does not have.
    """
    for name in SCHEDULES:
        suffix = f" {name}".casefold()
        if sampler.casefold().endswith(suffix):
            sampler, schedule = sampler[: -len(suffix)], name
    row = SAMPLERS[choose("sampler", sampler, SAMPLERS)]
    schedule = "Default" if schedule.casefold() == "automatic" else schedule
    schedule = choose("schedule", schedule, SCHEDULES)
    if schedule not in row.schedules:
        raise RequestError(f"schedule “{schedule}” {does_not_go(row.name, row.schedules)}", field="schedule")
    return row.name, schedule


def make_scheduler(sampler: str, schedule: str, model_config: Mapping[str, Any], prediction: str = "auto") -> Any:
    """The diffusers scheduler for these names, with the noise the model was trained on (``model_config``).

    ``prediction`` is one of ``PREDICTIONS``, or auto for the one in the configuration.
    """
    row = SAMPLERS[sampler]
    config = {**model_config, **PREDICTIONS.get(prediction, {})}
    path = row.spaced if row.spaced and schedule in SPACED else f"diffusers.schedulers.{row.scheduler}"
    module, _, name = path.rpartition(".")
    with _lean_imports():
        scheduler_class = getattr(importlib.import_module(module), name)
        if path == ANCESTRAL:  # which takes from its configuration what diffusers' class has no parameter for
            config |= SCHEDULES[schedule]
        return scheduler_class.from_config(config, **row.config, **SCHEDULES[schedule])


@contextmanager
def _lean_imports() -> Iterator[None]:
    """Keeps out two things that diffusers' schedulers import and do not need for what is done here.

    torch's compiler takes a second; diffusers does without where it is missing. scipy's statistics, for one schedule,
    take most of one; scipy imports them itself when they are first used.
    """
    stand_ins: dict[str, Any] = {"torch._dynamo": None, "scipy.stats": ModuleType("scipy.stats")}
    absent = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules |= absent
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
