"""A step of a small Anima (random weights, float32) beside diffusers' own blocks, and loading it beside them.

Both ask the same network for 256 px with guidance, in turn; theirs once for each prompt, ours for both at once. Seconds
are the processor's. Loading is of a diffusers folder, to the last tensor; imports are not counted.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Options, Row, compared
from tests.anima_models import CONDITIONER, ENCODER, TRANSFORMER, VAE, save_folder
from webui.core.settings import Settings
from webui.engine.families import anima, qwen_image
from webui.engine.families.loading import ModelLoader
from webui.engine.text import qwen
from webui.library.library import find_models

SIDE, STEPS = 256, 4
WIDE = TRANSFORMER | {"num_attention_heads": 8, "attention_head_dim": 64, "num_layers": 6, "mlp_ratio": 4.0}


def run(options: Options) -> list[Row]:
    """Both ways alternate; the first round of each is not counted."""
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "transformer": anima.TRANSFORMER.make(WIDE),
        "text_conditioner": anima.TEXT_CONDITIONER.make(CONDITIONER),
        "text_encoder": qwen.make(ENCODER),
        "vae": qwen_image.make(VAE),
    }
    transformer = parts["transformer"].eval()
    backbone = anima.CosmosBackbone(transformer)
    latents = torch.randn(1, 16, SIDE // 8, SIDE // 8)
    contexts = [torch.randn(1, 512, 32) for _ in range(2)]
    padding = torch.zeros(1, 1, SIDE, SIDE)
    moment = torch.tensor([500.0])

    def ours() -> None:
        (told,) = backbone.prepare([{"context": context} for context in contexts], 1)
        for _ in range(STEPS):
            backbone.predict(latents, moment[0], told)

    def theirs() -> None:
        for _ in range(STEPS):
            for context in contexts:
                transformer(latents[:, :, None], moment / 1000, context, padding_mask=padding, return_dict=False)

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = save_folder(Path(folder, "models/Stable-diffusion/anima"), parts)
        file = find_models(Settings(data_dir=Path(folder)))["anima"]

        def load() -> None:
            for _ in ModelLoader(file, [], torch.float32).read(lambda _part: torch.device("cpu")):
                pass

        def load_theirs() -> None:
            for name, part in parts.items():
                type(part).from_pretrained(path / name)

        rows = []
        for what, their, own in (("a step", theirs, ours), ("load", load_theirs, load)):
            samples = _alternate(their, own, options.rounds, STEPS if what == "a step" else 1)
            other = Row(f"{what}, diffusers", "ms", samples[0])
            rows += [other, compared(what, "ms", samples[1], other)]
        return rows


def _alternate(first: Callable[[], None], second: Callable[[], None], rounds: int, times: int) -> list[list[float]]:
    samples: list[list[float]] = [[], []]
    for k in range(rounds + 1):
        for way, found in zip((first, second), samples, strict=True):
            started = time.process_time()
            way()
            if k:
                found.append((time.process_time() - started) * 1000 / times)
    return samples
