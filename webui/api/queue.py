"""What people are told of their jobs that are drawn or wait, and how each looks so far."""

import io
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from PIL.Image import Image as PilImage

from webui.core.errors import RequestError
from webui.core.grid import Grid
from webui.core.images import ImageError, shrink, to_rgb
from webui.core.visitor import Visitor
from webui.jobs.protocols import Executor, Job

PROMPT_LENGTH = 120
THUMBNAIL_PX = 128


def summary(executor: Executor, visitor: Visitor) -> list[dict[str, Any]]:
    """The visitor's own: each with how much of it is done, and how many jobs of others come before it."""
    own = executor.under_way(visitor)
    drawn = [job for job in own if job.position is None]
    waiting = sorted((job for job in own if job.position is not None), key=lambda job: job.position or 0)
    others = bool(executor.status().get("running")) and not drawn
    before = [(job.position or 1) - 1 - place + others for place, job in enumerate(waiting)]
    return [*_told(drawn, [0] * len(drawn), visitor), *_told(waiting, before, visitor)]


def _told(jobs: list[Job], ahead: list[int], visitor: Visitor) -> Iterator[dict[str, Any]]:
    for job, others in zip(jobs, ahead, strict=True):
        with suppress(RequestError):  # the picture that it starts from is gone
            request, images = job.request, job.images
            yield {
                **{"id": job.id, "state": job.state, "position": job.position, "ahead": max(others, 0)},
                **{"progress": round(job.progress, 4), "task": "grid" if isinstance(job.work, Grid) else request.task},
                **{"prompt": request.prompt[:PROMPT_LENGTH], "size": [request.width, request.height]},
                **{"pictures": sum(each.image_count for each in job.requests), "finished": len(images)},
                "preview": _version(job),
                **({"workers": list(job.workers)} if job.workers and visitor.is_owner else {}),
            }


def _version(job: Job) -> str | None:
    """Another one whenever there is another preview; None where there is none."""
    if job.preview:
        return f"{zlib.crc32(job.preview):x}"
    if job.images:
        return f"picture-{job.images[-1].index}"
    return "start" if job.request.init else None


def thumbnail_of(job: Job) -> bytes | None:
    """A JPEG, with no side longer than ``THUMBNAIL_PX`` but for the previews, which are small; None where there is
    nothing to show."""
    if job.preview:
        return job.preview
    with suppress(RequestError, ImageError):
        if job.images:
            return _encode(job.images[-1].image)
        if job.request.init:
            return _encode(job.request.init.image)
    return None


def _encode(image: PilImage) -> bytes:
    buffer = io.BytesIO()
    to_rgb(shrink(image, min(THUMBNAIL_PX, max(image.size)))).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
