"""Pictures of warped icons with their outlines, and what a hand makes of an outline: the data of `edges`."""

import math
import random
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from webui.core.maps.canny import canny as canny_edges

from . import data
from .captions import EMPTY_SHARE, arrange, caption, noun_phrase
from .concepts import COLOURS, IMAGE_SIZE, MEDIUM, STYLES, held_out, pair_held_out

LOW, HIGH = 100, 200
"""Canny's thresholds, of 0 to 255 a pixel, where none are chosen: those that everybody starts with."""
KNOWN_SHARE = 0.65
"""Share of pictures of the concepts; the rest show further things, whose outlines are as good."""
PAIR_SHARE = 0.12
"""Share of pictures with two things."""


def warp(pixels: np.ndarray, rng: random.Random, side: float, middle: tuple[float, float], wild: float) -> Tensor:
    """One icon [200, 200, 4] turned, mirrored, stretched and bent: float [4, 128, 128], premultiplied, in [0, 1].

    `side` is the icon's side and `middle` its middle in pixels of the picture; `wild` is how strange it gets, 0 to 1.
    """
    turn = math.radians(rng.gauss(0, 20 * wild))
    stretch = 1 + rng.uniform(-0.2, 0.25) * wild
    flip = -1 if rng.random() < 0.5 * min(1, 2 * wild) else 1
    fine = 2 * IMAGE_SIZE  # drawn at twice the size and averaged, so that small icons do not flicker
    places = (torch.arange(fine) + 0.5) / fine * IMAGE_SIZE
    y, x = torch.meshgrid(places - middle[1], places - middle[0], indexing="ij")
    bends = torch.from_numpy(np.array([rng.gauss(0, 1) for _ in range(72)], np.float32)).view(1, 2, 6, 6)
    bend = F.interpolate(bends, (fine, fine), mode="bicubic", align_corners=True)[0] * (rng.uniform(0, 5) * wild)
    x, y = x + bend[0], y + bend[1]
    u = (math.cos(turn) * x + math.sin(turn) * y) * flip * 2 / side * math.sqrt(stretch)
    v = (-math.sin(turn) * x + math.cos(turn) * y) * 2 / side / math.sqrt(stretch)
    icon = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    drawn = F.grid_sample(icon, torch.stack([u, v], -1)[None], align_corners=False)
    return F.avg_pool2d(drawn, 2)[0]


def lay(canvas: Tensor, layer: Tensor) -> Tensor:
    """A picture [3, 128, 128] with a premultiplied layer [4, 128, 128] on it."""
    return layer[:3] + canvas * (1 - layer[3:])


