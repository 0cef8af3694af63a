"""The rows of ``core.samplers`` -> diffusers' schedulers."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from webui.core.samplers import ANCESTRAL, SAMPLERS, SCHEDULES, SPACED

PREDICTIONS: Mapping[str, Mapping[str, Any]] = {
    "epsilon": {"prediction_type": "epsilon", "rescale_betas_zero_snr": False},
    "v": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": False},
    "v zero-SNR": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
}


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
