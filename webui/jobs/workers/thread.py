"""An engine in this process, at work on the thread that asks."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from webui.core.engine_options import EngineOptions
from webui.core.errors import RequestError
from webui.core.events import TERMINAL, Event, Failed, Loading
from webui.core.order import Order
from webui.jobs.trouble import for_people, log_error
from webui.jobs.watchdog import is_lost
from webui.jobs.workers.worker import S, WorkerStatus
from webui.process import importing

if TYPE_CHECKING:
    from webui.engine.manager import PipelineManager
    from webui.engine.together import Said

E = TypeVar("E")
RESTART_NEEDED = "Restart needed: the GPU reported an error from which this program cannot recover."

log = logging.getLogger(__name__)


class Flag(Protocol):
    """What cancels: an event of ``threading``, or what stands for one."""

    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...


class ThreadWorker:
    """See ``Worker``. The engine is imported when it is needed first, on the thread that draws."""

    def __init__(
        self, options: EngineOptions, manager: "PipelineManager | None" = None, cancelled: Flag | None = None
    ) -> None:
        self._options, self._manager = options, manager
        self._cancelled = cancelled or threading.Event()
        self._lost = ""

    def draw(self, order: Order) -> Iterator[Event]:
        """See ``Worker``."""
        self._cancelled.clear()
        return self._events(lambda manager: manager.draw(order, self._cancelled.is_set))

    def draw_together(self, first: S, more: Callable[[], S | None]) -> Iterator[tuple[S, Event]]:
        """See ``SharedWorker``; what starts the engine is drawn by itself."""
        self._cancelled.clear()

        def is_over(one: S) -> bool:
            return self._cancelled.is_set() or one.cancelled()

        if (there := self._manager) is None or self._lost:
            events = self._events(lambda manager: manager.draw(first.order, partial(is_over, first)))
            return ((first, event) for event in events)

        def meet(one: S, joins: bool) -> "tuple[S, Iterator[Said]]":
            return one, self._events(lambda manager: manager.meet(one.order, partial(is_over, one), joins))

        def joining() -> "tuple[S, Iterator[Said]] | None":
            return None if (one := more()) is None else meet(one, True)

        return there.draw_together(*meet(first, False), joining)

    def cancel(self) -> None:
        """See ``Worker``."""
        self._cancelled.set()

    def load(self, order: Order) -> Iterator[Loading]:
        """See ``Worker``."""
        self._cancelled.clear()
        first = order.passes[0]
        try:
            manager = self._engine()
            yield from manager.load(first.model, first.lenders, self._cancelled.is_set)
            manager.warm_up(order)
        except Exception as error:
            self._note(error)
            raise

    def prepare(self, order: Order) -> None:
        """See ``Worker``; where it fails, the job itself will say why."""
        try:
            self._engine().prepare(order)
        except Exception as error:
            log.info("could not prepare the next job: %s", error)

    def status(self) -> WorkerStatus:
        """See ``Worker``."""
        if (manager := self._manager) is None:
            return WorkerStatus(lost=self._lost)
        memory_bytes = {} if self._lost else manager.memory_bytes
        return WorkerStatus(
            manager.device_description,
            manager.model_name,
            manager.memory_plan,
            memory_bytes,
            self._lost,
            manager.model_names,
            room=None if self._lost else manager.room,
        )

    def close(self) -> None:
        """See ``Worker``; the model's memory is given back with that of the process."""
        self._cancelled.set()

    def _events(self, draw: "Callable[[PipelineManager], Iterator[E]]") -> "Iterator[E | Event]":
        started = time.perf_counter()
        if self._lost:
            yield Failed(self._lost)
            return
        try:
            if self._manager is None:
                yield Loading("Starting the engine", 0.0)
            manager = self._engine()
            starting_s = time.perf_counter() - started
            for event in draw(manager):
                if isinstance(event, TERMINAL):
                    parts_s = dict(event.parts_s)
                    yield replace(event, parts_s=parts_s | {"load": parts_s.get("load", 0.0) + starting_s})
                    return
                yield event
            raise RuntimeError("the engine ended without saying how")
        except RequestError as error:
            spent_s = self._spent_s()
            yield Failed(str(error), bad_input=True, parts_s=spent_s, place=error.field, mend=error.mend)
        except Exception as error:  # whatever it is, the job must end and the next one must run
            log_error(f"drawing failed after {time.perf_counter() - started:.1f} s", error)
            self._note(error)
            yield Failed(self._lost or for_people(error), parts_s=self._spent_s())

    def _note(self, error: BaseException) -> None:
        """From an error on that the device does not recover from, nothing is drawn any more."""
        if is_lost(error):
            self._lost = RESTART_NEEDED

    def _spent_s(self) -> Mapping[str, float]:
        """What the engine had spent on what failed."""
        return dict(self._manager.parts_s) if self._manager else {}

    def _engine(self) -> "PipelineManager":
        if self._manager is None:
            with importing():
                from webui.engine.manager import PipelineManager

            self._manager = PipelineManager(self._options)
        return self._manager
