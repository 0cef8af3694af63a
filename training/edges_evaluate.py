"""Numbers and a grid of pictures that say how closely pictures follow outlines that were never trained on."""

import json
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers.models import T2IAdapter
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors.torch import load_file
from scipy import ndimage
from torch import Tensor

from . import data
from .concepts import COLOURS, CONCEPTS, IMAGE_SIZE, MEDIUM, STYLES, indefinite_article, pair_held_out
from .edges import FOLDER, NAME, new_adapter
from .evaluate import grid, sample
from .lora import open_model
from .measures import PALETTE, References, border_colour, nearest_colour
from .outlines import broken, canny, lay, pen, warp
from .progress import report
from .prompts import Prompt, full_prompts

NEAR_PX = 2
"""An edge is found where the other picture has one this near."""
COUNTS = {"pairs": 34, "things": 33, "by_hand": 33}
"""Outlines of each kind: of pairs of thing and style never trained, of things never trained, and drawn as by a hand."""
WHOLE_STRIDE = 7
"""Of the evaluation's complete prompts, every seventh is drawn with its own icon's outline, too."""
GRID_COLUMNS = 20
SOFT = (0.62, 0.825, 1.0)
"""Of the three stages, in the mode "control"."""
MODES = ("control", "balanced")
BATCH = 8
Row = TypeVar("Row")


@dataclass
class Case:
    """An outline, what it is given to the model as, and the prompt."""

    prompt: Prompt
    kind: str
    lines: np.ndarray
    """bool [128, 128], a pixel wide: what the result's edges are compared with."""
    drawn: np.ndarray
    """float [128, 128] in [0, 1]: what the model is shown."""


def text_of(phrase: str, style: int, colour: int) -> str:
    """The prompt that names thing, style and background."""
    name = list(COLOURS)[colour]
    return f"{phrase}, {STYLES[style].name} style, on {indefinite_article(name)} {name} background"


def outlined(icons: data.Icons, icon: int, colour: int, rng: random.Random, wild: float) -> np.ndarray:
    """The outline of one icon, placed and bent at random."""
    side = rng.uniform(80, 118)
    room = 0.5 * (IMAGE_SIZE - side)
    middle = (64 + rng.uniform(-room, room), 64 + rng.uniform(-room, room))
    return canny(lay(data.plain(PALETTE[colour]), warp(icons.pixels[icon], rng, side, middle, wild)))


def cases(icons: data.Icons) -> list[Case]:
    """The hundred outlines, the same ones each time."""
    rng, made = random.Random(41), []
    pairs = [(c, s) for c in range(len(CONCEPTS)) for s in range(len(STYLES)) if pair_held_out(c, s)]
    unknown = rng.sample(np.flatnonzero(icons.concept == -2).tolist(), COUNTS["things"])
    for number in range(COUNTS["pairs"]):
        concept, style = pairs[number % len(pairs)]
        colour = rng.randrange(len(COLOURS))
        lines = outlined(icons, icons.find(concept, style), colour, rng, 1.0)
        prompt = Prompt(text_of(CONCEPTS[concept].phrase, style, colour), concept, style, colour)
        made.append(Case(prompt, "pairs", lines, lines.astype(np.float32)))
    for icon in unknown:
        colour, style = rng.randrange(len(COLOURS)), int(icons.style[icon])
        lines = outlined(icons, icon, colour, rng, 0.5)
        prompt = Prompt(text_of(icons.thing(icon).phrase, style, colour), -1, style, colour)
        made.append(Case(prompt, "things", lines, lines.astype(np.float32)))
    prompts = full_prompts()
    for number in range(COUNTS["by_hand"]):
        prompt = prompts[9 * number]
        assert prompt.style is not None and prompt.colour is not None
        icon = icons.find(prompt.concept, prompt.style)
        lines = broken(outlined(icons, icon, prompt.colour, rng, 1.0), rng)
        made.append(Case(prompt, "by_hand", lines, pen(lines, rng)))
    return made


def whole_cases(icons: data.Icons) -> list[Case]:
    """Things that the model knows on colours that it never saw them on, with their own outlines."""
    made = []
    for prompt in full_prompts()[::WHOLE_STRIDE]:
        assert prompt.style is not None and prompt.colour is not None
        icon = icons.find(prompt.concept, prompt.style)
        lines = canny(data.composite(icons.pixels[icon], MEDIUM, PALETTE[prompt.colour]))
        made.append(Case(prompt, "whole", lines, lines.astype(np.float32)))
    return made


