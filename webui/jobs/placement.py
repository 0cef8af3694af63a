"""Which worker draws what: one that has the model, then one that has had the LoRAs, then one with memory to spare."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from webui.core.order import Order
from webui.core.visitor import Visitor
from webui.jobs.workers.worker import WorkerStatus

KEPT_SETS = 32
"""So many of the LoRA sets that a worker was given last are taken to be in its cache."""
AHEAD, PATIENCE = 8, 4
"""Jobs that are looked at, and the times that one may be passed, for each worker."""
Rank = tuple[bool, bool, bool, bool, int]


@dataclass
class Habits:
    """What a worker was given lately: the LoRAs of its passes, newest last."""

    sets: dict[object, None] = field(default_factory=dict)

    def has(self, order: Order) -> bool:
        """Whether all that the order's passes wear is there."""
        return all(worn in self.sets for worn in sets_of(order))

    def note(self, order: Order) -> None:
        """It draws this now."""
        for worn in sets_of(order):
            self.sets.pop(worn, None)
            self.sets[worn] = None
        while len(self.sets) > KEPT_SETS:
            del self.sets[next(iter(self.sets))]


def sets_of(order: Order) -> list[object]:
    """The LoRAs of its passes, with their model; none where it has none."""
    worn = ((stage.model.path, stage.loras, stage.lora_schedules) for stage in order.passes)
    return [each for each in worn if each[1] or each[2]]


def rank(order: Order, status: WorkerStatus, habits: Habits) -> Rank:
    """How well a worker fits an order: the greater, the better."""
    names = [stage.model.name for stage in order.passes]
    first = names[0] if names else ""
    used = sum(status.memory_bytes.values())
    return first in status.models, first == status.model, habits.has(order), not status.models, -used


def has_model(order: Order, status: WorkerStatus) -> bool:
    """Whether a worker can begin with it at once; what only enlarges begins anywhere."""
    return not order.passes or order.passes[0].model.name in status.models


class Waits(Protocol):
    """What is asked of a job that waits."""

    @property
    def visitor(self) -> Visitor: ...
    @property
    def orders(self) -> tuple[Order, ...]: ...


J = TypeVar("J", bound=Waits)


class Passing(Generic[J]):
    """Lets a worker take a job of its own model before those that are in front of it.

    They are jobs of the same visitor, so nobody else waits for it; and none is passed for ever.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._passed: WeakKeyDictionary[J, int] = WeakKeyDictionary()

    def choose(self, jobs: Iterable[J], status: WorkerStatus, habits: Habits) -> tuple[J | None, list[J]]:
        """The first of these turns, or one behind it that this worker has the model for, best with its LoRAs; and
        those that it passes."""
        looked = list(self._window(iter(jobs)))
        fit = [at for at, job in enumerate(looked) if has_model(job.orders[0], status)]
        found = next((at for at in fit if habits.has(looked[at].orders[0])), fit[0] if fit else 0)
        return (looked[found] if looked else None), looked[:found]

    def note(self, job: J, passed: Iterable[J]) -> None:
        """It was taken so."""
        self._passed.pop(job, None)
        for other in passed:
            self._passed[other] = self._passed.get(other, 0) + 1

    def _window(self, jobs: Iterator[J]) -> Iterator[J]:
        whose = ""
        for _, job in zip(range(AHEAD * self.workers), jobs, strict=False):
            if (whose or job.visitor.turn) != job.visitor.turn:
                return
            whose = job.visitor.turn
            yield job
            if self._passed.get(job, 0) >= PATIENCE * self.workers:
                return
