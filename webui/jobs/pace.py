"""How fast pictures are drawn here, and what a large grid would take."""

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from webui.core.disk import replace_file
from webui.core.grid import FREE_PICTURES, Grid
from webui.core.work import Work
from webui.jobs.protocols import NeedsYes
from webui.jobs.resolve import make_orders
from webui.library.library import Snapshot

DRAWING = ("lora", "encode", "prepare", "steps", "previews", "decode", "upscale")
"""The parts of a job's ledger that drawing takes; a model is loaded once, whatever comes of it."""
WORTH_KEEPING = 0.1  # a change by less is not written down

log = logging.getLogger(__name__)


class Pace:
    """Seconds for a megapixel-evaluation (``Order.cost``) in the newest job, kept in ``file`` for the next process."""

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, threading.Lock()
        self._kept: float | None = None

    def note(self, cost: float, parts_s: Mapping[str, float]) -> None:
        """So much was drawn, by the job's ledger."""
        spent_s = sum(parts_s.get(part, 0.0) for part in DRAWING)
        if cost <= 0 or spent_s <= 0:
            return
        with self._lock:
            pace = spent_s / cost
            if self._kept and abs(pace / self._kept - 1) < WORTH_KEEPING:
                return
            self._kept = pace
            try:
                replace_file(self._file, json.dumps({"seconds": pace}).encode())
            except OSError as error:
                log.info("the pace is not kept: %s", error)

    def of(self, cost: float) -> float | None:
        """The seconds that so much takes; None where nothing was drawn here yet."""
        with self._lock:
            if self._kept is None:
                try:
                    seconds = json.loads(self._file.read_text("utf-8"))["seconds"]
                    self._kept = float(seconds) if seconds > 0 else None
                except (OSError, ValueError, LookupError, TypeError):
                    return None
            return None if self._kept is None else self._kept * cost

    def check(self, work: Work, library: Snapshot) -> None:
        """Raises NeedsYes for a grid of very many pictures that nobody has said yes to, with the time it would take."""
        if not isinstance(work, Grid) or work.confirmed or (count := work.image_count) <= FREE_PICTURES:
            return
        requests = work.requests
        some = requests[:: max(1, len(requests) // 8)]  # a few of them, all over the grid
        orders = [order for request in some for order in make_orders(request, library)]
        cost = sum(order.cost for order in orders) * count / sum(order.request.image_count for order in orders)
        seconds = self.of(cost)
        takes = "how long they take is not known here yet" if seconds is None else f"they take about {_words(seconds)}"
        raise NeedsYes(
            f"this grid is {count:,} pictures, and {takes}. More than {FREE_PICTURES} need a yes", field="yes"
        )


def _words(seconds: float) -> str:
    for unit, size_s in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 1.5 * size_s:
            count = round(seconds / size_s)
            return f"{count} {unit}s"
    return "a minute" if seconds >= 45 else f"{max(1, round(seconds))} seconds"
