"""An engine in an actor of a Ray cluster: orders go in, events come back, files follow where they are not there."""

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from webui import __version__
from webui.core.engine_options import EngineOptions
from webui.core.errors import RequestError
from webui.core.events import TERMINAL, Cancelled, Event, Failed, Loading, Step
from webui.core.order import Order
from webui.jobs.workers.copies import Copies, Tree, chunks, moved, places_of_files, tree_of
from webui.jobs.workers.places import THREADS
from webui.jobs.workers.worker import WorkerLost, WorkerStatus, portable, signed

AGAIN_S = 20.0
"""How long after a worker could not start it is started again."""
SCARCE_S = 10.0
"""After so long a worker that has not started says what it waits for."""
ASK_S = 60.0
"""The longest that an answer without work behind it may take."""

log = logging.getLogger(__name__)

Call = Literal["draw", "load"]


@dataclass(frozen=True)
class Seat:
    """Where one worker of a cluster is: a card or some of the processor's cores of a node. ``name`` is for people."""

    name: str
    node_id: str
    device: str
    cores: int

    @property
    def options(self) -> Mapping[str, Any]:
        """What Ray is told of the actor."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        takes = {"num_gpus": 1, "num_cpus": 0} if self.device != "cpu" else {"num_cpus": self.cores}
        return {**takes, "scheduling_strategy": NodeAffinitySchedulingStrategy(self.node_id, soft=False)}


@dataclass(frozen=True)
class Said:
    """What an actor answers a call with, one after the other; ``error`` is what it raised."""

    event: Event | None = None
    status: WorkerStatus | None = None
    error: Exception | None = None


class Actor:
    """An engine with its files, in a process of Ray's. ``number`` counts the calls, so that a cancel is that of one."""

    def __init__(self, options: EngineOptions, cores: int, bound_bytes: int | None) -> None:
        os.environ.update(dict.fromkeys(THREADS, str(cores)))  # torch reads them when it is imported
        from webui.jobs.workers.thread import ThreadWorker

        folder = files_dir()
        self._copies = Copies(folder, bound_bytes)
        self._called = self._stopped = 0
        self._next: tuple[Order, tuple[Tree, ...]] | None = None
        self._worker = ThreadWorker(replace(options, cache_dir=folder.parent), cancelled=self)

    def hello(self) -> tuple[str, str]:
        """Darkroom's version, and the machine's name."""
        return __version__, socket.gethostname()

    def lacks(self, trees: tuple[Tree, ...]) -> list[str]:
        """See ``Copies``."""
        return self._copies.lacks(trees)

    def begin(self, digest: str, trees: tuple[Tree, ...]) -> None:
        """A file is sent now."""
        self._copies.begin(places_of_files(trees)[digest][0], trees)

    def add(self, digest: str, trees: tuple[Tree, ...], chunk: bytes) -> None:
        """The next of its bytes."""
        self._copies.add(places_of_files(trees)[digest][0], chunk)

    def work(self, call: Call, number: int, order: Order, trees: tuple[Tree, ...]) -> Iterator[Said]:
        """Draws or loads."""
        self._called, error = number, None
        try:
            here = self._here(order, trees)
            for event in self._worker.draw(here) if call == "draw" else self._worker.load(here):
                is_new = not isinstance(event, Step) or event.index <= 1
                yield Said(event, self._worker.status() if is_new else None)
                if (upcoming := self._next) and isinstance(event, Step):
                    self._next = None
                    self._worker.prepare(self._here(*upcoming))
        except Exception as raised:  # whoever asked answers for it, whatever it is
            error = portable(raised)
        yield Said(None, self._worker.status(), error)

    def prepare(self, order: Order, trees: tuple[Tree, ...]) -> None:
        """The next order: it is made ready between two steps, where its files are there."""
        self._next = None if self._copies.lacks(trees) else (order, trees)

    def cancel(self, number: int) -> None:
        """Ends that call and those before it."""
        self._stopped = max(self._stopped, number)

    def is_set(self) -> bool:
        """Whether what is done now was cancelled; see ``thread.Flag``."""
        return self._called <= self._stopped

    def set(self) -> None:
        """See ``thread.Flag``."""
        self._stopped = self._called

    def clear(self) -> None:
        """Nothing: a cancel may have come already."""

    def _here(self, order: Order, trees: tuple[Tree, ...]) -> Order:
        known = dict(zip(order.files, trees, strict=True))
        return moved(order, lambda file: self._copies.find(file, known[file]))


