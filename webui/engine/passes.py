"""A pass of an order, from loading to latents, and what became of them as pictures."""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL.Image import Image as PilImage

from webui.core.canvas import Canvas, make_canvas
from webui.core.control_file import control_weights, unread_line
from webui.core.errors import RequestError
from webui.core.events import Loading, LoraSwitch
from webui.core.files import ControlFile
from webui.core.images import Size
from webui.core.lora_files import find_adapter_config
from webui.core.memory import PLANS, step_bytes
from webui.core.spans import Span, spans
from webui.core.stages import LoraUse, Pass, steps_of
from webui.core.tensor_file import hash_file
from webui.core.weight_files import content_hash, hash_whole
from webui.engine.decode import NotFinite, decode
from webui.engine.denoise import Denoised, ReadySpan, denoise, guided_until, stay
from webui.engine.encoding import EncodedSpan, Encoder, Picture
from webui.engine.families.base import CannotLoad
from webui.engine.families.model import Model
from webui.engine.latents import Encoded, Start, encode_latents, make_draw, prepare, prepare_from
from webui.engine.lora.sets import SetKey
from webui.engine.lora.switcher import LoraSwitcher
from webui.engine.noise import Noise, make_noise
from webui.engine.preview import Previewer
from webui.engine.provenance import describe_sampler
from webui.engine.residence import Residence
from webui.engine.resident import LoadedControl
from webui.engine.run import Place, Run
from webui.engine.speed.shortcuts import Shortcuts
from webui.engine.together import Said

if TYPE_CHECKING:
    from webui.engine.controls.base import Control


@dataclass
class Drawn:
    """What the stages so far have made of a batch: latents (n, channels, h, w), or None where nothing was to be drawn.

    ``first`` is the number of its first picture in the job. ``canvas`` is the start picture's, and
    ``encoded`` what the model sees of it. ``handover`` is the
    evaluation at which another pass is to go on, and ``start`` what the present one began with. ``pictures`` are what
    a stage made that works on pictures, and None while latents are all there is. ``size`` is the last pass's.
    """

    generators: list[torch.Generator]
    first: int
    latents: torch.Tensor | None = None
    canvas: Canvas | None = None
    encoded: Encoded | None = None
    start: Start | None = None
    handover: int | None = None
    pictures: list[PilImage] | None = None
    size: Size = (0, 0)


def shortcuts_of(stage: Pass) -> Shortcuts | None:
    """What the UNet may leave out in a pass, or None where it is to do all of its work."""
    shortcuts = Shortcuts(stage.token_merging, stage.reuse)
    return shortcuts if shortcuts.taken else None


