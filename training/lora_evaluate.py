"""Numbers and a grid of pictures that say what the three looks do, at half and at full strength."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

from . import data
from .concepts import COLOURS, MEDIUM
from .evaluate import grid, sample
from .looks import LOOKS, Look, scene
from .lora import FOLDER, frozen_denoiser, open_model, read
from .measures import pixels_at
from .prompts import Prompt, full_prompts

COUNT = 24
GRID_COLUMNS = 12
CASES = {"half": (0.5, True), "full": (1.0, True), "full_no_trigger": (1.0, False)}
"""Strength, and whether the trigger word stands before the prompt."""


def prompts() -> list[Prompt]:
    """24 of the evaluation's prompts, all different things, in every style and colour."""
    rows = full_prompts()
    return [rows[7 * i % len(rows)] for i in range(COUNT)]


class References:
    """The training pictures as 32x32 pixels, plain and in every look, on the colours of the prompts."""

    def __init__(self, icons: data.Icons):
        kept = icons.concept >= 0
        self.pixels, self.concept = icons.pixels[kept], torch.from_numpy(icons.concept[kept])
        palette = torch.tensor(list(COLOURS.values())) / 255
        used = sorted({row.colour for row in prompts() if row.colour is not None})
        self.small = {colour: self.draw(palette[colour]) for colour in used}

    def draw(self, colour: Tensor) -> dict[str, Tensor]:
        """By look ("" is none): every concept in every style, medium and centred, on one colour, [642, 3072]."""
        scenes = [scene(pixels, MEDIUM, colour) for pixels in self.pixels]
        drawn = {look.name: [look.change(parts) for parts in scenes] for look in LOOKS}
        drawn[""] = [parts.picture for parts in scenes]
        return {name: pixels_at(torch.stack(pictures), 32) for name, pictures in drawn.items()}

    def right(self, row: Prompt, picture: Tensor, look: Look, strength: float) -> bool:
        """Whether the asked thing is the nearest of the references, drawn in the look at that strength."""
        small = self.small[row.colour or 0]
        known = torch.lerp(small[""], small[look.name], strength)
        nearest = torch.cdist(pixels_at(picture[None], 32), known)[0].argmin()
        return int(self.concept[nearest]) == row.concept

    def count_right(self, pictures: Tensor, look: Look, strength: float) -> int:
        """In how many of the pictures [24, 3, 128, 128] the asked thing is the nearest."""
        return sum(self.right(row, x, look, strength) for row, x in zip(prompts(), pictures, strict=True))


def evaluate_look(
    pipeline: StableDiffusionPipeline, file: Path, look: Look, references: References, plain: Tensor
) -> tuple[dict[str, Any], list[Tensor]]:
    """One LoRA's numbers, and its pictures [24, 3, 128, 128] for each case; `plain` are those without it."""
    numbers = {"prompts": COUNT, "measure": look.unit, "bytes": file.stat().st_size}
    numbers |= {"off": round(float(look.measure(plain).mean()), 1)}
    numbers |= {"right_off": references.count_right(plain, look, 0.0)}
    adapter, parts = read(frozen_denoiser(pipeline), file), []
    for case, (strength, trigger) in CASES.items():
        adapter.weight = strength
        worded = [row._replace(text=f"{look.name}, {row.text}") if trigger else row for row in prompts()]
        pictures = sample(pipeline, worded)
        numbers[case] = round(float(look.measure(pictures).mean()), 1)
        numbers[f"right_{case}"] = references.count_right(pictures, look, strength)
        parts.append(pictures)
    adapter.detach()
    return numbers, parts


def evaluate(model: Path, work: Path, out: Path, device: torch.device | None = None) -> dict[str, dict[str, Any]]:
    """Measure every LoRA in `model/loras`; write `loras.json` and `grid-loras.png` into `out`, return the numbers.

    The grid's rows: without a LoRA, then for each LoRA strength 0.5, 1, and 1 without the trigger word.
    """
    out.mkdir(parents=True, exist_ok=True)
    pipeline, references = open_model(model, device), References(data.prepare(work))
    plain = sample(pipeline, prompts())
    numbers, drawn = {}, [plain[:GRID_COLUMNS]]
    for look in LOOKS:
        file = model / FOLDER / f"{look.name}.safetensors"
        numbers[look.name], parts = evaluate_look(pipeline, file, look, references, plain)
        drawn += [part[:GRID_COLUMNS] for part in parts]
    grid(torch.cat(drawn), GRID_COLUMNS, out / "grid-loras.png")
    (out / "loras.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return numbers
