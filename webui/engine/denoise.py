"""The one loop. Three tasks, every sampler: scale the input, ask the UNet, guide, step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch

from webui.engine.families.base import Conditioning, Model
from webui.engine.latents import Start
from webui.engine.speed.shortcuts import Shortcuts


@dataclass(frozen=True)
class Denoised:
    """After evaluation ``index`` (1..total): what the UNet saw, said, and what the scheduler made of it.

    ``latents``, ``model_input`` and ``output`` are (n, channels, h, w), float32, on the device.
    """

    index: int
    total: int
    latents: torch.Tensor
    model_input: torch.Tensor
    output: torch.Tensor
    timestep: torch.Tensor


class Stopped(Exception):
    """The job was cancelled between two evaluations."""


@torch.inference_mode()
def denoise(
    model: Model,
    scheduler: Any,
    start: Start,
    positive: Conditioning,
    negative: Conditioning | None,
    guidance: float,
    generators: Sequence[torch.Generator],
    cancelled: Callable[[], bool],
    guidance_until: float = 1.0,
    shortcuts: Shortcuts | None = None,
) -> Iterator[Denoised]:
    """Runs the start's timesteps over its latents (n, c, h, w), already at the first one's noise level.

    ``negative`` is None where no unconditional branch runs; otherwise the UNet is told both, answers with 2n rows, and
    they are combined as in Ho and Salimans 2022, equation 6, in diffusers' form
    ``u + guidance * (c - u)``. After ``guidance_until`` (0..1) of all steps the prompt goes on alone (Kynkäänniemi et
    al. 2024, "Applying Guidance in a Limited Interval"). One generator a picture feeds the stochastic samplers.
    Raises Stopped.
    """
    takes = signature(scheduler.step).parameters
    extra: dict[str, Any] = {"generator": list(generators)} if "generator" in takes else {}
    if "eta" in takes:  # DDIM and TCD: as stock pipelines call them, without extra noise
        extra["eta"] = 0.0
    latents, timesteps = start.latents, start.timesteps
    guided = round(guidance_until * len(timesteps))
    if start.first >= guided:
        negative = None
    predict = _predictor(model, positive, negative, len(latents), shortcuts)
    for index, timestep in enumerate(timesteps[start.first : start.stop], start=start.first + 1):
        if cancelled():
            raise Stopped
        if negative is not None and index > guided:
            negative = None
            predict = _predictor(model, positive, negative, len(latents), shortcuts)
        model_input = scheduler.scale_model_input(latents, timestep)
        output = predict(model_input if start.shown is None else torch.cat([model_input, start.shown], 1), timestep)
        if negative is not None:
            without_prompt, with_prompt = output.chunk(2)
            output = without_prompt + guidance * (with_prompt - without_prompt)
        latents = scheduler.step(output, timestep, latents, **extra, return_dict=False)[0]
        if start.hold is not None:
            latents = start.hold.apply(latents, scheduler, index, timesteps)
        yield Denoised(index, len(timesteps), latents, model_input, output, timestep)


def predicted_original(step: Denoised, alphas_cumprod: torch.Tensor, prediction_type: str) -> torch.Tensor:
    """What the finished latents look like from here, (n, c, h, w): DDPM's x0 (Ho et al. 2020, equation 15).

    Every sampler hands the UNet an input in variance-preserving form, so one formula serves all of them; between
    two training timesteps (Karras, exponential) the nearest is close enough for a preview.
    """
    nearest = step.timestep.round().long().clamp(0, len(alphas_cumprod) - 1).cpu()
    alpha = alphas_cumprod[nearest].item()
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    if prediction_type == "v_prediction":  # Salimans and Ho 2022, appendix D
        return signal * step.model_input - noise * step.output
    if prediction_type == "sample":
        return step.output
    return (step.model_input - noise * step.output) / signal


def _predictor(
    model: Model, positive: Conditioning, negative: Conditioning | None, count: int, shortcuts: Shortcuts | None
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The UNet, told the prompts of the whole batch, the unconditional half first; it begins with a whole forward.

    Two prompts of different length cannot be stacked; each half is asked by itself then, with its own.
    """
    halves = [
        {name: tensor.repeat_interleave(count, dim=0) for name, tensor in part.items()}
        for part in ([positive] if negative is None else [negative, positive])
    ]
    if len({tuple(tensor.shape for tensor in half.values()) for half in halves}) == 1:
        halves = [{name: torch.cat([half[name] for half in halves]) for name in positive}]
    parts = [(model.tell(half), shortcuts and replace(shortcuts)) for half in halves]
    if len(parts) == 1:
        ((told, own),) = parts
        return lambda seen, timestep: model.predict(seen, timestep, told, own)
    return lambda seen, timestep: torch.cat([model.predict(seen, timestep, *part) for part in parts])
