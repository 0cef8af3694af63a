"""Workers, each on a thread of its own, which take the jobs of a queue and draw them, alone or together."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import repeat

from webui.core.events import TERMINAL, Cancelled, Event, Failed, Image, Loading, Step
from webui.core.order import Order
from webui.jobs.filters import Filters
from webui.jobs.hand import Desk, Hand
from webui.jobs.job import LocalJob
from webui.jobs.joining import Joining
from webui.jobs.parts import MOST_LOST, Ended, Making, Part
from webui.jobs.placement import Habits, Passing, rank
from webui.jobs.queue import Queue
from webui.jobs.trouble import for_people, log_error
from webui.jobs.workers.worker import SharedWorker, Worker, WorkerLost

log = logging.getLogger(__name__)


class Crew:
    """See the module. Nothing is drawn before ``start``.

    ``trouble`` is why a worker could not be made ready, for people; ``warm_at`` when the last one was, on the clock of
    ``time.perf_counter``. One that ``grows`` has more workers later, for which jobs are taken to pieces too. So many
    pictures of several jobs as ``together`` are drawn at once, where a worker can.
    """

    def __init__(
        self,
        workers: Mapping[str, Worker],
        queue: Queue[LocalJob],
        desk: Desk,
        filters: Filters,
        grows: bool = False,
        together: int = 1,
    ) -> None:
        self.hands: tuple[Hand, ...] = ()
        self.trouble, self.warm_at = "", time.perf_counter()
        self._queue, self._desk, self._filters = queue, desk, filters
        self._passing: Passing[LocalJob] = Passing(len(workers) or 1)
        self._changed, self._grows, self._together = queue.changed, grows, together
        self._makings: dict[str, Making] = {}
        self._plan: Callable[[], Order] | None = None
        self._may_draw = self._closed = False
        self._threads: list[threading.Thread] = []
        for name, worker in workers.items():
            self.join(name, worker)

    def join(self, name: str, worker: Worker) -> None:
        """See ``workers.worker.Joined``."""
        hand = Hand(worker, name, shares=self._together > 1 and isinstance(worker, SharedWorker))
        thread = threading.Thread(target=self._work, args=(hand,), name=f"device {name}".strip(), daemon=True)
        with self._changed:
            if self._closed:
                return
            hand.is_cold = self._plan is not None
            self.hands = (*self.hands, hand)
            self._passing.workers = len(self.hands)
            self._threads = [each for each in self._threads if each.is_alive() or each.ident is None] + [thread]
        thread.start()

    def leave(self, name: str) -> None:
        """See ``workers.worker.Joined``; what it draws ends with it."""
        with self._changed:
            for hand in self.hands:
                hand.has_left = hand.has_left or hand.name == name
            self.hands = tuple(hand for hand in self.hands if not hand.has_left)
            self._passing.workers = max(len(self.hands), 1)
            self._changed.notify_all()

    def wake(self) -> None:
        """See ``workers.worker.Joined``."""
        with self._changed:
            self._changed.notify_all()

    def start(self, plan: Callable[[], Order] | None = None) -> None:
        """Jobs are drawn from now on; before them each worker makes ready what ``plan`` gives."""
        with self._changed:
            self._may_draw, self._plan = True, plan or self._plan
            for hand in self.hands if plan else ():
                hand.is_cold = True
            self._changed.notify_all()

    def describe(self) -> list[Mapping[str, object]]:
        """Each worker for ``/api/health``: its name and device, its model, whether it is at work, what is wrong."""
        found: list[Mapping[str, object]] = []
        for hand in self.hands:
            status, trouble = hand.worker.status(), hand.watchdog.trouble
            said = status.lost or status.away or trouble
            one = {"name": hand.name, "device": status.device, "model": status.model, "running": bool(hand.parts)}
            found.append(one | ({"trouble": said} if said else {}))
        return found

    @property
    def jobs(self) -> list[LocalJob]:
        """What is drawn now."""
        with self._changed:
            return [making.job for making in self._makings.values()]

    @property
    def idle(self) -> tuple[Worker, ...]:
        """All workers, while none of them is at work; else nothing."""
        with self._changed:
            return () if any(hand.is_busy for hand in self.hands) else tuple(hand.worker for hand in self.hands)

    @property
    def lost(self) -> str:
        """Why no worker will work any more, for people; empty while one does."""
        said = [hand.worker.status().lost for hand in self.hands]
        return said[0] if said and all(said) else ""

    @property
    def silent(self) -> str:
        """Which device does not answer any more, for people; empty where all do."""
        return next((hand.watchdog.trouble for hand in self.hands if hand.watchdog.trouble), "")

    def cancel(self, job: LocalJob) -> bool:
        """Ends what is drawn of the job, within a step; true where its device does not answer."""
        with self._changed:
            if (making := self._makings.get(job.id)) is None:
                return False
            making.give_up(Cancelled())
            self._stop(job)
            is_over = self._take_out(making)
            is_silent = any(hand.watchdog.silent_s is not None for hand, _ in self._drawing(job))
        if is_over:
            self._desk.finish(making)
        return is_silent

    def skip(self, job: LocalJob) -> None:
        """Leaves out what is drawn of the job, the first of it where several workers are at it, and goes on."""
        with self._changed:
            if making := self._makings.get(job.id):
                part = min([*making.begun, *making.waiting], key=lambda part: part.place)
                part.is_skipped = True
                for hand, drawn in self._drawing(job):
                    if drawn is part:
                        hand.stop(part)

    def close(self, timeout_s: float) -> bool:
        """Takes no more, ends what is drawn, and waits for the devices; whether all have answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for hand in self.hands:
            hand.worker.close()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def tell_silence(self) -> None:
        """Has jobs say it whose device has stopped answering."""
        for hand in self.hands:
            if trouble := hand.watchdog.trouble:
                for part in tuple(hand.parts):
                    part.job.publish(Loading(trouble, 0.0))

    # ---- the thread of a hand ----

    def _work(self, hand: Hand) -> None:
        while (what := self._next(hand)) is not None:
            hand.watchdog.begin()
            if isinstance(what, Part):
                self._draw(hand, what)
            else:
                self._load(hand, what)
            hand.watchdog.end()

    def _next(self, hand: Hand) -> Part | Callable[[], Order] | None:
        """What it does next; None where there is no more."""
        with self._changed:
            hand.is_busy = False
            hand.parts.clear()
            self._changed.notify_all()  # somebody else may leave a part to this one now, or this one to them below
            while not self._closed and not hand.has_left:
                if (
                    self._may_draw
                    and not hand.worker.status().away
                    and (what := self._plan if hand.is_cold else self._choose(hand))
                ):
                    hand.is_cold, hand.is_busy = False, True
                    self._changed.notify_all()
                    return what
                self._changed.wait()
            return None

    def _choose(self, hand: Hand) -> Part | None:
        """The part that it draws now, if none of the others who have nothing to do should."""
        for making in self._makings.values():
            if making.waiting and self._is_best(hand, making.waiting[0].order):
                return self._hand_out(hand, making)
        while job := self._queue.take(lambda jobs: self._pick(hand, jobs)):
            if part := self._open(hand, job):
                return part
        return None

    def _open(self, hand: Hand, job: LocalJob) -> Part | None:
        """The first part of a job that was taken; None where all its pictures are there."""
        making = self._makings[job.id] = Making(job, spread=self._grows or len(self.hands) > 1)
        if making.waiting:
            return self._hand_out(hand, making)
        self._desk.begin(job)
        self._take_out(making)
        self._desk.finish(making)
        return None

    def _join(self, hand: Hand) -> Part | None:
        """A part that it draws beside what it draws."""
        with self._changed:
            if self._closed or hand.has_left or not hand.parts:
                return None
            joining = Joining(hand.parts, self._makings.values(), self._together)
            if making := joining.making():
                part: Part | None = self._hand_out(hand, making)
            else:
                job = self._queue.take(joining.job)
                part = self._open(hand, job) if job else None
            for each in hand.parts if part else ():
                self._makings[each.job.id].was_shared = True
        if part:
            self._begin(part)
            self._stop_late(hand, part)
        return part

    def _pick(self, hand: Hand, jobs: Iterable[LocalJob]) -> LocalJob | None:
        job, passed = self._passing.choose(jobs, hand.worker.status(), hand.habits)
        if job is None or not self._is_best(hand, job.orders[0]):
            return None
        self._passing.note(job, passed)
        return job

    def _is_best(self, hand: Hand, order: Order) -> bool:
        idle = [each for each in self.hands if not each.is_busy and not each.is_cold]
        present = [each for each in idle if not each.worker.status().away]
        able = [each for each in present if not each.worker.status().lost] or present
        return max(able, key=lambda each: rank(order, each.worker.status(), each.habits), default=None) is hand

    def _hand_out(self, hand: Hand, making: Making) -> Part:
        part = making.begin(time.perf_counter())
        hand.habits.note(part.order)
        hand.parts.append(part)
        self._tell_workers(part.job)
        return part

    def _load(self, hand: Hand, plan: Callable[[], Order]) -> None:
        try:
            for _ in hand.worker.load(plan()):
                hand.watchdog.ping()
                if self._closed:
                    hand.worker.cancel()
            self.trouble = ""
        except Exception as error:  # the page stays up and says what is wrong
            if not self._closed:
                log_error(f"warm-up failed on {hand.name}", error)
                self.trouble = for_people(error)
        self.warm_at = time.perf_counter()

    def _draw(self, hand: Hand, first: Part) -> None:
        """All that is drawn from a part on, until the worker has nothing more to do."""
        last: Ended | WorkerLost = Failed("the worker ended without saying how")
        try:
            for part, event in self._events(hand, first):
                if part in hand.parts:  # else it has failed here, and its worker does not know yet
                    self._take(hand, part, event)
                if not hand.parts:
                    return
        except WorkerLost as error:
            log.error("%s", error)
            last = error
        except Exception as error:  # whatever it is, the jobs must end and the next one must run
            log_error(f"job {first.job.id} failed", error)
            last = Failed(for_people(error))
        for part in tuple(hand.parts):
            self._finish(hand, part, last)

    def _events(self, hand: Hand, first: Part) -> Iterator[tuple[Part, Event]]:
        """What the worker says of the part, and of those that join it."""
        self._begin(first)
        events: Iterator[tuple[Part, Event]]
        if hand.shares and isinstance(hand.worker, SharedWorker):
            events = hand.worker.draw_together(first, lambda: self._join(hand))
        else:
            events = zip(repeat(first), hand.worker.draw(first.order), strict=False)
        self._stop_late(hand, first)
        return events

    def _begin(self, part: Part) -> None:
        if (making := self._makings[part.job.id]).is_new:
            making.is_new = False
            self._desk.begin(part.job)

    def _stop_late(self, hand: Hand, part: Part) -> None:
        """Ends what was to end since it was taken."""
        if self._makings[part.job.id].last or part.is_skipped or self._closed:
            hand.stop(part)

    def _take(self, hand: Hand, part: Part, event: Event) -> None:
        """What the worker says of a part; where that cannot be taken, the part has failed, and no other has."""
        ended: Ended | None = None
        try:
            sifted = self._filters.sift(event, part.job.visitor, part.refused)
            if isinstance(sifted, TERMINAL):
                ended = sifted
            elif sifted:
                hand.watchdog.ping(isinstance(sifted, Step))
                with self._changed:
                    self._bring(self._makings[part.job.id], part, sifted)
                if isinstance(sifted, Step) and part.reached == 2 and (upcoming := self._queue.upcoming()):
                    hand.worker.prepare(upcoming.turns[0][0])
        except Exception as error:
            log_error(f"job {part.job.id} failed", error)
            ended = Failed(for_people(error))
        if ended:
            if not isinstance(event, TERMINAL):
                hand.stop(part)
            self._finish(hand, part, ended)

    def _bring(self, making: Making, part: Part, event: Event) -> None:
        if isinstance(event, Step):
            before = part.reached
            counted = making.counted(part, event)
            self._desk.step(part.job, counted, part.reached - before)
        elif isinstance(event, Image):
            step_s = part.seconds / max(part.reached, 1)
            for picture in making.in_order(part, event):
                self._desk.bring(part.job, picture, step_s)
        else:
            part.job.publish(event)

    def _finish(self, hand: Hand, part: Part, last: Ended | WorkerLost) -> None:
        """The same, whatever goes wrong in it: the job ends, and this thread takes the next one."""
        making = self._makings[part.job.id]
        try:
            self._end(hand, part, last)
        except Exception as error:
            log_error(f"job {part.job.id} could not be ended as it was drawn", error)
            self._break_off(hand, part, making, Failed(for_people(error)))

    def _break_off(self, hand: Hand, part: Part, making: Making, failed: Failed) -> None:
        """Ends a job without a look at what was drawn of it."""
        try:
            with self._changed:
                hand.let_go(part)
                making.begun.discard(part)
                making.give_up(failed)
                self._stop(part.job)
                self._take_out(making)
            if making.is_over:
                self._desk.finish(making)
        except Exception as error:  # nothing is left to be told
            log_error(f"job {part.job.id} could not be ended", error)

    def _end(self, hand: Hand, part: Part, last: Ended | WorkerLost) -> None:
        """After a part; the job ends with its last one."""
        job, now = part.job, time.perf_counter()
        with self._changed:
            making = self._makings[job.id]
            hand.let_go(part)
            self._tell_workers(job)
            if isinstance(last, WorkerLost):
                hand.habits = Habits()
                if making.last is None and not self._closed and part.lost + 1 < MOST_LOST:
                    making.take_back(part, now)
                    job.publish(Loading(f"{last} Drawn once more.", 0.0))
                    return
                last = Failed(str(last)) if making.last is None and not self._closed else Cancelled()
            if part.is_skipped and isinstance(last, Cancelled) and not (making.last or self._closed):
                numbers, pictures = making.skip(part, last, now)
                self._desk.leave_out(job, numbers)
            else:
                pictures = making.end(part, last, now)
            for picture in pictures:
                self._desk.bring(job, picture, 0.0)
            if making.last:
                self._stop(job)
            is_over = self._take_out(making)
        if is_over:
            self._desk.finish(making)

    def _take_out(self, making: Making) -> bool:
        """Whether nothing of it is drawn any more."""
        if making.is_over:
            self._queue.settle(making.job, making.drawn / (making.job.cost or 1.0))
            return self._makings.pop(making.job.id, None) is not None
        return False

    def _stop(self, job: LocalJob) -> None:
        for hand, part in self._drawing(job):
            hand.stop(part)

    def _tell_workers(self, job: LocalJob) -> None:
        job.workers = tuple(hand.name for hand, _ in self._drawing(job) if hand.name)

    def _drawing(self, job: LocalJob) -> list[tuple[Hand, Part]]:
        return [(hand, part) for hand in self.hands for part in tuple(hand.parts) if part.job is job]
