"""The samplers: one row each. To add one, add a row; page, CLI, API and the parity test take it from here.

Names follow A1111 and k-diffusion, since that is what people paste.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from webui.core.errors import Mend, RequestError
from webui.core.names import choose

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
class Flow:
    """A sampler's class for models that predict flow, and its configuration; ``shift`` is what it calls the shift.

    ``takes_sigmas`` says that it is given its sigmas, evenly from 1 down to 1 / steps, as in diffusers' pipelines.
    """

    scheduler: str
    config: Mapping[str, Any] = field(default_factory=dict)
    shift: str = "shift"
    takes_sigmas: bool = True


def _by_sigmas(scheduler: str, **config: Any) -> Flow:
    """Of a class that has flow's sigmas as one of several."""
    config |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    return Flow(scheduler, config, "flow_shift", takes_sigmas=False)


@dataclass(frozen=True)
class Sampler:
    """A diffusers scheduler under the name people know, with the schedules that make sense for it.

    ``spaced`` is the same method by another class, for the sigmas of ``SPACED``, where the scheduler takes none.
    ``flow`` is its form for models that predict flow, or None for a sampler that has none.
    """

    name: str
    scheduler: str
    schedules: tuple[str, ...] = BY_SIGMA
    config: Mapping[str, Any] = field(default_factory=dict)
    spaced: str = ""
    flow: Flow | None = None


ANCESTRAL = "webui.engine.schedulers.SpacedEulerAncestralScheduler"
_ROWS = (
    Sampler(
        "DPM++ 2M",
        "DPMSolverMultistepScheduler",
        config={"algorithm_type": "dpmsolver++"},
        flow=_by_sigmas("DPMSolverMultistepScheduler", algorithm_type="dpmsolver++"),
    ),
    Sampler(
        "DPM++ 2M SDE",
        "DPMSolverMultistepScheduler",
        config={"algorithm_type": "sde-dpmsolver++"},
        flow=_by_sigmas("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"),
    ),
    Sampler(
        "DPM++ SDE",
        "DPMSolverSinglestepScheduler",
        NO_SPACING,
        config={"algorithm_type": "sde-dpmsolver++", "lower_order_final": True},
        flow=_by_sigmas("DPMSolverSinglestepScheduler", algorithm_type="sde-dpmsolver++", lower_order_final=True),
    ),
    Sampler("Euler", "EulerDiscreteScheduler", flow=Flow("FlowMatchEulerDiscreteScheduler")),
    Sampler("Euler a", "EulerAncestralDiscreteScheduler", spaced=ANCESTRAL),
    Sampler("Heun", "HeunDiscreteScheduler", flow=Flow("FlowMatchHeunDiscreteScheduler", takes_sigmas=False)),
    Sampler("LMS", "LMSDiscreteScheduler"),
    Sampler("DPM2", "KDPM2DiscreteScheduler"),
    Sampler("DPM2 a", "KDPM2AncestralDiscreteScheduler"),
    Sampler("UniPC", "UniPCMultistepScheduler", flow=_by_sigmas("UniPCMultistepScheduler")),
    Sampler("DDIM", "DDIMScheduler", spaced="diffusers.schedulers.EulerDiscreteScheduler"),
    Sampler("DDPM", "DDPMScheduler", spaced=ANCESTRAL),
    Sampler("PNDM", "PNDMScheduler", BY_TIMESTEP, {"skip_prk_steps": True}),
    Sampler("LCM", "LCMScheduler", ("Default",), flow=Flow("FlowMatchLCMScheduler")),
    Sampler("TCD", "TCDScheduler", ("Default",)),
)
SAMPLERS: Mapping[str, Sampler] = {row.name: row for row in _ROWS}
FROM_PURE_NOISE = ("DPM++ 2M", "DPM++ 2M SDE", "Euler", "Euler a", "UniPC", "DDIM", "DDPM", "LCM", "TCD")
"""Those whose diffusers class knows zero terminal SNR (Lin et al. 2023): the first timestep holds no signal."""
FLOWING = tuple(row.name for row in _ROWS if row.flow)
"""Those that have a form for models that predict flow. Its schedule is the model's own, shifted as that says."""


def resolve(sampler: str, schedule: str) -> tuple[str, str]:
    """The names as the table spells them; "DPM++ 2M Karras" sets both.

    RequestError for unknown names, and for a schedule that the sampler does not have.
    """
    sampler, named = split(sampler)
    schedule = named or schedule
    row = SAMPLERS[choose("sampler", sampler, SAMPLERS)]
    schedule = "Default" if schedule.casefold() == "automatic" else schedule
    schedule = choose("schedule", schedule, SCHEDULES)
    if schedule not in row.schedules:
        reason = f"schedule “{schedule}” {does_not_go(row.name, row.schedules)}"
        raise RequestError(reason, "schedule", Mend("use", row.schedules[0]))
    return row.name, schedule


def split(sampler: str) -> tuple[str, str]:
    """A sampler's name, and the schedule that stands behind it, empty where there is none."""
    for name in SCHEDULES:
        if sampler.casefold().endswith(f" {name}".casefold()):
            return sampler[: -len(name) - 1], name
    return sampler, ""


def does_not_go(sampler: str, schedules: Sequence[str]) -> str:
    """What is wrong with a schedule that a sampler does not have, and which it has."""
    *others, last = schedules
    they_do = f"{', '.join(others)} and {last} do" if others else f"{last} does"
    return f"does not go with {sampler}; {they_do}"
