"""Pictures enlarged by a network, in tiles that overlap, so that any size fits any memory.

A tile is computed, brought to its place's size and put there before the next; nothing larger than the result is held.
Tiles of one picture have one shape and are as far from their neighbours' as the network looks.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import ceil, floor
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PilImages
from PIL.Image import Image as PilImage

from webui.core import images
from webui.core.files import UpscalerFile
from webui.core.images import FILTER, Size
from webui.core.stages import Upscale
from webui.engine.families.base import CannotLoad
from webui.engine.upscalers import Network, read_upscaler

MARGIN_PX = 8
"""What a tile shows besides the network's reach: what Lanczos' filter sees, and some pixels for where it begins."""
KEPT = 2
GREY = ("1", "L", "LA", "I;16")

Stamp = tuple[int, int]
Cut = tuple[float, float]


@dataclass(frozen=True)
class Stretch:
    """A part of one side of the picture: ``shown`` px from ``start`` on, of which the px ``kept`` of what the network
    makes of them become those from ``place`` on, ``length`` many."""

    start: int
    shown: int
    kept: Cut
    place: int
    length: int


class Enlarger:
    """Keeps the networks that were used last."""

    def __init__(self) -> None:
        self._networks: dict[tuple[UpscalerFile, Stamp], Network] = {}

    def clear(self) -> None:
        """Lets go of them."""
        self._networks.clear()

    @property
    def held(self) -> frozenset[Path]:
        """The files whose networks are in memory; from any thread."""
        return frozenset(file.path for file, _ in [*self._networks])

    def load(self, file: UpscalerFile) -> Network:
        """The network of a file as it is now; raises CannotLoad."""
        try:
            stat = file.path.stat()
        except OSError as error:
            raise CannotLoad(f"upscaler {file.name[:80]!r} can no longer be read: {error.strerror}") from None
        key = file, (stat.st_size, stat.st_mtime_ns)
        network = self._networks.pop(key, None) or read_upscaler(file)
        self._networks[key] = network
        while len(self._networks) > KEPT:
            del self._networks[next(iter(self._networks))]
        return network

    def enlarge(self, picture: PilImage, stage: Upscale, check: Callable[[], None]) -> Generator[float, None, PilImage]:
        """The picture at the stage's size; yields which share of the work is done, tile by tile.

        Grey pictures stay grey, and transparency is enlarged as a picture of its own. ``check`` is called before each
        tile and may raise to stop.
        """
        parts = list(_split(picture))
        cut = images.filling_cut(picture.size, stage.size)
        if stage.file is None or stage.size[0] < cut[2] - cut[0]:
            made = [part.resize(stage.size, FILTER, cut) for part in parts]
            return _join(made, picture.mode)
        network = self.load(stage.file)
        passes = list(_passes(cut, stage.size, network))
        total, done, made = len(parts) * sum(len(tiles) for _, tiles in passes), 0, []
        for part in parts:
            part = part.crop(_whole_px(cut)).convert("RGB")
            for size, tiles in passes:
                pixels, part = _pixels(part, network.multiple), PilImages.new("RGB", size)
                for across, down in tiles:
                    check()
                    part.paste(_draw(network, pixels, across, down), (across.place, down.place))
                    done += 1
                    yield done / total
            made.append(part)
        return _join(made, picture.mode)


def _split(picture: PilImage) -> Iterator[PilImage]:
    """Colours as RGB of 8 bits and, where there is any transparency, opacity.

    Where nothing is seen, colours go on from the nearest that are, so that no edge gets a fringe of what is hidden.
    """
    if picture.mode not in ("RGBA", "LA") and "transparency" not in picture.info:
        yield images.to_rgb(picture)
        return
    seen = picture.convert("RGBA")
    opacity, colours = seen.getchannel("A"), seen.convert("RGB")
    if opacity.getextrema() == (255, 255):
        yield colours
        return
    yield images.fill_masked(colours, opacity.point(lambda level: 0 if level else 255))
    yield opacity


def _join(parts: Sequence[PilImage], mode: str) -> PilImage:
    """Colours and opacity as one picture, grey where ``mode`` is that of one."""
    colours = parts[0].convert("L") if mode in GREY else parts[0]
    if len(parts) > 1:
        colours.putalpha(parts[1].convert("L"))
    return colours


def _whole_px(cut: images.Cut) -> tuple[int, int, int, int]:
    left, top, right, bottom = cut
    return floor(left), floor(top), ceil(right), ceil(bottom)


def _passes(cut: images.Cut, wanted: Size, network: Network) -> Iterator[tuple[Size, list[tuple[Stretch, Stretch]]]]:
    """The size after each time that the network enlarges the picture, and the tiles for it: the network's own scale as
    long as that is too little, then what is wanted."""
    (left, top, right, bottom), scale = _whole_px(cut), network.scale
    own = right - left, bottom - top
    across, down = (cut[0] - left, cut[2] - left), (cut[1] - top, cut[3] - top)
    while 1 < scale < max(wanted[0] / (across[1] - across[0]), wanted[1] / (down[1] - down[0])):
        size = own[0] * scale, own[1] * scale
        yield size, _tiles(own, (0, own[0]), (0, own[1]), size, network)
        own, across, down = size, (across[0] * scale, across[1] * scale), (down[0] * scale, down[1] * scale)
    yield wanted, _tiles(own, across, down, wanted, network)


def _tiles(own: Size, across: Cut, down: Cut, wanted: Size, network: Network) -> list[tuple[Stretch, Stretch]]:
    columns = _stretches(own[0], across, wanted[0], network)
    return list(product(columns, _stretches(own[1], down, wanted[1], network)))


def _stretches(own: int, cut: Cut, wanted: int, network: Network) -> list[Stretch]:
    """The parts of one side of ``own`` px for a result of ``wanted`` px out of ``cut``, all as long as each other."""
    own = -(-own // network.multiple) * network.multiple
    margin = network.reach_px + MARGIN_PX
    shown = min(own, _up(network.tile_px + 2 * margin, network.multiple))
    count = 1 if shown == own else ceil((cut[1] - cut[0]) / network.tile_px)
    factor = wanted / (cut[1] - cut[0])
    edges = [round(wanted * number / count) for number in range(count + 1)]
    found = []
    for first, last in pairwise(edges):
        begin, end = cut[0] + first / factor, cut[0] + last / factor
        start = floor((begin + end - shown) / 2) // network.multiple * network.multiple
        start = min(max(start, 0), own - shown)
        kept = (begin - start) * network.scale, (end - start) * network.scale
        found.append(Stretch(start, shown, kept, first, last - first))
    return found


def _up(px: int, multiple: int) -> int:
    return -(-px // multiple) * multiple


def _pixels(picture: PilImage, multiple: int) -> torch.Tensor:
    """(1, 3, h, w) of 0..255, sides continued to a multiple."""
    levels = np.asarray(picture)
    missing = [(0, -side % multiple) for side in levels.shape[:2]]
    return torch.from_numpy(np.pad(levels, (*missing, (0, 0)), mode="edge")).permute(2, 0, 1)[None]


@torch.inference_mode()
def _draw(network: Network, pixels: torch.Tensor, across: Stretch, down: Stretch) -> PilImage:
    """What the network makes of a tile, at the size that it has in the result."""
    shown = pixels[..., down.start : down.start + down.shown, across.start : across.start + across.shown]
    made = network(shown.float().div_(255).contiguous(memory_format=torch.channels_last))
    levels = made[0].clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    tile = PilImages.fromarray(levels.numpy(), "RGB")
    size, box = (across.length, down.length), (across.kept[0], down.kept[0], across.kept[1], down.kept[1])
    if size == (box[2] - box[0], box[3] - box[1]) and all(float(side).is_integer() for side in box):
        return tile.crop(box)
    return tile.resize(size, FILTER, box)
