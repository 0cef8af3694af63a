"""The UNet's training set: latents of composited pictures, encoded once, with what each picture shows."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models import AutoencoderKL
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from . import data
from .autoencoder import SCALING_FACTOR
from .captions import AMOUNTS, caption, pair_caption
from .concepts import COLOURS, CONCEPTS, IMAGE_SIZE, MEDIUM, PLACEMENT_SHARE, PLACEMENTS, STYLES, held_out
from .optim import channels_last, half
from .pictures import jitter, moved
from .progress import report, workers

VIEWS = 3
"""Pictures of each icon, medium and centred, on each of its colours; each view is moved and scaled a little."""
OTHER_VIEWS = 1.5
"""Of the same, pictures of another size or place."""
AMOUNT_SHARE = 0.7
"""Of the same, pictures whose colour goes further or less far, as a weight in the caption says; half as many places."""
PAIRS = 16
"""Pictures of each icon with another thing of its style."""
FURTHER_VIEWS = 6
"""Pictures of each further icon: they teach what a style is."""
LARGE_VIEWS = 0.25
"""Pictures of twice the size, for each of the icons' colours."""
SIDES = (IMAGE_SIZE, 2 * IMAGE_SIZE)
OPPOSITES = ((3, 4), (4, 3), (5, 6), (6, 5))
"""Placements of two small things in one picture."""
NEUTRAL = (140, 144, 150)
"""The colour that a background of weight 0 would have."""


class Row(NamedTuple):
    """What a picture shows, as places in the icons and in the lists of `concepts`."""

    icon: int
    colour: int
    placement: int = 0
    amount: int = 100
    """Percent of its way that the placement goes or, with the medium and centred one, the colour."""
    other: int = -1
    """A second thing's icon, or -1."""
    other_placement: int = 0


@dataclass
class LatentSet:
    """Pictures of one side: `latents` is float [n, 4, side / 8, side / 8] of unit variance; `rows` is int [n, 6]."""

    latents: Tensor
    rows: Tensor
    colours: Tensor
    """[n, 3, side / 8, side / 8]: the pictures in [0, 1], averaged over each latent's 8x8 pixels."""

    def row(self, place: int) -> Row:
        """What one picture shows."""
        return Row(*self.rows[place].tolist())


def times(expected: float, rng: random.Random) -> range:
    """So many times on average: 1.5 is once or twice."""
    return range(int(expected) + (rng.random() < expected % 1))


def plan(icons: data.Icons, rng: random.Random) -> list[Row]:
    """What every 128x128 picture of the set shows: all combinations that are not held out."""
    rows, others, colours = [], range(1, len(PLACEMENTS)), range(len(COLOURS))
    allowed: list[list[tuple[int, list[int]]]] = []
    for style in range(len(STYLES)):
        found = [(c, [k for k in colours if not held_out(c, style, k)]) for c in range(len(CONCEPTS))]
        allowed.append([(icons.find(concept, style), left) for concept, left in found if left])
    for style_rows in allowed:
        for icon, left in style_rows:
            for colour in left:
                rows += [Row(icon, colour) for _ in range(VIEWS)]
                rows += [Row(icon, colour, *rng.choices(others, PLACEMENT_SHARE[1:])) for _ in times(OTHER_VIEWS, rng)]
                rows += [Row(icon, colour, 0, rng.choice(AMOUNTS)) for _ in times(AMOUNT_SHARE, rng)]
                for _ in times(AMOUNT_SHARE / 2, rng):
                    (place,) = rng.choices(others, PLACEMENT_SHARE[1:])
                    rows.append(Row(icon, colour, place, rng.choice(AMOUNTS)))
            for _ in range(PAIRS):
                other, other_left = rng.choice(style_rows)
                if both := [colour for colour in left if colour in other_left]:
                    first, second = rng.choice(OPPOSITES)
                    rows.append(Row(icon, rng.choice(both), first, 100, other, second))
    for icon in (icons.concept == -1).nonzero()[0].tolist():
        for colour in rng.sample(colours, FURTHER_VIEWS):
            rows.append(Row(icon, colour, *rng.choices(range(len(PLACEMENTS)), PLACEMENT_SHARE)))
    return rows


def plan_large(icons: data.Icons, rng: random.Random) -> list[Row]:
    """What the 256x256 pictures show: some of the same combinations, without weights and second things."""
    rows = [row for row in plan(icons, rng) if row.amount == 100 and row.other < 0 and icons.concept[row.icon] >= 0]
    return rng.sample(rows, round(LARGE_VIEWS * len(rows) / (VIEWS + OTHER_VIEWS)))


