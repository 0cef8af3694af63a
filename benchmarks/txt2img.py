"""txt2img on the demo model: ours with previews on and off, beside stock diffusers, in one process, alternating."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from benchmarks.measure import Row, compared
from webui.core.events import Image, Step
from webui.core.library import DEMO_MODEL
from webui.core.request import Request
from webui.core.settings import Settings
from webui.engine import preview
from webui.engine.manager import PipelineManager

STEPS = 20
PROMPT = "a red apple, flat style, on a blue background"


def run(rounds: int) -> list[Row]:
    """Milliseconds a step (sampling alone) and a picture (prompt to pixels), previews as on the page.

    Both compute in float32, which is what stock diffusers does unless told otherwise; a further row is ours as it
    starts, in the number format that it chooses for this machine.
    """
    manager = PipelineManager(Settings(device="cpu", dtype="float32"))
    shipped = PipelineManager(Settings(device="cpu"))
    pipe = _stock()
    ways: dict[str, Callable[[int], tuple[float, float, Any]]] = {
        "diffusers": lambda seed: _draw_stock(pipe, seed),
        "darkroom": lambda seed: _draw(manager, seed, preview.BUDGET),
        "darkroom, previews off": lambda seed: _draw(manager, seed, 0.0),
        "darkroom as it starts": lambda seed: _draw(shipped, seed, preview.BUDGET),
    }
    steps_ms: dict[str, list[float]] = {name: [] for name in ways}
    pictures_ms: dict[str, list[float]] = {name: [] for name in ways}
    worst = 0
    for k in range(rounds + 1):
        order = list(ways) if k % 2 else list(reversed(ways))
        drawn = {name: ways[name](k) for name in order}
        worst = max(worst, _difference(drawn["darkroom"][2], drawn["diffusers"][2]))
        for name, (step_ms, picture_ms, _) in drawn.items() if k else ():
            steps_ms[name].append(step_ms)
            pictures_ms[name].append(picture_ms)
    note = f"(largest difference {worst}/255)"
    rows: list[Row] = []
    for what, samples in (("step", steps_ms), ("picture", pictures_ms)):
        stock = Row(f"diffusers, {what}", "ms", samples["diffusers"])
        without = compared(f"darkroom, {what}, previews off", "ms", samples["darkroom, previews off"], stock)
        rows += [stock, compared(f"darkroom, {what}", "ms", samples["darkroom"], stock, note), without]
        chosen = str(shipped.dtype).removeprefix("torch.")
        rows.append(
            compared(f"darkroom as it starts ({chosen}), {what}", "ms", samples["darkroom as it starts"], stock)
        )
        rows.append(compared(f"previews on to off, {what}", "ms", samples["darkroom"], without))
    return rows


def _stock() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(DEMO_MODEL, torch_dtype=torch.float32, local_files_only=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _draw_stock(pipe: StableDiffusionPipeline, seed: int) -> tuple[float, float, Any]:
    """Sampling time is from the first UNet call to the last scheduler step, as in ours."""
    marks: list[float] = []
    hook = pipe.unet.register_forward_pre_hook(lambda *_: marks.append(time.perf_counter()))
    started = time.perf_counter()
    image = pipe(
        PROMPT,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        generator=[torch.Generator("cpu").manual_seed(seed)],
        callback_on_step_end=lambda *_: marks.append(time.perf_counter()) or {},
    ).images[0]
    ended = time.perf_counter()
    hook.remove()
    return (marks[-1] - marks[0]) * 1e3 / STEPS, (ended - started) * 1e3, image


def _draw(manager: PipelineManager, seed: int, budget: float) -> tuple[float, float, Any]:
    preview.BUDGET = budget
    sampling_s, image = 0.0, None
    started = time.perf_counter()
    for event in manager.generate(Request(prompt=PROMPT, steps=STEPS, guidance=5.0, seed=seed, sampler="DPM++ 2M")):
        if isinstance(event, Step):
            sampling_s = event.seconds
        elif isinstance(event, Image):
            image = event.image
    return sampling_s * 1e3 / STEPS, (time.perf_counter() - started) * 1e3, image


def _difference(one: Any, other: Any) -> int:
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())
