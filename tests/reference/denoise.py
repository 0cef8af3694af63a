"""The way from a request to latents as it was on 2026-11-29, frozen: every later one must give its very bits.

It is not to follow the product, and so imports nothing of it: what it needs of a model is ``Network``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from math import ceil
from typing import Any, Protocol

import numpy as np
import torch
from reference.samplers import make_scheduler
from torch.nn import functional

Conditioning = Mapping[str, torch.Tensor]
MAX_STEPS = 150


class Network(Protocol):
    """A model as the frozen loop asks it."""

    scheduler_config: Mapping[str, Any]
    latent_channels: int
    latent_scale: int
    inpaints: bool

    def prompts(self, request: Any) -> tuple[Conditioning, Conditioning | None]: ...
    def tell(self, conditioning: Conditioning) -> Any: ...
    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, told: Any, shortcuts: Any) -> torch.Tensor: ...
    def encode(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...


@dataclass
class Drawn:
    """What came out: latents (1, channels, h, w) a picture, and what was expected of them after each evaluation."""

    latents: list[torch.Tensor] = field(default_factory=list)
    originals: list[torch.Tensor] = field(default_factory=list)


@torch.inference_mode()
def draw(request: Any, use: Callable[[str], Network], shortcuts: Any = None, canvas: Any = None) -> Drawn:
    """All pictures of a request; ``use`` makes the named model, with the LoRAs it is to have, the one to draw with."""
    drawn = Drawn()
    for batch in range(request.repeat):
        network = use(request.model)
        generators = [
            torch.Generator("cpu").manual_seed(request.seed + batch * request.count + k) for k in range(request.count)
        ]
        scheduler = _scheduler(request, network, request.prediction)
        if request.init is None:
            start = prepare(network, scheduler, request, generators)
        else:
            start = prepare_from(network, scheduler, request, canvas, generators)
        own, rest = split(start, _cutoff(scheduler, request.refiner_at) if request.refiner else None)
        latents = _run(network, scheduler, own, request, generators, shortcuts, drawn)
        if rest is not None:
            network = use(request.refiner)
            scheduler = _scheduler(request, network, "auto")
            rest = begin_at(rest, scheduler, latents)
            latents = _run(network, scheduler, rest, request, generators, shortcuts, drawn)
        drawn.latents += latents.split(1)
    return drawn


def _scheduler(request: Any, network: Network, prediction: str) -> Any:
    scheduler = make_scheduler(request.sampler, request.schedule, dict(network.scheduler_config), prediction)
    steps, init = request.steps, request.init
    if init is not None and init.strength > 0:
        steps = scheduled_steps(steps, init.strength, scheduler.config.get("original_inference_steps", MAX_STEPS))
    scheduler.set_timesteps(steps)
    return scheduler


def _run(
    network: Network,
    scheduler: Any,
    start: "Start",
    request: Any,
    generators: Sequence[torch.Generator],
    shortcuts: Any,
    drawn: Drawn,
) -> torch.Tensor:
    positive, negative = network.prompts(request)
    latents, until = start.latents, request.guidance_until
    for step in denoise(network, scheduler, start, positive, negative, request.guidance, generators, until, shortcuts):
        latents = step.latents
        drawn.originals.append(predicted_original(step, scheduler.alphas_cumprod, scheduler.config.prediction_type))
    return latents


@dataclass(frozen=True)
class Denoised:
    index: int
    total: int
    latents: torch.Tensor
    model_input: torch.Tensor
    output: torch.Tensor
    timestep: torch.Tensor


def denoise(
    network: Network,
    scheduler: Any,
    start: "Start",
    positive: Conditioning,
    negative: Conditioning | None,
    guidance: float,
    generators: Sequence[torch.Generator],
    guidance_until: float = 1.0,
    shortcuts: Any = None,
) -> Iterator[Denoised]:
    takes = signature(scheduler.step).parameters
    extra: dict[str, Any] = {"generator": list(generators)} if "generator" in takes else {}
    if "eta" in takes:
        extra["eta"] = 0.0
    latents, timesteps = start.latents, start.timesteps
    guided = round(guidance_until * len(timesteps))
    if start.first >= guided:
        negative = None
    predict = _predictor(network, positive, negative, len(latents), shortcuts)
    for index, timestep in enumerate(timesteps[start.first : start.stop], start=start.first + 1):
        if negative is not None and index > guided:
            negative = None
            predict = _predictor(network, positive, negative, len(latents), shortcuts)
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
    nearest = step.timestep.round().long().clamp(0, len(alphas_cumprod) - 1).cpu()
    alpha = alphas_cumprod[nearest].item()
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    if prediction_type == "v_prediction":
        return signal * step.model_input - noise * step.output
    if prediction_type == "sample":
        return step.output
    return (step.model_input - noise * step.output) / signal


def _predictor(
    network: Network, positive: Conditioning, negative: Conditioning | None, count: int, shortcuts: Any
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    halves = [
        {name: tensor.repeat_interleave(count, dim=0) for name, tensor in part.items()}
        for part in ([positive] if negative is None else [negative, positive])
    ]
    if len({tuple(tensor.shape for tensor in half.values()) for half in halves}) == 1:
        halves = [{name: torch.cat([half[name] for half in halves]) for name in positive}]
    parts = [(network.tell(half), shortcuts and replace(shortcuts)) for half in halves]
    if len(parts) == 1:
        ((told, own),) = parts
        return lambda seen, timestep: network.predict(seen, timestep, told, own)
    return lambda seen, timestep: torch.cat([network.predict(seen, timestep, *part) for part in parts])


@dataclass(frozen=True)
class Hold:
    mask: torch.Tensor
    original: torch.Tensor
    noise: torch.Tensor
    greys: bool = False

    def apply(self, latents: torch.Tensor, scheduler: Any, index: int, timesteps: torch.Tensor) -> torch.Tensor:
        kept = self.original
        if index < len(timesteps):
            kept = scheduler.add_noise(kept, self.noise, timesteps[index : index + 1])
        reached = index - 0.5 if self.greys else index
        free = (self.mask > 1 - reached / len(timesteps)).to(latents.dtype)
        return (1 - free) * kept + free * latents


@dataclass(frozen=True)
class Start:
    latents: torch.Tensor
    timesteps: torch.Tensor
    hold: Hold | None = None
    shown: torch.Tensor | None = None
    first: int = 0
    stop: int | None = None


def steps_to_take(steps: int, strength: float) -> int:
    return min(steps, max(int(steps * strength), 1 if strength > 0 else 0))


def scheduled_steps(steps: int, strength: float, most: int) -> int:
    if strength == 0 or int(steps * strength) > 0:
        return steps
    return max(steps, ceil(min(1 / strength, most)))


def prepare(network: Network, scheduler: Any, request: Any, generators: Sequence[torch.Generator]) -> Start:
    noise = _noise(network, request, generators)
    shown = None
    if network.inpaints:
        shown = _shown(network.encode(torch.zeros(1, 3, request.height, request.width)), None, generators)
    return Start(noise * scheduler.init_noise_sigma, scheduler.timesteps, shown=shown)


def prepare_from(
    network: Network, scheduler: Any, request: Any, canvas: Any, generators: Sequence[torch.Generator]
) -> Start:
    init, steps = request.init, scheduler.num_inference_steps
    (mean, std), mask, masked = _encode(network, canvas)
    noise_alone = mask is not None and init.strength == 1.0
    original = _at_size(
        mean if noise_alone and masked is not None else _sample(mean, std, generators), network, request
    )
    noise = _noise(network, request, generators)
    first = (steps - steps_to_take(steps, init.strength)) * scheduler.order
    timesteps = scheduler.timesteps[first:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    begin = original if mask is None else _refill(original, noise, mask, init.mask_fill)
    latents = noise * scheduler.init_noise_sigma if noise_alone else scheduler.add_noise(begin, noise, timesteps[:1])
    if masked is not None:
        return Start(latents, timesteps, shown=_shown(masked, mask, generators))
    return Start(latents, timesteps, hold=None if mask is None else Hold(mask, original, noise, canvas.greys))


def _cutoff(scheduler: Any, share: float) -> int:
    train_steps = scheduler.config.num_train_timesteps
    return round(train_steps - share * train_steps)


def split(start: Start, cutoff: int | None) -> tuple[Start, Start | None]:
    if cutoff is None:
        return start, None
    first = int((start.timesteps >= cutoff).sum())
    if first == len(start.timesteps):
        return start, None
    return replace(start, stop=first), replace(start, first=first, shown=None)


def begin_at(rest: Start, scheduler: Any, latents: torch.Tensor) -> Start:
    skipped = len(scheduler.timesteps) - len(rest.timesteps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped + rest.first)
    return replace(rest, latents=latents, timesteps=scheduler.timesteps[skipped:])


Posterior = tuple[torch.Tensor, torch.Tensor]


def _encode(network: Network, canvas: Any) -> tuple[Posterior, torch.Tensor | None, Posterior | None]:
    """Picture, mask at latent size, and the picture with the masked part grey."""
    pixels = torch.from_numpy(np.array(canvas.image)).permute(2, 0, 1)[None].to(memory_format=torch.contiguous_format)
    pixels = pixels.to(torch.float32).div_(255).mul_(2).sub_(1)
    if canvas.mask is None:
        width, height = canvas.latent_size
        hidden = network.encode(torch.zeros(1, 3, height, width)) if network.inpaints else None
        return network.encode(pixels), None, hidden
    mask = torch.from_numpy(np.array(canvas.mask))[None, None].float().div_(255)
    masked = network.encode(pixels * (mask < 0.5)) if network.inpaints else None
    return network.encode(pixels), functional.avg_pool2d(mask, network.latent_scale), masked


def _sample(mean: torch.Tensor, std: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    return mean + std * torch.cat([torch.randn(mean.shape, generator=generator) for generator in generators])


def _noise(network: Network, request: Any, generators: Sequence[torch.Generator]) -> torch.Tensor:
    scale = network.latent_scale
    shape = (1, network.latent_channels, request.height // scale, request.width // scale)
    return torch.cat([torch.randn(shape, generator=generator) for generator in generators])


def _at_size(latents: torch.Tensor, network: Network, request: Any) -> torch.Tensor:
    height, width = request.height // network.latent_scale, request.width // network.latent_scale
    if latents.shape[-2:] == (height, width):
        return latents
    return functional.interpolate(latents, (height, width), mode="bilinear", antialias=True)


def _refill(original: torch.Tensor, noise: torch.Tensor, mask: torch.Tensor, fill: str) -> torch.Tensor:
    if fill == "noise":
        return (1 - mask) * original + mask * noise
    return (1 - mask) * original if fill == "nothing" else original


def _shown(masked: Posterior, mask: torch.Tensor | None, generators: Sequence[torch.Generator]) -> torch.Tensor:
    latents = _sample(*masked, generators)
    hard = torch.ones_like(latents[:, :1]) if mask is None else (mask >= 0.5).to(latents.dtype)
    return torch.cat([hard.expand(len(latents), -1, -1, -1), latents], dim=1)
