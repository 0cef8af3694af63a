"""``PipelineManager``: one resident model, and requests turned into streams of events."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cachetools import LRUCache
from PIL.Image import Image as PilImage

from webui.core.canvas import Canvas, make_canvas
from webui.core.errors import RequestError
from webui.core.events import Cancelled, Done, Event, Image, Loading, LoraSwitch, Step
from webui.core.files import LoraFile, ModelFile, VaeFile
from webui.core.groups.init import Init
from webui.core.images import MIN_SIDE_PX, Size
from webui.core.lora_files import find_adapter_config
from webui.core.names import choose_file, is_word
from webui.core.notices import approximations, notices
from webui.core.recipe import Batch, Recipe
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.spans import spans
from webui.core.tensor_file import BadFile, hash_file
from webui.core.weight_files import content_hash, hash_whole
from webui.engine import latents as latent_ops
from webui.engine.denoise import ReadySpan, Stopped, denoise, guided_until
from webui.engine.devices import (
    choose_device,
    choose_dtype,
    describe,
    is_out_of_memory,
    release_memory,
)
from webui.engine.embeddings import Embedding, find_bundled, fits, read_embedding
from webui.engine.families.base import CannotLoad, Conditioning, Model
from webui.engine.guide import Branch
from webui.engine.lora.cache import Contributions
from webui.engine.noise import Noise, make_noise, steps_to_take
from webui.engine.preview import Previewer
from webui.engine.provenance import FileHashes, describe_environment, describe_sampler
from webui.engine.residence import PLAN_WORDS, Residence
from webui.engine.speed.shortcuts import Shortcuts
from webui.jobs.resolve import resolve
from webui.library.library import Library, Snapshot

log = logging.getLogger(__name__)

CACHED_PROMPTS = 64
CACHED_PICTURE_BYTES = 128 * 2**20

Cancel = Callable[[], bool]
PromptKey = tuple[ModelFile, Contributions, str, int, bool, tuple[tuple[str, str], ...]]
"""The model, what of the LoRAs changes its text encoder, the text, clip skip, whether it is the negative one, and the
names and hashes of the embeddings in it."""


def _never() -> bool:
    return False


def _picture_nbytes(entry: tuple[Canvas, latent_ops.Encoded]) -> int:
    return entry[0].nbytes + entry[1].nbytes


class OutOfMemory(RuntimeError):
    """The device's memory did not suffice, whatever was tried; the message says what would help."""


@dataclass
class _Job:
    """What one request is drawn with, how far it is, and where its seconds went."""

    request: Request
    library: Snapshot
    cancelled: Cancel
    hashes: FileHashes
    positive: Sequence[tuple[int, Sequence[Branch]]] = ()
    negative: Conditioning | None = None
    canvas: Canvas | None = None
    encoded: latent_ops.Encoded | None = None
    loras: LoraSwitch | None = None
    sampler: dict[str, Any] = field(default_factory=dict)
    compiled: bool = False
    decoded: str = "whole"
    index: int = 0
    finished: int = 0
    warnings: dict[str, None] = field(default_factory=dict)
    parts_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def file(self) -> ModelFile:
        return self.library.models[self.request.model]

    @property
    def size(self) -> Size:
        assert self.request.width and self.request.height
        return self.request.width, self.request.height

    @property
    def strength(self) -> float:
        return 1.0 if self.request.init is None else self.request.init.strength

    @property
    def batch_steps(self) -> int:
        return steps_to_take(self.request.steps, self.strength)

    @property
    def total(self) -> int:
        return self.batch_steps * self.request.repeat

    def reached(self, batch: int, evaluation: int, evaluations: int) -> int:
        """Counts steps over all batches; a sampler may ask the UNet more than once a step."""
        self.index = batch * self.batch_steps + evaluation * self.batch_steps // evaluations
        return self.index

    def check(self) -> None:
        """Raises Stopped where the job was cancelled."""
        if self.cancelled():
            raise Stopped

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.parts_s[name] += time.perf_counter() - started


