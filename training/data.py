"""Icons from npm packages, rasterised once; training pictures composited from them on demand."""

import io
import json
import subprocess
import tarfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .concepts import CONCEPTS, IMAGE_SIZE, STYLES, SYNONYMS, Concept, Placement, Style, indefinite_article

RASTER_SIZE = 200
"""Side in pixels at which icons are rasterised; pictures scale them down from it, and up in the largest of them."""

HELD_OUT_NAMES = (
    *("martial-arts-uniform", "umbrella-with-rain-drops", "face-with-thermometer", "fish", "dizzy"),
    *("carpentry-saw", "full-moon", "lungs", "factory-worker", "pouring-liquid", "light-rail"),
    *("card-index-dividers", "sneezing-face", "farmer", "bell-pepper", "sleeping-face", "screwdriver"),
    *("lipstick", "axe", "open-book"),
)
"""Icons kept from all training, the same ones since the first version, to measure the autoencoder on."""

LEFT_OUT = (
    *("flag", "skin", "tone", "person", "man-", "woman", "men-", "women", "family", "kiss", "couple"),
    *("sign", "circled", "o-clock", "thirty", "keycap", "arrow", "button", "square", "circle", "input-"),
    *("medium", "symbol", "mark", "heart-"),
)
"""Icons whose name contains one of these teach little."""


@dataclass
class Icons:
    """Rasterised icons: `pixels` is uint8 [n, 200, 200, 4], premultiplied sRGB with alpha."""

    pixels: np.ndarray
    concept: np.ndarray
    """[n] index into CONCEPTS, -1 for further icons, -2 for held-out ones."""
    style: np.ndarray
    """[n] index into STYLES."""
    names: np.ndarray
    """[n] the icons' names in their packages."""

    def find(self, concept: int, style: int) -> int:
        """The place of a concept's icon in one style."""
        return int(np.flatnonzero((self.concept == concept) & (self.style == style))[0])

    def thing(self, place: int) -> Concept:
        """What the icon at that place is in a caption: a concept, or a further thing by its icon's name."""
        concept = int(self.concept[place])
        name = str(self.names[place])
        return CONCEPTS[concept] if concept >= 0 else Concept(name.replace("-", " "), name, indefinite_article(name))


def fetch_package(style: Style, folder: Path) -> Path:
    """Download one npm package with `npm pack` and unpack it; return its folder."""
    target = folder / style.package.split("/")[-1]
    if not (target / "package" / "icons.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", f"{style.package}@{style.version}"]
        output = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
        with tarfile.open(folder / output.split()[-1]) as archive:
            archive.extractall(target, filter="data")
    return target / "package"


def svg_text(icons: dict[str, Any], name: str) -> str:
    """The complete SVG document of one icon of an Iconify collection."""
    icon = icons["icons"][name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {namespaces} viewBox="0 0 {width} {height}">{icon["body"]}</svg>'


def rasterise(svg: str) -> np.ndarray:
    """One SVG as uint8 [200, 200, 4] with premultiplied alpha."""
    import resvg_py  # only this function needs it; the tests do without

    png = resvg_py.svg_to_bytes(svg_string=svg, width=RASTER_SIZE, height=RASTER_SIZE)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    square = Image.new("RGBA", (RASTER_SIZE, RASTER_SIZE))
    square.paste(image, ((RASTER_SIZE - image.width) // 2, (RASTER_SIZE - image.height) // 2))
    pixels = np.asarray(square).astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    return pixels.round().astype(np.uint8)


def further_names(collections: list[dict[str, Any]]) -> list[str]:
    """Names that all collections share, neither concepts nor held out, and none that reads like a concept's words."""
    shared = set.intersection(*(set(collection["icons"]) for collection in collections))
    shared -= {concept.icon for concept in CONCEPTS} | set(HELD_OUT_NAMES)
    taken = {concept.words for concept in CONCEPTS} | {word for words in SYNONYMS.values() for word in words}
    shared -= {words.replace(" ", "-") for words in taken}
    return sorted(name for name in shared if not any(part in name for part in LEFT_OUT))


def prepare(work: Path) -> Icons:
    """Fetch the packages and rasterise; the result is kept in `work/icons.npz`."""
    file = work / "icons.npz"
    if not file.exists():
        folders = [fetch_package(style, work / "packages") for style in STYLES]
        collections = [json.loads((folder / "icons.json").read_text(encoding="utf-8")) for folder in folders]
        names = [(concept.icon, index) for index, concept in enumerate(CONCEPTS)]
        names += [(name, -1) for name in further_names(collections)] + [(name, -2) for name in HELD_OUT_NAMES]
        rows = [(name, c, s) for name, c in names for s in range(len(STYLES))]
        with ProcessPoolExecutor() as pool:
            documents = (svg_text(collections[s], name) for name, _, s in rows)
            pixels = list(pool.map(rasterise, documents, chunksize=16))
        words, concept, style = (np.array([row[i] for row in rows]) for i in range(3))
        np.savez(file, pixels=np.stack(pixels), concept=concept, style=style, names=words)
    with np.load(file) as stored:
        return Icons(**stored)


def plain(colour: torch.Tensor, side: int = IMAGE_SIZE) -> torch.Tensor:
    """An empty background [3, side, side] of a colour [3]."""
    return colour.view(3, 1, 1).expand(3, side, side).clone()


def paste(canvas: torch.Tensor, pixels: np.ndarray, placement: Placement) -> torch.Tensor:
    """Put one icon [200, 200, 4] on a picture [3, side, side] in [0, 1], in place; return the picture.

    A placement counts in pixels of a 128x128 picture; on a larger one everything is larger.
    """
    icon = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    limit = canvas.shape[-1]
    side, x, y = (number * limit // IMAGE_SIZE for number in placement[:3])
    icon = F.interpolate(icon, (side, side), mode="bilinear", antialias=True)[0]
    left, top = x - side // 2, y - side // 2
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + side, limit), min(top + side, limit)
    part = icon[:, y0 - top : y1 - top, x0 - left : x1 - left]
    canvas[:, y0:y1, x0:x1] = part[:3] + canvas[:, y0:y1, x0:x1] * (1 - part[3:])
    return canvas


def composite(pixels: np.ndarray, placement: Placement, colour: torch.Tensor) -> torch.Tensor:
    """One icon [200, 200, 4] on a plain colour [3] in [0, 1]: float [3, 128, 128] in [0, 1]."""
    return paste(plain(colour), pixels, placement)
