"""What can be measured on a picture itself: its background, size and place of the thing, how far pictures lie apart."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import data
from .concepts import COLOURS, IMAGE_SIZE, PLACEMENTS
from .latents import reference_pictures
from .prompts import Prompt

BORDER = 6
PALETTE = torch.tensor(list(COLOURS.values())) / 255


def frame() -> Tensor:
    """Mask [128, 128] of the outermost pixels."""
    mask = torch.ones(IMAGE_SIZE, IMAGE_SIZE, dtype=torch.bool)
    mask[BORDER:-BORDER, BORDER:-BORDER] = False
    return mask


def border_colour(pictures: Tensor) -> Tensor:
    """Median colour [n, 3] of the outermost pixels."""
    return pictures[:, :, frame()].median(-1).values


def border_unevenness(pictures: Tensor) -> float:
    """Mean standard deviation of the outermost pixels, in 1/255."""
    return float(pictures[:, :, frame()].std(-1).mean() * 255)


def nearest_colour(values: Tensor) -> Tensor:
    """Index of the named colour nearest to each of [n, 3]."""
    return torch.cdist(values, PALETTE).argmin(1)


def pixels_at(pictures: Tensor, side: int) -> Tensor:
    """Pictures averaged to side x side and flattened."""
    return F.avg_pool2d(pictures, IMAGE_SIZE // side).flatten(1)


class References:
    """The training pictures as 32x32 pixels on each background colour, made when they are first asked for."""

    def __init__(self, icons: data.Icons):
        self.icons = icons
        self.concept = torch.from_numpy(icons.concept[icons.concept >= 0])
        self.style = torch.from_numpy(icons.style[icons.concept >= 0])
        self.pixels: dict[int, Tensor] = {}

    def nearest_concept(self, picture: Tensor) -> int:
        """The thing of the training picture nearest to a picture [3, 128, 128], on the background that it has."""
        return self.nearest_icon(picture)[0]

    def nearest_icon(self, picture: Tensor) -> tuple[int, int]:
        """The same with the thing's style."""
        colour = int(nearest_colour(border_colour(picture[None])))
        if colour not in self.pixels:
            self.pixels[colour] = pixels_at(reference_pictures(self.icons, PALETTE[colour]), 32)
        place = torch.cdist(pixels_at(picture[None], 32), self.pixels[colour])[0].argmin()
        return int(self.concept[place]), int(self.style[place])


def placement_right(prompt: Prompt, picture: Tensor) -> bool:
    """Whether size and middle of what differs from the background are as asked, within 14 pixels."""
    background = border_colour(picture[None])[0].view(3, 1, 1)
    mask = (picture - background).abs().amax(0) > 0.15
    ys, xs = mask.nonzero(as_tuple=True)
    if len(xs) < 50:
        return False
    ends = torch.tensor([0.01, 0.99])
    low, high = torch.stack([torch.quantile(axis.float(), ends) for axis in (xs, ys)], 1)
    wanted = PLACEMENTS[prompt.placement]
    off = ((low + high) / 2 - torch.tensor([wanted.centre_x, wanted.centre_y])).abs().max()
    side = float((high - low).max())
    nearest = min((56, 100, 124), key=lambda size: abs(side - 0.93 * size))
    return float(off) < 14 and nearest == wanted.size


def spread(pictures: Tensor) -> float:
    """Mean root-mean-square difference between all pairs of pictures [n, 3, 128, 128], in 1/255."""
    flat = pictures.flatten(1)
    distances = torch.pdist(flat) / flat.shape[1] ** 0.5
    return float(distances.mean() * 255)
