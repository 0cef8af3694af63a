"""``PipelineManager``: one resident model, and requests turned into streams of events."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from cachetools import LRUCache
from PIL.Image import Image as PilImage

from webui.core.canvas import Canvas, make_canvas
from webui.core.events import Cancelled, Done, Event, Image, Loading, LoraSwitch, Step
from webui.core.images import Size
from webui.core.library import LoraFile, ModelFile, choose, find_loras, find_models
from webui.core.recipe import Recipe
from webui.core.request import Init, Request, RequestError
from webui.core.settings import Settings
from webui.core.tensor_file import hash_file
from webui.engine import latents as latent_ops
from webui.engine.denoise import Denoised, Stopped, denoise
from webui.engine.devices import choose_device, choose_dtype, describe
from webui.engine.families import FAMILIES
from webui.engine.families.base import CannotLoad, Conditioning, Model
from webui.engine.lora.cache import Contributions
from webui.engine.lora.switcher import LoraSwitcher
from webui.engine.preview import Previewer
from webui.engine.resolve import resolve
from webui.engine.samplers import make_scheduler

CACHED_PROMPTS = 64
CACHED_PICTURE_BYTES = 128 * 2**20

Cancel = Callable[[], bool]
PromptKey = tuple[str, Contributions, str, int]
"""The model, what of the LoRAs changes its text encoder, the text, clip skip."""


def _never() -> bool:
    return False


def _picture_nbytes(entry: tuple[Canvas, latent_ops.Encoded]) -> int:
    return entry[0].nbytes + entry[1].nbytes


@dataclass
class _Job:
    """What one request is drawn with, how far it is, and where its seconds went."""

    request: Request
    cancelled: Cancel
    positive: Conditioning = field(default_factory=dict)
    negative: Conditioning | None = None
    canvas: Canvas | None = None
    encoded: latent_ops.Encoded | None = None
    loras: LoraSwitch | None = None
    lora_hashes: dict[str, str] = field(default_factory=dict)
    index: int = 0
    warnings: list[str] = field(default_factory=list)
    parts_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def size(self) -> Size:
        assert self.request.width and self.request.height
        return self.request.width, self.request.height

    @property
    def batch_steps(self) -> int:
        strength = 1.0 if self.request.init is None else self.request.init.strength
        return latent_ops.steps_to_take(self.request.steps, strength)

    @property
    def total(self) -> int:
        return self.batch_steps * self.request.repeat

    def reached(self, batch: int, step: Denoised) -> int:
        """Counts steps over all batches; a sampler may ask the UNet more than once a step."""
        self.index = batch * self.batch_steps + step.index * self.batch_steps // step.total
        return self.index

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.parts_s[name] += time.perf_counter() - started


class PipelineManager:
    """Keeps one model on one device and draws with it. Not thread-safe: one thread owns it."""

    def __init__(self, settings: Settings) -> None:
        self.device = choose_device(settings.device)
        self.dtype = choose_dtype(settings.dtype, self.device)
        self._settings = settings
        self._model: Model | None = None
        self._loras: LoraSwitcher | None = None
        self._prompts: LRUCache[PromptKey, tuple[Conditioning, int]] = LRUCache(CACHED_PROMPTS)
        self._pictures: LRUCache[tuple[str, str, Size], tuple[Canvas, latent_ops.Encoded]] = LRUCache(
            CACHED_PICTURE_BYTES, getsizeof=_picture_nbytes
        )

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
        loras = cache(lambda: find_loras(self._settings))
        resolved = resolve(request, models, loras)
        return self._run(resolved, models[resolved.model], loras, cancelled)

    def load(self, name: str, cancelled: Cancel = _never) -> Iterator[Loading]:
        """Makes the named model the resident one; yields nothing when it is already."""
        models = find_models(self._settings)
        yield from self._load(models[choose("model", name, models)], cancelled)

    def prepare(self, request: Request) -> None:
        """Makes ready what a job that comes next will need, where that costs the present one nothing.

        On CUDA the LoRAs of ``request`` are merged on a stream of low priority; elsewhere there is nothing idle to use.
        """
        if self.device.type != "cuda" or self._loras is None or not request.loras or request.model != self.model_name:
            return
        stream = torch.cuda.Stream(self.device, priority=0)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            self._loras.prepare(request.loras, find_loras(self._settings))
        stream.synchronize()  # the next job reads on another stream

    def _run(
        self, request: Request, file: ModelFile, loras: Callable[[], Mapping[str, LoraFile]], cancelled: Cancel
    ) -> Iterator[Event]:
        started = time.perf_counter()
        job = _Job(request, cancelled)
        try:
            yield from self._load_timed(file, job)
            if cancelled():
                raise Stopped
            yield from self._switch_loras(job, loras() if request.loras else {})
            with job.part("encode"):
                self._encode_inputs(job)
            for batch in range(request.repeat):
                yield from self._draw_batch(job, batch)
        except Stopped:
            yield Cancelled(job.index, job.total)
        else:
            yield Done(time.perf_counter() - started, dict(job.parts_s), tuple(job.warnings), job.loras)

    def _switch_loras(self, job: _Job, files: Mapping[str, LoraFile]) -> Iterator[Loading]:
        """The model with the LoRAs of this job, or without any."""
        assert self._loras

        def check() -> None:
            if job.cancelled():
                raise Stopped

        refs = job.request.loras
        with job.part("lora"):
            if self._loras.must_merge(refs, files):
                yield Loading(f"Merging {len(refs)} LoRA{'s' if len(refs) > 1 else ''}", 0.0)
            switch, warnings = self._loras.switch(refs, files, check)
        job.warnings += warnings
        job.loras = switch if refs else None
        job.lora_hashes = {ref.name: hash_file(files[ref.name].path).tensors for ref in refs}

    def _encode_inputs(self, job: _Job) -> None:
        """Prompts and start picture as the model sees them, from the caches where they are known."""
        request = job.request
        job.positive = self._encode_prompt(request.prompt, "prompt", job)
        if request.guidance > 1:
            job.negative = self._encode_prompt(request.negative, "negative prompt", job)
        if request.init is not None:
            job.canvas, job.encoded = self._encode_picture(request.init, job.size)

    def _draw_batch(self, job: _Job, batch: int) -> Iterator[Event]:
        assert self._model
        request, first = job.request, batch * job.request.count
        if job.canvas is not None and (job.total == 0 or job.canvas.nothing_masked):
            yield from (self._finished(job, first + k, job.canvas.unchanged) for k in range(request.count))
            return
        generators = latent_ops.make_generators(request.seed + first, request.count)
        scheduler = self._make_scheduler(request)
        with job.part("prepare"):
            start = self._prepare(job, scheduler, generators)
        latents = start.latents
        previewer = Previewer(self._model.preview_map, scheduler.alphas_cumprod, scheduler.config.prediction_type)
        started = time.perf_counter()
        for step in denoise(
            self._model, scheduler, start, job.positive, job.negative, request.guidance, generators, job.cancelled
        ):
            latents = step.latents
            preview = previewer.preview(step, time.perf_counter() - started)
            yield Step(job.reached(batch, step), job.total, time.perf_counter() - started, preview)
        job.parts_s["steps"] += time.perf_counter() - started - previewer.spent_s
        job.parts_s["previews"] += previewer.spent_s
        for k in range(request.count):
            if job.cancelled():
                raise Stopped
            with job.part("decode"):
                image = latent_ops.decode(self._model, latents[k : k + 1])
                image = job.canvas.finish(image) if job.canvas else image
            yield self._finished(job, first + k, image)

    def _prepare(self, job: _Job, scheduler: Any, generators: list[torch.Generator]) -> latent_ops.Start:
        assert self._model
        init, encoded = job.request.init, job.encoded
        if init is None or encoded is None:
            return latent_ops.prepare(self._model, scheduler, job.size, generators, self.device)
        return latent_ops.prepare_from(
            self._model, scheduler, encoded, job.size, init, job.request.steps, generators, self.device
        )

    def _finished(self, job: _Job, index: int, image: PilImage) -> Image:
        assert self._model
        own = job.request.model_copy(update={"seed": job.request.seed + index, "count": 1, "repeat": 1})
        return Image(index, image, Recipe(own, self._model.content_hash, job.lora_hashes))

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
    def _encode_prompt(self, text: str, what: str, job: _Job) -> Conditioning:
        assert self._model
        assert self._loras
        key = (self._model.content_hash, self._loras.text_key, text, job.request.clip_skip)
        if key not in self._prompts:
            self._prompts[key] = self._model.encode_prompt(text, job.request.clip_skip)
        conditioning, unused = self._prompts[key]
        if unused:
            job.warnings.append(
                f"The {what} is longer than the model can read: its last {unused} tokens were not used."
            )
        return conditioning

    def _encode_picture(self, init: Init, size: Size) -> tuple[Canvas, latent_ops.Encoded]:
        assert self._model
        key = (self._model.content_hash, init.fingerprint, size)
        if key not in self._pictures:
            canvas = make_canvas(init, size)
            found = canvas, latent_ops.encode(self._model, canvas, self.device)
            if _picture_nbytes(found) > CACHED_PICTURE_BYTES:
                return found
            self._pictures[key] = found
        return self._pictures[key]

    def _load_timed(self, file: ModelFile, job: _Job) -> Iterator[Loading]:
        started = time.perf_counter()
        yield from self._load(file, job.cancelled)
        job.parts_s["load"] = time.perf_counter() - started

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
        self._loras = LoraSwitcher(model, self.device, self._settings.lora_cache)
