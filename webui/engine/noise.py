"""The noise of one pass: a diffusers scheduler addressed by evaluation, whatever the network predicts."""

from collections.abc import Mapping, Sequence
from inspect import signature
from math import ceil
from typing import Any, Literal

import numpy as np
import torch

from webui.core.errors import RequestError
from webui.core.request import MAX_STEPS
from webui.core.samplers import SAMPLERS
from webui.core.stages import steps_to_take
from webui.engine.samplers import DOWN_TO_LEAST, LAST_LEVEL, is_flow, make_scheduler

Prediction = Literal["epsilon", "v", "flow", "sample"]
PREDICTIONS: Mapping[str, Prediction] = {
    "epsilon": "epsilon",
    "v_prediction": "v",
    "flow_prediction": "flow",
    "sample": "sample",
}
"""By diffusers' ``prediction_type``."""


def scheduled_steps(steps: int, strength: float, most: int = MAX_STEPS) -> int:
    """How many steps the noise schedule has of which ``steps_to_take`` are drawn.

    They are ``steps``, but where the strength is less than one of them: then so many, up to ``most``, that it is one.
    """
    if strength == 0 or int(steps * strength) > 0:
        return steps
    return max(steps, ceil(min(1 / strength, most)))


class Noise:
    """The last ``steps`` of a scheduler's steps, or all of them, as evaluations of the network counted from 0.

    A step may take several evaluations (``order``), and not each the same number: Heun's last one takes one, PNDM's
    first one two. Timesteps repeat, so nothing is looked up by their value.

    ``prediction`` is what the network says of its input ``signal * x0 + level * epsilon``. Variance preserving:
    signal^2 + level^2 = 1, and it says epsilon, v = signal * epsilon - level * x0 (Salimans and Ho 2022) or x0 itself.
    Flow: signal + level = 1, and it says epsilon - x0 (Liu et al. 2022, "Flow Straight and Fast").

    ``scheduler`` has its timesteps already. It keeps what it needs of the evaluations before, so ``model_input`` and
    ``step`` are for one after the other, from ``begin`` on; all else can be asked of any.
    """

    def __init__(self, scheduler: Any, generators: Sequence[torch.Generator] = (), steps: int | None = None) -> None:
        """``generators`` are one a picture, for samplers that draw further noise; raises ValueError for a scheduler
        whose prediction is none of ``PREDICTIONS``."""
        said = scheduler.config.get("prediction_type", "flow_prediction")  # diffusers' flow schedulers have none
        if said not in PREDICTIONS:
            raise ValueError(f"the scheduler's prediction_type is {said!r}, which is none of {', '.join(PREDICTIONS)}")
        takes = signature(scheduler.step).parameters
        self._extra: dict[str, Any] = {"generator": list(generators)} if generators and "generator" in takes else {}
        if "eta" in takes:  # DDIM and TCD: as stock pipelines call them, without extra noise
            self._extra["eta"] = 0.0
        self.scheduler, self.prediction = scheduler, PREDICTIONS[said]
        self.order: int = scheduler.order
        self.scheduled: int = scheduler.num_inference_steps
        """How many steps the whole schedule has."""
        self.steps = self.scheduled if steps is None else steps
        self._skipped = (self.scheduled - self.steps) * self.order
        self._further = max(0, len(scheduler.timesteps) - self.scheduled * self.order)
        self._timesteps: torch.Tensor = scheduler.timesteps[self._skipped :]
        self._times: torch.Tensor = self._timesteps
        if self.prediction == "flow":  # of some schedulers the timesteps are cut to whole numbers
            self._levels: torch.Tensor = scheduler.sigmas[self._skipped :][: len(self)]
            self._times = (self._levels * 1000).to(self._timesteps.device)
        self.begin(0)

    def __len__(self) -> int:
        """How many evaluations there are."""
        return len(self._timesteps)

    def first(self, step: int) -> int:
        """The evaluation at which a step (0..steps) begins; further ones belong to the first step."""
        return min(step * self.order + (self._further if step else 0), len(self))

    def handover(self, share: float) -> int:
        """The first evaluation behind ``share`` (0..1) of the noise that was trained on: diffusers' denoising_end."""
        whole = self.scheduler.config.num_train_timesteps
        return int((self._times >= round(whole - share * whole)).sum())

    def begin(self, index: int) -> None:
        """Evaluation ``index`` will be the first one that is taken."""
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(self._skipped + index)

    def full(self, noise: torch.Tensor) -> torch.Tensor:
        """Noise of unit variance at the level of the whole schedule's first evaluation."""
        return noise if self.prediction == "flow" else noise * self.scheduler.init_noise_sigma

    def add(self, clean: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
        """A picture's latents with noise of unit variance at the level of evaluation ``index``; at the end, clean."""
        if index >= len(self):
            return clean
        if self.prediction == "flow":  # of diffusers' schedulers for it not all have a method for this
            level: float = self._levels[index].item()
            return level * noise + (1 - level) * clean
        scheduler, timestep = self.scheduler, self._timesteps[index : index + 1]
        if by_index := hasattr(scheduler, "_step_index"):  # else by the timestep, where none stands for two levels
            reached, scheduler._step_index = scheduler._step_index, self._skipped + index
        noised: torch.Tensor = scheduler.add_noise(clean, noise, timestep)
        if by_index:
            scheduler._step_index = reached
        return noised

    def model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """The latents as the network sees them."""
        if self.prediction == "flow":
            return latents
        seen: torch.Tensor = self.scheduler.scale_model_input(latents, self._timesteps[index])
        return seen

    def time(self, index: int) -> torch.Tensor:
        """The network's time, a scalar in 0..1000."""
        moment: torch.Tensor = self._times[index]
        return moment

    def original(self, seen: torch.Tensor, output: torch.Tensor, index: int) -> torch.Tensor:
        """What the finished latents look like from here: x0, from the network's input and output.

        Ho et al. 2020, equation 15; Salimans and Ho 2022, appendix D. Between two timesteps of the training (Karras,
        exponential) the nearest is close enough for a preview.
        """
        if self.prediction == "sample":
            return output
        if self.prediction == "flow":
            return seen - self._levels[index].item() * output
        alphas = self.scheduler.alphas_cumprod
        nearest = self._timesteps[index].round().long().clamp(0, len(alphas) - 1).cpu()
        alpha: float = alphas[nearest].item()
        signal, level = float(alpha**0.5), float((1 - alpha) ** 0.5)
        return signal * seen - level * output if self.prediction == "v" else (seen - level * output) / signal

    def step(self, output: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """The latents at the next evaluation's level, from the network's output at this one."""
        stepped = self.scheduler.step(output, self._timesteps[index], latents, **self._extra, return_dict=False)
        following: torch.Tensor = stepped[0]
        return following


def make_noise(
    sampler: str,
    schedule: str,
    model_config: Mapping[str, Any],
    prediction: str,
    steps: int,
    strength: float,
    generators: Sequence[torch.Generator],
    device: torch.device,
    shift: float | None = None,
) -> Noise:
    """What a pass takes of this sampler's schedule of ``steps``: the last ones for a strength (0..1) below 1.

    ``model_config``, ``prediction`` and ``shift`` are as in ``make_scheduler``. RequestError for
    steps that the sampler cannot do.
    """
    scheduler = make_scheduler(sampler, schedule, model_config, prediction, shift)
    scheduled = scheduled_steps(steps, strength, scheduler.config.get("original_inference_steps", MAX_STEPS))
    try:
        flow = SAMPLERS[sampler].flow if is_flow(model_config) else None
        if flow and flow.takes_sigmas and not model_config.get(DOWN_TO_LEAST):
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / scheduled, scheduled), device=device)
        else:
            scheduler.set_timesteps(scheduled, device=device)
        if flow and LAST_LEVEL in model_config:
            _stretch(scheduler.sigmas, float(model_config[LAST_LEVEL] or 0))
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise RequestError(f"steps {steps} does not work with sampler {sampler!r}: {error}") from error
    return Noise(scheduler, generators, steps_to_take(scheduler.num_inference_steps, strength))


def _stretch(levels: torch.Tensor, last: float) -> None:
    """Has flow's levels, of which a 0 is behind the last step's, go down to ``last`` and not as far as they go.

    diffusers' ``stretch_shift_to_terminal``. A single step begins at 1 and stays there.
    """
    down = 1 - levels[:-1]
    if last and down[-1] > 0:
        levels[:-1] = 1 - down * ((1 - last) / down[-1])
