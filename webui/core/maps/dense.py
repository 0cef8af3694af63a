"""Maps of a whole picture from one network: depth, soft edges, normals, kinds of things.

How pictures are prepared and what comes out is read back as in sd-webui-controlnet's ``annotator`` (HED, PiDiNet, TEED,
NormalBae), and in transformers' processors for networks of ADE20K's kinds (SegFormer, UperNet).
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image as PilImages
from PIL.Image import Image as PilImage
from PIL.Image import Resampling

from webui.core.errors import RequestError, show
from webui.core.files import AnnotatorFile
from webui.core.images import Size
from webui.core.maps.ade20k import COLOURS, KINDS
from webui.core.maps.networks import FIELD, PIDINET, run, sides_of
from webui.core.onnx_session import Floats

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
USUAL_DEPTH_PX = 518
"""Of the shorter side, what Depth Anything was trained on."""
USUAL_PX = 512
"""The same of normals and kinds."""
MOST_EDGES_PX = 1024
"""Of the shorter side, at which edges are looked for."""
LONGEST = 4
"""Times as long as the shorter side of such a picture's square; a longer strip is looked at smaller."""
WANTED = f"scores of ADE20K's {KINDS} kinds, or their numbers"


def depth(picture: PilImage, files: Sequence[AnnotatorFile]) -> PilImage:
    """How near things are, the nearest white, from a network that gives inverse depth (1, [1,] h, w)."""
    (file,) = files
    name = file.name.casefold()
    shown = _shown(picture, _size(picture, file, USUAL_DEPTH_PX, 14 if "anything" in name else 32))
    near = np.squeeze(run(file, _numbers(shown, *(HALVES if "dpt" in name else IMAGENET)))[0])
    if near.ndim != 2:
        raise RequestError(f"{show(file.path.name)} gives no depth: {near.ndim} sides instead of 2", FIELD)
    low, high = float(near.min()), float(near.max())
    return _as_picture([(near - low) / max(high - low, 1e-6)], picture.size)


def soft_edges(picture: PilImage, files: Sequence[AnnotatorFile]) -> PilImage:
    """Edges as soft white lines. PiDiNet's last output is the map; HED's and TEED's are averaged, then squashed to
    0..1 where they are not."""
    (file,) = files
    is_pidinet = PIDINET.goes_by(file.name)
    shown = _shown(picture, _size(picture, file, min(MOST_EDGES_PX, *picture.size), 8))
    numbers = _numbers(shown[..., ::-1]) if is_pidinet else _numbers(shown) * 255
    found = [part[0, 0] for part in run(file, numbers.astype(np.float32)) if part.ndim == 4 and part.shape[1] == 1]
    if not found:
        raise _wrong(file, "edges, one channel each")
    levels = [_resized(part, picture.size) for part in (found[-1:] if is_pidinet else found)]
    edges = np.mean(levels, axis=0)
    if min(part.min() for part in found) < 0 or max(part.max() for part in found) > 1:
        edges = 1 / (1 + np.exp(-edges.clip(-60, 60)))
    return _as_picture([edges], picture.size)


def normals(picture: PilImage, files: Sequence[AnnotatorFile]) -> PilImage:
    """Which way surfaces face: x, y, z from -1 to 1 as red, green and blue; what comes besides is left out."""
    (file,) = files
    shown = _shown(picture, _size(picture, file, USUAL_PX, 32))
    found = [part[0] for part in run(file, _numbers(shown, *IMAGENET)) if part.ndim == 4 and part.shape[1] in (3, 4)]
    if not found:
        raise _wrong(file, "normals, three or four channels")
    finest = max(found, key=lambda part: part.size)
    return _as_picture([(channel + 1) / 2 for channel in finest[:3]], picture.size)


def segmentation(picture: PilImage, files: Sequence[AnnotatorFile]) -> PilImage:
    """What is where, in ADE20K's colours, from scores (1, 150, h, w) or numbers of kinds (1, [1,] h, w)."""
    (file,) = files
    size = _size(picture, file, USUAL_PX, 32)
    found = run(file, _numbers(_shown(picture, size), *IMAGENET))[0]
    if found.ndim == 4 and found.shape[1] == KINDS:
        best, numbers = np.full(size[::-1], -np.inf), np.zeros(size[::-1], np.uint8)
        for kind, scores in enumerate(found[0]):
            scores = _resized(scores, size)
            numbers[scores > best] = kind
            best = np.maximum(best, scores)
    elif found.ndim == 3 or found.ndim == 4 and found.shape[1] == 1:
        numbers = found.reshape(found.shape[-2:]).clip(0, 255).astype(np.uint8)
    else:
        raise _wrong(file, WANTED)
    if numbers.max() >= KINDS:
        raise _wrong(file, WANTED)
    return PilImages.fromarray(COLOURS[numbers]).resize(picture.size, Resampling.NEAREST)


def _wrong(file: AnnotatorFile, wanted: str) -> RequestError:
    return RequestError(f"{show(file.path.name)} does not give {wanted}", FIELD)


def _size(picture: PilImage, file: AnnotatorFile, shorter_px: int, step: int) -> Size:
    """(width, height) at which the network sees the picture: its own, or that shorter side, in steps."""
    scale = shorter_px / max(min(picture.size), (picture.width * picture.height / LONGEST) ** 0.5)
    height, width = sides_of(file)
    across, down = (
        fixed or max(step, round(side * scale / step) * step)
        for fixed, side in zip((width, height), picture.size, strict=True)
    )
    return across, down


def _shown(picture: PilImage, size: Size) -> Floats:
    """(h, w, 3), 0..1."""
    levels: Floats = np.asarray(picture.resize(size, Resampling.BICUBIC), np.float32)
    return levels / np.float32(255)


def _numbers(
    shown: Floats, mean: Sequence[float] = (0.0, 0.0, 0.0), spread: Sequence[float] = (1.0, 1.0, 1.0)
) -> Floats:
    """As networks take it: (1, 3, h, w)."""
    numbers: Floats = ((shown - mean) / spread).transpose(2, 0, 1)[None].astype(np.float32)
    return numbers


def _resized(levels: Floats, size: Size) -> Floats:
    whole: Floats = np.asarray(PilImages.fromarray(levels.astype(np.float32)).resize(size, Resampling.BILINEAR))
    return whole


def _as_picture(channels: Sequence[Floats], size: Size) -> PilImage:
    """One channel of 0..1 as greys, or three as colours, at a size."""
    levels = [
        PilImages.fromarray(channel.astype(np.float32) * 255).resize(size, Resampling.BICUBIC) for channel in channels
    ]
    made = [PilImages.fromarray(np.asarray(level).round().clip(0, 255).astype(np.uint8)) for level in levels]
    return made[0].convert("RGB") if len(made) == 1 else PilImages.merge("RGB", made)
