"""A worker at work for a crew, and where a crew brings what it has drawn."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from webui.core.events import Image, Step
from webui.jobs.job import LocalJob
from webui.jobs.parts import Making, Part
from webui.jobs.placement import Habits
from webui.jobs.watchdog import Watchdog
from webui.jobs.workers.worker import Worker


class Desk(Protocol):
    """Where a crew brings what it has drawn, from any of its threads, one after the other."""

    def begin(self, job: LocalJob) -> None:
        """It is drawn from now on."""

    def step(self, job: LocalJob, event: Step, new: int) -> None:
        """A step of the job; so many are new since the last one of its worker."""

    def bring(self, job: LocalJob, picture: Image, step_s: float) -> None:
        """Its next picture, and how long a step of it took; 0 where that is not known."""

    def leave_out(self, job: LocalJob, numbers: Iterable[int]) -> None:
        """These pictures of it are skipped."""

    def finish(self, making: Making) -> None:
        """Nothing of its job is drawn any more."""


@dataclass(eq=False)
class Hand:
    """A worker, and what it does: ``parts`` are what it draws. One that ``is_cold`` has to be made ready first;
    one that ``has_left`` draws nothing more. One that ``shares`` draws several parts at once, where they go together.
    """

    worker: Worker
    name: str
    parts: list[Part] = field(default_factory=list)
    is_busy: bool = True
    is_cold: bool = False
    has_left: bool = False
    shares: bool = False
    habits: Habits = field(default_factory=Habits)
    watchdog: Watchdog = field(default_factory=Watchdog)

    def stop(self, part: Part) -> None:
        """Ends what it draws of a part, within a step."""
        part.is_stopped = True
        if not self.shares:
            self.worker.cancel()

    def let_go(self, part: Part) -> None:
        """It draws the part no more."""
        self.parts = [each for each in self.parts if each is not part]
