"""Which jobs are drawn beside those that a worker draws already: whose turn it is, and who may pass them."""

from collections.abc import Iterable, Iterator
from itertools import islice

from webui.core.together import meeting
from webui.jobs.job import LocalJob
from webui.jobs.parts import Making, Part, parts_of

LOOKED_AT = 32
"""So many jobs in line are looked at."""


class Joining:
    """A look at what could be drawn beside ``drawn``, ``most`` pictures at once, while ``begun`` are under way.

    Jobs join in the order of their turns. One that does not fit waits until what is drawn is over, and those behind it
    pass it only where they are over by then, too: so it does not wait longer for them.
    """

    def __init__(self, drawn: Iterable[Part], begun: Iterable[Making], most: int) -> None:
        self._drawn = list(drawn)
        self._begun = [making for making in begun if making.waiting]
        self._form = meeting(self._drawn[0].order)
        self._room = most - sum(part.order.request.count for part in self._drawn)
        self._left = max(part.steps - part.reached for part in self._drawn)

    def making(self) -> Making | None:
        """A job that was begun, whose next part can join."""
        return next((making for making in self._begun if not making.begun and self._fits(making.waiting[0])), None)

    def job(self, jobs: Iterator[LocalJob]) -> LocalJob | None:
        """The one of those in line that can join."""
        passes = bool(self._begun)
        for job in islice(jobs, LOOKED_AT) if self._form and self._room > 0 else ():
            first = next(parts_of(job, spread=False), None)
            if first and self._fits(first) and not (passes and first.steps > self._left):
                return job
            passes = True
        return None

    def _fits(self, part: Part) -> bool:
        return self._form is not None and part.order.request.count <= self._room and meeting(part.order) == self._form
