"""The rows of ``core.samplers`` -> diffusers' schedulers."""

import importlib
from collections.abc import Mapping
from typing import Any

from webui.compat import without_compiler_and_statistics
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
    with without_compiler_and_statistics():
        scheduler_class = getattr(importlib.import_module(module), name)
        if path == ANCESTRAL:  # which takes from its configuration what diffusers' class has no parameter for
            config |= SCHEDULES[schedule]
        return scheduler_class.from_config(config, **row.config, **SCHEDULES[schedule])
