"""The pictures of a job, as a page's gallery has them.

One is named as the browser names it: the job's id and the picture's place in the gallery, such as ``3f…/0``.
"""

from pathlib import Path

from webui.core.events import Image
from webui.jobs.protocols import Executor, Job
from webui.ui import stream


def chosen_js(page: str) -> str:
    """JavaScript that gives a handler the name of the picture that is chosen on the page, in place of its first
    value."""
    return f"(...values) => [darkroom.chosenPicture('{page}'), ...values.slice(1)]"


def find(executor: Executor, chosen: str) -> tuple[Job, Image] | None:
    """The picture of this name, with its job."""
    job_id, _, place = chosen.partition("/")
    job = executor.job(job_id) if place.isdecimal() and len(place) < 9 else None
    images = stream.in_sight(job) if job else ()
    return (job, images[int(place)]) if job and int(place) < len(images) else None


def find_file(executor: Executor, chosen: str, cache_dir: Path) -> str | None:
    """The served PNG of the picture, or None where there is none."""
    found = find(executor, chosen)
    item = stream.gallery_item(*found, cache_dir) if found else None
    return item[0] if item else None
