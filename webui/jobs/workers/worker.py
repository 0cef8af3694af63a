"""What an executor has draw its orders: an engine, wherever it runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from webui.core.events import Event, Loading
from webui.core.order import Order


@dataclass(frozen=True)
class WorkerStatus:
    """Device, model in use and memory plan in words for people, None while nothing is known of them.

    ``models`` are the names of all that are in memory, the one in use last.
    ``lost`` is why the device will not work any more, for people; empty while it does.
    """

    device: str | None = None
    model: str | None = None
    memory: str | None = None
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    lost: str = ""
    models: Sequence[str] = ()


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
