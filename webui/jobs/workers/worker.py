"""What an executor has draw its orders: an engine, wherever it runs."""

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar, runtime_checkable

from webui.core.events import Event, Image, Loading
from webui.core.memory import Room
from webui.core.order import Order
from webui.core.verdict import WORKER


@dataclass(frozen=True)
class WorkerStatus:
    """Device, model in use and memory plan in words for people, None while nothing is known of them.

    ``models`` are the names of all that are in memory, the one in use last; ``room`` is what there is for others.
    ``lost`` is why the device will not work any more, for people; empty while it does. ``away`` is why it cannot be
    given work just now, while others may.
    """

    device: str | None = None
    model: str | None = None
    memory: str | None = None
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    lost: str = ""
    models: Sequence[str] = ()
    away: str = ""
    room: Room | None = None


class WorkerLost(RuntimeError):
    """A worker has ended in the midst of its work, which can be done again elsewhere; the message is for people."""


class Worker(Protocol):
    """One device. One thread draws, loads and prepares; the others are anybody's to call."""

    def draw(self, order: Order) -> Iterator[Event]:
        """The events of an order, of which the last is Done, Failed or Cancelled. Raises WorkerLost alone."""

    def cancel(self) -> None:
        """Ends what was begun last, within a step."""

    def load(self, order: Order) -> Iterator[Loading]:
        """Makes ready what a first picture like this one would wait for; raises what the engine raises."""

    def prepare(self, order: Order) -> None:
        """Makes ready what the next order needs, where that costs the present one nothing; raises nothing."""

    def status(self) -> WorkerStatus:
        """How it is."""

    def close(self) -> None:
        """Ends what is drawn, and lets go of the device; from any thread."""


class Shared(Protocol):
    """An order that is drawn beside others, and its own end."""

    order: Order

    def cancelled(self) -> bool:
        """Whether it is to end within a step."""


S = TypeVar("S", bound=Shared)


@runtime_checkable
class SharedWorker(Worker, Protocol):
    """One that can draw several orders at once."""

    def draw_together(self, first: S, more: Callable[[], S | None]) -> Iterator[tuple[S, Event]]:
        """The events of an order and of those that join it, as ``draw`` has them, each with whose it is.

        ``more`` is asked before each step for one that joins, on the thread that draws. What cannot be drawn together
        is drawn one after the other.
        """


class Joined(Protocol):
    """Where the workers of a fleet come and go."""

    def join(self, name: str, worker: Worker) -> None:
        """A worker that has work from now on, unless it is away."""

    def leave(self, name: str) -> None:
        """It has none any more."""

    def wake(self) -> None:
        """One that was away may be back."""


@runtime_checkable
class Fleet(Protocol):
    """Workers that are not all known at the start. ``trouble`` is why none of them can draw, for people."""

    @property
    def trouble(self) -> str: ...

    def start(self, joined: Joined) -> None:
        """Has workers join from now on; raises RequestError where none comes within a bounded time."""

    def close(self) -> None:
        """Lets go of all of them."""


def signed(event: Event, name: str) -> Event:
    """With the worker's name in a picture's recipe."""
    if not isinstance(event, Image):
        return event
    return replace(event, recipe=replace(event.recipe, environment={**event.recipe.environment, WORKER: name}))


def portable(error: Exception) -> Exception:
    """The error as it can be sent, else its words."""
    try:
        same = pickle.loads(pickle.dumps(error))
    except Exception:  # a class of torch's or another library's that does not pickle: its words do
        return RuntimeError(str(error))
    return same if type(same) is type(error) else RuntimeError(str(error))
