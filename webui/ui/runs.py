"""The jobs of one click, which are mostly one, and the pictures they made."""

import threading
from collections.abc import Sequence
from pathlib import Path

from cachetools import LRUCache

from webui.core.errors import RequestError
from webui.core.events import Image
from webui.core.request import Request
from webui.jobs.protocols import Executor, Job, QueueFull
from webui.ui import stream

KEPT_RUNS = 256
ENDED = ("done", "failed", "cancelled")


class Runs:
    """The jobs that one click of a page started, found by the id of any of them.

    Only ids are kept here: how long a job and its pictures stay in memory is the executor's business.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._siblings: LRUCache[str, tuple[str, ...]] = LRUCache(KEPT_RUNS)
        self._lock = threading.Lock()

    def start(self, requests: Sequence[Request]) -> list[Job]:
        """Submits all of them or, where one is refused, none; raises RequestError, QueueFull."""
        jobs: list[Job] = []
        try:
            for request in requests:
                jobs.append(self.executor.submit(request))
        except (RequestError, QueueFull):
            for job in jobs:
                job.cancel()
            raise
        ids = tuple(job.id for job in jobs)
        with self._lock:
            self._siblings.update(dict.fromkeys(ids, ids))
        return jobs

    def jobs(self, job_id: str) -> list[Job]:
        """Those jobs of the run that the executor still knows, in order."""
        with self._lock:
            ids = self._siblings.get(job_id, (job_id,))
        return [job for job in map(self.executor.job, ids) if job]

    def pictures(self, job_id: str) -> list[tuple[Job, Image]]:
        """The pictures of the run's gallery, each with the job that made it."""
        return [(job, image) for job in self.jobs(job_id) if job.state in ENDED for image in job.images]

    def picture(self, job_id: str, index: int) -> tuple[Job, Image] | None:
        """Picture ``index`` of the run's gallery."""
        pictures = self.pictures(job_id)
        return pictures[index] if 0 <= index < len(pictures) else None

    def picture_file(self, job_id: str, index: int, cache_dir: Path) -> str | None:
        """The served PNG of one picture of a gallery, or None where there is none."""
        found = self.picture(job_id, index)
        item = stream.gallery_item(*found, cache_dir) if found else None
        return item[0] if item else None
