"""``/sdapi/v1``: calls that wait for their pictures, and what they are answered with."""

import base64
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException

from webui.core.events import Done, Event, Image, Step
from webui.core.groups.hires import NAME as HIRES
from webui.core.request import Request
from webui.interop.a1111 import answers
from webui.interop.a1111.refusals import flag
from webui.jobs.protocols import Job


class Call:
    """A job that an answer waits for, with its newest event but pictures, and the preview of what is not finished.

    ``sheet`` is the newest that shows all pictures of a batch: a hires pass draws each by itself.

    Without ``with_pictures`` the sheet of a grid is answered alone. Of each control that acts, ``maps`` says whether
    its maps are answered behind the pictures.
    """

    def __init__(
        self, job: Job, comments: tuple[str, ...], with_pictures: bool = True, maps: tuple[bool, ...] = ()
    ) -> None:
        self.job, self.comments, self.with_pictures, self.maps = job, comments, with_pictures, maps
        self.event: Event | None = None
        self.preview: bytes | None = None
        self.sheet: bytes | None = None
        self.started, self.stopped = answers.timestamp(), False

    def see(self, event: Event) -> None:
        if isinstance(event, Image):  # what was drawn until then stays how far the call is
            self.preview = self.sheet = None
            return
        self.event = event
        if isinstance(event, Step) and event.preview:
            self.preview = event.preview
            if self.job.request.count == 1 or not event.stage or event.stage[0] != HIRES:
                self.sheet = self.preview

    def shows(self, number: int) -> bool:
        """Whether the maps of this control are answered."""
        return number < len(self.maps) and self.maps[number]

    def stop(self) -> None:
        self.stopped = True
        self.job.cancel()


def answer(call: Call, body: Mapping[str, Any]) -> dict[str, Any]:
    """What a call that ended is answered with: its pictures, those before a stop too, and what the stop interrupted.

    Raises HTTPException where it was stopped before there was anything to see.
    """
    request, pictures, comments = call.job.request, call.job.images, list(call.comments)
    sheets = pictures[-1:] if pictures and pictures[-1].is_sheet else ()
    if sheets:
        pictures = (*sheets, *(pictures[:-1] if call.with_pictures else ()))
    encoded = [picture.encode() for picture in pictures]
    if not isinstance(call.event, Done) and call.sheet and not sheets:
        half = answers.half_drawn(*_next(call.job, len(pictures)), call.sheet)
        encoded += [answers.encode_bare(picture.image) for picture in half]
        pictures = (*pictures, *half)
        comments.append("interrupted: what was being drawn is a coarse preview")
    if not pictures:
        raise nothing_made(call, "interrupted before there was anything to see")
    comments += call.event.warnings if isinstance(call.event, Done) else []
    encoded += [answers.encode_bare(use.map_at(size)) for number, use, size in call.job.controls if call.shows(number)]
    send = body.get("send_images")
    return {
        "images": [base64.b64encode(png).decode("ascii") for png in encoded] if send is None or flag(send) else [],
        "parameters": answers.echo(body),
        "info": answers.info(request, pictures, comments),
    }


def nothing_made(call: Call, interrupted: str) -> HTTPException:
    """Why there is no picture: the host's filter takes them without an end of its own."""
    if isinstance(call.event, Done):
        return HTTPException(403, " ".join(call.event.warnings))
    return HTTPException(409, interrupted)


def in_one(job: Job) -> Request:
    """A job of several requests, which differ in their words alone, as one of so many batches."""
    return job.request.model_copy(update={"repeat": sum(request.repeat for request in job.requests)})


def _next(job: Job, drawn: int) -> tuple[Request, int]:
    """Which of its requests is drawn behind so many pictures, and the picture of it."""
    for request in job.requests:
        if drawn < request.image_count:
            return request, drawn
        drawn -= request.image_count
    return job.request, 0
