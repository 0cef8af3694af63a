"""Numbers and a grid of pictures that say how like references pictures are that were never trained on."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from . import data
from .concepts import COLOURS, CONCEPTS, MEDIUM, STYLES, held_out, pair_held_out
from .edges import FOLDER
from .edges_evaluate import BATCH, batches, mean
from .evaluate import grid, sample
from .lora import open_model
from .measures import PALETTE, References, border_colour, nearest_colour, pixels_at
from .progress import report
from .prompts import Prompt
from .reference import ENCODER, NAME, SIDE, Looker, listen

COUNTS = {"combinations": 33, "pairs": 34, "things": 33}
"""References of each kind: things that were never trained on that background, pairs of thing and style that never were,
and things that never were."""
HALF = 0.5
"""The weight at which a prompt and a reference are tried together."""
WORDED = 24
"""Of the references, so many are drawn with a prompt, too."""
GRID_COLUMNS = 20


@dataclass
class Case:
    """A reference [3, 128, 128] in [0, 1] with what it shows, as a prompt without words; -1: a thing never trained."""

    prompt: Prompt
    kind: str
    picture: Tensor


def cases(icons: data.Icons) -> list[Case]:
    """The hundred references, the same ones each time."""
    rng, shown = random.Random(43), []
    every = [(c, s) for c in range(len(CONCEPTS)) for s in range(len(STYLES))]
    pairs = [pair for pair in every if pair_held_out(*pair)]
    known = rng.sample([pair for pair in every if not pair_held_out(*pair)], COUNTS["combinations"])
    for concept, style in known:
        colour = rng.choice([colour for colour in range(len(COLOURS)) if held_out(concept, style, colour)])
        shown.append(("combinations", icons.find(concept, style), colour))
    for number in range(COUNTS["pairs"]):
        shown.append(("pairs", icons.find(*pairs[number % len(pairs)]), rng.randrange(len(COLOURS))))
    for icon in rng.sample(np.flatnonzero(icons.concept == -2).tolist(), COUNTS["things"]):
        shown.append(("things", icon, rng.randrange(len(COLOURS))))
    return [
        Case(
            Prompt("", max(int(icons.concept[icon]), -1), int(icons.style[icon]), colour),
            kind,
            data.composite(icons.pixels[icon], MEDIUM, PALETTE[colour]),
        )
        for kind, icon, colour in shown
    ]


def load(folder: Path, unet: Any) -> Looker:
    """Encoder and adapter of their files."""
    looker = Looker(unet)
    parts = {"adapter": folder / f"{NAME}.safetensors", "encoder": folder / ENCODER / "model.safetensors"}
    states = {f"{part}.{name}": one.float() for part, file in parts.items() for name, one in load_file(file).items()}
    looker.load_state_dict(states, strict=False)
    return looker.eval()


class Referring:
    """The pipeline whose UNet looks at references beside the words."""

    def __init__(self, pipeline: StableDiffusionPipeline, looker: Looker):
        self.pipeline, self.looker, self.pairs = pipeline, looker, listen(pipeline.unet)

    @torch.no_grad()
    def sample(self, rows: list[Case], texts: list[str], weight: float = 1.0) -> Tensor:
        """Pictures [n, 3, 128, 128] in [0, 1] with prompts; the seed of each is its place in its batch.

        Weight 0: without references.
        """
        parts = []
        prompts = {id(row): row.prompt._replace(text=text) for row, text in zip(rows, texts, strict=True)}
        for batch in batches(rows):
            pictures = torch.stack([row.picture for row in batch]).to(self.pipeline.device)
            small = F.interpolate(pictures, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
            summary = self.looker(small)
            told = self.looker.adapter(torch.cat([torch.zeros_like(summary), summary]))
            self.pairs.update({number: (keys, values * weight) for number, (keys, values) in told.items() if weight})
            parts.append(sample(self.pipeline, [prompts[id(row)] for row in batch]))
            self.pairs.clear()
        return torch.cat(parts)


def likeness(rows: list[Case], pictures: Tensor, references: References) -> dict[str, float]:
    """In which share of the pictures background, thing and style are the reference's, by the nearest icon (things never
    trained left out); and which share is nearer to its own reference than to all others, by 32x32 pixels."""
    distances = torch.cdist(pixels_at(pictures, 32), pixels_at(torch.stack([row.picture for row in rows]), 32))
    own = (distances.argmin(1) == torch.arange(len(rows))).float().tolist()
    colours = nearest_colour(border_colour(pictures)).tolist()
    pairs = [(row.prompt, picture) for row, picture in zip(rows, pictures, strict=True) if row.prompt.concept >= 0]
    icons = [(prompt, *references.nearest_icon(picture)) for prompt, picture in pairs]
    kinds = {kind: [one for one, row in zip(own, rows, strict=True) if row.kind == kind] for kind in COUNTS}
    return {
        "own": mean(own),
        "background": mean([row.prompt.colour == colour for row, colour in zip(rows, colours, strict=True)]),
        "thing": mean([prompt.concept == concept for prompt, concept, _ in icons]),
        "style": mean([prompt.style == style for prompt, _, style in icons]),
        **{f"own_{kind}": mean(values) for kind, values in kinds.items() if values},
    }


def with_words(referring: Referring, rows: list[Case], references: References) -> dict[str, float]:
    """Prompts for another thing beside references at half their weight: are thing, style and background right?"""
    things = [CONCEPTS[(row.prompt.concept + 100) % len(CONCEPTS)] for row in rows]
    pictures = referring.sample(rows, [thing.phrase for thing in things], HALF)
    asked = [
        Case(row.prompt._replace(concept=CONCEPTS.index(thing)), row.kind, row.picture)
        for row, thing in zip(rows, things, strict=True)
    ]
    found = likeness(asked, pictures, references)
    return {"prompts": len(rows)} | {name: found[name] for name in ("thing", "style", "background")}


def evaluate(model: Path, work: Path, out: Path, device: torch.device | None = None) -> dict[str, Any]:
    """Draw after all references and without; write `reference.json` and `grid-reference.png` into `out`.

    The grid's rows: references, pictures after them without a prompt, and the same seeds without a reference.
    """
    out.mkdir(parents=True, exist_ok=True)
    pipeline, icons = open_model(model, device), data.prepare(work)
    looker = load(model / FOLDER, pipeline.unet).to(pipeline.device)
    referring, references, rows = Referring(pipeline, looker), References(icons), cases(icons)
    report(work, "reference: drawing after a hundred pictures")
    drawn = {"with": referring.sample(rows, [""] * len(rows))}
    few = referring.sample(rows[:BATCH], [""] * BATCH, 0)  # without a reference every batch is the same
    drawn["without"] = few.repeat(-(-len(rows) // BATCH), 1, 1, 1)[: len(rows)]
    files = (model / FOLDER / f"{NAME}.safetensors", model / FOLDER / ENCODER / "model.safetensors")
    numbers: dict[str, Any] = {"bytes": sum(file.stat().st_size for file in files), "references": COUNTS}
    numbers |= {name: likeness(rows, pictures, references) for name, pictures in drawn.items()}
    numbers["wrong"] = likeness(rows, drawn["with"].roll(1, 0), references)
    known = [row for row in rows if row.prompt.concept >= 0][:WORDED]
    numbers["with_words"] = with_words(referring, known, references)
    shown = [*range(0, len(rows), len(rows) // GRID_COLUMNS)][:GRID_COLUMNS]
    pictures = torch.stack([rows[place].picture for place in shown])
    grid(torch.cat([pictures, *(one[shown] for one in drawn.values())]), GRID_COLUMNS, out / "grid-reference.png")
    (out / "reference.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return numbers
