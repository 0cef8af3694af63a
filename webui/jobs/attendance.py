"""Jobs that a guest's page has sent end when nobody is there any more: a closed tab cannot stop them."""

import threading
import time
from collections.abc import Callable

from webui.core.visitor import Visitor
from webui.jobs.protocols import ENDED, Job

CHECK_EVERY_S = 5.0


class Attendance:
    """Thread-safe. ``grace_s`` is asked for how long that is; ``clock`` is in seconds and does not jump."""

    def __init__(self, grace_s: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._grace_s, self._clock = grace_s, clock
        self._jobs: dict[str, Job] = {}
        self._seen: dict[str, float] = {}  # when each visitor with such jobs last asked something
        self._lock = threading.Lock()

    def expect(self, job: Job) -> None:
        """The job is to be drawn for as long as its visitor is there. The owner's goes on in any case."""
        if not job.visitor.is_owner:
            with self._lock:
                self._jobs[job.id] = job
                self._seen[job.visitor.id] = self._clock()

    def see(self, visitor: Visitor) -> None:
        """The visitor is there."""
        with self._lock:
            if visitor.id in self._seen:
                self._seen[visitor.id] = self._clock()

    def stop_abandoned(self) -> None:
        """Cancels the jobs of those who have not asked anything for the grace period, and follow none of theirs."""
        with self._lock:
            self._jobs = {job_id: job for job_id, job in self._jobs.items() if job.state not in ENDED}
            now_s = self._clock()
            for job in self._jobs.values():
                if job.is_followed:
                    self._seen[job.visitor.id] = now_s
            waited = {job.visitor.id for job in self._jobs.values()}
            self._seen = {visitor: at_s for visitor, at_s in self._seen.items() if visitor in waited}
            gone = [job for job in self._jobs.values() if now_s - self._seen[job.visitor.id] >= self._grace_s()]
        for job in gone:
            job.cancel()

    def watch(self) -> None:
        """Does so again and again, on a thread of its own."""

        def work() -> None:
            while True:
                time.sleep(CHECK_EVERY_S)
                self.stop_abandoned()

        threading.Thread(target=work, name="attendance", daemon=True).start()
