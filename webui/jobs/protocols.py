"""The two protocols between whoever asks for pictures and whoever makes them."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.events import Event, Image
from webui.core.grid import Grid
from webui.core.hosting import Use
from webui.core.images import Size
from webui.core.ledger import Totals
from webui.core.memory import Asked
from webui.core.request import Request
from webui.core.stages import ControlUse
from webui.core.visitor import OWNER, Visitor
from webui.core.work import Batch, Work

State = Literal["queued", "loading", "running", "done", "failed", "cancelled"]


BESIDE_A_SHEET = 100  # pictures that a gallery shows
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")


class QueueFull(RuntimeError):
    """Too many jobs wait already; try again later, in ``again_s`` seconds where that is known."""

    def __init__(self, message: str, again_s: int | None = None) -> None:
        super().__init__(message)
        self.again_s = again_s


class OverBudget(QueueFull):
    """One guest would use more than their share; the message says the limit and when to come back."""


class NeedsYes(RequestError):
    """A grid of very many pictures, which nobody has said yes to; the message says how long they would take."""


class Job(Protocol):
    """Work on its way. ``id`` is 128 bits of chance, and whoever knows it may watch and cancel.

    ``requests`` are what is drawn, with nothing left open, and ``request`` is the first of them; ``work`` is a Grid
    where they are its cells. ``images`` are in the order of their numbers; a grid's sheet is the last.
    """

    @property
    def id(self) -> str: ...
    @property
    def visitor(self) -> Visitor: ...
    @property
    def request(self) -> Request: ...
    @property
    def requests(self) -> tuple[Request, ...]: ...
    @property
    def work(self) -> Work: ...
    @property
    def state(self) -> State: ...
    @property
    def position(self) -> int | None: ...
    @property
    def images(self) -> tuple[Image, ...]: ...

    @property
    def workers(self) -> tuple[str, ...]:
        """Which of several workers draw it now, by their names."""

    @property
    def progress(self) -> float:
        """How much of its work is done, 0..1."""

    @property
    def controls(self) -> tuple[tuple[int, ControlUse, Size], ...]:
        """Those that act on the first picture, by their numbers from 0, at each size that it is drawn at, the last
        first."""

    @property
    def preview(self) -> bytes | None:
        """A small JPEG of the picture that is drawn now, where there is one."""

    @property
    def is_followed(self) -> bool:
        """Whether somebody watches it now."""

    def follow(self, after: int = 0) -> Iterator[tuple[int, Event]]:
        """(number, event) pairs from number ``after`` + 1 on, blocking, until the one that ends the job.

        Whoever is slower than the job misses steps, never any other event.
        """

    def follow_async(self, after: int = 0) -> AsyncIterator[tuple[int, Event]]:
        """The same for the event loop it is called on."""

    def cancel(self) -> None:
        """Asks for an end within one step; returns at once."""

    def skip(self) -> None:
        """Asks for the pictures that are drawn now to be left out, within one step; a job of no others ends."""


def unfinished(job: Job) -> Work:
    """What a job that ended has left to draw: its requests but for those whose pictures are all there.

    A grid is drawn whole again, for its sheet.
    """
    if isinstance(job.work, Grid):
        return job.work
    there = {image.index for image in job.images}
    left, first = [], 0
    for request in job.requests:
        if not there.issuperset(range(first, first + request.image_count)):
            left.append(request)
        first += request.image_count
    return Batch(tuple(left) or job.requests)


def in_sight(job: Job) -> tuple[Image, ...]:
    """The pictures that a gallery shows: a grid's sheet first, and no more beside it than a browser can hold."""
    images = job.images
    sheets = images[-1:] if images and images[-1].is_sheet else ()
    images = images[:-1] if sheets else images
    return (*sheets, *images[:BESIDE_A_SHEET]) if sheets else images


class Executor(Protocol):
    """Takes work, makes pictures."""

    def catalog(self, max_age_s: float = 0.0, visitor: Visitor = OWNER) -> Catalog:
        """What there is for the visitor, as it was so long ago at most."""

    def reload(self) -> None:
        """Whoever asks next has all folders walked, also on disks that do not tell what has changed."""

    def submit(self, work: Work, keep: bool = True, visitor: Visitor = OWNER) -> Job:
        """Queues one job of the visitor's, whose pictures are saved unless ``keep`` is false.

        Raises RequestError for what cannot be done, QueueFull when too many wait.
        """

    def job(self, job_id: str) -> Job | None:
        """The job of that id, or None when it is not, or no longer, known. May have to look on the disk."""

    def jobs(self, visitor: Visitor) -> Sequence[Job]:
        """The jobs that are known and the visitor's own, all there are for the owner; oldest first."""

    def under_way(self, visitor: Visitor) -> Sequence[Job]:
        """The visitor's own jobs, also the owner's, that have not ended; oldest first."""

    def move(self, job_id: str, before: str | None) -> bool:
        """Puts a job that waits before another of the same visitor's, or behind all of theirs; whether it could be.

        Nobody else's job waits longer for it.
        """

    def forget(self, visitor: Visitor) -> None:
        """Stops all jobs of a visitor who is gone, and forgets that they were."""

    def count_tokens(self, model: str, prompt: str, steps: int, visitor: Visitor = OWNER) -> tuple[int, int]:
        """How many tokens the prompt takes as the model reads it, and how many its chunks hold.

        An unknown model is taken to read like CLIP. Answers while the device is busy, and before the engine is there.
        """

    def tell_memory(self, asked: Asked, visitor: Visitor = OWNER) -> Mapping[str, object]:
        """What a job would take of memory: ``parts``, ``weight_bytes`` and ``step_bytes``.

        Where a device is known also ``device``, ``free_bytes``, ``least_bytes`` and the best ``plan`` that fits, None
        where none does; ``load_s`` where it is known how fast it reads. Raises RequestError for a model that is not
        there or cannot be used.
        """

    def draw_texts(self, prompt: str, seeds: Iterable[int]) -> tuple[str, ...]:
        """What pictures with these seeds would say; nothing where the prompt leaves nothing to chance.

        Raises RequestError for a wildcard that is not there, or too many of them.
        """

    def status(self) -> Mapping[str, object]:
        """``status`` is ok, loading or degraded; the rest says what runs where."""

    def uses(self) -> Mapping[str, Use]:
        """What each visitor used within an hour and has waiting, by their turns' names."""

    def totals(self) -> Totals:
        """What was done since the start."""

    def close(self) -> None:
        """Cancels everything and waits for the device to be free."""


def find_picture(executor: Executor, name: str) -> tuple[Job, Image] | None:
    """The picture that a page names JOB/PLACE, its place being that in the gallery, with its job."""
    job_id, _, place = name.partition("/")
    job = executor.job(job_id) if place.isdecimal() and len(place) < 9 else None
    images = in_sight(job) if job else ()
    return (job, images[int(place)]) if job and int(place) < len(images) else None