def canny(picture: Tensor, low: float = LOW, high: float = HIGH) -> np.ndarray:
    """Outlines of a picture [3, h, w] in [0, 1]: bool [h, w]."""
    pixels = (picture * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
    found: np.ndarray = canny_edges(pixels, low, high) > 0
    return found


def silhouette(alpha: Tensor) -> np.ndarray:
    """The outer line of a shape [h, w] in [0, 1]: bool [h, w]."""
    shape = alpha.numpy() > 0.5
    line: np.ndarray = shape & ~ndimage.binary_erosion(shape)
    return line


class Label(NamedTuple):
    """What a picture shows: places in the icons, the second one -1 where there is none, and in the colours."""

    icon: int
    other: int
    colour: int


@dataclass
class Drawn:
    """One training picture: `picture` [3, 128, 128] in [0, 1] and two of its outlines, bool [2, 128, 128]."""

    picture: Tensor
    outlines: np.ndarray
    label: Label


def draw(icons: data.Icons, rng: random.Random) -> Drawn:
    """A picture drawn at random, of one thing or two."""
    icon = rng.choice(allowed(icons, rng.random() < KNOWN_SHARE))
    style, concept = int(icons.style[icon]), int(icons.concept[icon])
    colour = rng.choice([k for k in range(len(COLOURS)) if concept < 0 or not held_out(concept, style, k)])
    wild = rng.choice((0.0, 0.5, 1.0, 1.0))
    other = -1
    if rng.random() < PAIR_SHARE:
        other = rng.choice([place for place in allowed(icons, True) if icons.style[place] == style])
        layer = warp(icons.pixels[icon], rng, rng.uniform(44, 64), near(rng, 34, 64), wild)
        second = warp(icons.pixels[other], rng, rng.uniform(44, 64), near(rng, 94, 64), wild)
        layer = torch.cat([lay(layer[:3], second), torch.maximum(layer[3:], second[3:])])
    else:
        side = rng.uniform(96, 104) if not wild else 50 * (126 / 50) ** (rng.random() ** 0.6)
        room = 0.5 * max(0.0, IMAGE_SIZE - side) if wild else 3
        layer = warp(icons.pixels[icon], rng, side, near(rng, 64, 64, room, room), wild)
    picture = lay(data.plain(torch.tensor(list(COLOURS.values())[colour]) / 255), layer)
    return Drawn(picture, np.stack([canny(picture), other_outline(picture, layer[3], rng)]), Label(icon, other, colour))


def other_outline(picture: Tensor, alpha: Tensor, rng: random.Random) -> np.ndarray:
    """What else may be drawn of a picture: its silhouette, more of its lines, or the coarse ones alone."""
    roll = rng.random()
    if roll < 0.4:
        return silhouette(alpha)
    if roll < 0.7:
        return canny(picture, rng.uniform(20, 100), rng.uniform(100, 200))
    return canny(blurred(picture, rng.uniform(1, 2)), 30, 80)


def near(rng: random.Random, x: float, y: float, across: float = 6, down: float = 24) -> tuple[float, float]:
    """A place at most that far from another."""
    return x + rng.uniform(-across, across), y + rng.uniform(-down, down)


def blurred(picture: Tensor, sigma: float) -> Tensor:
    """A picture [3, h, w], softened."""
    return torch.from_numpy(ndimage.gaussian_filter(picture.numpy(), (0, sigma, sigma)))


def allowed(icons: data.Icons, known: bool) -> list[int]:
    """The icons that may be shown in training: the concepts' own, or the further ones."""
    if not known:
        return [int(place) for place in np.flatnonzero(icons.concept == -1)]
    places = [int(place) for place in np.flatnonzero(icons.concept >= 0)]
    return [place for place in places if not pair_held_out(int(icons.concept[place]), int(icons.style[place]))]


def draw_caption(icons: data.Icons, label: Label, rng: random.Random) -> str:
    """A caption drawn anew; it says nothing of size and place, which the outline says."""
    style, name = STYLES[icons.style[label.icon]].name, list(COLOURS)[label.colour]
    if label.other < 0:
        return caption(icons.thing(label.icon), style, name, MEDIUM, rng)
    heads = [noun_phrase(icons.thing(place), "", rng) for place in label[:2]]
    return "" if rng.random() < EMPTY_SHARE else arrange(" and ".join(heads), style, "", name, 100, rng)


def by_hand(lines: np.ndarray, rng: random.Random) -> np.ndarray:
    """Outlines bool [h, w] as the model is given them, float32 [h, w] in [0, 1]; four in ten as they are.

    The others are drawn as by a hand.
    """
    return lines.astype(np.float32) if rng.random() < 0.4 else pen(broken(lines, rng), rng)


def broken(lines: np.ndarray, rng: random.Random) -> np.ndarray:
    """Outlines bool [h, w] with small parts left out, places rubbed out, or lines broken."""
    noise, side = np.random.default_rng(rng.getrandbits(32)), lines.shape[0]
    lines = lines.copy()
    if rng.random() < 0.35:
        parts, count = ndimage.label(lines, np.ones((3, 3)))
        is_small = np.bincount(parts.ravel(), minlength=count + 1) < rng.uniform(6, 40)
        lines &= ~(is_small & (noise.random(count + 1) < 0.8))[parts]
    if rng.random() < 0.4:
        y, x = np.ogrid[:side, :side]
        for _ in range(rng.randint(1, 4)):
            lines &= (y - rng.randrange(side)) ** 2 + (x - rng.randrange(side)) ** 2 > rng.uniform(4, 15) ** 2
    if rng.random() < 0.35:
        coarse = ndimage.zoom(noise.random((side // 8, side // 8)), 8, order=1)
        lines &= coarse > rng.uniform(0.15, 0.4)
    return lines


def pen(lines: np.ndarray, rng: random.Random) -> np.ndarray:
    """Outlines bool [h, w] drawn with a thicker line, an unsteady hand, a soft pen: float32 [h, w] in [0, 1]."""
    noise, side = np.random.default_rng(rng.getrandbits(32)), lines.shape[0]
    drawn = lines.astype(np.float32)
    if rng.random() < 0.7:
        width = rng.choice((2, 2, 3, 3, 4, 5))
        y, x = np.ogrid[:width, :width]
        middle = (width - 1) / 2
        disc = (y - middle) ** 2 + (x - middle) ** 2 <= max(0.5, middle**2 + 0.25)
        drawn = ndimage.grey_dilation(drawn, footprint=disc)
    if rng.random() < 0.4:
        shift = ndimage.zoom(noise.normal(0, rng.uniform(0.3, 1.0), (2, 8, 8)), (1, side / 8, side / 8), order=3)
        drawn = ndimage.map_coordinates(drawn, np.mgrid[:side, :side] + shift, order=1)
    if rng.random() < 0.5:
        drawn = ndimage.gaussian_filter(drawn, rng.uniform(0.4, 0.8))
        drawn /= max(float(drawn.max()), 0.3)
    clipped: np.ndarray = np.clip(drawn, 0, 1, dtype=np.float32)
    return clipped
