"""Takes work, keeps jobs, gives turns: a queue before a worker's thread, a registry of jobs, a saving thread behind.

A watching thread says when the device has stopped answering.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from webui.core.catalog import Catalog
from webui.core.events import Cancelled, Done, Event, Failed, Image, Queued, Step
from webui.core.hosting import Hosting, Use
from webui.core.ledger import Totals, balance
from webui.core.memory import Asked
from webui.core.order import Order
from webui.core.settings import Settings
from webui.core.visitor import OWNER, Visitor
from webui.core.work import Work
from webui.jobs.crew import Crew
from webui.jobs.filters import Filters
from webui.jobs.job import LocalJob
from webui.jobs.keeper import Keeper
from webui.jobs.last_size import LastSize
from webui.jobs.memory import check_int8, check_memory, tell_memory
from webui.jobs.pace import Pace
from webui.jobs.parts import Making
from webui.jobs.protocols import Job, QueueFull
from webui.jobs.queue import Queue
from webui.jobs.recovery import first_number, revive
from webui.jobs.registry import Registry
from webui.jobs.resolve import plan_job
from webui.jobs.saving import Saver
from webui.jobs.store import Store
from webui.jobs.texts import draw_examples
from webui.jobs.token_counts import count_tokens
from webui.jobs.trouble import for_people, log_error
from webui.jobs.workers.thread import ThreadWorker
from webui.jobs.workers.worker import Fleet, Worker, WorkerStatus
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
        workers: Worker | Mapping[str, Worker] | Fleet | None = None,
        store: Store | None = None,
        workspaces: Workspaces | None = None,
        hosting: Hosting | None = None,
    ) -> None:
        self._settings, self._library = settings, Library(settings)
        self._workspaces = workspaces or Workspaces(settings.data_dir, settings.out)
        self._keeper, self._is_ready = Keeper(store, self._workspaces), threading.Event()
        hosting = hosting or Hosting()
        self._queue: Queue[LocalJob] = Queue(lambda job, place: job.publish(Queued(place)), hosting=hosting)
        hosting.watch(self._queue.wake)
        self._known = Registry(self._keeper, self._workspaces)
        self._lock = threading.Lock()
        self._closed, self._may_draw = threading.Event(), store is None
        self._plan: Callable[[], Order] | None = None
        self._filters = Filters(settings.filters_dir)
        self._totals = Totals()
        self._last_size = LastSize(settings.cache_dir / "last-size.json")
        self._pace = Pace(settings.cache_dir / "pace.json")
        self._saver = Saver(settings, self._workspaces, self._keeper.claim)
        self._fleet = workers if isinstance(workers, Fleet) else None
        if isinstance(workers, Fleet):
            workers = {}
        elif not isinstance(workers, Mapping):
            workers = {"": workers or ThreadWorker(settings.engine_options)}
        self._crew = Crew(workers, self._queue, self, self._filters, self._fleet is not None, settings.together)
        if self._fleet:
            self._fleet.start(self._crew)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def catalog(self, max_age_s: float = 0.0, visitor: Visitor = OWNER) -> Catalog:
        """The visitor's files that were on disk so long ago at most, and every sampler with its schedules."""
        return Catalog.of(self._see(visitor, max_age_s))

    def reload(self) -> None:
        """The next look at the files walks all folders, whatever their times say."""
        self._library.reload()

    def warm_up(self) -> None:
        """Imports the engine and loads the default model while nobody waits; failures show in ``status``."""
        self._start(self._plan_warm_up)

    def start(self) -> None:
        """Draws from now on what it is sent and what an earlier one has left, with nothing made ready before."""
        with self._lock:
            self._may_draw = True
        self._start()

    def submit(self, work: Work, keep: bool = True, visitor: Visitor = OWNER) -> LocalJob:
        """Plans the whole job once, from the files that are there now; pictures are saved unless ``keep`` is false.

        Raises RequestError, also for what fits in no memory here, or QueueFull with too many waiting (``jobs.queue``)
        or after a GPU's last error.
        """
        submitted_at = time.perf_counter()
        files = self._see(visitor)
        self._pace.check(work, files)
        orders, grid = plan_job(work, files)
        self._filters.check((order.request for order in orders), visitor)
        check_int8(orders, (hand.worker.status() for hand in self._crew.hands))
        idle = self._crew.idle
        if all(isinstance(worker, ThreadWorker) for worker in idle):  # others say how they were when they last worked
            check_memory(orders, [worker.status() for worker in idle])
        job = LocalJob(orders, self._stop, submitted_at, keep, visitor, grid=grid)
        if lost := self._crew.lost:
            raise QueueFull(lost)
        self._is_ready.wait(READY_S)
        self._known.add(job)
        try:
            if keep:
                self._keeper.accept(job)
            self._queue.put(job)
        except BaseException:
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
        workers = {hand.name: hand.worker.status() for hand in self._crew.hands}
        one = next((each for each in workers.values() if each.model), next(iter(workers.values()), WorkerStatus()))
        trouble = (
            (self._fleet.trouble if self._fleet else "") or self._crew.lost or self._crew.silent or self._crew.trouble
        )
        several = {"workers": self._crew.describe()} if self._fleet or len(workers) > 1 else {}
        return {
            "status": "degraded" if trouble else "ok" if one.model else "loading",
            "device": f"{len(workers)} worker{'s' * (len(workers) != 1)}" if several else one.device,
            "model": one.model,
            "models": list(dict.fromkeys(name for each in workers.values() for name in each.models)),
            "memory": one.memory,
            "waiting": len(self._queue),
            "running": bool(self._crew.jobs),
            **({"memory_bytes": one.memory_bytes} if one.memory_bytes else {}),
            **several,
            **{key: said for key, said in (("trouble", trouble), ("warning", self._keeper.warning)) if said},
        }

    def tell_memory(self, asked: Asked, visitor: Visitor = OWNER) -> Mapping[str, object]:
        """See ``jobs.protocols.Executor``."""
        rooms = [hand.worker.status().room for hand in self._crew.hands]
        return tell_memory(asked, self._see(visitor, LOOK_S), [room for room in rooms if room])

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
        jobs = self._queue.close() + self._crew.jobs
        for job in jobs:
            self._let_go(job)
        if not self._crew.close(timeout_s):  # a device that does not answer must not keep followers
            for job in jobs:
                if not job.has_left:
                    job.publish(Cancelled())
        if self._fleet:
            self._fleet.close()
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
            self._crew.skip(job)
            return
        if not self._queue.drop(job):
            if not job.ended:
                self._keeper.cancel(job)
            if not self._crew.cancel(job):
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
        self._start()

    def _start(self, plan: Callable[[], Order] | None = None) -> None:
        """Jobs are drawn once those of an earlier server are there, and may be."""
        with self._lock:
            self._may_draw, self._plan = self._may_draw or plan is not None, plan or self._plan
            if self._may_draw and self._is_ready.is_set():
                self._crew.start(self._plan)
                self._plan = None

    # ---- what the crew brings ----

    def begin(self, job: LocalJob) -> None:
        """See ``crew.Desk``."""
        waited_s = time.perf_counter() - job.submitted_at
        warming_s = max(self._crew.warm_at - job.submitted_at, 0.0)  # the default model was in the way, not other jobs
        job.parts_s = {"queue": waited_s - warming_s, "load": warming_s}
        job.begin()
        self._keeper.begin(job)

    def step(self, job: LocalJob, event: Step, new: int) -> None:
        """See ``crew.Desk``."""
        self._count(event, event.index - new)
        self._keeper.step(job)
        job.publish(event)

    def bring(self, job: LocalJob, picture: Image, step_s: float) -> None:
        """See ``crew.Desk``."""
        self._count(picture)
        self._saver.afterwards(partial(self._last_size.note, picture.recipe.request, step_s))
        if job.keep:
            self._saver.save(job, picture)
        else:
            job.publish(picture)

    def leave_out(self, job: LocalJob, numbers: Iterable[int]) -> None:
        """See ``crew.Desk``."""
        job.leave_out(numbers)
        self._keeper.skip(job)

    def finish(self, making: Making) -> None:
        """See ``crew.Desk``."""
        if not making.was_shared:
            self._pace.note(making.drawn, making.parts_s)
        self._saver.afterwards(partial(self._finish, making.job, making.outcome(), time.perf_counter()))

    def _watch(self) -> None:
        self._recover()
        while not self._closed.wait(CHECK_EVERY_S):
            self.check_device()
            self._keeper.check()

    def check_device(self) -> None:
        """Has the running jobs say it where a device has stopped answering."""
        self._crew.tell_silence()

    def _plan_warm_up(self) -> Order:
        return self._last_size.plan_warm_up(self._settings.model, self._library.snapshot(0.0))

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
