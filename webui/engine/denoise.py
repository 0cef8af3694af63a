"""The one loop. Three tasks, every sampler: scale the input, ask the UNet, guide, step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch

from webui.engine.families.base import Conditioning, Model
from webui.engine.latents import Start


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
) -> Iterator[Denoised]:
    """Runs the start's timesteps over its latents (n, c, h, w), already at the first one's noise level.

    ``negative`` is None where no unconditional branch runs; otherwise both branches go through the UNet as one
    batch of 2n and are combined as in Ho and Salimans 2022, equation 6, in diffusers' form
    ``u + guidance * (c - u)``. One generator a picture feeds the stochastic samplers. Raises Stopped.
    """
    takes = signature(scheduler.step).parameters
    extra: dict[str, Any] = {"generator": list(generators)} if "generator" in takes else {}
    if "eta" in takes:  # DDIM and TCD: as stock pipelines call them, without extra noise
        extra["eta"] = 0.0
    latents, timesteps = start.latents, start.timesteps
    predict = _predictor(model, positive, negative, len(latents))
    seen = _input_buffer(start, branches=1 if negative is None else 2)
    for index, timestep in enumerate(timesteps[start.first : start.stop], start=start.first + 1):
        if cancelled():
            raise Stopped
        model_input = scheduler.scale_model_input(latents, timestep)
        seen.unflatten(0, (-1, len(latents)))[:, :, : latents.shape[1]] = model_input
        output = predict(seen, timestep)
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


def _input_buffer(start: Start, branches: int) -> torch.Tensor:
    """What the UNet is shown, (branches * n, channels, h, w): filled anew each step, an inpainting UNet's rest once."""
    count, channels, height, width = start.latents.shape
    further = 0 if start.shown is None else start.shown.shape[1]
    buffer = start.latents.new_empty(branches * count, channels + further, height, width)
    if start.shown is not None:
        buffer.unflatten(0, (branches, count))[:, :, channels:] = start.shown
    return buffer


def _predictor(
    model: Model, positive: Conditioning, negative: Conditioning | None, count: int
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The UNet with the conditioning of the whole batch, the unconditional half first.

    Two prompts of different length cannot be stacked; each half is asked by itself then, with its own.
    """
    halves = [
        {name: tensor.repeat_interleave(count, dim=0) for name, tensor in part.items()}
        for part in ([positive] if negative is None else [negative, positive])
    ]
    if len({tuple(tensor.shape for tensor in half.values()) for half in halves}) == 1:
        stacked = {name: torch.cat([half[name] for half in halves]) for name in positive}
        return lambda seen, timestep: model.predict(seen, timestep, stacked)

    def predict(seen: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        parts = zip(seen.chunk(len(halves)), halves, strict=True)
        return torch.cat([model.predict(part, timestep, half) for part, half in parts])

    return predict
