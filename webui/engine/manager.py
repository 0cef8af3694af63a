"""``PipelineManager``: owns a device, has models drawn with on it, and turns orders into streams of events."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import prod
from typing import TypeVar

import torch

from webui.core import onnx_session
from webui.core.engine_options import EngineOptions
from webui.core.errors import Mend, RequestError
from webui.core.events import Cancelled, Done, Event, Loading, Step
from webui.core.files import ModelFile
from webui.core.memory import PLAN_WORDS, Room
from webui.core.order import Order
from webui.core.spans import spans
from webui.core.together import meeting
from webui.engine.denoise import Stopped
from webui.engine.devices import choose_device, choose_dtype, describe, is_out_of_memory, release_memory
from webui.engine.drawing import Drawing
from webui.engine.encoding import Encoder
from webui.engine.families.loading import check_unchanged
from webui.engine.finders.network import Finders
from webui.engine.passes import shortcuts_of
from webui.engine.provenance import FileHashes
from webui.engine.residence import Residence
from webui.engine.run import Cancel, Run, check_with, never
from webui.engine.stages.upscale import Enlarger
from webui.engine.together import Alone, Asked, Said, Together

log = logging.getLogger(__name__)


W = TypeVar("W")


class OutOfMemory(RuntimeError):
    """The device's memory did not suffice, whatever was tried; the message says what would help."""


