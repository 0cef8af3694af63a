"""The UNet's training set: latents of composited pictures, encoded once, with what each picture shows."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from . import data
from .autoencoder import SCALING_FACTOR
from .concepts import COLOURS, CONCEPTS, MEDIUM, PLACEMENT_SHARE, PLACEMENTS, STYLES, held_out
from .optim import half
from .pictures import jitter
from .progress import report

OTHER_VIEWS = 0.5
"""How many pictures of another size or place there are for each medium, centred one."""


@dataclass
class LatentSet:
    """`latents` is float [n, 4, 16, 16] of unit variance; `labels` is int [n, 4]."""

    latents: Tensor
    labels: Tensor
    """Columns: concept, style, colour, placement (indices)."""
    colours: Tensor
    """[n, 3, 16, 16]: the pictures in [0, 1], averaged over each latent's 8x8 pixels."""


def plan(rng: random.Random) -> list[tuple[int, int, int, int]]:
    """The labels of every picture of the set: all combinations that are not held out."""
    rows = []
    others = range(1, len(PLACEMENTS))
    for concept in range(len(CONCEPTS)):
        for style in range(len(STYLES)):
            for colour in range(len(COLOURS)):
                if held_out(concept, style, colour):
                    continue
                rows.append((concept, style, colour, 0))
                if rng.random() < OTHER_VIEWS:
                    rows.append((concept, style, colour, rng.choices(others, PLACEMENT_SHARE[1:])[0]))
    return rows


@torch.no_grad()
def prepare(work: Path) -> LatentSet:
    """Encode the training pictures with `work/vae`; the result is kept in `work/latents.pt`."""
    file = work / "latents.pt"
    if not file.exists():
        icons = data.prepare(work)
        vae = AutoencoderKL.from_pretrained(work / "vae").to(memory_format=torch.channels_last)
        rng = random.Random(5)
        labels = plan(rng)
        palette = torch.tensor(list(COLOURS.values())) / 255
        latents, colours = [], []
        for start in range(0, len(labels), 16):
            pictures = torch.stack([picture(icons, row, palette, rng) for row in labels[start : start + 16]])
            inputs = (pictures * 2 - 1).contiguous(memory_format=torch.channels_last)
            with half():
                encoded = vae.encode(inputs).latent_dist.mode().float()
            latents.append(encoded.contiguous() * SCALING_FACTOR)
            colours.append(F.avg_pool2d(pictures, 8))
            if start % 1600 == 0:
                report(work, f"latents: {start} of {len(labels)}")
        columns = {"latents": torch.cat(latents), "colours": torch.cat(colours)}
        torch.save({**columns, "labels": torch.tensor(labels)}, file)
    return LatentSet(**torch.load(file, weights_only=True))


def picture(icons: data.Icons, row: tuple[int, int, int, int], palette: Tensor, rng: random.Random) -> Tensor:
    """One picture [3, 128, 128] in [0, 1] with the given labels, moved and scaled a little."""
    concept, style, colour, placement = row
    index = int(np.flatnonzero((icons.concept == concept) & (icons.style == style))[0])
    return data.composite(icons.pixels[index], jitter(PLACEMENTS[placement], rng), palette[colour])


def reference_pictures(icons: data.Icons, colour: Tensor) -> Tensor:
    """Every concept in every style, medium and centred, on one colour: [concepts * styles, 3, 128, 128]."""
    pixels = icons.pixels[icons.concept >= 0]
    return torch.stack([data.composite(icon, MEDIUM, colour) for icon in pixels])


def fit_preview(latents: LatentSet) -> dict[str, list]:
    """Least-squares linear map from UNet-space latents to RGB in [0, 1]: weight [3][4] and bias [3]."""
    inputs = latents.latents.permute(0, 2, 3, 1).reshape(-1, 4)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    targets = latents.colours.permute(0, 2, 3, 1).reshape(-1, 3)
    # float64: with millions of rows, float32's default cut-off (eps * rows) would drop half of the directions
    solution = torch.linalg.lstsq(inputs.double(), targets.double()).solution
    return {"weight": solution[:4].T.tolist(), "bias": solution[4].tolist()}
