"""Random training pictures for the autoencoder, and the fixed ones it is measured on."""

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from . import data
from .concepts import COLOURS, IMAGE_SIZE, MEDIUM, PLACEMENT_SHARE, PLACEMENTS, Placement

CROP = 96
MAIN_BATCH = {"cpu": 8, "cuda": 64}
FULL_BATCH = {"cpu": 6, "cuda": 48}
MIXED, MOSTLY_CONCEPTS = 0.4, 0.75
"""Share of the concepts' own icons; the rest are further icons, for pictures from outside."""


def random_colour(rng: random.Random) -> Tensor:
    """A background [3] in [0, 1]: mostly one of the named colours, sometimes any."""
    if rng.random() < 0.75:
        return torch.tensor(rng.choice(list(COLOURS.values()))) / 255
    return torch.tensor([rng.random() for _ in range(3)])


def draw_icon(icons: data.Icons, share: float, rng: random.Random) -> np.ndarray:
    """The pixels of a concept's icon (that share of the time) or of a further one."""
    pool = np.flatnonzero(icons.concept >= 0 if rng.random() < share else icons.concept == -1)
    pixels: np.ndarray = icons.pixels[rng.choice(pool)]
    return pixels


def crop_batch(icons: data.Icons, rng: random.Random, count: int) -> Tensor:
    """Crops [count, 3, 96, 96] in [-1, 1] of objects of any size."""
    rows = []
    for _ in range(count):
        size = round(56 * (128 / 56) ** rng.random())
        placement = Placement(size, 64 + rng.randint(-8, 8), 64 + rng.randint(-8, 8), "")
        picture = data.composite(draw_icon(icons, MIXED, rng), placement, random_colour(rng))
        x, y = rng.randint(0, IMAGE_SIZE - CROP), rng.randint(0, IMAGE_SIZE - CROP)
        rows.append(picture[:, y : y + CROP, x : x + CROP])
    return (torch.stack(rows) * 2 - 1).contiguous(memory_format=torch.channels_last)


def full_batch(icons: data.Icons, share: float, rng: random.Random, count: int) -> Tensor:
    """Whole pictures [count, 3, 128, 128] in [-1, 1], placed as the UNet's training places them."""
    rows = []
    for _ in range(count):
        placement = jitter(rng.choices(PLACEMENTS, PLACEMENT_SHARE)[0], rng)
        rows.append(data.composite(draw_icon(icons, share, rng), placement, random_colour(rng)))
    return (torch.stack(rows) * 2 - 1).contiguous(memory_format=torch.channels_last)


class Batches(IterableDataset[Tensor]):
    """Endless batches of one of the autoencoder's phases, "main" or "decoder"."""

    def __init__(self, icons: data.Icons, phase: str, device: str, seed: int):
        self.icons, self.phase, self.device, self.seed = icons, phase, device, seed

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        rng = random.Random(1000 * self.seed + (worker.id if worker else 0))
        while True:
            if self.phase == "main":
                yield crop_batch(self.icons, rng, MAIN_BATCH[self.device])
            else:
                yield full_batch(self.icons, MOSTLY_CONCEPTS, rng, FULL_BATCH[self.device])


def jitter(placement: Placement, rng: random.Random) -> Placement:
    """The placement moved and scaled a little."""
    size = round(placement.size * rng.uniform(0.97, 1.03))
    x, y = (c + rng.randint(-3, 3) for c in (placement.centre_x, placement.centre_y))
    return placement._replace(size=size, centre_x=x, centre_y=y)


def moved(placement: Placement, amount: float) -> Placement:
    """The placement as far from the medium, centred one as `amount` says: 0 is that one, 1 the placement itself."""
    size, x, y = (round(start + amount * (end - start)) for start, end in zip(MEDIUM[:3], placement[:3], strict=True))
    return placement._replace(size=size, centre_x=x, centre_y=y)


def fixed_pictures(icons: data.Icons, held_out: bool) -> Tensor:
    """42 pictures [42, 3, 128, 128] in [-1, 1] for measuring, of concepts or of icons never trained on."""
    rng = random.Random(7)
    pool = np.flatnonzero(icons.concept == -2) if held_out else np.flatnonzero(icons.concept >= 0)
    colours = [torch.tensor(value) / 255 for value in COLOURS.values()]
    chosen = rng.sample(list(pool), 42)
    rows = [data.composite(icons.pixels[i], PLACEMENTS[0], colours[k % 14]) for k, i in enumerate(chosen)]
    return (torch.stack(rows) * 2 - 1).contiguous(memory_format=torch.channels_last)
