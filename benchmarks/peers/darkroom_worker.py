"""Ours, as a process like its peers: ``shipped`` as it starts, ``fp32``, ``no-previews``, and ``compiled``."""

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from webui.core.events import Image as Picture
from webui.core.events import Step
from webui.core.groups.init import Init
from webui.core.request import LoraRef
from webui.core.request import Request as Wanted
from webui.core.schedule import Weight
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine import preview
from webui.library.library import DEMO_MODEL

if TYPE_CHECKING:
    from benchmarks.peers.worker import STEPS, Request, serve
else:  # as a script it finds what lies beside it
    from worker import STEPS, Request, serve

ROOT = Path(__file__).resolve().parents[2]
COMPILE_LIMIT_S = 1800.0


class _Heard(logging.Handler):
    """What the engine warns of: where it could not compile or record, it draws as it is, and a figure would be another
    one's."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self._said = record.getMessage()

    def check(self) -> None:
        """RuntimeError where there was such a warning."""
        if self._said:
            raise RuntimeError(self._said)


class Worker:
    """One engine, which draws what the API would have it draw."""

    packages = ("torch", "diffusers")
    note = ""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        torch.set_num_threads(options.threads)
        self._compiled = options.variant == "compiled"
        self._heard = _Heard()
        logging.getLogger("webui.engine.speed").addHandler(self._heard)
        if options.variant == "no-previews":
            preview.BUDGET = 0.0
        folder = Path(options.model)
        self._data = ROOT / ".bench/darkroom"  # kept, for the compiled code in its cache
        self._loras = self._data / "models/Lora"
        self._loras.mkdir(parents=True, exist_ok=True)
        self._model = "demo" if folder == DEMO_MODEL else folder.name
        if self._model != "demo":
            link = self._data / "models/checkpoints" / folder.name
            link.parent.mkdir(exist_ok=True)
            if not link.exists():
                link.symlink_to(folder.resolve())
        dtype: Literal["float32", "auto"] = "float32" if options.variant in ("fp32", "no-previews") else "auto"
        cache = {"lora_cache": 4 * 2**30}
        more = {"compile": self._compiled, "cuda_graphs": options.variant == "graphed", **cache}
        settings = Settings(device=options.device, dtype=dtype, data_dir=self._data, **more)
        self._darkroom = Darkroom(settings)
        for _ in self._darkroom.load(self._model):
            pass
        self.dtype = str(self._darkroom.manager.dtype).removeprefix("torch.")
        if options.device == "cuda":
            self.peak_bytes = torch.cuda.max_memory_reserved
            self.clock = _synchronised

    def draw(self, request: Request) -> Image.Image:
        for path, _ in request["loras"]:
            link = self._loras / Path(path).name
            if not link.exists() or not link.samefile(path):
                link.unlink(missing_ok=True)  # of an earlier run
                link.symlink_to(path)
        wanted = self._wanted(request)
        image = self._draw(wanted)
        if self._compiled and not self._darkroom.manager.is_compiled:  # the first picture of its size
            deadline = time.monotonic() + COMPILE_LIMIT_S
            while not self._darkroom.manager.is_compiled:
                self._heard.check()
                if time.monotonic() > deadline:
                    raise TimeoutError("nothing was compiled")
                time.sleep(0.2)
            image = self._draw(wanted)
        return image

    def _draw(self, wanted: Wanted) -> Image.Image:
        pictures = []
        for event in self._darkroom.generate(wanted):
            if isinstance(event, Step):
                STEPS.end()
            elif isinstance(event, Picture):
                pictures.append(event.image)
        self._heard.check()
        (picture,) = pictures
        return picture

    def _wanted(self, request: Request) -> Wanted:
        init = None
        if request["image"] is not None:
            init = Init(
                image=request["image"],
                mask=request["mask"],
                strength=request["strength"],
                mask_blur=0,
                mask_fill="original",
            )
        return Wanted(
            model=self._model,
            prompt=request["prompt"],
            negative=request["negative"],
            steps=request["steps"],
            guidance=request["guidance"],
            seed=request["seed"],
            width=request["width"],
            height=request["height"],
            sampler="DPM++ 2M",
            schedule="Default",
            loras=tuple(
                LoraRef(name=Path(path).stem, weight=_weights(weight, request)) for path, weight in request["loras"]
            ),
            init=init,
        )


def _synchronised() -> float:
    """Seconds of the clock, once the GPU has done what it was given."""
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def _weights(first: float, request: Request) -> Weight:
    """A number, or points by steps: each weight from its step to the next one's."""
    if not request["changes"]:
        return first
    starts = [(0, first), *((step, weight) for step, weight in request["changes"])]
    ends = [step for step, _ in starts[1:]] + [request["steps"]]
    return tuple((place, weight) for (step, weight), end in zip(starts, ends, strict=True) for place in (step, end))


if __name__ == "__main__":
    sys.exit(serve(Worker))