def files_dir() -> Path:
    """Where a machine of a cluster keeps files that came from another one."""
    chosen = os.environ.get("WEBUI_DATA_DIR")
    return (Path(chosen) / "cache" if chosen else Path.home() / ".cache" / "darkroom") / "from-elsewhere"


def remote_actor() -> Any:
    """``Actor`` as Ray takes it: one thread works, others answer meanwhile."""
    import ray

    for name in ("hello", "lacks", "begin", "add", "prepare", "cancel"):
        setattr(Actor, name, ray.method(concurrency_group="aside")(getattr(Actor, name)))
    setattr(Actor, "work", ray.method(concurrency_group="work", num_returns="streaming")(Actor.work))  # noqa: B010
    remote: Any = ray.remote  # whose types do not know the groups
    return remote(concurrency_groups={"work": 1, "aside": 2})(Actor)


class RayWorker:
    """See ``Worker``. ``tend`` starts its actor, again where it has ended; until it is there the worker is away.

    ``draw`` and ``load`` raise WorkerLost where the actor, its process or its node ends under them.
    """

    def __init__(self, options: EngineOptions, seat: Seat, bound_bytes: int | None) -> None:
        self.seat = seat
        self._options, self._bound_bytes = replace(options, device=seat.device), bound_bytes
        self._status = WorkerStatus(away="is starting")
        self._actor: Any = None
        self._hello: Any = None
        self._since = 0.0
        self._number = 0
        self._stopped: set[int] = set()
        self._closed = False

    def draw(self, order: Order) -> Iterator[Event]:
        """See ``Worker``."""
        self._number += 1
        return self._events(order, self._number)

    def cancel(self) -> None:
        """See ``Worker``."""
        self._stopped.add(self._number)
        if actor := self._actor:
            actor.cancel.remote(self._number)

    def load(self, order: Order) -> Iterator[Loading]:
        """See ``Worker``."""
        self._number += 1
        for event in self._ask("load", order, self._number):
            if isinstance(event, Loading):
                yield event

    def prepare(self, order: Order) -> None:
        """See ``Worker``: the actor does it between two steps."""
        if actor := self._actor:
            try:
                actor.prepare.remote(order, tuple(map(tree_of, order.files)))
            except Exception as error:  # the job itself will say why
                log.info("could not prepare the next job: %s", error)

    def status(self) -> WorkerStatus:
        """See ``Worker``: as the actor said last."""
        return self._status

    def close(self) -> None:
        """See ``Worker``."""
        self._closed = True
        self._stopped.add(self._number)
        self._kill()

    def tend(self) -> bool:
        """Starts the actor where there is none, and sees whether it has started; whether anything has changed.

        One thread calls it, again and again.
        """
        import ray

        if self._closed or not self._status.away:
            return False
        now, before = time.monotonic(), self._status
        if self._hello is None:
            if self._since and now - self._since < AGAIN_S:
                return False
            self._since = now
            self._actor = (
                remote_actor().options(**self.seat.options).remote(self._options, self.seat.cores, self._bound_bytes)
            )
            self._hello = self._actor.hello.remote()
        if not ray.wait([self._hello], timeout=0)[0]:
            if now - self._since > SCARCE_S:
                what = "a free card" if self.seat.device != "cpu" else f"{self.seat.cores} free cores"
                self._status = replace(before, away=f"waits for {what}: others have them")
            return self._status != before
        hello, self._hello = self._hello, None
        try:
            version, _ = ray.get(hello)
        except Exception as error:
            return self._is_away(explain_start(error), before)
        if version != __version__:
            self._kill()
            return self._is_away(f"has Darkroom {version}, and this is {__version__}: install the same there", before)
        self._since, self._status = 0.0, WorkerStatus()
        return True

    def _is_away(self, why: str, before: WorkerStatus) -> bool:
        self._status = WorkerStatus(away=why)
        if self._status != before:
            log.warning("%s: %s", self.seat.name, why)
        return self._status != before

    def _events(self, order: Order, number: int) -> Iterator[Event]:
        last: Event = Failed("the worker ended without saying how")
        try:
            for event in self._ask("draw", order, number):
                if isinstance(event, TERMINAL):
                    last = event  # told once all is read, for nobody asks for more then
                else:
                    yield event
        except RequestError as error:
            last = Failed(f"{self.seat.name}: {error}", bad_input=True, place=error.field, mend=error.mend)
        yield last

    def _ask(self, call: Call, order: Order, number: int) -> Iterator[Event]:
        """What the actor answers; raises what was raised there, and WorkerLost."""
        import ray

        actor = self._actor
        if actor is None or self._status.away:
            raise WorkerLost(f"The worker {self.seat.name} is away.")
        try:
            trees = tuple(map(tree_of, order.files))
            yield from self._send(actor, trees, number)
            if number in self._stopped:
                yield Cancelled()
                return
            for answer in actor.work.remote(call, number, order, trees):
                said: Said = ray.get(answer)
                self._status = said.status or self._status
                if said.event:
                    yield signed(said.event, self.seat.name)
                if said.error:
                    raise said.error
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else RuntimeError(str(error)) from None
        except ray.exceptions.RayError as error:
            why = explain_end(error)
            self._kill()
            self._status = WorkerStatus(away=why)
            raise WorkerLost(f"The worker {self.seat.name} has ended: {why}.") from None
        finally:
            self._stopped.discard(number)

    def _send(self, actor: Any, trees: tuple[Tree, ...], number: int) -> Iterator[Loading]:
        """What the actor has not; the next chunk goes once the one before is there."""
        import ray

        lacking = ray.get(actor.lacks.remote(trees))  # which reads what is there, however large
        here = places_of_files(trees)
        whole = sum(here[digest][0].size_bytes for digest in lacking)
        sent = 0
        for digest in lacking:
            entry, path = here[digest]
            ray.get(actor.begin.remote(digest, trees), timeout=ASK_S)
            for chunk in chunks(path):
                if number in self._stopped:
                    return
                ray.get(actor.add.remote(digest, trees, chunk), timeout=ASK_S)
                sent += len(chunk)
                yield Loading(f"Sending {path.name} to {self.seat.name}", sent / whole)

    def _kill(self) -> None:
        actor, self._actor, self._hello = self._actor, None, None
        if actor is not None:
            import ray

            with suppress(Exception):  # it has ended already, or Ray has
                ray.kill(actor)


def explain_start(error: Exception) -> str:
    """Why an actor did not start, for people."""
    text = str(error)
    if "No module named 'webui'" in text:
        return f"has no Darkroom: install version {__version__} there, for the Python that Ray runs with"
    if "No module named" in text:
        return f"lacks a package of Darkroom: {text.rpartition('No module named')[2].strip().splitlines()[0]}"
    return f"could not start: {text.strip().splitlines()[-1][:300] if text.strip() else type(error).__name__}"


def explain_end(error: Exception) -> str:
    """How an actor ended, for people, by the words of Ray 2.60; it counts all common causes up where it knows none."""
    text = str(error)
    if "its node has died" in text or "its node is dead" in text or "raylet died" in text:
        return "its node is lost"
    if "OUT_OF_MEMORY" in text or "running low on memory" in text:
        return "its process was ended for want of memory"
    return "its process is lost"
