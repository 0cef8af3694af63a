"""A job: its event log, its watchers, its cancel flag."""

import asyncio
import contextlib
import random
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from webui.core.events import TERMINAL, Cancelled, Done, Event, Failed, Image, Loading, Queued, SavedImage, Step
from webui.core.grid import Grid, turns_of
from webui.core.images import Size
from webui.core.order import Order
from webui.core.request import Request
from webui.core.stages import ControlUse
from webui.core.visitor import OWNER, Visitor
from webui.core.work import Batch, Work
from webui.jobs.protocols import State

_STATES: dict[type, State] = {
    Queued: "queued",
    Loading: "loading",
    Step: "running",
    Image: "running",
    SavedImage: "running",
    Done: "done",
    Failed: "failed",
    Cancelled: "cancelled",
}
FEW_WATCHERS, TOLD_A_SECOND = 8, 400
_TRANSIENT = (Queued, Loading, Step)
E = TypeVar("E", bound=Event)


class LocalJob:
    """Shared between the thread that publishes and any number that follow.

    The log keeps every picture and the end, and of queue positions, loading and steps only the newest: a slow
    watcher misses steps, and publishing never waits for anyone. Numbers start at ``first`` and only grow.

    ``submitted_at`` is on the clock of ``time.perf_counter``; ``parts_s`` is the ledger of what happens outside the
    engine, kept by the thread that has the job. ``keep`` says whether its pictures are saved.

    The pictures of ``orders`` are numbered through. ``turns`` are the orders as they are drawn, each with the number of
    its first picture: as they come, or those of a ``grid`` so that models and LoRAs change least.
    """

    def __init__(
        self,
        orders: Sequence[Order],
        on_stop: "Callable[[LocalJob], None]",
        submitted_at: float | None = None,
        keep: bool = True,
        visitor: Visitor = OWNER,
        job_id: str = "",
        first: int = 1,
        grid: Grid | None = None,
        skipped: Iterable[int] = (),
    ) -> None:
        self.id = job_id or secrets.token_hex(16)
        self.orders, self.keep, self.visitor, self.grid = tuple(orders), keep, visitor, grid
        self.submitted_at = time.perf_counter() if submitted_at is None else submitted_at
        self.parts_s: dict[str, float] = {}
        self.workers: tuple[str, ...] = ()
        self.turns = turns_of(self.orders, grid)
        self.skipped = frozenset(skipped)
        self._on_stop = on_stop
        self._log: list[tuple[int, Event]] = []
        self._number = first - 1
        self._step: Step | None = None
        self._begun = False
        self._has_left = False
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._watchers: set[Callable[[], None]] = set()

    @property
    def request(self) -> Request:
        """What was asked for first, with nothing left open."""
        return self.orders[0].request

    @property
    def work(self) -> Work:
        """All that was asked for, with nothing left open."""
        return self.grid or Batch(self.requests)

    @property
    def requests(self) -> tuple[Request, ...]:
        """All that was asked for."""
        return tuple(order.request for order in self.orders)

    @property
    def controls(self) -> tuple[tuple[int, ControlUse, Size], ...]:
        """As in the protocol."""
        stages = [stage for stage in reversed(self.orders[0].passes) if stage.begin != "handover"]
        uses = [(number, use, stage.size) for stage in stages for number, use in enumerate(stage.controls)]
        return tuple(sorted(uses, key=lambda entry: entry[0]))

    @property
    def cost(self) -> float:
        """What its work comes to, in megapixel-evaluations."""
        return sum(order.cost for order in self.orders)

    @property
    def state(self) -> State:
        """Where the job is, by its last event."""
        with self._lock:
            return _STATES[type(self._log[-1][1])] if self._log else "queued"

    @property
    def position(self) -> int | None:
        """Its place among the jobs that wait, from 1; None for one that does not wait (any more)."""
        with self._lock:
            last = self._log[-1][1] if self._log else None
        return last.position if isinstance(last, Queued) and not self._begun else None

    def begin(self) -> None:
        """It does not wait any more, whatever it told last."""
        self._begun = True

    @property
    def progress(self) -> float:
        """See ``jobs.protocols.Job``."""
        return 1.0 if self.state == "done" else self._step.done if self._step else 0.0

    @property
    def preview(self) -> bytes | None:
        """See ``jobs.protocols.Job``."""
        return self._step.preview if self._step else None

    @property
    def is_followed(self) -> bool:
        """See ``jobs.protocols.Job``."""
        return bool(self._watchers)

    @property
    def ended(self) -> bool:
        """Whether the last event is there."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def has_left(self) -> bool:
        """Whether it goes on under another server."""
        return self._has_left

    @property
    def images(self) -> tuple[Image, ...]:
        """The pictures so far, in order."""
        with self._lock:
            found = [event for _, event in self._log if isinstance(event, Image)]
        return tuple(sorted(found, key=lambda image: image.index) if self.grid else found)

    @property
    def pixel_bytes(self) -> int:
        """Memory that the pictures hold, start picture and mask included."""
        inits = [request.init for request in self.requests if request.init]
        pictures = (picture for init in inits for picture in (init.image, init.mask))
        given = {id(picture): picture for picture in pictures}.values()  # a grid's cells share them
        drawn = (picture.image for picture in self.images if not isinstance(picture, SavedImage))
        held = [*drawn, *(picture for picture in given if picture)]
        return sum(4 * picture.width * picture.height for picture in held)

    def is_cancelled(self) -> bool:
        """The flag that the engine reads between steps."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Asks for an end within one step; does nothing to a job that ended."""
        self._cancelled.set()
        self._on_stop(self)

    def skip(self) -> None:
        """See ``jobs.protocols.Job``."""
        self._on_stop(self)

    def leave_out(self, numbers: Iterable[int]) -> None:
        """These pictures are not drawn."""
        self.skipped |= frozenset(numbers)

    def publish(self, event: Event) -> None:
        """Appends to the log and wakes the watchers; drops what comes after the end."""
        with self._lock:
            last = self._log[-1][1] if self._log else None
            if isinstance(last, TERMINAL):
                return
            if isinstance(last, _TRANSIENT):
                self._log.pop()
                if isinstance(last, Step) and isinstance(event, Step) and event.preview is None:
                    event = replace(event, preview=last.preview)
            self._number += 1
            self._step = event if isinstance(event, Step) else self._step
            self._log.append((self._number, event))
            watchers = tuple(self._watchers)
        for wake in watchers:
            wake()

    def leave(self) -> None:
        """Ends all watches without the job's end: it goes on under another server."""
        with self._lock:
            self._has_left = True
            watchers = tuple(self._watchers)
        for wake in watchers:
            wake()

    def follow(self, after: int = 0) -> Iterator[tuple[int, Event]]:
        """See ``jobs.protocols.Job``; blocks the calling thread while nothing happens."""
        changed = threading.Event()
        wake = changed.set
        with self._lock:
            self._watchers.add(wake)
        try:
            while True:
                changed.clear()
                for number, event in self._since(after):
                    after = number
                    yield number, event
                if self._is_over(after):
                    return
                changed.wait()
        finally:
            with self._lock:
                self._watchers.discard(wake)

    async def follow_async(self, after: int = 0) -> AsyncIterator[tuple[int, Event]]:
        """See ``jobs.protocols.Job``; leaving the iteration ends the watch, not the job."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there any more
                loop.call_soon_threadsafe(changed.set)

        with self._lock:
            self._watchers.add(wake)
        try:
            while True:
                changed.clear()
                for number, event in self._since(after):
                    after = number
                    yield number, event
                if self._is_over(after):
                    return
                await changed.wait()
                if (crowd := len(self._watchers)) > FEW_WATCHERS:  # each is told less often, so that others are heard
                    await asyncio.sleep(random.uniform(0.5, 1.5) * crowd / TOLD_A_SECOND)
        finally:
            with self._lock:
                self._watchers.discard(wake)

    def _is_over(self, after: int) -> bool:
        """Whether nothing behind number ``after`` will come any more."""
        with self._lock:
            seen = not self._log or self._log[-1][0] <= after
            return seen and (self._has_left or bool(self._log) and isinstance(self._log[-1][1], TERMINAL))

    def _since(self, after: int) -> list[tuple[int, Event]]:
        with self._lock:
            return [entry for entry in self._log if entry[0] > after]
