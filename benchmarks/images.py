"""A 1024 x 1024 start picture on its way to the model, beside diffusers' ``VaeImageProcessor``; the encode cache."""

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image as PilImages

from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import offer
from webui.core.events import Done
from webui.core.groups.init import Init
from webui.core.images import ensure_multiple_of_8, open_image, to_rgb
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.latents import to_tensor

SIDE_PX = 1024
CPU = torch.device("cpu")


def run(options: Options) -> list[Row]:
    """Milliseconds of a job's encode part; at the demo model's size also of what no model has a part in."""
    rows = _encode_cache(options)
    return _to_tensors(options.rounds) + rows if options.size == "demo" else rows


def _to_tensors(rounds: int) -> list[Row]:
    """From a decoded picture to the tensor, and from a PNG file to the tensor."""
    picture = _picture(SIDE_PX)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    file, processor = buffer.getvalue(), VaeImageProcessor(vae_scale_factor=8)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "VaeImageProcessor": lambda: processor.preprocess(picture),
        "darkroom": lambda: to_tensor(ensure_multiple_of_8(to_rgb(picture)), CPU),
        "file, VaeImageProcessor": lambda: processor.preprocess(PilImages.open(io.BytesIO(file)).convert("RGB")),
        "file, darkroom": lambda: to_tensor(ensure_multiple_of_8(to_rgb(open_image(file))), CPU),
    }
    samples: dict[str, list[float]] = {name: [] for name in ways}
    worst = 0.0
    for k in range(rounds + 1):
        made = {}
        for name in ways if k % 2 else reversed(ways):
            started = time.perf_counter()
            made[name] = ways[name]()
            if k:
                samples[name].append((time.perf_counter() - started) * 1e3)
        worst = max(worst, float((made["darkroom"] - made["VaeImageProcessor"]).abs().max()))
    stock = Row("VaeImageProcessor, 1024 px", "ms", samples["VaeImageProcessor"])
    stock_file = Row("VaeImageProcessor, from PNG", "ms", samples["file, VaeImageProcessor"])
    note = f"(largest difference {worst:.1e})"
    return [
        stock,
        compared("darkroom, 1024 px", "ms", samples["darkroom"], stock, note),
        stock_file,
        compared("darkroom, from PNG", "ms", samples["file, darkroom"], stock_file),
    ]


def _encode_cache(options: Options) -> list[Row]:
    """The encode part of img2img jobs: a picture seen for the first time, then another prompt on the same one."""
    first, again = [], []
    with tempfile.TemporaryDirectory() as data_dir:
        model = offer(options.size, Path(data_dir))
        darkroom = Darkroom(Settings(device="cpu", dtype="float32", data_dir=Path(data_dir)))
        for k in range(options.rounds + 1):
            init = Init(image=_picture(512, seed=k), strength=0.05)
            jobs = [Request(prompt=f"{word} {k}", model=model, steps=20, init=init) for word in ("a cat", "a dog")]
            times = [_encode_ms(darkroom, job) for job in jobs]
            if k:
                first.append(times[0])
                again.append(times[1])
    new = Row("encode, new 512 px picture", "ms", first)
    return [new, compared("encode, known picture, new prompt", "ms", again, new)]


def _encode_ms(darkroom: Darkroom, request: Request) -> float:
    done = next(event for event in darkroom.generate(request) if isinstance(event, Done))
    return done.parts_s["encode"] * 1e3


def _picture(side_px: int, seed: int = 0) -> Any:
    noise = np.random.default_rng(seed).integers(0, 256, (side_px // 16, side_px // 16, 3), np.uint8)
    return PilImages.fromarray(noise).resize((side_px, side_px))