class PipelineManager:
    """Keeps one model on one device and draws with it. Not thread-safe: one thread owns it.

    ``parts_s`` is the ledger of the newest job so far, which is all that is left of one that failed.
    """

    parts_s: Mapping[str, float] = {}

    def __init__(self, settings: Settings, library: Library | None = None) -> None:
        self.device = choose_device(settings.device)
        if settings.cuda_graphs and self.device.type != "cuda":
            raise RequestError(f"CUDA graphs need an NVIDIA GPU, and this is {self.device.type}", field="cuda_graphs")
        self.dtype = choose_dtype(settings.dtype, self.device, settings.cache_dir)
        self._settings, self._library = settings, library or Library(settings)
        self._residence = Residence(settings, self.device, self.dtype)
        self._hasher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hasher")
        self._prompts: LRUCache[PromptKey, Conditioning] = LRUCache(CACHED_PROMPTS)
        self._pictures: LRUCache[tuple[ModelFile, str, str, Size], tuple[Canvas, latent_ops.Encoded]] = LRUCache(
            CACHED_PICTURE_BYTES, getsizeof=_picture_nbytes
        )

    @property
    def device_description(self) -> str:
        """Device and number format, for people."""
        return describe(self.device, self.dtype) + (", compiled" if self.is_compiled else "")

    @property
    def is_compiled(self) -> bool:
        """Whether compiled code runs for all sizes that were asked for."""
        return self._residence.is_compiled

    @property
    def memory_plan(self) -> str:
        """Where the model's parts rest, for people."""
        return PLAN_WORDS[self._residence.plan]

    @property
    def memory_bytes(self) -> Mapping[str, int]:
        """What tensors take of the GPU's memory, and what is held for them; nothing elsewhere."""
        if self.device.type != "cuda":
            return {}
        allocated, reserved = torch.cuda.memory_allocated(self.device), torch.cuda.memory_reserved(self.device)
        return {"allocated": allocated, "reserved": reserved}

    @property
    def model_name(self) -> str | None:
        """The resident model, if any."""
        return self._residence.model.file.name if self._residence.model else None

    @property
    def _model(self) -> Model:
        assert self._residence.model
        return self._residence.model

    def generate(self, request: Request, cancelled: Cancel = _never) -> Iterator[Event]:
        """The events of one job, ending in Done or Cancelled.

        ``cancelled`` is asked between steps. Raises RequestError at once for what cannot be drawn, and while
        running CannotLoad, NotFinite, OutOfMemory, or whatever torch raises.
        """
        self.parts_s = {}
        library = self._library.snapshot(max_age_s=0)
        job = _Job(resolve(request, library), library, cancelled, FileHashes(self._hasher))
        self.parts_s = job.parts_s
        return self._run(job)

    def load(self, name: str, cancelled: Cancel = _never) -> Iterator[Loading]:
        """Makes the named model the resident one; yields nothing when it is already."""
        models = self._library.snapshot(max_age_s=0).models
        file = models[choose_file("model", name, models)]
        yield from self._residence.load(file, models.values(), _check_with(cancelled))

    def warm_up(self, size: Size | None = None) -> None:
        """What a first picture would wait for besides the model, in one step, as small as can be without a ``size``.

        It is one of the plain UNet, so that no code is compiled for its size.
        """
        name, (width, height) = self._model.file.name, size or (MIN_SIDE_PX, MIN_SIDE_PX)
        for event in self.generate(Request(model=name, steps=1, width=width, height=height, seed=0, reuse=2)):
            if isinstance(event, Step):
                return

    def prepare(self, request: Request) -> None:
        """Makes ready what a job that comes next will need, where that costs the present one nothing.

        On CUDA the LoRAs of ``request`` are merged on a stream of low priority; elsewhere there is nothing idle to use.
        """
        loras = self._residence.loras
        if self.device.type != "cuda" or loras is None or not request.loras or request.model != self.model_name:
            return
        stream = torch.cuda.Stream(self.device, priority=0)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            loras.prepare(request.loras, self._library.snapshot().loras)
        stream.synchronize()  # the next job reads on another stream

    def _run(self, job: _Job) -> Iterator[Event]:
        started = time.perf_counter()
        try:
            yield from self._draw_within_memory(job)
        except Stopped:
            yield Cancelled(job.index, job.total, time.perf_counter() - started, dict(job.parts_s))
        else:
            yield Done(time.perf_counter() - started, dict(job.parts_s), tuple(job.warnings), job.loras)
        finally:
            self._residence.end_job()

    def _draw_within_memory(self, job: _Job) -> Iterator[Event]:
        """Draws; where memory runs out, once more with a smaller memory plan. Raises OutOfMemory."""
        for may_retry in (True, False):
            try:
                yield from self._draw(job)
                return
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                log.warning("out of memory: %s", str(error))  # not the error, whose traceback a log may keep
            # Not before ``except`` is left: until then its traceback holds the tensors of what failed.
            smaller = self._make_room(job) if may_retry else None
            if smaller is None:
                break
            yield Loading(f"Out of memory; once more with {smaller}", 0.0)
        release_memory(self.device)
        width, height = job.size
        raise OutOfMemory(
            f"{self.device.type} ran out of memory at {width} x {height} px, {job.request.count} at once; draw"
            " fewer or smaller pictures, or a smaller model"
        )

    def _make_room(self, job: _Job) -> str | None:
        """Frees what can be freed; the words for the smaller memory plan, or None where there is none."""
        self._prompts.clear()
        self._pictures.clear()
        job.positive, job.negative, job.canvas, job.encoded = (), None, None, None
        release_memory(self.device)
        if words := self._residence.shrink():
            job.warnings[f"The memory did not suffice; drawn with {words}."] = None
        return words

    def _draw(self, job: _Job) -> Iterator[Event]:
        """Everything from loading to the last picture; goes on after the pictures that are finished already."""
        request = job.request
        job.warnings |= dict.fromkeys(job.library.ambiguities(request))
        if words := approximations(request, job.library.vaes if request.vae else {}):
            job.warnings[f"Approximate: {', '.join(words)}."] = None
        assert job.file.checkpoint
        job.warnings |= dict.fromkeys(notices(request, job.file.checkpoint))
        if (self._settings.compile or self._settings.cuda_graphs) and _shortcuts(request):
            faster = "compiled code" if self._settings.compile else "CUDA graphs"
            job.warnings[f"Reuse and token merging run without {faster}."] = None
        for batch in range(job.finished // request.count, request.repeat):
            yield from self._use_model(job, job.file)
            with job.part("encode"):
                self._encode_inputs(job)
            yield from self._draw_batch(job, batch)

    def _use_model(self, job: _Job, file: ModelFile) -> Iterator[Loading]:
        """The model with the LoRAs and the autoencoder of this job."""
        request = job.request
        with job.part("load"):
            yield from self._residence.load(file, job.library.models.values(), job.check)
            vae: VaeFile | None = job.library.vaes[request.vae] if request.vae else None
            self._residence.use_vae(vae)
        job.hashes.want("model" if file == job.file else "refiner", file.name, partial(content_hash, file))
        for lender in self._residence.lenders:
            job.hashes.want("lender", lender.name, partial(content_hash, lender))
        if vae:
            job.hashes.want("vae", vae.name, partial(hash_whole, vae.path))
        job.warnings |= dict.fromkeys(self._model.warnings)
        job.check()
        if self._residence.tile(*job.size):
            job.decoded = "in tiles"
            job.warnings["Memory is short: the picture was decoded in tiles, and seams are possible."] = None
        yield from self._switch_loras(job, file)

    def _switch_loras(self, job: _Job, file: ModelFile) -> Iterator[Loading]:
        """The model with the LoRAs of this job, or without any; a refiner goes without."""
        switcher = self._residence.loras
        assert switcher
        refs = job.request.loras if file == job.file else ()
        files: Mapping[str, LoraFile] = job.library.loras if refs else {}
        with job.part("lora"):
            if switcher.must_merge(refs, files):
                yield Loading(f"Merging {len(refs)} LoRA{'s' if len(refs) > 1 else ''}", 0.0)
            with nullcontext() if switcher.is_installed(refs, files) else self._residence.unhooked():
                switch, warnings = switcher.switch(refs, files, job.check)
        job.warnings |= dict.fromkeys(warnings)
        if refs and job.loras is None:
            job.loras = switch
            for ref in refs:
                path = files[ref.name].path
                job.hashes.want("lora", ref.name, partial(_hash_tensors, path))
                if (config := find_adapter_config(path)) is not None:
                    job.hashes.want("lora configuration", ref.name, partial(hash_whole, config))

    def _encode_inputs(self, job: _Job) -> None:
        """Prompts and start picture as the model sees them, from the caches where they are known."""
        request = job.request
        self._encode_prompts(job)
        if request.init is not None and job.encoded is None:
            job.canvas, job.encoded = self._encode_picture(request.init, job)
        self._residence.rest()

    def _encode_prompts(self, job: _Job) -> None:
        request = job.request

        def condition(text: str, negative: bool = False) -> Conditioning:
            prompt = self._encode_prompt(text, negative, job)
            return self._model.condition(prompt, job.size, request.guidance, negative)

        told = spans(request.prompt, job.batch_steps)
        job.positive = [
            (span.stop, [Branch(condition(term.text), term.weight) for term in span.terms]) for span in told
        ]
        guided = request.guidance != 1 and not self._model.guides_itself
        job.negative = condition(request.negative, negative=True) if guided else None

    def _draw_batch(self, job: _Job, batch: int) -> Iterator[Event]:
        request, first = job.request, batch * job.request.count
        if job.canvas is not None and (job.total == 0 or job.canvas.nothing_masked):
            for k in range(request.count):
                yield from self._finish(job, first + k, job.canvas.unchanged)
            return
        generators = latent_ops.make_generators(request.seed + first, request.count)
        with job.part("prepare"):
            noise = self._make_noise(job, generators)
            start = self._prepare(job, noise, generators)
            job.sampler, job.compiled = describe_sampler(noise.scheduler), self.is_compiled
        handover = noise.handover(request.refiner_at) if request.refiner else len(noise)
        latents = yield from self._denoise(job, batch, noise, start, stop=handover)
        if request.refiner and handover == len(noise):
            job.warnings["The refiner drew nothing: no step was left for it."] = None
        if handover < len(noise):
            yield from self._use_model(job, job.library.models[request.refiner])
            with job.part("encode"):
                self._encode_prompts(job)
                self._residence.rest()
            with job.part("prepare"):
                noise = self._make_noise(job, generators)
                noise.begin(handover)
                start = replace(start, latents=latents, shown=None)
            latents = yield from self._denoise(job, batch, noise, start, handover)
        self._residence.make_room_to_decode(*job.size)
        for k in range(request.count):
            job.check()
            with job.part("decode"):
                image = self._decode(latents[k : k + 1])
                image = job.canvas.finish(image) if job.canvas else image
            yield from self._finish(job, first + k, image)
        with job.part("decode"):
            self._residence.rest()

    def _decode(self, latents: torch.Tensor) -> PilImage:
        """One picture; where it is none, for the reason that the model's files show, if they do."""
        try:
            return latent_ops.decode(self._model, latents, self._residence.unhooked)
        except latent_ops.NotFinite:
            if damage := self._residence.find_damage():
                raise CannotLoad(damage) from None
            raise

    def _denoise(
        self, job: _Job, batch: int, noise: Noise, start: latent_ops.Start, first: int = 0, stop: int | None = None
    ) -> Generator[Step, None, torch.Tensor]:
        """One model's share of the evaluations; returns the latents it came to."""
        request, model, latents = job.request, self._model, start.latents
        previewer = Previewer(model.preview_map, noise)
        before_s = job.parts_s["steps"] + job.parts_s["previews"] if first else 0.0
        told = [
            ReadySpan(noise.first(stop_step), positive, job.negative, request.guidance)
            for stop_step, positive in job.positive
        ]
        ready = guided_until(told, round(request.guidance_until * len(noise)))
        keep = None if start.hold is None else partial(start.hold.apply, noise)
        steps = denoise(
            model, noise, latents, ready, job.cancelled, first, stop, start.shown, keep, _shortcuts(request)
        )
        started = time.perf_counter()
        try:
            for step in steps:
                latents = step.latents
                preview = previewer.preview(step, time.perf_counter() - started)
                spent_s = before_s + time.perf_counter() - started
                yield Step(job.reached(batch, step.index, step.total), job.total, spent_s, preview)
        finally:  # steps that ran out of memory took their time too
            job.parts_s["steps"] += time.perf_counter() - started - previewer.spent_s
            job.parts_s["previews"] += previewer.spent_s
        return latents

    def _prepare(self, job: _Job, noise: Noise, generators: list[torch.Generator]) -> latent_ops.Start:
        init, encoded = job.request.init, job.encoded
        if init is None or encoded is None:
            return latent_ops.prepare(self._model, noise, job.size, generators, self.device)
        return latent_ops.prepare_from(self._model, noise, encoded, job.size, init, generators, self.device)

    def _finish(self, job: _Job, index: int, image: PilImage) -> Iterator[Image]:
        """The picture with its recipe; nothing for one that was finished before the memory ran out."""
        if index < job.finished:
            return
        job.finished = index + 1
        request, first = job.request, index - index % job.request.count
        with job.part("hash"):
            hashes, warnings = job.hashes.collect()
        job.warnings |= dict.fromkeys(warnings)
        compiled = self.is_compiled if self.is_compiled == job.compiled else "partly"
        recipe = Recipe(
            request.model_copy(update={"seed": request.seed + index, "count": 1, "repeat": 1}),
            hashes,
            Batch(request.seed + first, request.count, index - first),
            job.sampler,
            describe_environment(self.device, self.dtype, self._settings.cpu_kernels)
            | {"compiled": compiled, "memory": self._residence.plan, "decoded": job.decoded},
        )
        yield Image(index, image, recipe)

    def _make_noise(self, job: _Job, generators: list[torch.Generator]) -> Noise:
        request, config = job.request, self._model.scheduler_config
        checkpoint = self._model.file.checkpoint
        own = checkpoint is None or request.prediction == checkpoint.prediction_name or self.model_name != request.model
        prediction = "auto" if own else request.prediction
        noise = make_noise(
            request.sampler, request.schedule, config, prediction, request.steps, job.strength, generators, self.device
        )
        if 1 / job.strength > (steps := noise.scheduled):
            job.warnings[
                f"Strength {job.strength:g} is less than {request.sampler} can take; drawn at {1 / steps:.2g}."
            ] = None
        return noise

    @torch.inference_mode()
    def _encode_prompt(self, text: str, negative: bool, job: _Job) -> Conditioning:
        assert self._residence.loras
        embeddings = self._find_embeddings(text, job)
        hashes = tuple((name, embedding.content_hash) for name, embedding in embeddings.items())
        clip_skip = job.request.clip_skip
        key = (self._model.file, self._residence.loras.text_key, text, clip_skip, negative, hashes)
        if key not in self._prompts:
            self._prompts[key] = self._model.encode_prompt(text, clip_skip, embeddings, negative)
        return self._prompts[key]

    def _find_embeddings(self, text: str, job: _Job) -> dict[str, Embedding]:
        """The textual inversions that the text may name; those for another kind of model are told and left out."""
        assert self._residence.loras
        found, problems = find_bundled(text, self._residence.loras.embeddings, self._model.text_widths)
        job.warnings |= dict.fromkeys(problems)
        taken = {name.casefold() for name in found}
        for name, forms in job.library.embeddings_in(text).items():
            if taken & {form.casefold() for form in forms}:
                job.warnings[f"“{name}” stands for the embedding that a LoRA brings, not for the file."] = None
                forms = [form for form in forms if form.casefold() not in taken]
            file = job.library.embeddings[name]
            problem = file.ambiguity if forms == [name] else ""
            try:
                embedding = read_embedding(name, file.path)
                if fits(embedding, self._model.text_widths):
                    found |= dict.fromkeys(forms, embedding)
                    job.hashes.want("embedding", name, partial(hash_whole, file.path))
                else:
                    problem = f"Embedding {name} is for another kind of model and was read as plain words."
            except BadFile as error:
                problem = f"Embedding {name} was read as plain words: {file.path.name} {error}."
            if problem and any(is_word(form, text) for form in forms):
                job.warnings[problem] = None
        return found

    def _encode_picture(self, init: Init, job: _Job) -> tuple[Canvas, latent_ops.Encoded]:
        key = (self._model.file, job.request.vae, init.fingerprint, job.size)
        if key not in self._pictures:
            canvas = make_canvas(init, job.size)
            found = canvas, latent_ops.encode(self._model, canvas, self.device)
            if _picture_nbytes(found) > CACHED_PICTURE_BYTES:
                return found
            self._pictures[key] = found
        return self._pictures[key]


def _hash_tensors(path: Path) -> str:
    return hash_file(path).tensors


def _shortcuts(request: Request) -> Shortcuts | None:
    """What the UNet may leave out, or None where it is to do all of its work."""
    shortcuts = Shortcuts(request.token_merging, request.reuse)
    return shortcuts if shortcuts.taken else None


def _check_with(cancelled: Cancel) -> Callable[[], None]:
    def check() -> None:
        if cancelled():
            raise Stopped

    return check
