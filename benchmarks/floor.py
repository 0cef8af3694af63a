"""What the machine could do at most: the speed of one large matrix product and of one convolution, in this run.

A picture's floor is its operations at these speeds: convolutions at the one, all else at the other. In float32 it can
be made in less, as Darkroom's large convolutions then need fewer operations (``webui.engine.cpu.winograd``).
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from webui.core.stages import steps_to_take
from webui.engine.nets.autoencoder import Autoencoder
from webui.engine.nets.unet import UNet

SIDE, CHANNELS, REPEATS = 2048, 320, 7
PROMPT_LENGTH = 77

Flops = tuple[float, float]
"""Of convolutions, and of everything else."""


@dataclass(frozen=True)
class Floor:
    """Operations a second in one number format."""

    convolution: float
    product: float

    @staticmethod
    def measured(dtype: str, device: str = "cpu") -> "Floor":
        """On this machine, now; an unknown format counts as float32."""
        return _measure(dtype if dtype in ("float32", "bfloat16", "float16") else "float32", device)

    def seconds(self, flops: Flops) -> float:
        """The least time for so many operations."""
        return flops[0] / self.convolution + flops[1] / self.product


@cache
def _measure(dtype: str, device: str) -> Floor:
    kind = getattr(torch, dtype)
    with torch.inference_mode(), torch.device(device):
        left, right = (torch.randn(SIDE, SIDE, dtype=kind) for _ in range(2))
        convolution = torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, dtype=kind)
        convolution.weight.data = convolution.weight.contiguous(memory_format=torch.channels_last)
        picture = torch.randn(2, CHANNELS, 64, 64, dtype=kind).contiguous(memory_format=torch.channels_last)
        product_s = _seconds(lambda: left @ right)
        convolution_s = _seconds(lambda: convolution(picture))
    return Floor(2 * 2 * 64 * 64 * 9 * CHANNELS**2 / convolution_s, 2 * SIDE**3 / product_s)


def _seconds(work: Callable[[], object]) -> float:
    samples = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        samples.append(time.perf_counter() - started)
    return median(samples[1:])


@cache
def picture_flops(folder: Path, side: int, steps: int, strength: float = 1.0) -> Flops:
    """Of one picture with guidance: a UNet forward with two prompts a step, a decode, an encode below strength 1."""
    taken = steps_to_take(steps, strength)
    step = step_flops(folder, side)
    with torch.device("meta"):
        vae = Autoencoder(_config(folder, "vae"))
        once = _count(lambda: vae.decode(torch.empty(1, 4, side // 8, side // 8)))
        if strength < 1:
            more = _count(lambda: vae.encode(torch.empty(1, 3, side, side)))
            once = once[0] + more[0], once[1] + more[1]
    return taken * step[0] + once[0], taken * step[1] + once[1]


@cache
def step_flops(folder: Path, side: int) -> Flops:
    """Of one UNet forward with two prompts."""
    with torch.device("meta"):
        unet = UNet(_config(folder, "unet"))
        width = unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.in_features
        prepared = unet.prepare(torch.empty(2, PROMPT_LENGTH, width))
        return _count(lambda: unet(torch.empty(2, 4, side // 8, side // 8), torch.empty(()), prepared))


def _config(folder: Path, part: str) -> Any:
    return json.loads((folder / part / "config.json").read_text("utf-8"))


def _count(work: Callable[[], object]) -> Flops:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        work()
    counts = counter.get_flop_counts()["Global"]
    convolutions = sum(flops for operation, flops in counts.items() if "convolution" in str(operation))
    return float(convolutions), float(sum(counts.values()) - convolutions)
