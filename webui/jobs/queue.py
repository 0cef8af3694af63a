"""Whose turn it is among the jobs that wait. Knows nothing of devices.

The visitor who was served least in the last hour is next, and of one visitor's jobs the one that came first. So
somebody who sends very many jobs delays the first one of somebody else by no more than the job that runs.

Newcomers, who were served nothing yet, are next before all others. A newcomer costs nothing, so one person can be many:
they take turns by the address that they come from, and where many have the same, or none is known, every second turn is
that of the one who came last. Those who are really there wait for each other then, and not for all who were made up.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace
from typing import Generic, Protocol, TypeVar

from webui.core.hosting import HOUR_S, Hosting, Use
from webui.core.visitor import OWNER, Visitor
from webui.jobs.budget import check, check_origin
from webui.jobs.protocols import QueueFull

MAX_WAITING = 100
"""Jobs of the owner. Those of guests are counted by the host's limits."""
MAX_PIXEL_BYTES = 768 * 2**20
"""Memory that the start pictures of one visitor's waiting jobs take: one batch of the img2img page, at least."""
MAX_PIXEL_BYTES_IN_ALL = 2 * 2**30
"""Those of all guests together."""


CROWD = 8
"""So many newcomers of one address come in their order."""


class Waiting(Protocol):
    """What the queue asks of a job.

    ``cost`` is in megapixel-evaluations (``Order.cost``), ``pixel_bytes`` what its pictures take of the memory.
    """

    @property
    def id(self) -> str: ...
    @property
    def visitor(self) -> Visitor: ...
    @property
    def cost(self) -> float: ...
    @property
    def pixel_bytes(self) -> int: ...


J = TypeVar("J", bound=Waiting)
Turn = tuple[float, int, J, str]
"""What a visitor was served, and of their next job the number; the job, and whose it is."""


@dataclass
class _Served:
    """What somebody got, and when, by the queue's clock."""

    at_s: float
    cost: float


@dataclass
class _Line(Generic[J]):
    """One visitor's jobs with their numbers in the order of arrival, and what they were served."""

    waiting: deque[tuple[int, J]] = field(default_factory=deque)
    served: deque[_Served] = field(default_factory=deque)

    def forget(self, now_s: float) -> None:
        """What is older than an hour; and, after a clock that went back, what is yet to come."""
        while self.served and not 0 <= now_s - self.served[0].at_s < HOUR_S:
            self.served.popleft()

    @property
    def cost(self) -> float:
        return sum(entry.cost for entry in self.served)

    def use(self, now_s: float) -> Use:
        self.forget(now_s)
        served = tuple((now_s - entry.at_s, entry.cost) for entry in self.served)
        return Use(len(self.waiting), sum(job.cost for _, job in self.waiting), served)


