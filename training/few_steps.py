"""A LoRA for drawing in four to eight steps without guidance, with the LCM sampler.

The exported model walks down its own guided paths, from pure noise and from training latents with noise on them; the
LoRA learns to say the end of the path from any point on it. That is what consistency models are for (Song et al. 2023;
as a LoRA: Luo et al., "LCM-LoRA", 2023); here the ends are computed instead of bootstrapped, which a model of this size
can afford.
"""

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler, DDIMSchedulerOutput
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from PIL import Image
from torch import Tensor

from . import data
from . import latents as latents_module
from .adapters import Adapter, save
from .evaluate import FEW_STEPS, GUIDANCE, Drawing, sample
from .latents import Row, row_caption
from .lora import ATTENTION, FINE, FOLDER, Kind, check_sizes, describe, fit, frozen_denoiser, open_model
from .optim import half
from .progress import Budget, report
from .prompts import Prompt
from .unet import Denoiser, signal_levels, tokenize

KIND = Kind(rf"unet\..*({ATTENTION}|{FINE})", 4, 4.0, "kohya")
TITLE, DESCRIPTION = "Few steps", "Draws in 4 to 8 steps: sampler LCM, guidance 1."
PREVIEW = "a panda, 3d style, on a yellow background"
TEACHER_STEPS = 20
PATHS = {"cpu": 48, "cuda": 512}
"""Paths that are walked at once."""
LR = 3e-3
PURE_SHARE = 0.5
"""Share of the paths that begin in pure noise, where the first of few steps does most of the work."""
HUBER = 0.02
"""Below this root mean square the error counts by its square, above it by its size (pseudo-Huber, Song et al. 2023)."""


@dataclass
class Points:
    """Points on guided paths and where each path ends."""

    latents: Tensor
    """[n, 4, 16, 16]: noisy, unit variance at every step."""
    steps: Tensor
    """[n]: noise steps, 0 to 999."""
    tokens: Tensor
    """[n, 77]"""
    ends: Tensor
    """[n, 4, 16, 16]: clean."""


@torch.no_grad()
def walk(model: Denoiser, clean: Tensor, tokens: Tensor, empty: Tensor, scheduler: DDIMScheduler) -> Points:
    """Follow the guided paths of captions [n, 77] down from noise laid on clean latents [n, 4, 16, 16]."""
    device = clean.device
    pure = torch.rand(len(clean), device=device) < PURE_SHARE
    begins = torch.where(pure, 0, torch.randint(1, len(scheduler.timesteps) - 1, (len(clean),), device=device))
    noise = torch.randn_like(clean)
    first: Any = scheduler.timesteps[begins]  # annotated there as integers of 32 bits, which it does not make
    current = torch.where(pure.view(-1, 1, 1, 1), noise, scheduler.add_noise(clean, noise, first))
    states = model.text(torch.cat([empty.expand(len(tokens), -1), tokens])).last_hidden_state.chunk(2)
    seen, paths, steps = [], [], []
    for index, step in enumerate(scheduler.timesteps):
        rows = (begins <= index).nonzero().flatten()
        if not len(rows):
            continue
        seen.append(current[rows])
        paths.append(rows)
        steps.append(step.expand(len(rows)))
        with half(device):
            both = torch.cat([states[0][rows], states[1][rows]])
            plain, asked = model.unet(current[rows].repeat(2, 1, 1, 1), step, both).sample.float().chunk(2)
        moved = scheduler.step(plain + GUIDANCE * (asked - plain), step, current[rows])
        assert isinstance(moved, DDIMSchedulerOutput)  # a tuple where one asks for it
        current[rows] = moved.prev_sample
    order = torch.cat(paths)
    return Points(torch.cat(seen), torch.cat(steps), tokens[order], current[order])


def collect(pipeline: StableDiffusionPipeline, model: Denoiser, work: Path, minutes: float) -> Points:
    """Walk paths for that long."""
    rng, samples, icons = random.Random(23), latents_module.prepare(work), data.prepare(work)
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False, set_alpha_to_one=True)
    device = pipeline.device
    scheduler.set_timesteps(TEACHER_STEPS, device=device)
    count, budget = PATHS[device.type], Budget(10**6, minutes, device=device)
    empty, parts = tokenize(pipeline.tokenizer, [""]).to(device), []
    known = [i for i, row in enumerate(samples.rows.tolist()) if Row(*row).amount == 100]  # weights take another way
    while budget.progress(0) < 1:
        rows = rng.choices(known, k=count)
        captions = [row_caption(icons, samples.row(row), rng) or "a picture" for row in rows]
        tokens = tokenize(pipeline.tokenizer, captions).to(device)
        parts.append(walk(model, samples.latents[rows].to(device), tokens, empty, scheduler))
        report(work, f"few steps: {len(parts) * count} paths, {budget.progress(0):.0%}")
    columns = ("latents", "steps", "tokens", "ends")
    return Points(*(torch.cat([getattr(part, name) for part in parts]) for name in columns))


def loss_of(model: Denoiser, points: Points, rows: Tensor, levels: Tensor) -> Tensor:
    """Pseudo-Huber distance between the end that the model sees from each point and the path's own."""
    level = levels[points.steps[rows]].view(-1, 1, 1, 1)
    noisy = points.latents[rows].contiguous(memory_format=torch.channels_last)
    with half(noisy.device):
        velocity: Tensor = model(noisy, points.steps[rows], points.tokens[rows]).float()
    seen = level.sqrt() * noisy - (1 - level).sqrt() * velocity
    error = (seen - points.ends[rows]).square().mean((1, 2, 3))
    return ((error + HUBER**2).sqrt() - HUBER).mean()


def train(pipeline: StableDiffusionPipeline, work: Path, minutes: float) -> Adapter:
    """Walk paths for a part of that time and train the LoRA on them in the rest; it stays in effect."""
    torch.manual_seed(23)
    model = frozen_denoiser(pipeline)
    points = collect(pipeline, model, work, 0.4 * minutes)
    adapter = Adapter(model, re.compile(KIND.layers), KIND.rank, KIND.alpha).to(pipeline.device)
    levels, count = signal_levels().to(pipeline.device), len(points.steps)
    fit(adapter, lambda rows: loss_of(model, points, rows, levels), count, work, FEW_STEPS, 0.6 * minutes, LR)
    return adapter


def make(model: Path, work: Path, minutes: float, device: torch.device | None = None) -> None:
    """Train the LoRA into `model/loras` if it is not there yet, with a preview beside it."""
    file = model / FOLDER / f"{FEW_STEPS}.safetensors"
    if file.exists():
        return
    pipeline = open_model(model, device)
    adapter = train(pipeline, work, minutes)
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    picture = sample(pipeline, [Prompt(PREVIEW, 0)], Drawing(4, 1.0))[0]
    pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file.with_suffix(".preview.png"), optimize=True)
    print(f"{save(adapter, file, KIND.layout, describe(TITLE, DESCRIPTION)):,} bytes in {file}")
    check_sizes(model)
