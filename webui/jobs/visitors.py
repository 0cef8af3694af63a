"""The executor as fronts have it: each call is that of the visitor who asks, so that no front can forget to say who."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy

from webui.core.catalog import Catalog
from webui.core.hosting import Decisions, Hosting, Use
from webui.core.ledger import Totals
from webui.core.memory import Asked
from webui.core.visitor import OWNER, Visitor, asking
from webui.core.work import Work
from webui.jobs.attendance import Attendance
from webui.jobs.budget import check_disk
from webui.jobs.protocols import Executor, Job

LOOK_S = 1.0
TOLD = ("status", "waiting", "running", "message")
TROUBLE = "Something is wrong with this server; its owner is told what."


class VisitorsExecutor:
    """An ``Executor`` over another, whose ``visitor`` is whoever asks. What is not for them is not there for them.

    ``hosting`` is what the host of a server with guests decides, ``sizes`` the bytes that guests keep, by their ids.
    """

    def __init__(
        self,
        executor: Executor,
        hosting: Hosting | None = None,
        sizes: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._executor, self._hosting, self._sizes = executor, hosting, sizes
        limits = hosting or Hosting()
        self._attendance = Attendance(lambda: limits.now.limits.closed_tab_s)
        self._is_for_pages = False
        self.notice = ""
        """What the owner should know of this server, though it works."""

    def for_pages(self) -> "VisitorsExecutor":
        """The same for pages: jobs that guests send through it end a while after they are gone."""
        pages = copy(self)
        pages._is_for_pages = True
        self._attendance.watch()
        return pages

    def catalog(self, max_age_s: float = 0.0, visitor: Visitor = OWNER) -> Catalog:
        """What there is for the visitor who asks."""
        return self._executor.catalog(max_age_s, asking())

    def reload(self) -> None:
        """For the owner alone: it makes the server walk all its folders."""
        if asking().is_owner:
            self._executor.reload()

    def submit(self, work: Work, keep: bool = True, visitor: Visitor = OWNER) -> Job:
        """A job of the visitor who asks; raises OverBudget, too, where they have kept as much as they may."""
        sender = asking()
        if self._hosting and not sender.is_owner:
            sizes = self._sizes()
            check_disk(self._hosting.now.limits, sizes.get(sender.id, 0), sum(sizes.values()))
        job = self._executor.submit(work, keep, sender)
        if self._is_for_pages:
            self._attendance.expect(job)
        return job

    def job(self, job_id: str) -> Job | None:
        """The job, for the owner and for the visitor who sent it."""
        job, visitor = self._executor.job(job_id), asking()
        self._attendance.see(visitor)
        return job if job and (visitor.is_owner or job.visitor.id == visitor.id) else None

    def jobs(self, visitor: Visitor) -> Sequence[Job]:
        """Those of the visitor who asks; all there are for the owner."""
        return self._executor.jobs(asking())

    def under_way(self, visitor: Visitor) -> Sequence[Job]:
        """Those of the visitor who asks."""
        return self._executor.under_way(asking())

    def move(self, job_id: str, before: str | None) -> bool:
        """For whoever may see the job; the other one is the same visitor's in any case."""
        return self.job(job_id) is not None and self._executor.move(job_id, before)

    def forget(self, visitor: Visitor) -> None:
        """For the visitor who asks; the owner names one."""
        self._executor.forget(visitor if asking().is_owner else asking())

    def count_tokens(self, model: str, prompt: str, steps: int, visitor: Visitor = OWNER) -> tuple[int, int]:
        """See ``jobs.protocols.Executor``."""
        return self._executor.count_tokens(model, prompt, steps, asking())

    def tell_memory(self, asked: Asked, visitor: Visitor = OWNER) -> Mapping[str, object]:
        """See ``jobs.protocols.Executor``."""
        return self._executor.tell_memory(asked, asking())

    def draw_texts(self, prompt: str, seeds: Iterable[int]) -> tuple[str, ...]:
        """See ``jobs.protocols.Executor``."""
        return self._executor.draw_texts(prompt, seeds)

    def status(self) -> Mapping[str, object]:
        """All of it for the owner. Guests learn how the server is and how long its queue, and nothing of the host."""
        status, visitor = self._executor.status(), asking()
        self._attendance.see(visitor)
        if self._hosting and (message := _message(self._hosting.now)):
            status = {**status, "message": message}
        if visitor.is_owner:
            notice = {"notice": self.notice} if self.notice else {}
            return {**status, **notice, "is_owner": True, **({"has_guests": True} if self._hosting else {})}
        told = {name: status[name] for name in TOLD if name in status}
        model = status.get("model")
        known = model in self._executor.catalog(LOOK_S, visitor).models
        return told | {"model": model if known else None} | ({"trouble": TROUBLE} if "trouble" in status else {})

    def uses(self) -> Mapping[str, Use]:
        """For the owner alone."""
        return self._executor.uses() if asking().is_owner else {}

    def totals(self) -> Totals:
        """See ``jobs.protocols.Executor``."""
        return self._executor.totals()

    def close(self) -> None:
        """See ``jobs.protocols.Executor``."""
        self._executor.close()


def _message(decided: Decisions) -> str:
    """What all pages show."""
    paused = "The host has paused the guests' jobs: they wait." if decided.paused else ""
    return " ".join(filter(None, (decided.message, paused)))