def f1(found: np.ndarray, wanted: np.ndarray) -> float:
    """Harmonic mean of the shares of edges bool [h, w] that lie within two pixels of one of the others, both ways."""
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    near = [ndimage.distance_transform_edt(~lines) <= NEAR_PX for lines in (wanted, found)]
    precision, recall = float(near[0][found].mean()), float(near[1][wanted].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


class Controlled:
    """The pipeline with the adapter's features of one batch of outlines after another added in its UNet.

    In the mode "balanced" they are added without and with the prompt; in the mode "control" with the prompt alone,
    which guidance then makes count more, and softer in the first stages, as the product has it.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, adapter: T2IAdapter):
        self.pipeline, self.adapter = pipeline, adapter
        self.own: Callable[..., Any] = pipeline.unet.forward

    @torch.no_grad()
    def sample(self, rows: list[Case], mode: str) -> Tensor:
        """Pictures [n, 3, 128, 128] in [0, 1]; the seed of each is its place in its batch, as in `plain`."""
        parts = []
        for batch in batches(rows):
            lines = torch.from_numpy(np.stack([row.drawn for row in batch]))[:, None].float()
            features = [part.float() for part in self.adapter(lines.to(self.pipeline.device))]
            if mode == "control":
                soft = zip(features, SOFT, strict=True)
                twice = [torch.cat([torch.zeros_like(part), part * share]) for part, share in soft]
            else:
                twice = [part.repeat(2, 1, 1, 1) for part in features]

            def forward(noisy: Tensor, *args: Any, twice: list[Tensor] = twice, **options: Any) -> Any:
                return self.own(noisy, *args, down_intrablock_additional_residuals=list(twice), **options)

            self.pipeline.unet.forward = forward
            try:
                parts.append(sample(self.pipeline, [row.prompt for row in batch]))
            finally:
                self.pipeline.unet.forward = self.own
        return torch.cat(parts)


def batches(rows: list[Row]) -> list[list[Row]]:
    """The cases in lists as long as a batch."""
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def plain(pipeline: StableDiffusionPipeline, rows: list[Case]) -> Tensor:
    """The same pictures without the control."""
    return torch.cat([sample(pipeline, [row.prompt for row in batch]) for batch in batches(rows)])


def scores(rows: list[Case], pictures: Tensor) -> list[float]:
    """F1 of each picture's edges and its outline."""
    return [f1(canny(picture), row.lines) for row, picture in zip(rows, pictures, strict=True)]


def held(rows: list[Case], pictures: Tensor, references: References) -> dict[str, float]:
    """In which share of the pictures background, thing and style are what the prompt says, by the nearest icon."""
    colours = nearest_colour(border_colour(pictures)).tolist()
    icons = [references.nearest_icon(picture) for picture in pictures]
    told = [(row.prompt, colour, *icon) for row, colour, icon in zip(rows, colours, icons, strict=True)]
    shares = {
        "background": [prompt.colour == colour for prompt, colour, _, _ in told],
        "concept": [prompt.concept == concept for prompt, _, concept, _ in told],
        "style": [prompt.style == style for prompt, _, _, style in told],
    }
    return {name: round(statistics.fmean(values), 4) for name, values in shares.items()}


def load(file: Path) -> T2IAdapter:
    """The adapter of a file."""
    adapter = new_adapter()
    adapter.load_state_dict({name: value.float() for name, value in load_file(file).items()})
    return adapter.eval()


def followed(controlled: Controlled, rows: list[Case], out: Path) -> dict[str, Any]:
    """F1 of all kinds of outlines in each mode and without; the grid."""
    pictures = {mode: controlled.sample(rows, mode) for mode in MODES} | {"without": plain(controlled.pipeline, rows)}
    numbers: dict[str, Any] = {"outlines": {"all": len(rows), **COUNTS}}
    for name, drawn in pictures.items():
        values = scores(rows, drawn)
        of_kind = {kind: [f for f, row in zip(values, rows, strict=True) if row.kind == kind] for kind in COUNTS}
        numbers[name] = {"all": mean(values)} | {kind: mean(found) for kind, found in of_kind.items()}
        colours = nearest_colour(border_colour(drawn)).tolist()
        numbers[name]["background"] = mean([row.prompt.colour == c for row, c in zip(rows, colours, strict=True)])
    shown = [*range(0, len(rows), len(rows) // GRID_COLUMNS)][:GRID_COLUMNS]
    lines = torch.from_numpy(np.stack([rows[place].drawn for place in shown]))[:, None].expand(-1, 3, -1, -1)
    grid(torch.cat([lines, *(drawn[shown] for drawn in pictures.values())]), GRID_COLUMNS, out / "grid-edges.png")
    return numbers


def words_kept(controlled: Controlled, rows: list[Case], references: References) -> dict[str, Any]:
    """What is still drawn of complete prompts, in the mode "control" and without."""
    pictures = {"control": controlled.sample(rows, "control"), "without": plain(controlled.pipeline, rows)}
    found = {
        name: {"f1": mean(scores(rows, drawn)), **held(rows, drawn, references)} for name, drawn in pictures.items()
    }
    return {"prompts": len(rows), **found}


def evaluate(model: Path, work: Path, out: Path, device: torch.device | None = None) -> dict[str, Any]:
    """Draw all outlines with and without the control; write `edges.json` and `grid-edges.png` into `out`.

    The grid's rows: outlines, pictures after them in each mode, and the same prompts and seeds without.
    """
    out.mkdir(parents=True, exist_ok=True)
    pipeline, icons = open_model(model, device), data.prepare(work)
    file = model / FOLDER / f"{NAME}.safetensors"
    adapter = load(file)
    adapter.to(pipeline.device)  # type: ignore[arg-type]  # torch's annotations lack it
    controlled = Controlled(pipeline, adapter)
    report(work, "edges: drawing a hundred outlines")
    numbers: dict[str, Any] = {"bytes": file.stat().st_size, "near_px": NEAR_PX}
    numbers |= followed(controlled, cases(icons), out)
    numbers["complete_prompts"] = words_kept(controlled, whole_cases(icons), References(icons))
    (out / "edges.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return numbers


def mean(values: list[float]) -> float:
    """Their mean, rounded to four places."""
    return round(statistics.fmean(values), 4)
