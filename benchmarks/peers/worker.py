"""The peers' side of the line protocol. It runs in their environments, so it imports nothing of this repository.

A peer says ``{"ready": ...}`` once its model is loaded. Then each line on its standard input is a request, and each is
answered with one line: ``{"seconds": ..., "peak_bytes": ..., "steps_s": [...]}`` or ``{"error": ...}``. What libraries
print goes to the standard error stream.
"""

import argparse
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

Request = dict[str, Any]


class Model(Protocol):
    """A loaded model: the packages that make it, its number format, and what else a reader should know."""

    dtype: str
    note: str

    @property
    def packages(self) -> Sequence[str]:
        """The main one first."""

    def draw(self, request: Request) -> Image.Image:
        """Prompt to pixels; ``image``, ``mask`` and ``latents`` are read already."""


class Steps:
    """The time at the end of each step of the picture that is drawn.

    It is the processor's, which no other program's work is in, or a clock's in seconds, where a GPU does the work.
    """

    def __init__(self) -> None:
        self._ends: list[float] = []
        self._clock: Callable[[], float] = time.process_time

    def begin(self, clock: Callable[[], float]) -> None:
        self._ends, self._clock = [], clock

    def end(self) -> None:
        self._ends.append(self._clock())

    @property
    def taken_s(self) -> list[float]:
        """Of each but the first, which has what comes before it."""
        return [end - before for before, end in zip(self._ends, self._ends[1:], strict=False)]


STEPS = Steps()


def serve(load: Callable[[argparse.Namespace], Model]) -> int:
    """Loads what the command line names and draws until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    try:
        model = load(options)
    except Exception as error:
        answer({"error": _reason(error)})
        return 1
    versions = {name: importlib.metadata.version(name) for name in model.packages}
    answer({"ready": {"versions": versions, "dtype": model.dtype, "note": model.note}})
    for line in sys.stdin:
        try:
            answer(_timed(model, json.loads(line)))
        except Exception as error:
            answer({"error": _reason(error)})
    return 0


def _timed(model: Model, request: Request) -> dict[str, Any]:
    """Reading the request's files and writing the picture are not counted."""
    for name, mode in (("image", "RGB"), ("mask", "L")):
        if request[name]:
            request[name] = Image.open(request[name]).convert(mode)
    if request["latents"]:
        request["latents"] = np.load(request["latents"])
    clock = getattr(model, "clock", None) if request["changes"] else None  # elsewhere waiting for a GPU costs time
    STEPS.begin(clock or time.process_time)
    started = time.perf_counter()
    image = model.draw(request)
    seconds = time.perf_counter() - started
    if request["out"]:
        image.save(request["out"])
    peak = getattr(model, "peak_bytes", lambda: peak_bytes("self"))
    return {"seconds": seconds, "peak_bytes": peak(), "steps_s": STEPS.taken_s}


def pipeline_arguments(request: Request) -> dict[str, Any]:
    """The request as diffusers' pipelines take it, but for the noise; img2img has its size from the picture."""
    given = {"num_inference_steps": request["steps"], "guidance_scale": request["guidance"]}
    negative = request["negative"] or None  # of which SDXL makes zeros, as ours does
    given |= {"prompt": request["prompt"], "negative_prompt": negative}
    if request["task"] != "img2img":
        given |= {"width": request["width"], "height": request["height"]}
    if request["image"] is not None:
        given |= {"image": request["image"], "strength": request["strength"]}
    if request["mask"] is not None:
        given["mask_image"] = request["mask"]
    return given


def peak_bytes(process: int | str) -> int | None:
    """The most memory that the process has had at once (VmHWM), where Linux tells."""
    try:
        with open(f"/proc/{process}/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
