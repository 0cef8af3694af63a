"""Icons from npm packages, rasterised once; training pictures composited from them on demand."""

import io
import json
import subprocess
import tarfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .concepts import CONCEPTS, IMAGE_SIZE, STYLES, Placement, Style

RASTER_SIZE = 160
"""Side in pixels at which icons are rasterised; pictures scale them down from it."""

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
"""Icons whose name contains one of these teach the autoencoder little."""


@dataclass
class Icons:
    """Rasterised icons: `pixels` is uint8 [n, 160, 160, 4], premultiplied sRGB with alpha."""

    pixels: np.ndarray
    concept: np.ndarray
    """[n] index into CONCEPTS, -1 for further icons, -2 for held-out ones."""
    style: np.ndarray
    """[n] index into STYLES."""


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


def svg_text(icons: dict, name: str) -> str:
    """The complete SVG document of one icon of an Iconify collection."""
    icon = icons["icons"][name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {namespaces} viewBox="0 0 {width} {height}">{icon["body"]}</svg>'


def rasterise(svg: str) -> np.ndarray:
    """One SVG as uint8 [160, 160, 4] with premultiplied alpha."""
    import resvg_py  # only this function needs it; the tests do without

    png = resvg_py.svg_to_bytes(svg_string=svg, width=RASTER_SIZE, height=RASTER_SIZE)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    square = Image.new("RGBA", (RASTER_SIZE, RASTER_SIZE))
    square.paste(image, ((RASTER_SIZE - image.width) // 2, (RASTER_SIZE - image.height) // 2))
    pixels = np.asarray(square).astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    return pixels.round().astype(np.uint8)


def further_names(collections: list[dict]) -> list[str]:
    """Names that all collections share, neither concepts nor held out: only the autoencoder sees these icons."""
    shared = set.intersection(*(set(collection["icons"]) for collection in collections))
    shared -= {concept.icon for concept in CONCEPTS} | set(HELD_OUT_NAMES)
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
        concept, style = (np.array([row[i] for row in rows]) for i in (1, 2))
        np.savez(file, pixels=np.stack(pixels), concept=concept, style=style)
    with np.load(file) as stored:
        return Icons(stored["pixels"], stored["concept"], stored["style"])


def composite(pixels: np.ndarray, placement: Placement, colour: torch.Tensor) -> torch.Tensor:
    """Put one icon [160, 160, 4] on a plain colour [3] in [0, 1]; return float [3, 128, 128] in [0, 1]."""
    icon = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    side = placement.size
    icon = F.interpolate(icon, (side, side), mode="bilinear", antialias=True)[0]
    canvas = colour.view(3, 1, 1).expand(3, IMAGE_SIZE, IMAGE_SIZE).clone()
    left, top = placement.centre_x - side // 2, placement.centre_y - side // 2
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + side, IMAGE_SIZE), min(top + side, IMAGE_SIZE)
    part = icon[:, y0 - top : y1 - top, x0 - left : x1 - left]
    canvas[:, y0:y1, x0:x1] = part[:3] + canvas[:, y0:y1, x0:x1] * (1 - part[3:])
    return canvas
