"""An engine in a process of its own: orders go in, events come back; what ends the process ends nobody else's work."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from webui.core.engine_options import EngineOptions
from webui.core.events import TERMINAL, Event, Failed, Image, Loading, Step
from webui.core.order import Order
from webui.jobs.workers.places import Place
from webui.jobs.workers.worker import Worker, WorkerLost, WorkerStatus, portable, signed

PATIENCE_S = 5.0
"""How long a process is waited for that was told to end, before it is killed."""

log = logging.getLogger(__name__)

What = Literal["draw", "load", "prepare"]


@dataclass(frozen=True)
class _End:
    """A call is over; ``error`` is what it raised."""

    error: Exception | None = None


@dataclass
class _Child:
    """A process at work, as its parent has it. ``cancelled`` is a byte that both see: a lock in its place would stay
    shut where the process dies with it."""

    process: BaseProcess
    pipe: Connection
    cancelled: Any


class ProcessWorker:
    """See ``Worker``. The process starts with the first order, and again with the next one where it has ended.

    ``draw`` and ``load`` raise WorkerLost where the process ends under them.
    """

    def __init__(self, options: EngineOptions, place: Place) -> None:
        self._options, self._place = replace(options, device=place.device), place
        self._child: _Child | None = None
        self._status = WorkerStatus()
        self._lock = threading.Lock()
        self._closed = False

    def draw(self, order: Order) -> Iterator[Event]:
        """See ``Worker``."""
        child = self._start()
        child.cancelled.value = False
        return self._events(child, order)

    def cancel(self) -> None:
        """See ``Worker``."""
        if child := self._child:
            child.cancelled.value = True

    def load(self, order: Order) -> Iterator[Loading]:
        """See ``Worker``."""
        child = self._start()
        child.cancelled.value = False
        for event in self._ask(child, "load", order):
            if isinstance(event, Loading):
                yield event

    def prepare(self, order: Order) -> None:
        """See ``Worker``: the process does it between two steps."""
        if child := self._child:
            try:
                child.pipe.send(("prepare", order))
            except OSError as error:  # its end is seen by whoever waits for its events
                log.info("could not prepare the next job: %s", error)

    def status(self) -> WorkerStatus:
        """See ``Worker``: as the process said last."""
        return self._status

    def close(self) -> None:
        """See ``Worker``; a process that does not end by itself is killed."""
        with self._lock:
            self._closed, child = True, self._child
        if child:
            child.cancelled.value = True
            self._end(child)

    def _events(self, child: _Child, order: Order) -> Iterator[Event]:
        last: Event = Failed("the worker ended without saying how")
        for event in self._ask(child, "draw", order):
            if isinstance(event, TERMINAL):
                last = event  # told once all is read, for nobody asks for more then
            else:
                yield event
        if self._status.lost:
            self._end(child)  # a new process has the device anew
        yield last

    def _ask(self, child: _Child, what: What, order: Order) -> Iterator[Event]:
        """What the process answers, its notes on itself taken out; raises what was raised there, and WorkerLost."""
        try:
            child.pipe.send((what, order))
            while not isinstance(answer := child.pipe.recv(), _End):
                if isinstance(answer, WorkerStatus):
                    self._status = answer
                else:
                    yield signed(answer, self._place.name)
        except (EOFError, OSError):
            raise WorkerLost(f"The worker on {self._place.name} has ended: {self._bury(child)}.") from None
        if answer.error:
            raise answer.error

    def _start(self) -> _Child:
        with self._lock:
            if self._closed:
                raise WorkerLost(f"The worker on {self._place.name} was closed.")
            if self._child is None or not self._child.process.is_alive():
                self._child = self._spawn()
            return self._child

    def _spawn(self) -> _Child:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        cancelled = context.RawValue("b", 0)
        arguments = (self._options, dict(self._place.variables), theirs, cancelled)
        process = context.Process(target=_serve, args=arguments, name=f"worker {self._place.name}", daemon=True)
        process.start()
        theirs.close()  # so that its death is an end of file here
        return _Child(process, ours, cancelled)

    def _bury(self, child: _Child) -> str:
        """Waits for the end of a process; how it was, for people."""
        self._end(child)
        code = child.process.exitcode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}" + (", perhaps for want of memory" if code == -9 else "")
        return f"status {code}"

    def _end(self, child: _Child) -> None:
        with self._lock:
            if self._child is child:
                self._child, self._status = None, replace(self._status, model=None, models=(), memory_bytes={}, lost="")
        child.pipe.close()  # which ends a process that waits
        child.process.join(PATIENCE_S)
        if child.process.is_alive():
            child.process.kill()
            child.process.join(PATIENCE_S)


class _Flag:
    """The byte of ``_Child.cancelled`` as the engine's thread reads it; the parent alone clears it."""

    def __init__(self, shared: Any) -> None:
        self._shared = shared

    def is_set(self) -> bool:
        return bool(self._shared.value)

    def set(self) -> None:
        self._shared.value = 1

    def clear(self) -> None:
        """Nothing: a cancel may have come already."""


class _Gone(Exception):
    """The parent has closed its end of the pipe, or is there no more."""


def _serve(options: EngineOptions, variables: Mapping[str, str], pipe: Connection, cancelled: Any) -> None:
    """The process: calls in, answers out, one call after the other, until the parent closes the pipe."""
    os.environ.update(variables)  # torch reads them when it is imported
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's to answer
    from webui.jobs.workers.thread import ThreadWorker

    worker = ThreadWorker(options, cancelled=_Flag(cancelled))
    try:
        while True:
            _answer(worker, *_hear(pipe), pipe)
    except _Gone:
        worker.close()


def _answer(worker: Worker, what: What, order: Order, pipe: Connection) -> None:
    if what == "prepare":
        worker.prepare(order)
        return
    error: Exception | None = None
    try:
        for event in worker.draw(order) if what == "draw" else worker.load(order):
            if not isinstance(event, Step) or event.index <= 1:
                _say(pipe, worker.status())
            _say(pipe, event)
            while isinstance(event, Step | Image) and pipe.poll():  # somebody's next order can be made ready
                _answer(worker, *_hear(pipe), pipe)
    except _Gone:
        raise
    except Exception as raised:  # the parent's to answer, whatever it is
        error = portable(raised)
    _say(pipe, worker.status())
    _say(pipe, _End(error))


def _say(pipe: Connection, what: object) -> None:
    try:
        pipe.send(what)
    except OSError:
        raise _Gone from None


def _hear(pipe: Connection) -> tuple[What, Order]:
    try:
        what, order = pipe.recv()
    except (EOFError, OSError):
        raise _Gone from None
    return what, order
