"""The pictures of a job, as a page's gallery has them."""

from pathlib import Path

from webui.core.events import Image
from webui.jobs.protocols import Executor, Job
from webui.ui import stream


def find(executor: Executor, job_id: str, index: int) -> tuple[Job, Image] | None:
    """Picture ``index`` of the job's gallery, with the job."""
    job = executor.job(job_id)
    images = stream.in_sight(job) if job else ()
    return (job, images[index]) if job and 0 <= index < len(images) else None


def find_file(executor: Executor, job_id: str, index: int, cache_dir: Path) -> str | None:
    """The served PNG of one picture of a gallery, or None where there is none."""
    found = find(executor, job_id, index)
    item = stream.gallery_item(*found, cache_dir) if found else None
    return item[0] if item else None