class PipelineManager:
    """Draws orders on one device. Not thread-safe: one thread owns it.

    ``parts_s`` is the ledger of the newest order so far, which is all that is left of one that failed.
    """

    parts_s: Mapping[str, float] = {}

    def __init__(self, options: EngineOptions) -> None:
        self.device = choose_device(options.device)
        if options.cuda_graphs and self.device.type != "cuda":
            raise RequestError(f"CUDA graphs need an NVIDIA GPU, and this is {self.device.type}", field="cuda_graphs")
        self.dtype = choose_dtype(options.dtype, self.device, options.cache_dir)
        self._options = options
        self._residence = Residence(options, self.device, self.dtype)
        self._encoder = Encoder(self.device)
        self._enlarger = Enlarger()
        self._finders = Finders()
        self._together = Together()
        self._hasher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hasher")

    @property
    def device_description(self) -> str:
        """Device and number format, for people."""
        return describe(self.device, self.dtype) + (", compiled" if self.is_compiled else "")

    @property
    def is_compiled(self) -> bool:
        """Whether compiled code runs for all sizes that were asked for."""
        faster = self._residence.faster
        return faster is not None and faster.is_compiled

    @property
    def memory_plan(self) -> str:
        """Where the model's parts rest, for people."""
        return PLAN_WORDS[self._residence.plan]

    @property
    def room(self) -> Room:
        """What the device has for models, and the networks beside them that are in memory; from any thread."""
        return replace(self._residence.room, beside=self._enlarger.held | self._finders.held | onnx_session.held())

    @property
    def memory_bytes(self) -> Mapping[str, int]:
        """What tensors take of the GPU's memory, and what is held for them; nothing elsewhere."""
        if self.device.type != "cuda":
            return {}
        allocated, reserved = torch.cuda.memory_allocated(self.device), torch.cuda.memory_reserved(self.device)
        return {"allocated": allocated, "reserved": reserved}

    @property
    def model_name(self) -> str | None:
        """The model that was drawn with last, if any."""
        return self._residence.model.file.name if self._residence.model else None

    @property
    def model_names(self) -> Sequence[str]:
        """All models that are in memory, the one that was drawn with last at the end."""
        return self._residence.models

    def draw(self, order: Order, cancelled: Cancel = never) -> Iterator[Event]:
        """The events of one job, ending in Done or Cancelled.

        ``cancelled`` is asked between steps. Raises CannotLoad, NotFinite, OutOfMemory, another RequestError where the
        resident model cannot do what is asked, or whatever torch raises.
        """
        events = self._events(self._begin(order, cancelled))
        return (event for event in events if not isinstance(event, Asked | Alone))

    def meet(self, order: Order, cancelled: Cancel, joins: bool = True) -> Iterator[Said]:
        """As ``draw``, and what it waits for, for ``draw_together``; one that ``joins`` finds others at work."""
        run = self._begin(order, cancelled)
        run.meets = meeting(order) is not None
        try:
            there = self._residence.kept.active
            if joins and not (run.meets and there and there.suits(order)):
                yield Alone(cancelled)
            yield from self._events(run)
        except Exception:
            self.parts_s = run.parts_s  # whoever is told of the failure asks what it took: not another's
            raise

    def draw_together(
        self, whose: W, events: Iterator[Said], more: Callable[[], tuple[W, Iterator[Said]] | None]
    ) -> Iterator[tuple[W, Event]]:
        """Has what ``meet`` gives drawn as in ``Together.draw``."""
        return self._together.draw(whose, events, more)

    def load(self, file: ModelFile, lenders: Sequence[ModelFile] = (), cancelled: Cancel = never) -> Iterator[Loading]:
        """Makes this the resident model; yields nothing when it is already. ``lenders`` may lend what it lacks."""
        yield from self._residence.load(file, lenders, check_with(cancelled))

    def warm_up(self, order: Order) -> None:
        """What a first picture would wait for besides the model, in the first step of an order."""
        for event in self.draw(order):
            if isinstance(event, Step):
                return

    def prepare(self, order: Order) -> None:
        """Makes ready what a job that comes next will need, where that costs the present one nothing.

        On CUDA the LoRAs that its first pass begins with are merged on a stream of low priority; elsewhere there is
        nothing idle.
        """
        loras, model, passes = self._residence.loras, self._residence.model, order.passes
        if self.device.type != "cuda" or loras is None or model is None or not passes or passes[0].model != model.file:
            return
        uses = spans(passes[0])[0].loras
        if not uses:
            return
        stream = torch.cuda.Stream(self.device, priority=0)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            loras.prepare(uses)
        stream.synchronize()  # the next job reads on another stream

    def close(self) -> None:
        """Lets go of the model and of all that is kept."""
        self._encoder.clear()
        self._enlarger.clear()
        self._finders.clear()
        self._residence.drop()
        self._hasher.shutdown()

    def _begin(self, order: Order, cancelled: Cancel) -> Run:
        run = Run(order, cancelled, FileHashes(self._hasher), finished=order.finished)
        self.parts_s = run.parts_s
        return run

    def _events(self, run: Run) -> Iterator[Said]:
        started = time.perf_counter()
        for stage in run.order.passes:
            check_unchanged(stage.model)
        if any(stage.int8 for stage in run.order.passes) and (reason := self._residence.no_int8):
            raise RequestError(f"int8: {reason}", "int8", Mend("use", False))
        run.warn(*run.order.warnings)
        if self._options.compile or self._options.cuda_graphs:
            faster = "compiled code" if self._options.compile else "CUDA graphs"
            if any(map(shortcuts_of, run.order.passes)):
                run.warn(f"Step caching and token merging run without {faster}.")
            if any(stage.int8 for stage in run.order.passes):
                run.warn(f"Steps in int8 run without {faster}.")
            if any(stage.controls for stage in run.order.passes):
                run.warn(f"Steps with a control run without {faster}.")
        try:
            yield from self._draw_within_memory(run)
        except Stopped:
            yield Cancelled(run.index, run.total, time.perf_counter() - started, dict(run.parts_s))
        else:
            yield Done(time.perf_counter() - started, dict(run.parts_s), tuple(run.warnings), run.loras)
        finally:
            self._residence.end_job()

    def _draw_within_memory(self, run: Run) -> Iterator[Said]:
        """Draws; where memory runs out, again with smaller memory plans. Raises OutOfMemory."""
        while True:
            try:
                yield from Drawing(self._residence, self._encoder, self._enlarger, self._finders, run).draw()
                return
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                log.warning("out of memory: %s", str(error))  # not the error, whose traceback a log may keep
            # Not before ``except`` is left: until then its traceback holds the tensors of what failed.
            if run.meets:
                yield Alone(run.cancelled)
            if (smaller := self._make_room(run)) is None:
                break
            yield Loading(f"Out of memory; once more with {smaller}", 0.0)
        release_memory(self.device)
        width, height = max((stage.size for stage in run.order.stages), key=prod)
        raise OutOfMemory(
            f"{self.device.type} ran out of memory at {width} x {height} px, {run.order.request.count} at once; draw"
            " fewer or smaller pictures, or a smaller model"
        )

    def _make_room(self, run: Run) -> str | None:
        """Frees what can be freed; the words for the smaller memory plan, or None where there is none."""
        self._encoder.clear()
        self._enlarger.clear()
        self._finders.clear()
        release_memory(self.device)
        if words := self._residence.shrink():
            run.warn(f"Memory was short; drawn with {words}.")
        return words
