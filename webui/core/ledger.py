"""Where the seconds went: those of one job, and those of all jobs since an executor started."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from webui.core.events import TERMINAL, Done, Event, Image, Step

PARTS = (
    *("queue", "load", "lora", "encode", "prepare", "steps", "previews"),
    *("decode", "find", "upscale", "hash", "save", "other"),
)
SMALL = 0.01  # of the whole: what is less is not worth a line of its own
BOUNDS_S = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


def balance(seconds: float, *ledgers: Mapping[str, float]) -> dict[str, float]:
    """The ledgers added up, part by part in the order of ``PARTS``; "other" is what they leave of ``seconds``."""
    parts_s = dict.fromkeys(PARTS, 0.0)
    for ledger in ledgers:
        for part, spent_s in ledger.items():
            parts_s[part] = parts_s.get(part, 0.0) + spent_s
    known_s = sum(parts_s.values()) - parts_s.pop("other")
    return parts_s | {"other": max(seconds - known_s, 0.0)}


def shares(parts_s: Mapping[str, float]) -> list[tuple[str, float]]:
    """Parts with their seconds, largest first; last comes "other" with all that is below ``SMALL`` of the whole."""
    whole_s = sum(parts_s.values())
    large = [(part, spent_s) for part, spent_s in parts_s.items() if part != "other" and spent_s > SMALL * whole_s]
    rest_s = whole_s - sum(spent_s for _, spent_s in large)
    rest = [("other", rest_s)] if rest_s > 0.1 * SMALL * whole_s else []
    return sorted(large, key=lambda entry: -entry[1]) + rest


@dataclass(frozen=True)
class Totals:
    """What an executor has done since it started.

    ``jobs`` are counted by how they ended. ``seconds`` and ``parts_s`` are those of the jobs that were done; ``within``
    has these by how long they took: a number for up to each of ``BOUNDS_S``, and one for longer.
    """

    jobs: Mapping[str, int] = field(default_factory=lambda: {"done": 0, "failed": 0, "cancelled": 0})
    pictures: int = 0
    steps: int = 0
    seconds: float = 0.0
    parts_s: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    within: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)

    def plus(self, event: Event, reached: int = 0) -> "Totals":
        """With one more event of a job that had ``reached`` that step before; some count for nothing."""
        if isinstance(event, Step):
            return replace(self, steps=self.steps + max(event.index - reached, 0))
        if isinstance(event, Image):
            return replace(self, pictures=self.pictures + 1)
        if not isinstance(event, TERMINAL):
            return self
        outcome = type(event).__name__.lower()
        ended = replace(self, jobs={**self.jobs, outcome: self.jobs[outcome] + 1})
        if not isinstance(event, Done):
            return ended
        within, place = list(self.within), bisect_left(BOUNDS_S, event.seconds)
        within[place] += 1
        parts_s = {part: self.parts_s.get(part, 0.0) + spent_s for part, spent_s in event.parts_s.items()}
        return replace(
            ended, seconds=self.seconds + event.seconds, parts_s={**self.parts_s, **parts_s}, within=tuple(within)
        )
