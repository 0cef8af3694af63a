"""``Run``: an order on its way: how far it is, what people should know of it, and where its seconds went."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from webui.core.events import LoraSwitch, Step
from webui.core.order import Order
from webui.core.stages import Stage, steps_of
from webui.engine.denoise import Stopped
from webui.engine.provenance import FileHashes

WORK = ("steps", "previews", "upscale")
"""The parts of the ledger that steps are counted in."""

Cancel = Callable[[], bool]


def never() -> bool:
    """For work that nobody stops."""
    return False


def check_with(cancelled: Cancel) -> Callable[[], None]:
    """What raises Stopped once ``cancelled`` says so."""

    def check() -> None:
        if cancelled():
            raise Stopped

    return check


@dataclass(frozen=True)
class Place:
    """Where in a job a stage is at work: so many steps ``behind`` it, on part ``number`` of ``of`` equal ones."""

    behind: int
    number: int = 0
    of: int = 1


@dataclass
class Run:
    """``finished`` pictures are behind us, and ``index`` steps.

    ``sampler``, ``compiled`` and ``decoded`` are what the recipes say of how the present pictures are drawn:
    ``compiled`` has True where code ran, and False where the plain network did. ``loras`` is what the first switch
    took. ``parts_s`` is the ledger. It may meet others where it ``meets``; so many pictures of all of them were
    ``together`` in a forward, at most.
    """

    order: Order
    cancelled: Cancel
    hashes: FileHashes
    index: int = 0
    finished: int = 0
    sampler: dict[str, Any] = field(default_factory=dict)
    compiled: set[bool] = field(default_factory=set)
    decoded: str = "whole"
    loras: LoraSwitch | None = None
    warnings: dict[str, None] = field(default_factory=dict)
    parts_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    meets: bool = False
    together: int = 1

    @property
    def batch_steps(self) -> int:
        """The steps of one batch, all stages together."""
        return sum(steps_of(stage) for stage in self.order.stages)

    def told(self, stage: Stage) -> tuple[str, int] | None:
        """Which of the order's stages it is, by name and number, from 0; None where all have the same name."""
        names = list(dict.fromkeys(stage.name for stage in self.order.stages))
        return (stage.name, names.index(stage.name)) if len(names) > 1 else None

    @property
    def total(self) -> int:
        """The steps of all batches."""
        return self.batch_steps * self.order.request.repeat

    def warn(self, *lines: str) -> None:
        """Keeps what people should know, each line once."""
        self.warnings |= dict.fromkeys(lines)

    def check(self) -> None:
        """Raises Stopped where the job was cancelled."""
        if self.cancelled():
            raise Stopped

    def step(
        self, stage: Stage, place: Place, done: float, elapsed_s: float = 0.0, preview: bytes | None = None
    ) -> Step:
        """Notes how far a stage is, ``done`` of its part of the work, 0..1; ``elapsed_s`` is not in the ledger yet."""
        steps = stage.steps_taken
        behind = place.behind - steps + steps_of(stage)  # a handover goes on with the steps of the pass before
        self.index = behind + int((place.number + done) * steps / place.of + 1e-9)
        seconds = sum(self.parts_s[part] for part in WORK) + elapsed_s
        told = self.told(stage)
        return Step(self.index, self.total, seconds, preview, told, self.order.share(self.index) if told else None)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the seconds within to a part of the ledger."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.parts_s[name] += time.perf_counter() - started
