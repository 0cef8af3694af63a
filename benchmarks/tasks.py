"""What is drawn, and the processes that draw it in this environment: this product's and stock diffusers'."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from benchmarks.measure import Options
from benchmarks.peers import Drawing, Models, Worker
from webui.library.library import DEMO_MODEL

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "a red apple, flat style, on a blue background"
BASELINE = "diffusers fp32"
FUSED = "diffusers fp32, LoRAs fused"
HALF = "diffusers fp16"
HALF_FUSED = "diffusers fp16, LoRAs fused"
PROGRAMS = {
    "darkroom fp32": "fp32",
    "darkroom fp32, previews off": "no-previews",
    "darkroom as it starts": "shipped",
    "darkroom --compile": "compiled",
    "darkroom --cuda-graphs": "graphed",
    BASELINE: "fp32",
    "diffusers bf16": "bf16",
    HALF: "fp16",
    "diffusers fp16 compiled": "fp16-best",
    FUSED: "fp32-fused",
    HALF_FUSED: "fp16-fused",
}
"""Those that run in this environment, and what their workers call them."""
LEFT_OUT = {"cpu": ("graphed", "fp16", "fp16-best", "fp16-fused"), "cuda": ("bf16",)}
"""What is not for a device, or not the best there; bf16 neither on a processor on which ours stays in float32."""
COMPILED = ("compiled", "fp16-best")
"""What takes minutes on a GPU before it draws."""
FOR_SMALL = ("fp32", "no-previews", "fp32-fused", "compiled")
"""Not for models of usual sizes on a GPU, which draws with them in float16; ours would compile for many minutes."""
IN_HALF = {BASELINE: HALF, FUSED: HALF_FUSED}
LARGE = ("sd15", "sdxl")
USUAL = tuple(name for name in PROGRAMS if "previews" not in name and "fused" not in name)
AT_OTHER_SIZES = ("darkroom as it starts", BASELINE, "diffusers bf16")
"""Those of the usual that fit a small machine's memory side by side."""


@dataclass(frozen=True)
class Task:
    """What is drawn, but for the size. ``programs`` of its own draw at every size, in the place of the usual ones.

    ``baseline`` is the one of them that all are compared with; ``lora_sets`` (files and weights) take turns from
    picture to picture.
    """

    name: str
    steps: int = 20
    strength: float = 1.0
    start: bool = False
    masked: bool = False
    programs: tuple[str, ...] = ()
    baseline: str = BASELINE
    lora_sets: Sequence[Sequence[tuple[str, float]]] = ()


def own_process(name: str, variant: str, models: Models, work: Path, options: Options, checkout: Path = ROOT) -> Worker:
    """A program that runs in this environment, ours or stock diffusers; ours is the one in ``checkout``."""
    script = checkout / "benchmarks/peers" / f"{name.partition(' ')[0]}_worker.py"
    folder = checkout / "webui/demo" if models.folder == DEMO_MODEL else models.folder
    command = [sys.executable, str(script), "--model", str(folder.resolve()), "--variant", variant]
    command += ["--device", options.device, "--threads", str(options.threads)]
    log = work / f"{name}, {checkout.name}.log"
    return Worker(command, log, options.threads, {"PYTHONPATH": str(checkout)})


def drawing_of(work: Path, side: int, steps: int, seed: int, task: Task | None = None) -> Drawing:
    """What all are asked for; the files it names are written to ``work``."""
    noise = torch.randn(1, 4, side // 8, side // 8, generator=torch.Generator().manual_seed(seed))
    np.save(work / "noise.npy", noise.numpy())
    drawing = Drawing(
        task.name if task and task.start else "txt2img",
        f"{PROMPT} {seed}",
        steps=steps,
        seed=seed,
        width=side,
        height=side,
        strength=task.strength if task else 1.0,
        loras=task.lora_sets[seed % len(task.lora_sets)] if task and task.lora_sets else (),
        latents=str(work / "noise.npy"),
    )
    if task is None or not task.start:
        return drawing
    scene, mask = Image.new("RGB", (side, side), "skyblue"), Image.new("L", (side, side), 0)
    third = side // 3
    ImageDraw.Draw(scene).ellipse((third, third, 2 * third, 2 * third), fill="tomato")
    edge = third // 8 * 8  # on a latent's edge: what lies across one, diffusers gives up and ours keeps
    ImageDraw.Draw(mask).rectangle((edge, edge, side, side), fill=255)
    scene.save(work / "scene.png")
    mask.save(work / "mask.png")
    return replace(drawing, image=str(work / "scene.png"), mask=str(work / "mask.png") if task.masked else None)