class Queue(Generic[J]):
    """Thread-safe. ``tell`` is called with a job and its place, 1 for the next, whenever that changes.

    ``clock`` is in seconds and does not jump: the time of day has no say in whose turn it is. By what the host decides
    (``hosting``) guests' jobs are let in, and wait while they are paused. ``changed`` is its lock, and is told whenever
    a job may have become ready.
    """

    def __init__(
        self,
        tell: Callable[[J, int], None],
        clock: Callable[[], float] = time.monotonic,
        hosting: Hosting | None = None,
    ) -> None:
        self._tell, self._clock, self._hosting = tell, clock, hosting or Hosting()
        self._lines: dict[str, _Line[J]] = {}
        self._visitors: dict[str, str] = {}  # of the jobs that wait; a job keeps the place in which it was sent
        self._places: Mapping[str, int] = {}
        self._running: dict[str, _Served] = {}
        self._welcomed: dict[str, deque[float]] = {}  # when newcomers were served, by where they came from
        self.changed = threading.Condition(threading.RLock())
        self._number = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._visitors)

    def put(self, job: J, accepted: bool = False) -> None:
        """Lines the job up; raises QueueFull, OverBudget, unless it was accepted before, or the queue is closed."""
        with self.changed:
            if self._closed:
                raise QueueFull("the server is shutting down")
            line = self._lines.setdefault(job.visitor.turn, _Line())
            if not accepted:
                self._check_room(job, line)
                self._check_pixels(job, line)
            self._number += 1
            line.waiting.append((self._number, job))
            self._visitors[job.id] = job.visitor.turn
            self._tell_places()
            self.changed.notify_all()

    def take(self, pick: Callable[[Iterator[J]], J | None] = lambda jobs: next(jobs, None)) -> J | None:
        """The job that is picked of those whose turn can come, in the order of their turns, which counts as served
        from now on; None where none is, or after ``close``."""
        with self.changed:
            if self._closed or (job := pick(self._ready())) is None:
                return None
            self._running[job.id] = entry = _Served(self._clock(), job.cost)
            line = self._remove(job)
            if not line.served:
                self._welcomed.setdefault(_origin(job.visitor), deque()).append(entry.at_s)
            line.served.append(entry)
            self._tell_places()
            return job

    def settle(self, job: J, share: float) -> None:
        """The job that was taken has ended after this share of its work, 0..1."""
        with self.changed:
            if entry := self._running.pop(job.id, None):
                entry.cost *= min(max(share, 0.0), 1.0)

    def drop(self, job: J) -> bool:
        """Takes the job back; false where it does not wait (any more)."""
        with self.changed:
            if job.id not in self._visitors:
                return False
            self._remove(job)
            self._tell_places()
            return True

    def move(self, job: J, before: str | None) -> list[J]:
        """Puts a job that waits before that one of the same visitor's, or behind all of theirs.

        Returns theirs in their new order; none where that cannot be done. The places that they have among those of
        others stay the same.
        """
        with self.changed:
            line = self._lines.get(self._visitors.get(job.id, ""))
            theirs = [other for _, other in line.waiting if other.visitor.id == job.visitor.id] if line else []
            rest = {other.id: other for other in theirs if other.id != job.id}
            if line is None or before not in (None, *rest):
                return []
            at = len(rest) if before is None else list(rest).index(before)
            order = list(rest.values())
            order.insert(at, job)
            moved = iter(order)
            line.waiting = deque((number, next(moved) if each in theirs else each) for number, each in line.waiting)
            self._tell_places()
            return order

    def upcoming(self) -> J | None:
        """The job whose turn it would be now."""
        with self.changed:
            return next(self._ready(), None)

    def uses(self) -> Mapping[str, Use]:
        """What each visitor with jobs in the last hour uses, by their turns' names."""
        with self.changed:
            return {name: line.use(self._clock()) for name, line in self._lines.items()}

    def positions(self) -> Mapping[str, int]:
        """The places of all jobs that wait, by their ids, from 1: in which order they are taken if none comes."""
        with self.changed:
            return {job.id: place for place, job in enumerate(self._turns(), start=1)}

    def wake(self) -> None:
        """Has whoever waits for a job look up."""
        with self.changed:
            self.changed.notify_all()

    def close(self) -> list[J]:
        """Takes and gives no more; returns what waits still, in its order."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()
            return list(self._turns())

    def _check_room(self, job: J, line: _Line[J]) -> None:
        if job.visitor.is_owner:
            if len(line.waiting) >= MAX_WAITING:
                raise QueueFull(f"the queue is full: {MAX_WAITING} jobs wait; try again later")
            return
        if origin := job.visitor.origin:
            waiting = sum(other.visitor.origin == origin for each in self._lines.values() for _, other in each.waiting)
            check_origin(self._hosting.now.limits, waiting)
        uses = self.uses()
        guests = [use for name, use in uses.items() if name != OWNER.turn]
        everybody = Use(
            sum(use.waiting for use in guests),
            sum(use.waiting_cost for use in guests),
            tuple(entry for use in guests for entry in use.served),
        )
        check(self._hosting.now.limits, job.cost, uses[job.visitor.turn], everybody)

    def _check_pixels(self, job: J, line: _Line[J]) -> None:
        guests = [each for name, each in self._lines.items() if name != OWNER.turn]
        lines = (((line,), MAX_PIXEL_BYTES), (() if job.visitor.is_owner else guests, MAX_PIXEL_BYTES_IN_ALL))
        for some, limit in lines if job.pixel_bytes else ():
            if sum(other.pixel_bytes for each in some for _, other in each.waiting) + job.pixel_bytes > limit:
                raise QueueFull(
                    f"the start pictures of jobs that wait may take {limit // 2**20} MB of memory; try again later"
                )

    def _ready(self) -> Iterator[J]:
        paused = self._hosting.now.paused
        return (job for job in self._turns() if job.visitor.is_owner or not paused)

    def _remove(self, job: J) -> _Line[J]:
        line = self._lines[self._visitors.pop(job.id)]
        line.waiting = deque(entry for entry in line.waiting if entry[1].id != job.id)
        return line

    def _turns(self) -> Iterator[J]:
        """All jobs in the order in which they are taken, if nobody sends another one."""
        now_s = self._clock()
        for visitor, line in list(self._lines.items()):
            line.forget(now_s)
            if not line.waiting and not line.served:
                del self._lines[visitor]
        lines = {visitor: iter(line.waiting) for visitor, line in self._lines.items() if line.waiting}
        firsts = [(self._lines[visitor].cost, *next(line), visitor) for visitor, line in lines.items()]
        newcomers = [first for first in firsts if not self._lines[first[-1]].served]
        turns = [first for first in firsts if self._lines[first[-1]].served]
        for cost, _, job, visitor in self._welcome(newcomers, now_s):
            yield job
            if (following := next(lines[visitor], None)) is not None:
                turns.append((cost + job.cost, *following, visitor))
        heapify(turns)
        while turns:
            cost, _, job, visitor = turns[0]
            yield job
            if (following := next(lines[visitor], None)) is not None:
                heapreplace(turns, (cost + job.cost, *following, visitor))
            else:
                heappop(turns)

    def _welcome(self, newcomers: list[Turn[J]], now_s: float) -> list[Turn[J]]:
        """The newcomers in the order of their turns."""
        for origin, times in list(self._welcomed.items()):
            while times and not 0 <= now_s - times[0] < HOUR_S:
                times.popleft()
            if not times:
                del self._welcomed[origin]
        origins: dict[str, deque[Turn[J]]] = {}
        for turn in sorted(newcomers, key=_arrival):
            origins.setdefault(_origin(turn[2].visitor), deque()).append(turn)
        ranked: list[tuple[int, int, Turn[J]]] = []
        for origin, those in origins.items():
            for rank in itertools.count(len(self._welcomed.get(origin, ()))):
                if not those:
                    break
                turn = those.pop() if rank % 2 and len(those) > CROWD else those.popleft()
                ranked.append((rank, _arrival(turn), turn))
        return [turn for _, _, turn in sorted(ranked, key=lambda entry: entry[:2])]

    def _tell_places(self) -> None:
        before, self._places = self._places, self.positions()
        for job in self._turns():
            if before.get(job.id) != self._places[job.id]:
                self._tell(job, self._places[job.id])


def _arrival(turn: Turn[J]) -> int:
    return turn[1]


def _origin(visitor: Visitor) -> str:
    return OWNER.id if visitor.is_owner else visitor.origin
