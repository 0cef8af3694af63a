"""What visitors asked for and what came of it, as values that a process of its own can hand over as JSON."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

State = Literal["sent", "refused", "done", "cancelled", "failed", "left", "forgotten"]
"""``left``: its visitor went away and nobody can say more; ``forgotten``: the server did not know it any more."""

NOBODY = "nobody"
"""All whom the server cannot tell apart, since they keep no cookie."""


@dataclass
class Sent:
    """One job. Each has a seed of its own, by which its picture is found. Times are those of the wall, in seconds.

    ``is_forsaken`` says that its visitor stopped it or went away, so that it may end without a picture.
    """

    seed: int
    visitor: str
    way: str
    sent_at: float
    answered_at: float = 0.0
    state: State = "sent"
    is_forsaken: bool = False
    is_flood: bool = False


@dataclass
class Journal:
    """``troubles`` are answers that nobody should get; ``refusals`` are counted by what they say."""

    jobs: list[Sent] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    deeds: Counter[str] = field(default_factory=Counter)

    def send(self, seed: int, visitor: str, way: str, is_flood: bool = False) -> Sent:
        """A job that is being sent now."""
        job = Sent(seed, visitor, way, time.time(), is_flood=is_flood)
        self.jobs.append(job)
        return job

    def refuse(self, job: Sent, why: str) -> None:
        job.state = "refused"
        self.refusals[why[:120]] += 1

    def tell(self, job: Sent, state: str) -> None:
        """What became of the job; a state that is none of its ends leaves it open."""
        ends: dict[str, State] = {end: end for end in get_args(State) if end not in ("sent", "refused")}
        job.state = ends.get(state, "left")

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"jobs": [vars(job) for job in self.jobs]}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Journal":
        jobs = [Sent(**job) for job in found["jobs"]]
        return cls(jobs, found["troubles"], Counter(found["refusals"]), Counter(found["deeds"]))