class Passes:
    """Runs the passes of one try at an order, each with its own model, LoRAs and words."""

    def __init__(self, residence: Residence, encoder: Encoder, run: Run) -> None:
        self._residence, self._encoder, self._run = residence, encoder, run
        self._pictures: dict[Pass, Picture] = {}
        self._controls: Mapping[ControlFile, LoadedControl] = {}

    @property
    def _model(self) -> Model:
        assert self._residence.model
        return self._residence.model

    @property
    def latent_scale(self) -> int:
        """How many px of a picture a side of its latents stands for."""
        return self._model.latent_scale

    @property
    def _loras(self) -> LoraSwitcher:
        assert self._residence.loras
        return self._residence.loras

    def draw(self, stage: Pass, drawn: Drawn, place: Place, keep: bool = True) -> Iterator[Said]:
        """One run of the loop; ``keep`` says whether its start picture may be wanted again."""
        run, handed = self._run, stage.begin == "handover"
        if handed and drawn.handover is None:
            if drawn.latents is not None:
                run.warn("The refiner drew nothing: no step was left for it.")
            return
        drawn.size = stage.size
        yield from self._use(stage, len(drawn.generators))
        encoded = yield from self._encode_spans(stage)
        with run.part("encode"):
            self._show(stage, drawn, keep)
        begins = drawn.canvas or stage.begin == "latents"
        if not handed and begins and (steps_of(stage) == 0 or (drawn.canvas and drawn.canvas.nothing_masked)):
            return
        with run.part("prepare"):
            noise = self._make_noise(stage, drawn.generators)
            first = self._begin(stage, drawn, noise)
        drawn.latents = yield from self._denoise(stage, drawn, noise, encoded, first, place)
        if stage.controls:
            self._residence.rest()

    # ---- what a pass needs ----

    def _use(self, stage: Pass, count: int) -> Iterator[Loading]:
        """The model with the autoencoder of this pass, which draws so many pictures at once."""
        run, checkpoint = self._run, stage.model.checkpoint
        itemsize, rows = self._residence.dtype.itemsize, count * stage.rows
        step = step_bytes(checkpoint, stage.size, rows, itemsize) if checkpoint else 0
        with run.part("load"):
            yield from self._residence.load(stage.model, stage.lenders, run.check, step)
            self._residence.use_vae(stage.vae)
            self._residence.use_int8(stage.int8)
        role = "model" if stage.model == run.order.passes[0].model else stage.name
        run.hashes.want(role, stage.model.name, partial(content_hash, stage.model))
        for lender in self._residence.lenders:
            run.hashes.want("lender", lender.name, partial(content_hash, lender))
        if stage.vae:
            run.hashes.want("vae", stage.vae.name, partial(hash_whole, stage.vae.path))
        run.warn(*self._model.warnings)
        with run.part("load"):
            self._controls = yield from self._residence.use_controls((use.file for use in stage.controls), run.check)
        for file, control in self._controls.items():
            run.hashes.want("control", file.name, partial(hash_whole, *control_weights(file.path)))
            if control.unread:
                run.warn(unread_line(file.name, control.unread))
        for annotator in (annotator for use in stage.controls for annotator in use.networks):
            run.hashes.want("annotator", annotator.name, partial(hash_whole, annotator.path))
        run.check()
        self._tile(stage.size)
        for lora in stage.lora_files:
            run.hashes.want("lora", lora.name, partial(_hash_tensors, lora.path))
            if (config := find_adapter_config(lora.path)) is not None:
                run.hashes.want("lora configuration", lora.name, partial(hash_whole, config))

    def _tile(self, size: Size) -> None:
        """Has pictures of this size decoded in tiles where they would not fit in one piece."""
        if self._residence.tile(*size):
            self._run.decoded = "in tiles"
            self._run.warn("Memory is short: the picture was decoded in tiles, and seams are possible.")

    def _switch_loras(self, uses: Sequence[LoraUse]) -> Iterator[Loading]:
        run, switcher = self._run, self._loras
        with run.part("lora"):
            if switcher.must_merge(uses):
                yield Loading(f"Merging {len(uses)} LoRA{'s' if len(uses) > 1 else ''}", 0.0)
            switch = self._put_on(uses)
        if uses and run.loras is None:
            run.loras = switch

    def _put_on(self, uses: Sequence[LoraUse]) -> LoraSwitch:
        """The model becomes what these LoRAs make of it."""
        with nullcontext() if self._loras.is_installed(uses) else self._residence.unhooked():
            switch, warnings = self._loras.switch(uses, self._run.check)
        self._run.warn(*warnings)
        return switch

    def _encode_spans(self, stage: Pass) -> Generator[Loading, None, list[tuple[Span, EncodedSpan]]]:
        """What is told in each span, encoded with its own LoRAs on, which merges all sets before the first step."""
        run, encoded = self._run, []
        known: dict[Span, EncodedSpan] = {}
        for span in spans(stage):
            said = replace(span, stop=0, controls=())
            if said not in known:
                run.check()  # a prompt may say something else in each step, and each takes its time
                yield from self._switch_loras(span.loras)
                with run.part("encode"):
                    words = self._encoder.encode(self._model, self._loras, stage, span, run)
                    borrow = partial(self._residence.kept.borrow, dtype=self._residence.dtype)
                    known[said] = self._encoder.refer(words, stage, span, self._model, borrow, run)
            encoded.append((span, known[said]))
        if again := self._loras.merges([span.loras for span, _ in encoded]):
            merges = f"{again} merge{'s' if again > 1 else ''} in the middle of each picture"
            text = f"The memory for LoRAs (--lora-cache) is too small for all sets of this job: {merges}."
            if text not in run.warnings:
                yield Loading(text, 0.0)
                run.warn(text)
        return encoded

    def _show(self, stage: Pass, drawn: Drawn, keep: bool) -> None:
        """The start picture as the model sees it; one that is kept is encoded once for all batches."""
        if stage.begin == "picture":
            found = self._pictures.get(stage) or self._encoder.picture(self._model, stage, keep)
            if keep:
                self._pictures[stage] = found
            drawn.canvas, drawn.encoded = found
        elif stage.begin == "latents":
            assert drawn.latents is not None
            drawn.canvas = make_canvas(stage.init, stage.size) if stage.init else None
            drawn.encoded = encode_latents(self._model, drawn.latents, drawn.canvas, stage.size)
        self._residence.rest()

    def _see(self, stage: Pass) -> Sequence["Control"]:
        """The pass's controls, each with its map."""
        if not stage.controls:
            return ()
        with self._run.part("encode"):
            return self._encoder.controls(stage, self._controls)

    def _make_ready(
        self, stage: Pass, noise: Noise, encoded: Sequence[tuple[Span, EncodedSpan]], controls: Sequence["Control"]
    ) -> Iterator[ReadySpan]:
        """The spans by evaluations; where LoRAs change, each begins with its own."""
        enter = {span.loras: partial(self._enter, span.loras, self._loras.key_of(span.loras)) for span, _ in encoded}
        ready = (
            ReadySpan(
                noise.first(span.stop),
                words.positive,
                words.negative,
                words.guidance,
                enter[span.loras] if len(enter) > 1 else stay,
                stage.guidance_rescale,
                stage.pag,
                words.steering,
                tuple((controls[place], weight) for place, weight in span.controls),
            )
            for span, words in encoded
        )
        return guided_until(ready, round(stage.guidance_until * len(noise)))

    def _enter(self, uses: Sequence[LoraUse], key: SetKey) -> None:
        """Another span's LoRAs, which must be those that its words were encoded with."""
        self._put_on(uses)
        if self._loras.cache.key != key:
            names = ", ".join(use.file.name for use in uses)
            raise RequestError(f"LoRA {names}: a file was changed while it was drawn with; ask again", field="loras")

    def _make_noise(self, stage: Pass, generators: list[torch.Generator]) -> Noise:
        config, strength, device = self._model.scheduler_config, stage.strength, self._residence.device
        shift = self._model.shift(stage.size, stage.steps)
        noise = make_noise(
            stage.sampler, stage.schedule, config, stage.prediction, stage.steps, strength, generators, device, shift
        )
        if 1 / strength > (steps := noise.scheduled):
            drawn_at = f"drawn at {1 / steps:.2g}"
            self._run.warn(f"Strength {strength:g} is less than {stage.sampler} can take; {drawn_at}.")
        return noise

    def _begin(self, stage: Pass, drawn: Drawn, noise: Noise) -> int:
        """Brings the latents to where the pass begins, and says at which evaluation that is."""
        model, device = self._model, self._residence.device
        if stage.begin == "handover":
            assert drawn.start and drawn.handover is not None
            first, drawn.handover = drawn.handover, None
            noise.begin(first)
            drawn.start = replace(drawn.start, shown=None)
            return first
        draw = make_draw(drawn.generators, stage.variation, drawn.first)
        if stage.begin in ("picture", "latents"):
            assert drawn.encoded
            start = prepare_from(model, noise, drawn.encoded, stage, draw, device)
        else:
            start = prepare(model, noise, stage.size, draw, device)
        drawn.start, drawn.latents = start, start.latents
        if stage.handover_at is not None and (reached := noise.handover(stage.handover_at)) < len(noise):
            drawn.handover = reached
        sampler, others = describe_sampler(noise.scheduler), self._run.sampler
        self._run.sampler = sampler if stage.name == "base" else others | {stage.name: sampler}
        return 0

    def _denoise(
        self,
        stage: Pass,
        drawn: Drawn,
        noise: Noise,
        encoded: Sequence[tuple[Span, EncodedSpan]],
        first: int,
        place: Place,
    ) -> Generator[Said, None, torch.Tensor]:
        """Returns the latents that the pass came to."""
        assert drawn.start and drawn.latents is not None
        run, latents, hold = self._run, drawn.latents, drawn.start.hold
        stays = self._residence.plan == PLANS[0] and not self._loras.merges([span.loras for span, _ in encoded])
        if stays:
            turns = [
                (span.loras, words.told, words.steering) for span, words in encoded if noise.first(span.stop) > first
            ]
            with run.part("lora"):
                yield from self._loras.order(turns, latents, run.check)
        previewer = Previewer(self._model.preview_map, noise)
        steps = denoise(
            self._model.backbone,
            noise,
            latents,
            self._make_ready(stage, noise, encoded, self._see(stage)),
            run.cancelled,
            first,
            drawn.handover,
            drawn.start.shown,
            None if hold is None else partial(hold.apply, noise),
            shortcuts_of(stage),
            stays,
            run.meets and stays,
        )
        started = time.perf_counter()
        try:
            for step in steps:
                if not isinstance(step, Denoised):
                    yield step
                    run.together = max(run.together, step.met)
                    continue
                latents = step.latents
                preview = previewer.preview(step, time.perf_counter() - started)
                done = step.index / step.total  # a step may take several evaluations
                yield run.step(stage, place, done, time.perf_counter() - started, preview)
        finally:  # steps that ran out of memory took their time too
            run.compiled |= faster.take_ran() if (faster := self._residence.faster) else {False}
            run.parts_s["steps"] += time.perf_counter() - started - previewer.spent_s
            run.parts_s["previews"] += previewer.spent_s
        return latents

    def finished(self, drawn: Drawn, begin: int = 0) -> Iterator[PilImage]:
        """The pictures of the batch as the stages so far have made them, from number ``begin`` on."""
        run, count = self._run, len(drawn.generators)
        if drawn.pictures is not None:
            yield from drawn.pictures[begin:]
            return
        if drawn.latents is None:
            assert drawn.canvas
            yield from [drawn.canvas.unchanged] * (count - begin)
            return
        if run.meets:  # another one may have said how its own are decoded
            self._tile(drawn.size)
        self._residence.make_room_to_decode(*drawn.size)
        for k in range(begin, count):
            run.check()
            with run.part("decode"):
                image = self._decode(drawn.latents[k : k + 1])
                image = drawn.canvas.finish(image) if drawn.canvas else image
            yield image
        with run.part("decode"):
            self._residence.rest()

    def _decode(self, latents: torch.Tensor) -> PilImage:
        """One picture; where it is none, for the reason that the model's files show, if they do."""
        try:
            return decode(self._model, latents, self._residence.unhooked)
        except NotFinite:
            if damage := self._residence.find_damage():
                raise CannotLoad(damage) from None
            raise


def _hash_tensors(path: Path) -> str:
    return hash_file(path).tensors
