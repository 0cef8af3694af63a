"""The jobs that an executor knows: those that wait or are drawn, the last that ended, and behind them those on disk."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from webui.core.visitor import Visitor
from webui.jobs.job import LocalJob
from webui.jobs.keeper import Keeper
from webui.jobs.kept_job import KeptJob
from webui.jobs.protocols import Job
from webui.jobs.recovery import first_number
from webui.jobs.store import Kept
from webui.workspace.workspace import Workspaces

KEPT_JOBS = 200
KEPT_PIXEL_BYTES = 256 * 2**20


class Registry:
    """Thread-safe. In memory are all jobs that have not ended, and of the others as many as the bounds above let in."""

    def __init__(self, keeper: Keeper, workspaces: Workspaces) -> None:
        self._keeper, self._workspaces = keeper, workspaces
        self._jobs: OrderedDict[str, LocalJob] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, job: LocalJob) -> None:
        """Knows the job from now on."""
        with self._lock:
            self._jobs[job.id] = job

    def drop(self, *jobs: LocalJob) -> None:
        """Has them no more in memory."""
        with self._lock:
            for job in jobs:
                self._jobs.pop(job.id, None)

    def in_memory(self, job_id: str) -> LocalJob | None:
        """The job of that id that waits, is drawn, or ended not long ago."""
        with self._lock:
            return self._jobs.get(job_id)

    def find(self, job_id: str) -> Job | None:
        """The same, or one that the disk knows."""
        return self.in_memory(job_id) or next(map(self._from_disk, self._keeper.find(job_id)), None)

    def of(self, visitor: Visitor) -> Sequence[Job]:
        """Those of the visitor, all for the owner; oldest first."""
        with self._lock:
            known = dict(self._jobs)
        kept = [self._from_disk(kept) for kept in self._keeper.of(visitor) if kept.id not in known]
        return [*kept, *(job for job in known.values() if visitor.is_owner or job.visitor.id == visitor.id)]

    def sent_by(self, visitor: Visitor) -> Sequence[LocalJob]:
        """Those in memory that are the visitor's own."""
        with self._lock:
            return [job for job in self._jobs.values() if job.visitor.id == visitor.id]

    def forget_old(self) -> None:
        """Drops ended jobs, oldest first, beyond a number and beyond the memory their pictures hold."""
        with self._lock:
            ended = [job for job in self._jobs.values() if job.ended]
            pixel_bytes = sum(job.pixel_bytes for job in ended)
            excess = len(ended) - KEPT_JOBS
            for position, job in enumerate(ended[:-1]):
                if position >= excess and pixel_bytes <= KEPT_PIXEL_BYTES:
                    break
                pixel_bytes -= job.pixel_bytes
                del self._jobs[job.id]

    def _from_disk(self, kept: Kept) -> KeptJob:
        find = self._workspaces.of(kept.visitor).start_pictures.find
        return KeptJob(kept, find, first_number(self._keeper.start, ended=True))
