"""Pictures enlarged by real weights: ours whole and in tiles, beside ncnn.

Both compute in float32 with as many threads, take turns, and are counted in processor time, which other programs on the
machine do not lengthen. What they make is compared too.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image as PilImages
from PIL.Image import Image as PilImage
from safetensors.torch import save_file

from benchmarks.measure import Options, Row, compared
from tests import ncnn_models
from webui.core.files import UpscalerFile
from webui.core.stages import Upscale
from webui.engine.stages.upscale import Enlarger
from webui.library.library import DEMO_MODEL, UPSCALERS

EMBEDDED = UpscalerFile("realesr-animevideov3", UPSCALERS / "realesr-animevideov3.safetensors")
WHOLE_PX = 1 << 16
COMPACT, RRDB = "realesr-animevideov3-x4", "realesrgan-x4plus-anime"
CASES = ((COMPACT, 128, 64), (COMPACT, 192, 128), (RRDB, 48, 32))
"""Files of ncnn, the side of the picture, and that of the tiles, in px."""


def run(options: Options) -> list[Row]:
    """Milliseconds of processor time for a picture enlarged four times, after one that warms up."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        anime = UpscalerFile("anime", Path(folder) / "anime.safetensors")
        save_file(ncnn_models.rrdb_state(RRDB), anime.path)
        for name, px, tile_px in CASES:
            rows += _measure(name, EMBEDDED if name == COMPACT else anime, px, tile_px, options)
    return rows


def _measure(name: str, file: UpscalerFile, px: int, tile_px: int, options: Options) -> list[Row]:
    picture = PilImages.open(DEMO_MODEL / "preview.png").convert("RGB").resize((px, px))
    stage = Upscale(file, (4 * px, 4 * px))
    ways: Mapping[str, Callable[[], object]] = {
        "ncnn": lambda: ncnn_models.compute(name, np.asarray(picture), options.threads),
        "darkroom, whole": _way(picture, stage, WHOLE_PX),
        f"darkroom, tiles of {tile_px} px": _way(picture, stage, tile_px),
    }
    samples: dict[str, list[float]] = {way: [] for way in ways}
    made = {}
    for k in range(options.rounds + 1):
        for way, work in ways.items():
            started = time.process_time()
            made[way] = work()
            if k:
                samples[way].append(1e3 * (time.process_time() - started))
    label = f"{name.removesuffix('-x4')}, {px} to {4 * px} px"
    first = Row(f"{label}: ncnn", "ms", samples["ncnn"])
    theirs, rows = np.asarray(made["ncnn"], np.float32), [first]
    for way in list(ways)[1:]:
        difference = float(np.abs(np.asarray(made[way], np.float32) - theirs).max())
        rows.append(compared(f"{label}: {way}", "ms", samples[way], first, max_difference=difference))
    return rows


def _way(picture: PilImage, stage: Upscale, tile_px: int) -> Callable[[], PilImage]:
    """Enlarges it anew each time it is called, with a network of its own."""
    enlarger = Enlarger()
    assert stage.file
    enlarger.load(stage.file).tile_px = tile_px

    def work() -> PilImage:
        steps = enlarger.enlarge(picture, stage, lambda: None)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                made: PilImage = stop.value
                return made

    return work
