"""A job that ended, as the disk has it: what it was asked for, its pictures, its end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL.Image import Image as PilImage

from webui.core import images
from webui.core.events import Cancelled, Done, Event, Failed, Image, SavedImage
from webui.core.images import Size
from webui.core.recipe import RecipeError, read_picture
from webui.core.request import Request
from webui.core.stages import ControlUse
from webui.core.visitor import Visitor
from webui.core.work import Work, from_text
from webui.jobs.protocols import State
from webui.jobs.store import Kept, KeptPicture

Find = Callable[[str], PilImage | None]


class KeptJob:
    """See ``jobs.protocols.Job``. Nothing is read before it is asked for. Its events are numbered from ``first`` on."""

    position: int | None = None
    workers: tuple[str, ...] = ()
    controls: tuple[tuple[int, ControlUse, Size], ...] = ()
    progress = 1.0
    preview: bytes | None = None
    ended = True
    is_followed = False

    def __init__(self, kept: Kept, find: Find, first: int) -> None:
        self._kept, self._find, self._first = kept, find, first

    @property
    def id(self) -> str:
        """See ``jobs.protocols.Job``."""
        return self._kept.id

    @property
    def visitor(self) -> Visitor:
        """See ``jobs.protocols.Job``."""
        return self._kept.visitor

    @property
    def state(self) -> State:
        """See ``jobs.protocols.Job``."""
        return self._kept.state

    @property
    def request(self) -> Request:
        """See ``jobs.protocols.Job``."""
        return self.requests[0]

    @cached_property
    def work(self) -> Work:
        """See ``jobs.protocols.Job``; raises RequestError where a start picture is gone."""
        return from_text(self._kept.work, self._find)

    @property
    def requests(self) -> tuple[Request, ...]:
        """See ``jobs.protocols.Job``; raises as ``work``."""
        return self.work.requests

    @cached_property
    def images(self) -> tuple[Image, ...]:
        """Those whose files are still there."""
        found = (read_image(picture, self._find) for picture in self._kept.pictures)
        return tuple(sorted(filter(None, found), key=lambda image: image.index))

    def follow(self, after: int = 0) -> Iterator[tuple[int, Event]]:
        """See ``jobs.protocols.Job``."""
        events = enumerate((*self.images, self._end()), start=self._first)
        yield from ((number, event) for number, event in events if number > after)

    async def follow_async(self, after: int = 0) -> AsyncIterator[tuple[int, Event]]:
        """See ``jobs.protocols.Job``."""
        for entry in await asyncio.to_thread(lambda: list(self.follow(after))):
            yield entry

    def cancel(self) -> None:
        """Does nothing to a job that ended."""

    def skip(self) -> None:
        """Does nothing to a job that ended."""

    def _end(self) -> Event:
        return read_end(self._kept.end or {})


def read_end(end: Mapping[str, Any]) -> Event:
    """The event that ended a job, of ``core.events.to_json``."""
    seconds, parts_s = float(end.get("seconds", 0.0)), dict(end.get("parts_s", {}))
    if end.get("event") == "done":
        return Done(seconds, parts_s, tuple(end.get("warnings", ())))
    if end.get("event") == "failed":
        return Failed(str(end.get("message")), bool(end.get("bad_input")), seconds, parts_s)
    return Cancelled(int(end.get("index", 0)), int(end.get("total", 0)), seconds, parts_s)


def read_image(picture: KeptPicture, find: Find) -> Image | None:
    """The picture that was saved; None where its file is gone, or is another one. Of a PNG the head alone is read."""
    path = Path(picture.path)
    try:
        with images.opened(path) as opened:
            recipe, size = read_picture(opened), opened.size
        image = None if path.suffix == ".png" else images.open_image(path, images.MAX_RESULT_PIXELS)
    except (images.ImageError, RecipeError):
        return None
    if recipe is None or recipe.pixels_sha256 != picture.sha256:
        return None
    with suppress(RecipeError):  # its start picture is gone
        recipe = recipe.with_pictures(find)
    if image is None:
        return SavedImage(picture.index, recipe, path, picture.sha256, size)
    return Image(picture.index, image, recipe, path)
