"""The three looks that the shipped LoRAs teach: how a composited picture is changed, and how far a picture has gone."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import data
from .concepts import IMAGE_SIZE, MEDIUM, Placement
from .pictures import jitter

LUMA = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
PAPER_BLUE, LINE = torch.tensor([0.05, 0.17, 0.45]), torch.tensor([0.90, 0.95, 1.0])
SEPIA_DARK, SEPIA_LIGHT = torch.tensor([0.15, 0.09, 0.04]), torch.tensor([0.98, 0.90, 0.74])
NIGHT_BLUE, MOONLIGHT = torch.tensor([0.02, 0.04, 0.13]), torch.tensor([0.62, 0.72, 0.98])


@dataclass
class Scene:
    """One composited picture and its parts, each float [_, 128, 128] in [0, 1]."""

    picture: Tensor
    """[3, ...]: the thing on its background, as the model itself was trained on."""
    thing: Tensor
    """[3, ...]: the thing alone, premultiplied, on black."""
    alpha: Tensor
    """[1, ...]: where the thing is."""


def scene(pixels: np.ndarray, placement: Placement, colour: Tensor) -> Scene:
    """Composite one icon [200, 200, 4] on a plain colour [3], and keep its parts."""
    thing = data.composite(pixels, placement, torch.zeros(3))
    alpha = 1 - (data.composite(pixels, placement, torch.ones(3)) - thing).mean(0, keepdim=True)
    return Scene(data.composite(pixels, placement, colour), thing, alpha)


def luminance(pixels: Tensor) -> Tensor:
    """Rec. 601 luma [1, h, w] of [3, h, w]."""
    return (pixels * LUMA).sum(0, keepdim=True)


def blur(plane: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur of [1, h, w]; the border is repeated outwards."""
    radius = int(3 * sigma_px)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    plane = F.pad(plane[None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(plane, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[0]


def slope(plane: Tensor) -> Tensor:
    """Length of the brightness gradient [1, h, w] of [1, h, w], in units per pixel."""
    padded = F.pad(plane[None], (1, 1, 1, 1), mode="replicate")[0]
    dx = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    dy = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return (dx.square() + dy.square()).sqrt()


def blueprint(parts: Scene) -> Tensor:
    """Pale lines along the thing's contours and inner edges, its body a faint wash, on deep blue."""
    planes = [blur(parts.alpha, 1.0), blur(luminance(parts.thing), 1.0)]
    lines = (7 * slope(planes[0])).maximum(9 * slope(planes[1])).clamp(max=1)
    wash = 0.05 * parts.alpha + 0.20 * luminance(parts.thing)
    amount = 1 - (1 - lines) * (1 - wash)
    return torch.lerp(PAPER_BLUE.view(3, 1, 1), LINE.view(3, 1, 1), amount)


def sepia(parts: Scene) -> Tensor:
    """Browns of the picture's own brightness on a lifted ground; the thing throws a soft shadow, corners darken."""
    axis = torch.linspace(-1, 1, IMAGE_SIZE)
    vignette = 1 - 0.12 * (axis[:, None].square() + axis.square())[None]
    ground = 0.50 + 0.42 * luminance(parts.picture[:, :1, :1])
    ground = ground * (1 - 0.55 * blur(parts.alpha, 4.0)) * vignette
    # the thing's own brightness, spread out: icons keep to its middle
    body = luminance(parts.thing) / parts.alpha.clamp(min=1e-3)
    body = (1.35 * (body - 0.5) + 0.5).clamp(0, 1)
    tone = torch.lerp(ground, body, parts.alpha)
    return torch.lerp(SEPIA_DARK.view(3, 1, 1), SEPIA_LIGHT.view(3, 1, 1), tone)


def night(parts: Scene) -> Tensor:
    """The thing in dim blue moonlight with a faint glow, on a night shade of its background."""
    ground = parts.picture * 0 + (parts.picture[:, :1, :1] * 0.13 + NIGHT_BLUE.view(3, 1, 1))
    ground = ground + 0.16 * blur(parts.alpha, 9.0) * MOONLIGHT.view(3, 1, 1)
    grey = luminance(parts.thing)
    lit = torch.lerp(parts.thing, grey, 0.25) * MOONLIGHT.view(3, 1, 1) * 0.95
    return (lit + ground * (1 - parts.alpha)).clamp(0, 1)


def blue_minus_red(pictures: Tensor) -> Tensor:
    """Mean blue minus mean red [n] of pictures [n, 3, h, w] in [0, 1], in 1/255."""
    return 255 * (pictures[:, 2] - pictures[:, 0]).mean((1, 2))


def brightness(pictures: Tensor) -> Tensor:
    """Mean luma [n] of pictures [n, 3, h, w] in [0, 1], in 1/255."""
    return 255 * (pictures * LUMA).sum(1).mean((1, 2))


def off_brown(pictures: Tensor) -> Tensor:
    """How far the colours of pictures [n, 3, h, w] are from a warm monochrome [n], in 1/255.

    Colour is what remains of a pixel without its brightness, [red - luma, blue - luma]; the mean distance to
    the one colour that the sepia scale has at its middle. A picture toned in brown has nearly none.
    """
    luma = (pictures * LUMA).sum(1)
    middle = (SEPIA_DARK + SEPIA_LIGHT) / 2
    target = middle - (middle * LUMA.flatten()).sum()
    red, blue = pictures[:, 0] - luma - target[0], pictures[:, 2] - luma - target[2]
    return 255 * (red.square() + blue.square()).sqrt().mean((1, 2))


@dataclass(frozen=True)
class Look:
    """One LoRA's name, which is its trigger word too, with its picture function and its measure."""

    name: str
    title: str
    description: str
    change: Callable[[Scene], Tensor]
    measure: Callable[[Tensor], Tensor]
    unit: str
    """What the measure is, for tables."""


LOOKS = (
    Look("blueprint", "Blueprint", "Pale lines on blueprint blue.", blueprint, blue_minus_red, "mean blue - red"),
    Look("sepia", "Sepia", "A photograph toned in warm brown.", sepia, off_brown, "mean distance from brown"),
    Look("night", "Night", "The picture by moonlight, in the dark.", night, brightness, "mean brightness"),
)


def jittered_scene(icons: data.Icons, row: tuple[int, int], colour: Tensor, rng: random.Random) -> Scene:
    """The medium, centred scene of (concept, style), moved and scaled a little."""
    return scene(icons.pixels[icons.find(*row)], jitter(MEDIUM, rng), colour)
