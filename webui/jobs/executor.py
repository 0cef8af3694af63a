"""Takes work, keeps jobs, gives turns: a queue before a worker's thread, a registry of jobs, a saving thread behind.

A watching thread says when the device has stopped answering.
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from webui.core.catalog import Catalog
from webui.core.events import TERMINAL, Cancelled, Done, Event, Failed, Image, Loading, Queued, Step
from webui.core.hosting import Hosting, Use
from webui.core.ledger import Totals, balance
from webui.core.order import Order
from webui.core.settings import Settings
from webui.core.visitor import OWNER, Visitor
from webui.core.work import Work
from webui.jobs.filters import Filters
from webui.jobs.job import LocalJob
from webui.jobs.keeper import Keeper
from webui.jobs.last_size import LastSize
from webui.jobs.pace import Pace
from webui.jobs.protocols import Job, QueueFull
from webui.jobs.queue import Queue
from webui.jobs.recovery import first_number, revive
from webui.jobs.registry import Registry
from webui.jobs.resolve import plan_job
from webui.jobs.saving import Saver
from webui.jobs.skipping import left_out, say
from webui.jobs.store import Store
from webui.jobs.texts import draw_examples
from webui.jobs.token_counts import count_tokens
from webui.jobs.trouble import for_people, log_error
from webui.jobs.watchdog import Watchdog
from webui.jobs.workers.thread import ThreadWorker
from webui.jobs.workers.worker import Worker
from webui.library.library import Library, Snapshot
from webui.library.scan import LOOK_S
from webui.workspace.workspace import Workspaces

CHECK_EVERY_S = 15.0
READY_S = 30.0  # the longest that anybody waits for what an earlier server has left


class LocalExecutor:
    """Has jobs drawn one after the other, on a thread of the worker's own.

    With a ``store`` they outlive the process, but for those whose pictures nobody wants saved: these are answers, and
    whoever waits for one has lost it with the connection. Nothing is drawn then before ``warm_up``: what takes the
    process down while it starts is nothing that a job has done.
    """

    def __init__(
        self,
        settings: Settings,
        worker: Worker | None = None,
        store: Store | None = None,
        workspaces: Workspaces | None = None,
        hosting: Hosting | None = None,
    ) -> None:
        self._settings, self._library = settings, Library(settings)
        self._workspaces = workspaces or Workspaces(settings.data_dir, settings.out)
        self._keeper, self._is_ready = Keeper(store, self._workspaces), threading.Event()
        self._worker = worker or ThreadWorker(settings.engine_options)
        hosting = hosting or Hosting()
        self._queue: Queue[LocalJob] = Queue(lambda job, place: job.publish(Queued(place)), hosting=hosting)
        hosting.watch(self._queue.wake)
        self._known = Registry(self._keeper, self._workspaces)
        self._running: LocalJob | None = None
        self._lock = threading.Lock()
        self._closed, self._may_draw = threading.Event(), threading.Event()
        if store is None:
            self._may_draw.set()
        self._warm_up, self._trouble = False, ""
        self._filters = Filters(settings.filters_dir)
        self._watchdog = Watchdog()
        self._totals = Totals()
        self._warm_at = time.perf_counter()
        self._last_size = LastSize(settings.cache_dir / "last-size.json")
        self._pace = Pace(settings.cache_dir / "pace.json")
        self._saver = Saver(settings, self._workspaces, self._keeper.claim)
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def catalog(self, max_age_s: float = 0.0, visitor: Visitor = OWNER) -> Catalog:
        """The visitor's files that were on disk so long ago at most, and every sampler with its schedules."""
        return Catalog.of(self._see(visitor, max_age_s))

    def reload(self) -> None:
        """The next look at the files walks all folders, whatever their times say."""
        self._library.reload()

    def warm_up(self) -> None:
        """Imports the engine and loads the default model while nobody waits; failures show in ``status``."""
        self._warm_up = True
        self._may_draw.set()
        self._queue.wake()

    def submit(self, work: Work, keep: bool = True, visitor: Visitor = OWNER) -> LocalJob:
        """Plans the whole job once, from the files that are there now; pictures are saved unless ``keep`` is false.

        Raises RequestError, or QueueFull with too many waiting (``jobs.queue``) or after a GPU's last error.
        """
        submitted_at = time.perf_counter()
        files = self._see(visitor)
        self._pace.check(work, files)
        orders, grid = plan_job(work, files)
        self._filters.check((order.request for order in orders), visitor)
        job = LocalJob(orders, self._stop, submitted_at, keep, visitor, grid=grid)
        if lost := self._worker.status().lost:
            raise QueueFull(lost)
        self._is_ready.wait(READY_S)
        self._known.add(job)
        if keep:
            self._keeper.accept(job)
        try:
            self._queue.put(job)
        except QueueFull:
            self._known.drop(job)
            self._keeper.forget(job)
            raise
        return job

    def _see(self, visitor: Visitor, max_age_s: float = 0.0) -> Snapshot:
        return self._library.snapshot(max_age_s, self._settings.allowance(visitor))

    def job(self, job_id: str) -> Job | None:
        """A job that waits, runs, or ended recently, or that the disk knows."""
        if job := self._known.in_memory(job_id):
            return job
        self._is_ready.wait(READY_S)
        return self._known.find(job_id)

    def jobs(self, visitor: Visitor) -> Sequence[Job]:
        """See ``jobs.protocols.Executor``."""
        self._is_ready.wait(READY_S)
        return self._known.of(visitor)

    def under_way(self, visitor: Visitor) -> Sequence[Job]:
        """See ``jobs.protocols.Executor``."""
        self._is_ready.wait(READY_S)
        return [job for job in self._known.sent_by(visitor) if not job.ended]

    def move(self, job_id: str, before: str | None) -> bool:
        """See ``jobs.protocols.Executor``."""
        job = self._known.in_memory(job_id)
        order = self._queue.move(job, before) if job else []
        self._keeper.reorder(order)
        return bool(order)

    def forget(self, visitor: Visitor) -> None:
        """See ``jobs.protocols.Executor``."""
        theirs = self._known.sent_by(visitor)
        for job in theirs:
            job.cancel()
        self._keeper.forget_visitor(visitor)
        self._known.drop(*theirs)

    def status(self) -> Mapping[str, object]:
        """What ``/api/health`` says."""
        worker = self._worker.status()
        trouble = worker.lost or self._watchdog.trouble or self._trouble
        return {
            "status": "degraded" if trouble else "ok" if worker.model else "loading",
            "device": worker.device,
            "model": worker.model,
            "models": list(worker.models),
            "memory": worker.memory,
            "waiting": len(self._queue),
            "running": self._running is not None,
            **({"memory_bytes": worker.memory_bytes} if worker.memory_bytes else {}),
            **{key: said for key, said in (("trouble", trouble), ("warning", self._keeper.warning)) if said},
        }

    def totals(self) -> Totals:
        """What ``/api/metrics`` counts."""
        return self._totals

    def uses(self) -> Mapping[str, Use]:
        """See ``jobs.protocols.Executor``."""
        return self._queue.uses()

    def count_tokens(self, model: str, prompt: str, steps: int, visitor: Visitor = OWNER) -> tuple[int, int]:
        """See ``jobs.protocols.Executor``."""
        return count_tokens(model, prompt, steps, self._see(visitor, LOOK_S))

    def draw_texts(self, prompt: str, seeds: Iterable[int]) -> tuple[str, ...]:
        """See ``jobs.protocols.Executor``."""
        return draw_examples(prompt, seeds, self._library.snapshot())

    def close(self, timeout_s: float = 5.0) -> None:
        """Stops taking jobs, ends what runs, and waits for the device and the last file.

        Jobs that the disk has go on under the next server; all others are cancelled.
        """
        self._closed.set()
        self._may_draw.set()
        jobs = self._queue.close()
        with self._lock:
            jobs += [self._running] if self._running else []
        for job in jobs:
            self._let_go(job)
        self._worker.close()
        self._thread.join(timeout_s)
        if self._thread.is_alive():  # a device that does not answer must not keep followers
            for job in jobs:
                if not job.has_left:
                    job.publish(Cancelled())
        self._saver.close()
        self._keeper.close()

    def _let_go(self, job: LocalJob) -> None:
        """The server ends before the job."""
        if self._keeper.pause(job):
            job.leave()
        else:
            job.cancel()

    def _stop(self, job: LocalJob) -> None:
        """A waiting job ends at once; a running one, or what is skipped of it, within a step, if the device answers."""
        if not job.is_cancelled():
            with self._lock:
                if job is self._running:
                    self._worker.cancel()
            return
        if not self._queue.drop(job):
            if not job.ended:
                self._keeper.cancel(job)
            with self._lock:
                if job is not self._running:
                    return
                self._worker.cancel()
            if self._watchdog.silent_s is None:
                return
        waited_s = time.perf_counter() - job.submitted_at
        self._end(job, Cancelled(seconds=waited_s, parts_s=balance(waited_s, {"queue": waited_s})))

    def _recover(self) -> None:
        """Lines up again what an earlier server has left."""
        first = 1
        for kept in self._keeper.open(self._closed):
            first = first_number(self._keeper.start)
            try:
                find = self._workspaces.of(kept.visitor).start_pictures.find
                job, kept = revive(kept, self._see(kept.visitor, LOOK_S), find, self._stop, first)
            except Exception as error:  # whatever it is, the others must be drawn
                log_error(f"job {kept.id} cannot be drawn any more", error)
                self._keeper.fail(kept, for_people(error))
                continue
            self._known.add(job)
            self._keeper.take_back(job, kept)
            with suppress(QueueFull):  # the server ends already
                self._queue.put(job, accepted=True)
        self._is_ready.set()

    def _work(self) -> None:
        self._is_ready.wait()
        self._may_draw.wait()
        while not self._closed.is_set():
            if self._warm_up:
                self._warm_up = False
                self._load_default()
            if (job := self._queue.take()) is None:
                continue
            with self._lock:
                self._running = job
            if self._closed.is_set():  # since it was taken
                self._let_go(job)
                return
            self._keeper.begin(job)
            self._watchdog.begin()
            try:
                last = self._run(job)
            except Exception as error:  # whatever it is, the job must end and the next one must run
                log_error(f"job {job.id} failed", error)
                last = Failed(for_people(error))
            self._watchdog.end()
            with self._lock:
                self._running = None
            self._saver.afterwards(partial(self._finish, job, last, time.perf_counter()))

    def _run(self, job: LocalJob) -> Done | Failed | Cancelled:
        """Draws the job's orders in turn and returns the event that ends it: what it says is true of all of them."""
        waited_s = time.perf_counter() - job.submitted_at
        warming_s = max(self._warm_at - job.submitted_at, 0.0)  # the default model was in the way, not other jobs
        job.parts_s = {"queue": waited_s - warming_s, "load": warming_s}
        warnings, cost = dict[str, None](), 0.0
        last: Done | Failed | Cancelled = (skipped := Cancelled())
        for order, first in job.turns:
            last, rest = Done(0.0), order
            while rest.finished < order.request.image_count:
                last, share, drawn = self._draw(job, rest, first)
                cost += rest.cost * share
                if job.is_cancelled() or not (job.skips and isinstance(last, Cancelled)):
                    break
                pictures, rest = left_out(rest, drawn)
                job.leave_out(first + number for number in pictures)
                self._keeper.skip(job)
                job.parts_s = balance(0.0, job.parts_s, last.parts_s)
                skipped, last = last, Done(0.0)
            if not isinstance(last, Done):
                break
            warnings |= dict.fromkeys(last.warnings)
            last = replace(last, warnings=(*warnings, *say(job.skipped)))
            if order is not job.turns[-1][0]:
                job.parts_s = balance(0.0, job.parts_s, last.parts_s)
        if len(job.skipped) == sum(request.image_count for request in job.requests):
            last = replace(skipped, parts_s={})
        self._queue.settle(job, cost / (job.cost or 1.0))
        self._pace.note(cost, balance(0.0, job.parts_s, last.parts_s))
        return last

    def _draw(self, job: LocalJob, order: Order, first: int) -> tuple[Done | Failed | Cancelled, float, int]:
        """How one order ended, the share of its work, 0..1, that was done, and how many of its pictures are behind.
        Its pictures have numbers from ``first`` on, and go to the saving thread on the way."""
        batch_steps = max(order.steps // order.request.repeat, 1)
        begun = reached = batch_steps * (order.finished // order.request.count)
        step_s, share, drawn = 0.0, 0.0, order.finished
        job.draw_on()
        events = self._filters.sift(self._worker.draw(order), job.visitor)
        if job.is_cancelled() or job.skips:  # since it was taken
            self._worker.cancel()
        for event in events:
            if isinstance(event, TERMINAL):
                behind = (reached - 1) // batch_steps * order.request.count  # a filter may have kept pictures back
                return job.counted(event, order, first), 1.0 if isinstance(event, Done) else share, max(drawn, behind)
            self._count(event, reached)
            self._watchdog.ping(isinstance(event, Step))
            if isinstance(event, Image):
                drawn = event.index + 1
                event = replace(event, index=first + event.index)
                if event.index in {picture.index for picture in job.images}:  # of a batch that was saved in part
                    continue
                self._saver.afterwards(partial(self._last_size.note, event.recipe.request, step_s))
            if isinstance(event, Image) and job.keep:
                self._saver.save(job, event)
            else:
                job.publish(job.counted(event, order, first))
            if isinstance(event, Step):
                reached, step_s = event.index, event.seconds / event.total
                share = (reached - begun) / max(event.total - begun, 1)
                self._keeper.step(job)
                if reached == begun + 2 and (upcoming := self._queue.upcoming()):
                    self._worker.prepare(upcoming.turns[0][0])
        return Failed("the worker ended without saying how"), share, drawn

    def _watch(self) -> None:
        self._recover()
        while not self._closed.wait(CHECK_EVERY_S):
            self.check_device()
            self._keeper.check()

    def check_device(self) -> None:
        """Has the running job say it where the device has stopped answering."""
        if (job := self._running) and (trouble := self._watchdog.trouble):
            job.publish(Loading(trouble, 0.0))

    def _load_default(self) -> None:
        self._watchdog.begin()
        try:
            for _ in self._worker.load(self._last_size.plan_warm_up(self._settings.model, self._library.snapshot(0.0))):
                self._watchdog.ping()
                if self._closed.is_set():
                    self._worker.cancel()
            self._trouble = ""
        except Exception as error:  # the page stays up and says what is wrong
            if not self._closed.is_set():
                log_error("warm-up failed", error)
                self._trouble = for_people(error)
        self._watchdog.end()
        self._warm_at = time.perf_counter()

    def _finish(self, job: LocalJob, last: Done | Failed | Cancelled, drawn_at: float) -> None:
        """Ends the job when its last picture is saved; only the saving that came after the drawing took time."""
        said = self._saver.save_sheet(job)
        if isinstance(last, Done):
            unsaved = tuple({image.warning: None for image in job.images if image.warning})
            last = replace(last, warnings=last.warnings + said + unsaved)
        now = time.perf_counter()
        seconds = now - job.submitted_at
        parts_s = balance(seconds, job.parts_s, last.parts_s, {"save": now - drawn_at})
        self._end(job, replace(last, seconds=seconds, parts_s=parts_s))

    def _end(self, job: LocalJob, last: Event) -> None:
        if job.ended:  # it was given up while the device did not answer
            return
        if job.has_left and isinstance(last, Cancelled):  # by nobody but the server's end
            return
        self._count(last)  # before anybody learns of it
        self._keeper.end(job, last)
        job.publish(last)
        self._known.forget_old()

    def _count(self, event: Event, reached: int = 0) -> None:
        with self._lock:
            self._totals = self._totals.plus(event, reached)