class Pictures(Dataset[Tensor]):
    """The planned pictures, drawn when they are asked for: uint8 [3, side, side]."""

    def __init__(self, icons: data.Icons, rows: list[Row], side: int):
        self.icons, self.rows, self.side = icons, rows, side

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Tensor:
        drawn = picture(self.icons, self.rows[place], random.Random(place), self.side)
        return (drawn * 255).round().clamp(0, 255).byte()


@torch.no_grad()
def prepare(work: Path, side: int = IMAGE_SIZE, device: torch.device | None = None) -> LatentSet:
    """Encode the training pictures of one side with `work/vae`; the result is kept in `work/latents-SIDE.pt`."""
    file = work / f"latents-{side}.pt"
    if not file.exists():
        device = device or torch.device("cpu")
        icons, rng = data.prepare(work), random.Random(5)
        vae = channels_last(AutoencoderKL.from_pretrained(work / "vae"), device)
        rows = plan(icons, rng) if side == IMAGE_SIZE else plan_large(icons, rng)
        batches = DataLoader(Pictures(icons, rows, side), 16 if device.type == "cpu" else 256, num_workers=workers())
        latents, colours, done = [], [], 0
        for number, batch in enumerate(batches):
            pictures = batch.to(device).float() / 255
            with half(device):
                encoded = vae.encode(
                    (pictures * 2 - 1).contiguous(memory_format=torch.channels_last)
                ).latent_dist.mode()
            latents.append((encoded.float() * SCALING_FACTOR).contiguous().cpu())
            colours.append(F.avg_pool2d(pictures, 8).cpu())
            done += len(batch)
            if number % 100 == 0:
                report(work, f"latents: {done} of {len(rows)} pictures of {side}x{side}")
        columns = {"latents": torch.cat(latents), "colours": torch.cat(colours)}
        torch.save({**columns, "rows": torch.tensor(rows)}, file)
    return LatentSet(**torch.load(file, weights_only=True))


def picture(icons: data.Icons, row: Row, rng: random.Random, side: int = IMAGE_SIZE) -> Tensor:
    """One picture [3, side, side] in [0, 1] of what the row says, moved and scaled a little."""
    placement, colour = PLACEMENTS[row.placement], torch.tensor(list(COLOURS.values())[row.colour]) / 255
    if row.amount != 100 and row.placement:
        placement = moved(placement, row.amount / 100)
    elif row.amount != 100:
        colour = torch.lerp(torch.tensor(NEUTRAL) / 255, colour, row.amount / 100).clamp(0, 1)
    canvas = data.paste(data.plain(colour, side), icons.pixels[row.icon], jitter(placement, rng))
    if row.other >= 0:
        data.paste(canvas, icons.pixels[row.other], jitter(PLACEMENTS[row.other_placement], rng))
    return canvas


def row_caption(icons: data.Icons, row: Row, rng: random.Random) -> str:
    """A caption drawn anew for one picture."""
    thing, style, colour = icons.thing(row.icon), STYLES[icons.style[row.icon]].name, list(COLOURS)[row.colour]
    placement = PLACEMENTS[row.placement]
    if row.other < 0:
        return caption(thing, style, colour, placement, rng, row.amount)
    both = (placement, PLACEMENTS[row.other_placement])
    return pair_caption((thing, icons.thing(row.other)), style, colour, both, rng)


def reference_pictures(icons: data.Icons, colour: Tensor) -> Tensor:
    """Every concept in every style, medium and centred, on one colour: [concepts * styles, 3, 128, 128]."""
    pixels = icons.pixels[icons.concept >= 0]
    return torch.stack([data.composite(icon, MEDIUM, colour) for icon in pixels])


def fit_preview(latents: LatentSet) -> dict[str, list[Any]]:
    """Least-squares linear map from UNet-space latents to RGB in [0, 1]: weight [3][4] and bias [3]."""
    inputs = latents.latents.permute(0, 2, 3, 1).reshape(-1, 4)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    targets = latents.colours.permute(0, 2, 3, 1).reshape(-1, 3)
    # float64: with millions of rows, float32's default cut-off (eps * rows) would drop half of the directions
    solution = torch.linalg.lstsq(inputs.double(), targets.double()).solution
    return {"weight": solution[:4].T.tolist(), "bias": solution[4].tolist()}
