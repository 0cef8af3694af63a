"""Jobs that an earlier server has left, planned again from the files that are there now."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from webui.core.errors import RequestError
from webui.core.grid import Grid
from webui.core.order import Order
from webui.core.request import Request
from webui.core.weight_files import stamps
from webui.core.work import from_text
from webui.jobs.job import LocalJob
from webui.jobs.kept_job import Find, read_image
from webui.jobs.resolve import plan_again
from webui.jobs.store import Kept
from webui.library.library import Snapshot

UNCLEAN_ENDS = 3
"""So many in a row at one and the same picture, with no step finished in between, and a job is given up."""
GIVEN_UP = "The server ended three times while this picture was drawn, so it was not begun again by itself."
NUMBERS_A_START = 10**9


def first_number(start: int, ended: bool = False) -> int:
    """Of the events that a server tells of jobs it takes up: above all that was told of them, for whoever resumes.

    Those of jobs that are read from the disk as they ended are above those that were told while they were drawn.
    """
    return start * NUMBERS_A_START + (NUMBERS_A_START // 2 if ended else 1)


def revive(
    kept: Kept, library: Snapshot, find: Find, on_stop: Callable[[LocalJob], None], first: int
) -> tuple[LocalJob, Kept]:
    """The job as it waits again, the pictures that are finished in it, and what the disk is to know of it.

    Raises RequestError where it cannot be drawn, or not as it would have been.
    """
    found = {picture.index: image for picture in kept.pictures if (image := read_image(picture, find))}
    kept = replace(kept, pictures=tuple(picture for picture in kept.pictures if picture.index in found))
    if kept.state == "running":
        stuck = kept.unclean + 1 if len(found) <= kept.unclean_at else 1
        kept = replace(kept, unclean=stuck, unclean_at=len(found))
    if kept.unclean >= UNCLEAN_ENDS:
        raise RequestError(GIVEN_UP)
    work = from_text(kept.work, find)
    orders = _plan(work.requests, library, {*found, *kept.skipped})
    _check_unchanged(kept.files, orders)
    grid = work if isinstance(work, Grid) else None
    job = LocalJob(orders, on_stop, visitor=kept.visitor, job_id=kept.id, first=first, grid=grid, skipped=kept.skipped)
    for index in sorted(found):
        job.publish(found[index])
    return job, replace(kept, state="queued")


def _plan(requests: Sequence[Request], library: Snapshot, found: Collection[int]) -> list[Order]:
    """Those of all requests, each with how many of its first pictures are finished, or left out."""

    def orders() -> Iterator[Order]:
        first = 0
        for request in requests:
            order, count = plan_again(request, library), request.count
            batches = (range(first + at, first + at + count) for at in range(0, request.image_count, count))
            whole = 0
            for batch in batches:
                if not all(index in found for index in batch):
                    break
                whole += count
            yield replace(order, finished=whole)
            first += request.image_count

    return list(orders())


def _check_unchanged(before: Mapping[str, int], orders: Sequence[Order]) -> None:
    """Raises RequestError naming a file that is not what it was when the job was sent."""
    files = {str(file.path): file for order in orders for file in order.files}
    now = stamps(files.values())
    for path, file in files.items():
        if before.get(path) != now[path]:
            raise RequestError(f"{file.path.name} has changed since this job was sent; send it again", field="model")
    if gone := [path for path in before if path not in now]:
        raise RequestError(f"{gone[0].rsplit('/', 1)[-1]} is no longer used; send the job again", field="model")
