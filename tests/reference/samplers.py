"""The schedulers as they were made on 2026-11-29, frozen with the loop of ``denoise`` beside it."""

from typing import Any

import diffusers

SCHEDULES: dict[str, dict[str, Any]] = {
    "Default": {},
    "Karras": {"use_karras_sigmas": True},
    "Exponential": {"use_exponential_sigmas": True},
    "Trailing": {"timestep_spacing": "trailing"},
}
CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ SDE": ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++", "lower_order_final": True}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "LCM": ("LCMScheduler", {}),
    "TCD": ("TCDScheduler", {}),
}
PREDICTIONS: dict[str, dict[str, Any]] = {
    "auto": {},
    "epsilon": {"prediction_type": "epsilon", "rescale_betas_zero_snr": False},
    "v": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": False},
    "v zero-SNR": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
}
EULERS_SIGMAS = {"DDIM": "EulerDiscreteScheduler", "DDPM": "ancestral", "Euler a": "ancestral"}
"""What Karras and Exponential stand for where the sampler's own class takes no sigmas."""


class AncestralOverEulersSigmas(diffusers.EulerAncestralDiscreteScheduler):
    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        super().set_timesteps(num_inference_steps, device)
        euler = diffusers.EulerDiscreteScheduler.from_config(self.config)
        euler.set_timesteps(num_inference_steps, device)
        self.sigmas, self.timesteps = euler.sigmas, euler.timesteps


def make_scheduler(sampler: str, schedule: str, model_config: dict[str, Any], prediction: str) -> Any:
    name, own = CLASSES[sampler]
    config = {**model_config, **PREDICTIONS[prediction]}
    if sampler in EULERS_SIGMAS and schedule in ("Karras", "Exponential"):
        name = EULERS_SIGMAS[sampler]
    if name == "ancestral":
        return AncestralOverEulersSigmas.from_config(config | SCHEDULES[schedule], **own, **SCHEDULES[schedule])
    return getattr(diffusers, name).from_config(config, **own, **SCHEDULES[schedule])
