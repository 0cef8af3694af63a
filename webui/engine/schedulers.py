"""What diffusers' schedulers lack."""

from typing import Any

from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler


class SpacedEulerAncestralScheduler(EulerAncestralDiscreteScheduler):
    """Ancestral Euler over the Karras or exponential sigmas that diffusers offers for its Euler alone.

    Its configuration has ``use_karras_sigmas`` or ``use_exponential_sigmas``.
    """

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """As in diffusers."""
        super().set_timesteps(num_inference_steps, device)
        spaced = EulerDiscreteScheduler.from_config(self.config)
        spaced.set_timesteps(num_inference_steps, device)
        self.sigmas, self.timesteps = spaced.sigmas, spaced.timesteps
