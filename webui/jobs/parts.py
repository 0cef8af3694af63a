"""A job in the making: its parts, which several workers may draw at the same time, and what comes of them in order."""

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from webui.core.events import Cancelled, Done, Failed, Image, LoraSwitch, Step
from webui.core.order import Order
from webui.core.stages import steps_of
from webui.jobs.job import LocalJob
from webui.jobs.skipping import left_out, say

MOST_LOST = 3
"""Where so many workers have ended over one and the same part, it is what ends them."""
Ended = Done | Failed | Cancelled


@dataclass(eq=False)
class Part:
    """Batches of one order that one worker draws: number ``place`` of its job. The order's pictures are numbered from
    ``first`` on.

    So far ``reached`` of its ``steps`` are done, as a share of the work ``done``, in ``seconds`` of sampling, since
    ``began_at`` by the owner's clock, and its order's pictures up to ``drawn``; ``lost`` workers have ended over it.
    The batch that is drawn now is left out where it ``is_skipped``. Its worker ends it where it ``is_stopped``.
    ``refused`` are the reasons for which pictures of it were not given out.
    """

    job: LocalJob
    place: int
    order: Order
    first: int
    reached: int = 0
    done: float = 0.0
    seconds: float = 0.0
    began_at: float = 0.0
    drawn: int = 0
    lost: int = 0
    is_skipped: bool = False
    is_stopped: bool = False
    refused: list[str] = field(default_factory=list)

    def cancelled(self) -> bool:
        """As the engine asks it."""
        return self.is_stopped

    @property
    def steps(self) -> int:
        """How many steps it takes."""
        return self.batch_steps * self.order.batches

    def note(self, event: Step) -> None:
        """A step of it is done; the event counts through all batches of its order, finished ones too."""
        behind = self.batch_steps * (self.order.finished // self.order.request.count)
        self.reached, self.seconds = event.index - behind, event.seconds
        share = event.index - behind if event.share is None else event.share * self.order.steps - behind
        self.done = share / self.steps if self.steps else 0.0

    def go_on(self, order: Order) -> None:
        """``order`` is what is left of it, which somebody is to begin."""
        self.order, self.reached, self.done, self.seconds = order, 0, 0.0, 0.0
        self.is_skipped = self.is_stopped = False

    @property
    def batch_steps(self) -> int:
        return sum(map(steps_of, self.order.stages))


class Making:
    """Not thread-safe: its owner holds a lock.

    ``waiting`` are the parts that nobody draws, ``begun`` those that somebody does. ``last`` is how the job ends,
    which nothing of it is begun after; ``drawn`` counts megapixel-evaluations (``Order.cost``), ``parts_s`` is the
    ledger of all workers. It ``was_shared`` where others' were drawn beside it: its ledger has their time, too.
    """

    def __init__(self, job: LocalJob, spread: bool) -> None:
        self.job = job
        self.waiting = deque(parts_of(job, spread))
        self.begun: set[Part] = set()
        self.last: Failed | Cancelled | None = None
        self.drawn, self.parts_s = 0.0, defaultdict[str, float](float)
        self.is_new, self.was_shared = True, False
        self._pictures = {picture.index for picture in job.images} | job.skipped
        self._steps = sum(order.steps for order in job.orders)
        self._behind = self._steps - sum(part.steps for part in self.waiting)
        self._count = sum(request.image_count for request in job.requests)
        self._skipped_at: Cancelled | None = None
        self._warnings: dict[str, None] = {}
        self._loras: LoraSwitch | None = None
        self._next = 0
        self._held: defaultdict[int, list[Image]] = defaultdict(list)
        self._over: set[int] = set()
        self._worked_s, self._first_at, self._last_at = 0.0, float("inf"), 0.0

    def begin(self, now: float) -> Part:
        """The next part is somebody's from ``now`` on, in seconds by any clock."""
        part = self.waiting.popleft()
        part.began_at, self._first_at = now, min(self._first_at, now)
        self.begun.add(part)
        return part

    def counted(self, part: Part, event: Step) -> Step:
        """A step of a part as one of the job: its parts' steps are counted together, and the seconds are those in
        which they were done, side by side."""
        part.note(event)
        index = self._behind + sum(each.reached for each in self.begun)
        done = self._behind + sum(each.done * each.steps for each in self.begun)
        seconds = (self.parts_s["steps"] + sum(each.seconds for each in self.begun)) / len(self.begun)
        share = None if event.share is None else done / self._steps
        return replace(event, index=index, total=self._steps, seconds=seconds, share=share)

    def in_order(self, part: Part, picture: Image) -> list[Image]:
        """The picture as one of the job, unless it is there already, or an earlier part is not over: then it is kept
        until that is."""
        part.drawn, picture = picture.index + 1, replace(picture, index=part.first + picture.index)
        if picture.index in self._pictures:
            return []
        self._pictures.add(picture.index)
        if part.place == self._next:
            return [picture]
        self._held[part.place].append(picture)
        return []

    def end(self, part: Part, last: Ended, now: float) -> list[Image]:
        """The part is over; gives the pictures that were kept for that."""
        self._leave(part, last, now)
        self._behind += part.steps if isinstance(last, Done) else part.reached
        if isinstance(last, Done):
            self._warnings |= dict.fromkeys(last.warnings)
            self._loras = last.loras or self._loras
        else:
            self.give_up(last)
        found = self._pass(part)
        return found if self.last is None else [*found, *(each for held in self._held.values() for each in held)]

    def skip(self, part: Part, last: Cancelled, now: float) -> tuple[list[int], list[Image]]:
        """The batch that the part was at is left out, and the rest goes on; its pictures' numbers, and the pictures
        that were kept until the part is over, where it is."""
        self._leave(part, last, now)
        behind = part.order.finished + max(part.reached - 1, 0) // part.batch_steps * part.order.request.count
        numbers, rest = left_out(part.order, max(part.drawn, behind))  # a filter may have kept pictures back
        self._skipped_at = Cancelled(self._behind + part.reached, self._steps)
        self._behind += (rest.finished - part.order.finished) // part.order.request.count * part.batch_steps
        part.go_on(rest)
        if rest.batches > 0:
            self.waiting.appendleft(part)
        return [part.first + number for number in numbers], [] if rest.batches > 0 else self._pass(part)

    def _pass(self, part: Part) -> list[Image]:
        """The pictures that were kept until the part is over, which it is now."""
        self._over.add(part.place)
        found: list[Image] = []
        while self._next in self._over:
            self._next += 1
            found += self._held.pop(self._next, ())
        return found

    def give_up(self, last: Failed | Cancelled) -> None:
        """Nothing more of it is begun; what it fails by is told before what it was stopped by."""
        if self.last is None or isinstance(last, Failed):
            self.last = last
        self.waiting.clear()

    def take_back(self, part: Part, now: float) -> None:
        """The part's worker has ended; another one is to draw what is left of it."""
        self._leave(part, Cancelled(), now)
        count, finished = part.order.request.count, part.order.finished
        end = finished + count * part.order.batches
        while finished < end and all(part.first + finished + k in self._pictures for k in range(count)):
            finished += count
        self._behind += (finished - part.order.finished) // count * part.batch_steps
        part.go_on(replace(part.order, finished=finished))
        part.lost += 1
        self.waiting.appendleft(part)

    def _leave(self, part: Part, last: Ended, now: float) -> None:
        self.begun.discard(part)
        self.drawn += part.order.cost * (1.0 if isinstance(last, Done) else part.done)
        for name, seconds in last.parts_s.items():
            self.parts_s[name] += seconds
        self._worked_s += now - part.began_at
        self._last_at = now

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is drawn any more."""
        return not self.begun and not self.waiting

    def outcome(self) -> Ended:
        """How the job ends. Its ledger is of what passed: where workers were at it side by side, all of it is that
        much less."""
        passed_s = self._last_at - self._first_at
        scale = passed_s / self._worked_s if self._worked_s > passed_s > 0 else 1.0
        parts_s = {name: scale * seconds for name, seconds in self.parts_s.items()}
        if self.last is None and self._skipped_at and len(self.job.skipped) == self._count:
            return replace(self._skipped_at, parts_s=parts_s)
        if self.last is None:
            return Done(0.0, parts_s, (*self._warnings, *say(self.job.skipped)), self._loras)
        if isinstance(self.last, Cancelled):
            return Cancelled(self._behind, self._steps, parts_s=parts_s)
        return replace(self.last, parts_s=parts_s)


def parts_of(job: LocalJob, spread: bool) -> Iterator[Part]:
    """The orders that have something to draw, in turn; ``spread`` over workers, a part is one batch."""
    found: list[tuple[Order, int]] = []
    there = {picture.index for picture in job.images} | job.skipped
    for order, first in job.turns:
        count, end = order.request.count, order.request.image_count
        if not spread and order.finished < end:
            found.append((order, first))
        for at in range(order.finished, end, count) if spread else ():
            if not there.issuperset(range(first + at, first + at + count)):
                found.append((replace(order, finished=at, until=at + count), first))
    return (Part(job, place, order, first) for place, (order, first) in enumerate(found))
