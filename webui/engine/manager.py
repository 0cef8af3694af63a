"""``PipelineManager``: one resident model, and requests turned into streams of events."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from cachetools import LRUCache

from webui.core.events import Cancelled, Done, Event, Image, Loading, Step
from webui.core.library import ModelFile, choose, find_models
from webui.core.recipe import Recipe
from webui.core.request import DRAWN_SEED_LIMIT, Request, RequestError
from webui.core.settings import Settings
from webui.engine import latents as latent_ops
from webui.engine.denoise import Denoised, Stopped, denoise
from webui.engine.devices import choose_device, choose_dtype, describe
from webui.engine.families import FAMILIES
from webui.engine.families.base import CannotLoad, Conditioning, Model
from webui.engine.preview import Previewer
from webui.engine.samplers import make_scheduler, resolve

CACHED_PROMPTS = 64

Cancel = Callable[[], bool]


def _never() -> bool:
    return False


@dataclass
class _Ledger:
    """Where the seconds of one job went."""

    parts_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.parts_s[name] += time.perf_counter() - started


@dataclass
class _Progress:
    """How far a job is, over all of its batches; a sampler may ask the UNet more than once a step."""

    steps: int
    batches: int
    batch: int = 0
    index: int = 0

    @property
    def total(self) -> int:
        return self.steps * self.batches

    def update(self, step: Denoised) -> int:
        self.index = self.batch * self.steps + step.index * self.steps // step.total
        return self.index


class PipelineManager:
    """Keeps one model on one device and draws with it. Not thread-safe: one thread owns it."""

    def __init__(self, settings: Settings) -> None:
        self.device = choose_device(settings.device)
        self.dtype = choose_dtype(settings.dtype, self.device)
        self._settings = settings
        self._model: Model | None = None
        self._prompts: LRUCache[tuple[str, str, int], tuple[Conditioning, int]] = LRUCache(CACHED_PROMPTS)

    @property
    def device_description(self) -> str:
        """Device and number format, for people."""
        return describe(self.device, self.dtype)

    @property
    def model_name(self) -> str | None:
        """The resident model, if any."""
        return self._model.file.name if self._model else None

    def generate(self, request: Request, cancelled: Cancel = _never) -> Iterator[Event]:
        """The events of one job, ending in Done or Cancelled.

        ``cancelled`` is asked between steps. Raises RequestError at once for what cannot be drawn, and while
        running CannotLoad, NotFinite, or whatever torch raises.
        """
        models = find_models(self._settings)
        file = models[choose("model", request.model, models)]
        sampler, schedule = resolve(request.sampler, request.schedule)
        if request.loras:
            raise RequestError("loras: this version cannot apply LoRAs yet", field="loras")
        seed = request.seed if request.seed >= 0 else int(torch.randint(DRAWN_SEED_LIMIT, (1,)).item())
        resolved = request.model_copy(
            update={
                "model": file.name,
                "sampler": sampler,
                "schedule": schedule,
                "seed": seed,
                "width": request.width or file.native_px,
                "height": request.height or file.native_px,
            }
        )
        return self._run(resolved, file, cancelled)

    def load(self, name: str, cancelled: Cancel = _never) -> Iterator[Loading]:
        """Makes the named model the resident one; yields nothing when it is already."""
        models = find_models(self._settings)
        yield from self._load(models[choose("model", name, models)], cancelled)

    def _run(self, request: Request, file: ModelFile, cancelled: Cancel) -> Iterator[Event]:
        started = time.perf_counter()
        ledger, warnings = _Ledger(), list[str]()
        progress = _Progress(request.steps, request.repeat)
        try:
            yield from self._load_timed(file, cancelled, ledger)
            if cancelled():
                raise Stopped
            with ledger.part("encode"):
                positive = self._encode(request.prompt, request.clip_skip, "prompt", warnings)
                negative = None
                if request.guidance > 1:
                    negative = self._encode(request.negative, request.clip_skip, "negative prompt", warnings)
            for batch in range(request.repeat):
                progress.batch = batch
                yield from self._draw_batch(request, positive, negative, progress, ledger, cancelled)
        except Stopped:
            yield Cancelled(progress.index, progress.total)
        else:
            yield Done(time.perf_counter() - started, dict(ledger.parts_s), tuple(warnings))

    def _draw_batch(
        self,
        request: Request,
        positive: Conditioning,
        negative: Conditioning | None,
        progress: _Progress,
        ledger: _Ledger,
        cancelled: Cancel,
    ) -> Iterator[Event]:
        assert self._model and request.width and request.height
        first = progress.batch * request.count
        generators = latent_ops.make_generators(request.seed + first, request.count)
        scheduler = self._make_scheduler(request)
        latents = latent_ops.prepare(self._model, scheduler, request.width, request.height, generators, self.device)
        previewer = Previewer(self._model.preview_map, scheduler.alphas_cumprod, scheduler.config.prediction_type)
        started = time.perf_counter()
        loop = denoise(self._model, scheduler, latents, positive, negative, request.guidance, generators, cancelled)
        for step in loop:
            latents = step.latents
            preview = previewer.preview(step, time.perf_counter() - started)
            yield Step(progress.update(step), progress.total, time.perf_counter() - started, preview)
        ledger.parts_s["steps"] += time.perf_counter() - started - previewer.spent_s
        ledger.parts_s["previews"] += previewer.spent_s
        for k in range(request.count):
            if cancelled():
                raise Stopped
            with ledger.part("decode"):
                image = latent_ops.decode(self._model, latents[k : k + 1])
            own = request.model_copy(update={"seed": request.seed + first + k, "count": 1, "repeat": 1})
            yield Image(first + k, image, Recipe(own, self._model.content_hash))

    def _make_scheduler(self, request: Request) -> Any:
        assert self._model
        scheduler = make_scheduler(request.sampler, request.schedule, self._model.scheduler_config)
        try:
            scheduler.set_timesteps(request.steps, device=self.device)
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise RequestError(
                f"steps {request.steps} does not work with sampler {request.sampler!r}: {error}"
            ) from error
        return scheduler

    @torch.inference_mode()
    def _encode(self, text: str, clip_skip: int, what: str, warnings: list[str]) -> Conditioning:
        assert self._model
        key = (self._model.content_hash, text, clip_skip)
        if key not in self._prompts:
            self._prompts[key] = self._model.encode_prompt(text, clip_skip)
        conditioning, unused = self._prompts[key]
        if unused:
            warnings.append(f"The {what} is longer than the model can read: its last {unused} tokens were not used.")
        return conditioning

    def _load_timed(self, file: ModelFile, cancelled: Cancel, ledger: _Ledger) -> Iterator[Loading]:
        started = time.perf_counter()
        yield from self._load(file, cancelled)
        ledger.parts_s["load"] = time.perf_counter() - started

    def _load(self, file: ModelFile, cancelled: Cancel) -> Iterator[Loading]:
        if self._model and self._model.file == file:
            return
        family = next((family for family in FAMILIES if family.recognises(file)), None)
        if family is None:
            raise CannotLoad(f"model {file.name!r} is of no family that is known here")
        yield Loading(f"Loading {file.name}", 0.0)

        def progress(_part: str, _fraction: float) -> None:
            if cancelled():
                raise Stopped

        model = family.load(file, self.device, self.dtype, progress)
        self._model = model
