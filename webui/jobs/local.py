"""One device thread in this process: a queue before it, a registry of jobs, a saving thread behind it.

A watching thread says when the device has stopped answering.
"""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.events import TERMINAL, Cancelled, Done, Event, Failed, Image, Loading, Queued, Step
from webui.core.images import MIN_SIDE_PX
from webui.core.ledger import Totals, balance
from webui.core.names import choose_file
from webui.core.order import Order
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.visitor import OWNER, Visitor
from webui.jobs.job import LocalJob
from webui.jobs.last_size import LastSize
from webui.jobs.protocols import QueueFull
from webui.jobs.resolve import make_order
from webui.jobs.saving import Saver
from webui.jobs.token_counts import count_tokens
from webui.jobs.trouble import for_people, log_error
from webui.jobs.watchdog import Watchdog, is_lost
from webui.library.library import Library

if TYPE_CHECKING:
    from webui.engine.manager import PipelineManager

MAX_WAITING = 100
KEPT_JOBS = 200
KEPT_PIXEL_BYTES = 256 * 2**20
CHECK_EVERY_S = 15.0
RESTART_NEEDED = "Restart needed: the GPU reported an error from which this program cannot recover."

log = logging.getLogger(__name__)


class LocalExecutor:
    """Runs jobs one after the other, first come first served. The engine is imported on the device thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._library = settings, Library(settings)
        self._waiting: deque[LocalJob] = deque()
        self._jobs: OrderedDict[str, LocalJob] = OrderedDict()
        self._running: LocalJob | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._warm_up = False
        self._manager: PipelineManager | None = None
        self._trouble = ""
        self._lost = ""
        self._watchdog = Watchdog()
        self._closed = threading.Event()
        self._totals = Totals()
        self._counting = threading.Lock()
        self._warm_at = time.perf_counter()
        self._last_size = LastSize(settings.cache_dir / "last-size.json")
        self._saver = Saver(settings)
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def catalog(self, max_age_s: float = 0.0) -> Catalog:
        """The files that were on disk so long ago at most, and every sampler with its schedules."""
        return Catalog.of(self._library.snapshot(max_age_s))

    def reload(self) -> None:
        """The next look at the files walks all folders, whatever their times say."""
        self._library.reload()

    def warm_up(self) -> None:
        """Imports the engine and loads the default model while nobody waits; failures show in ``status``."""
        with self._changed:
            self._warm_up = True
            self._changed.notify_all()

    def submit(self, request: Request, keep: bool = True, visitor: Visitor = OWNER) -> LocalJob:
        """Plans the whole job once, from the files that are there now; pictures are saved unless ``keep`` is false.

        Raises RequestError, or QueueFull with ``MAX_WAITING`` waiting or after a GPU's last error.
        """
        submitted_at = time.perf_counter()
        job = LocalJob(self._plan(request), self._drop_waiting, submitted_at, keep, visitor)
        if request.init is not None and request.init.nothing_masked:
            raise RequestError("mask: nothing is masked, so nothing would be drawn", field="mask")
        with self._changed:
            if self._closing:
                raise QueueFull("the server is shutting down")
            if self._lost:
                raise QueueFull(self._lost)
            if len(self._waiting) >= MAX_WAITING:
                raise QueueFull(f"the queue is full: {MAX_WAITING} jobs wait; try again later")
            self._waiting.append(job)
            self._jobs[job.id] = job
            self._publish_positions()
            self._changed.notify_all()
        return job

    def _plan(self, request: Request) -> Order:
        files = self._library.snapshot(max_age_s=0)
        return make_order(request, files)

    def job(self, job_id: str) -> LocalJob | None:
        """A job that waits, runs, or ended recently."""
        with self._changed:
            return self._jobs.get(job_id)

    def status(self) -> Mapping[str, object]:
        """What ``/api/health`` says."""
        manager = self._manager
        ready = manager is not None and manager.model_name is not None
        memory_bytes = manager.memory_bytes if manager and not self._lost else {}
        trouble = self._lost or self._watchdog.trouble or self._trouble
        return {
            "status": "degraded" if trouble else "ok" if ready else "loading",
            "device": manager.device_description if manager else None,
            "model": manager.model_name if manager else None,
            "memory": manager.memory_plan if manager else None,
            "waiting": len(self._waiting),
            "running": self._running is not None,
            **({"memory_bytes": memory_bytes} if memory_bytes else {}),
            **({"trouble": trouble} if trouble else {}),
        }

    def totals(self) -> Totals:
        """What ``/api/metrics`` counts."""
        return self._totals

    def count_tokens(self, model: str, prompt: str) -> tuple[int, int]:
        """See ``jobs.protocols.Executor``."""
        return count_tokens(model, prompt, self._library.snapshot())

    def close(self, timeout_s: float = 5.0) -> None:
        """Stops taking jobs, cancels all, and waits for the device and the last file."""
        with self._changed:
            self._closing = True
            self._closed.set()
            jobs = [*self._waiting, *([self._running] if self._running else [])]
            self._changed.notify_all()
        for job in jobs:
            job.cancel()
        self._thread.join(timeout_s)
        for job in jobs if self._thread.is_alive() else ():  # a device that does not answer must not keep followers
            job.publish(Cancelled())
        self._saver.close()

    def _drop_waiting(self, job: LocalJob) -> None:
        """A waiting job ends at once; a running one sees its flag between steps, if the device still answers."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._publish_positions()
            elif job is not self._running or self._watchdog.silent_s is None:
                return
        waited_s = time.perf_counter() - job.submitted_at
        self._end(job, Cancelled(seconds=waited_s, parts_s=balance(waited_s, {"queue": waited_s})))

    def _publish_positions(self) -> None:
        for position, job in enumerate(self._waiting, start=1):
            job.publish(Queued(position))

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._closing or self._warm_up):
                    self._changed.wait()
                if self._closing and not self._waiting:
                    return
                job = self._running = self._waiting.popleft() if self._waiting else None
                self._warm_up = False
                self._publish_positions()
            self._watchdog.begin()
            if job is None:
                self._load_default()
                self._watchdog.end()
                self._warm_at = time.perf_counter()
                continue
            last = self._run(job)
            self._watchdog.end()
            self._running = None
            self._saver.afterwards(partial(self._finish, job, last, time.perf_counter()))

    def _run(self, job: LocalJob) -> Done | Failed | Cancelled:
        """Runs one job and returns the event that ends it; pictures go to the saving thread on the way."""
        started = time.perf_counter()
        reached, step_s = 0, 0.0
        if self._lost:
            return Failed(self._lost)
        try:
            for event in self._begin(job):
                if isinstance(event, TERMINAL):
                    return event
                self._count(event, reached)
                self._watchdog.ping(isinstance(event, Step))
                if isinstance(event, Image):
                    self._saver.afterwards(partial(self._note_size, event, step_s))
                if isinstance(event, Image) and job.keep:
                    self._saver.save(job, event)
                else:
                    job.publish(event)
                if isinstance(event, Step):
                    reached, step_s = event.index, event.seconds / event.total
                    if reached == 2:
                        self._prepare_next()
            raise RuntimeError("the engine ended without saying how")
        except RequestError as error:
            return Failed(str(error), bad_input=True, parts_s=self._spent_s())
        except Exception as error:  # whatever it is, the job must end and the next one must run
            log_error(f"job {job.id} failed after {time.perf_counter() - started:.1f} s", error)
            return Failed(self._explain(error), parts_s=self._spent_s())

    def _explain(self, error: BaseException) -> str:
        """The error for people; from one that the device does not recover from on, nothing is drawn any more."""
        if is_lost(error):
            self._lost = RESTART_NEEDED
        return self._lost or for_people(error)

    def _watch(self) -> None:
        while not self._closed.wait(CHECK_EVERY_S):
            self.check_device()

    def check_device(self) -> None:
        """Has the running job say it where the device has stopped answering."""
        if (job := self._running) and (trouble := self._watchdog.trouble):
            job.publish(Loading(trouble, 0.0))

    def _spent_s(self) -> Mapping[str, float]:
        """What the engine had spent on the job that failed."""
        return dict(self._manager.parts_s) if self._manager else {}

    def _note_size(self, picture: Image, step_s: float) -> None:
        request = picture.recipe.request
        if step_s and request.width and request.height:
            self._last_size.keep(request.model, (request.width, request.height), step_s)

    def _begin(self, job: LocalJob) -> Iterator[Event]:
        """The engine at work on the job, with what it waited for until then in its ledger."""
        taken_at = time.perf_counter()
        if self._manager is None:
            job.publish(Loading("Starting the engine", 0.0))
        events = self._engine().draw(job.order, job.is_cancelled)
        warming_s = max(self._warm_at - job.submitted_at, 0.0)  # the default model was in the way, not other jobs
        starting_s = time.perf_counter() - taken_at
        job.parts_s = {"queue": taken_at - job.submitted_at - warming_s, "load": warming_s + starting_s}
        return events

    def _prepare_next(self) -> None:
        """Lets the engine make ready what the next job needs; where that fails, the job itself will say why."""
        with self._changed:
            upcoming = self._waiting[0].order if self._waiting else None
        if upcoming is not None:
            try:
                self._engine().prepare(upcoming)
            except Exception as error:
                log.info("could not prepare the next job: %s", error)

    def _engine(self) -> "PipelineManager":
        if self._manager is None:
            from webui.engine.manager import PipelineManager

            self._manager = PipelineManager(self._settings.engine_options)
        return self._manager

    def _load_default(self) -> None:
        try:
            manager, order = self._engine(), self._plan_warm_up()
            first = order.stages[0]
            for _ in manager.load(first.model, first.lenders, lambda: self._closing):
                self._watchdog.ping()
            manager.warm_up(order)
            self._trouble = ""
        except Exception as error:  # the page stays up and says what is wrong
            if not self._closing:
                log_error("warm-up failed", error)
                self._trouble = self._explain(error)

    def _plan_warm_up(self) -> Order:
        """One step of the default model. With reuse it is one of the plain UNet: no code is compiled for its size."""
        name = choose_file("model", self._settings.model, self._library.snapshot(max_age_s=0).models)
        width, height = self._last_size.of(name) or (MIN_SIDE_PX, MIN_SIDE_PX)
        return self._plan(Request(model=name, steps=1, width=width, height=height, seed=0, reuse=2))

    def _finish(self, job: LocalJob, last: Done | Failed | Cancelled, drawn_at: float) -> None:
        """Ends the job when its last picture is saved; only the saving that came after the drawing took time."""
        if isinstance(last, Done):
            unsaved = tuple({image.warning: None for image in job.images if image.warning})
            last = replace(last, warnings=last.warnings + unsaved)
        now = time.perf_counter()
        seconds = now - job.submitted_at
        parts_s = balance(seconds, job.parts_s, last.parts_s, {"save": now - drawn_at})
        self._end(job, replace(last, seconds=seconds, parts_s=parts_s))

    def _end(self, job: LocalJob, last: Event) -> None:
        if job.ended:  # it was given up while the device did not answer
            return
        self._count(last)  # before anybody learns of it
        job.publish(last)
        self._forget_old()

    def _count(self, event: Event, reached: int = 0) -> None:
        with self._counting:
            self._totals = self._totals.plus(event, reached)

    def _forget_old(self) -> None:
        """Drops ended jobs, oldest first, beyond a number and beyond the memory their pictures hold."""
        with self._changed:
            ended = [job for job in self._jobs.values() if job.ended]
            pixel_bytes = sum(job.pixel_bytes for job in ended)
            excess = len(ended) - KEPT_JOBS
            for position, job in enumerate(ended[:-1]):
                if position >= excess and pixel_bytes <= KEPT_PIXEL_BYTES:
                    break
                pixel_bytes -= job.pixel_bytes
                del self._jobs[job.id]
