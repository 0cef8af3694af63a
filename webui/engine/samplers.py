"""The rows of ``core.samplers`` -> diffusers' schedulers."""

import copy
import functools
import importlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from webui.compat import without_compiler_and_statistics
from webui.core.errors import RequestError
from webui.core.samplers import ANCESTRAL, SAMPLERS, SCHEDULES, SPACED, Sampler

PREDICTIONS: Mapping[str, Mapping[str, Any]] = {
    "epsilon": {"prediction_type": "epsilon", "rescale_betas_zero_snr": False},
    "v": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": False},
    "v zero-SNR": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
}
DOWN_TO_LEAST = "down_to_least"
"""In a configuration of flow's noise: the last step is at the least level that was trained on, not at 1 / steps."""

LAST_LEVEL = "shift_terminal"
"""In one of flow's noise, as diffusers has it: all levels are stretched so that the last step begins at this one."""


def is_flow(model_config: Mapping[str, Any]) -> bool:
    """Whether a model with this noise predicts flow."""
    return model_config.get("prediction_type") == "flow_prediction"


def make_scheduler(
    sampler: str, schedule: str, model_config: Mapping[str, Any], prediction: str = "auto", shift: float | None = None
) -> Any:
    """The diffusers scheduler for these names, with the noise the model was trained on (``model_config``).

    ``prediction`` is one of ``PREDICTIONS``, or auto for the one in the configuration. For a model that predicts flow
    ``shift`` is how much of its time is spent at high noise; RequestError for a sampler that cannot do flow.
    """
    row = SAMPLERS[sampler]
    if is_flow(model_config):
        return copy.deepcopy(_make_flow(row, float(shift or model_config.get("shift", 1.0))))
    config = {**model_config, **PREDICTIONS.get(prediction, {})}
    path = row.spaced if row.spaced and schedule in SPACED else f"diffusers.schedulers.{row.scheduler}"
    return copy.deepcopy(_make(path, schedule, json.dumps(config), json.dumps(dict(row.config))))


def _make_flow(row: Sampler, shift: float) -> Any:
    if row.flow is None:
        raise RequestError(f"sampler {row.name!r} cannot draw with a model that predicts flow", field="sampler")
    options = json.dumps({**row.flow.config, row.flow.shift: shift})
    return _make(f"diffusers.schedulers.{row.flow.scheduler}", "Default", "{}", options)


@functools.lru_cache(maxsize=32)
def _make(path: str, schedule: str, config_json: str, options_json: str) -> Any:
    """Made once, for DPM2's class goes through all timesteps of the training each time: 0.2 s."""
    config = json.loads(config_json)
    module, _, name = path.rpartition(".")
    with without_compiler_and_statistics():
        scheduler_class = getattr(importlib.import_module(module), name)
        if path == ANCESTRAL:  # which takes from its configuration what diffusers' class has no parameter for
            config |= SCHEDULES[schedule]
        return _of_config(scheduler_class, config, json.loads(options_json) | dict(SCHEDULES[schedule]))


def _of_config(scheduler_class: Any, config: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """What diffusers' ``from_config`` makes. That one imports all classes that the configuration could be for first,
    which takes 0.2 s: scipy's integrals are needed by one of them."""
    config = {name: value for name, value in config.items() if name not in config.get("_use_default_values", ())}
    known = inspect.signature(scheduler_class).parameters.keys() - {"kwargs"}
    told = {name: value for name, value in {**config, **options}.items() if name in known}
    made = scheduler_class(**told)
    kept = {name: value for name, value in config.items() if name not in told and name != "_use_default_values"}
    made.register_to_config(**kept | ({"_class_name": scheduler_class.__name__} if "_class_name" in kept else {}))
    return made
