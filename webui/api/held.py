"""How much one visitor, and all together, hold of the server at a time: requests, streams, uploads, the disk.

Who is one is for the caller to say, by a name. The page itself, its parts and ``/api/health`` are left out, so that
newcomers see it whatever those hold who, like them, have no name yet.
"""

import asyncio
import shutil
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cachetools import TTLCache
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from webui.api.bodies import MB
from webui.core.hosting import Hosting

AGAIN_S = 10  # when to come back for what others may be done with by then
DAY_S = 24 * 3600  # uploads are kept so long
SLOT_S = 900
MOST_KNOWN = 10_000  # visitors whose uploads are counted
FILE_BYTES = 8192  # what a file takes on a disk however small it is, its folder included
LOOK_AGAIN_BYTES = 4 * MB
UPLOAD = "/gradio_api/upload"
STREAMS = ("/gradio_api/queue/data", "/gradio_api/heartbeat", "/gradio_api/upload_progress", "/gradio_api/call/")
CALLS = ("/sdapi/v1/txt2img", "/sdapi/v1/img2img")  # answered when the pictures are made


class Refused(HTTPException):
    """Too much; says when to come back."""

    def __init__(self, status: int, detail: str, again_s: int = AGAIN_S) -> None:
        super().__init__(status, detail, {"Retry-After": str(again_s)})


@dataclass(frozen=True)
class Bounds:
    """Of one visitor: ``at_once`` requests are worked on, ``waiting`` more wait."""

    at_once: int = 8
    waiting: int = 64
    streams: int = 24


GUEST = Bounds()
OWNER = Bounds(at_once=16, waiting=4000, streams=2000)
ALL = Bounds(streams=1000)
"""Of all guests together. The owner has what is left of the sockets."""
FREE_BYTES = 256 * MB
"""Uploads leave so much of the disk."""


@dataclass
class _Holding:
    """What one visitor holds now."""

    turns: asyncio.Semaphore
    requests: int = 0
    streams: int = 0


@dataclass
class Uploads:
    """Bytes by the quarter of an hour in which they came."""

    slots: deque[list[float]] = field(default_factory=deque)

    def sum(self, now_s: float) -> float:
        while self.slots and self.slots[0][0] <= now_s - DAY_S:
            self.slots.popleft()
        return sum(size for _, size in self.slots)

    def add(self, now_s: float, size: int) -> None:
        if not self.slots or now_s - self.slots[-1][0] >= SLOT_S:
            self.slots.append([now_s, 0])
        self.slots[-1][1] += size

    def frees_in_s(self, now_s: float) -> int:
        """Until the oldest are gone."""
        return max(1, round(self.slots[0][0] + DAY_S - now_s)) if self.slots else AGAIN_S


class Held:
    """Of one server, in one event loop. ``folder`` is where uploads go; ``clock`` gives seconds."""

    def __init__(
        self, folder: Path, clock: Callable[[], float] = time.monotonic, hosting: Hosting | None = None
    ) -> None:
        self._folder, self._clock, self._hosting = folder, clock, hosting or Hosting()
        self._holdings: dict[str, _Holding] = {}
        self._uploads: TTLCache[str, Uploads] = TTLCache(MOST_KNOWN, DAY_S, timer=clock)
        self._guests_streams = 0
        self._guests_uploads = Uploads()

    @asynccontextmanager
    async def place(self, method: str, path: str, visitor: str, is_owner: bool) -> AsyncIterator[Callable[[], None]]:
        """A place for one request while it is answered, when it is its turn; Refused, 429 or 503, for none.

        A stream needs its turn only until it is told to have begun, by calling what is given.
        """
        bounds = OWNER if is_owner else GUEST
        holding = self._holdings.setdefault(visitor, _Holding(asyncio.Semaphore(bounds.at_once)))
        try:
            if path in CALLS:
                with self._stream(holding, bounds, is_owner):
                    yield _nothing
                return
            if path.startswith(STREAMS) and method == "GET" or path.endswith("/events"):
                with self._stream(holding, bounds, is_owner):
                    async with _turn(holding.turns) as begun:
                        yield begun
                return
            if holding.requests >= bounds.at_once + bounds.waiting:
                raise Refused(429, f"{holding.requests} of your requests are being answered; that is the most at once")
            holding.requests += 1
            try:
                async with holding.turns:
                    yield _nothing
            finally:
                holding.requests -= 1
        finally:
            if not (holding.requests or holding.streams):
                self._holdings.pop(visitor, None)

    @contextmanager
    def _stream(self, holding: _Holding, bounds: Bounds, is_owner: bool) -> Iterator[None]:
        if holding.streams >= bounds.streams:
            raise Refused(429, f"you follow {holding.streams} jobs and calls already; that is the most at once")
        if not is_owner and self._guests_streams >= ALL.streams:
            raise Refused(503, "as many people follow their jobs as this server can serve")
        holding.streams += 1
        self._guests_streams += not is_owner
        try:
            yield
        finally:
            holding.streams -= 1
            self._guests_streams -= not is_owner

    def counted(self, receive: Receive, method: str, path: str, visitor: str, is_owner: bool) -> Receive:
        """``receive`` that counts what is uploaded; it raises Refused, 429 or 503 past what is left of the
        day's allowance, 507 where the disk has no room."""
        if (method, path) != ("POST", UPLOAD):
            return receive
        own, since_look = self._uploads.setdefault(visitor, Uploads()), LOOK_AGAIN_BYTES

        async def receive_counted() -> Message:
            nonlocal since_look
            message = await receive()
            part: bytes = message.get("body", b"")
            if message["type"] != "http.request" or not part:
                return message
            now_s = self._clock()
            size = len(part) + FILE_BYTES * part.count(b"filename=")
            since_look += size
            if since_look >= LOOK_AGAIN_BYTES:
                since_look = 0
                self._look_at_disk()
            if is_owner:
                return message
            limits = self._hosting.now.limits
            if own.sum(now_s) + size > limits.upload_mb * MB:
                detail = f"{limits.upload_mb} MB of uploads a day are the limit for one guest"
                raise Refused(429, detail, own.frees_in_s(now_s))
            if self._guests_uploads.sum(now_s) + size > limits.upload_mb_in_all * MB:
                detail = f"{limits.upload_mb_in_all} MB of uploads a day are the limit for all guests together"
                raise Refused(503, detail, self._guests_uploads.frees_in_s(now_s))
            own.add(now_s, size)
            self._guests_uploads.add(now_s, size)
            return message

        return receive_counted

    def _look_at_disk(self) -> None:
        try:
            free_bytes = shutil.disk_usage(self._folder).free
        except OSError:
            return  # writing will say more
        if free_bytes < FREE_BYTES:
            raise Refused(507, "the server's disk is nearly full, so nothing can be uploaded")


@asynccontextmanager
async def _turn(turns: asyncio.Semaphore) -> AsyncIterator[Callable[[], None]]:
    """A turn that ends with the block, or before, by calling what is given."""
    await turns.acquire()
    is_held = True

    def end() -> None:
        nonlocal is_held
        if is_held:
            turns.release()
        is_held = False

    try:
        yield end
    finally:
        end()


def _nothing() -> None: ...
