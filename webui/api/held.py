"""How much one visitor, and all together, hold of the server at a time: requests, streams, uploads, the disk.

Who is one is for the caller to say, by a name. The page itself, its parts and ``/api/health`` are left out, so that
newcomers see it whatever those hold who, like them, have no name yet.
"""

import asyncio
import shutil
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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
HASTE_S = 2.0  # what a body may take at least, whoever waits for its place
MOST_KNOWN = 10_000  # visitors whose uploads are counted
FILE_BYTES = 8192  # what a file takes on a disk however small it is, its folder included
LOOK_AGAIN_BYTES = 4 * MB
UPLOADS = ("/gradio_api/upload", "/api/controls/pictures")
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
MOST_STREAMS = 2000
"""Of all guests together, half of which are kept for each one's first. The owner has what is left of the sockets."""
FREE_BYTES = 256 * MB
"""Uploads leave so much of the disk."""


class Place:
    """Of one request. Its turn is for what is done here, and not for the time in which its client sends the body."""

    def __init__(self, turns: asyncio.Semaphore | None, clock: Callable[[], float]) -> None:
        self._turns, self._clock = turns, clock
        self._has_turn = self._gave_way = False
        self._comes_since_s: float | None = None
        self._patience: asyncio.Timeout | None = None

    async def take_turn(self) -> None:
        if (turns := self._turns) and not self._has_turn:
            await turns.acquire()
            if self._turns:
                self._has_turn = True
            else:  # the answer has begun meanwhile
                turns.release()

    def leave_turn(self) -> None:
        if self._turns and self._has_turn:
            self._turns.release()
        self._has_turn = False

    def begin(self) -> None:
        """The answer has begun, and goes on without a turn."""
        self.leave_turn()
        self._turns = None

    def give_way(self) -> bool:
        """Breaks off a body that comes slowly; false where none does."""
        if self._gave_way or self._comes_since_s is None or self._clock() - self._comes_since_s < HASTE_S:
            return False
        self._gave_way = True
        if self._patience:
            self._patience.reschedule(0.0)
        return True

    def counted(self, receive: Receive) -> Receive:
        """``receive`` without a turn until all of the body is there; HTTPException 408 where it had to make way."""
        is_whole = False

        async def receive_counted() -> Message:
            nonlocal is_whole
            if is_whole:
                return await receive()
            self._comes_since_s = self._clock() if self._comes_since_s is None else self._comes_since_s
            self.leave_turn()
            try:
                async with asyncio.timeout(None) as self._patience:
                    if self._gave_way:
                        raise TimeoutError
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the request was too slow, so others went first; try again") from None
            finally:
                self._patience = None
            if is_whole := not message.get("more_body", False):
                self._comes_since_s = None
            await self.take_turn()
            return message

        return receive_counted


@dataclass
class _Holding:
    """What one visitor holds now, the oldest first."""

    turns: asyncio.Semaphore
    requests: dict[Place, None] = field(default_factory=dict)
    streams: dict[Place, None] = field(default_factory=dict)


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
    """Of one server, in one event loop. ``folder`` is where uploads go; ``clock`` gives seconds. There are so many
    ``sockets``."""

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        hosting: Hosting | None = None,
        sockets: int = 2 * MOST_STREAMS,
    ) -> None:
        self._folder, self._clock, self._hosting = folder, clock, hosting or Hosting()
        self._most_streams = min(MOST_STREAMS, sockets // 2)
        self._holdings: dict[str, _Holding] = {}
        self._uploads: TTLCache[str, Uploads] = TTLCache(MOST_KNOWN, DAY_S, timer=clock)
        self._guests_streams = 0
        self._guests_uploads = Uploads()

    @asynccontextmanager
    async def place(self, method: str, path: str, visitor: str, is_owner: bool) -> AsyncIterator[Place]:
        """A place for one request while it is answered, when it is its turn; Refused, 429 or 503, for none."""
        bounds = OWNER if is_owner else GUEST
        holding = self._holdings.setdefault(visitor, _Holding(asyncio.Semaphore(bounds.at_once)))
        is_call = path in CALLS
        is_stream = is_call or path.startswith(STREAMS) and method == "GET" or path.endswith("/events")
        place = Place(None if is_call else holding.turns, self._clock)
        held = holding.streams if is_stream else holding.requests
        try:
            if is_stream:
                self._check_streams(holding, bounds, is_owner)
            elif len(held) >= bounds.at_once + bounds.waiting and not self._make_room(held, is_owner, is_stream):
                raise Refused(429, f"{len(held)} of your requests are being answered; that is the most at once")
            held[place] = None
            self._guests_streams += is_stream and not is_owner
            await place.take_turn()
            yield place
        finally:
            place.leave_turn()
            self._let_go(place, held, is_owner, is_stream)
            if not (holding.requests or holding.streams):
                self._holdings.pop(visitor, None)

    def _check_streams(self, holding: _Holding, bounds: Bounds, is_owner: bool) -> None:
        held = len(holding.streams)
        if held >= bounds.streams and not self._make_room(holding.streams, is_owner, is_stream=True):
            raise Refused(429, f"you follow {held} jobs and calls already; that is the most at once")
        most = self._most_streams if held == 0 else self._most_streams // 2
        if not is_owner and self._guests_streams >= most:
            raise Refused(503, "too many people are following their jobs; try again later")

    def _make_room(self, held: dict[Place, None], is_owner: bool, is_stream: bool) -> bool:
        """Whether one whose body comes slowly, the oldest, made way: those who keep no cookie share their places."""
        slow = next((place for place in held if place.give_way()), None)
        if slow:
            self._let_go(slow, held, is_owner, is_stream)
        return slow is not None

    def _let_go(self, place: Place, held: dict[Place, None], is_owner: bool, is_stream: bool) -> None:
        if place in held:
            del held[place]
            self._guests_streams -= is_stream and not is_owner

    def counted(self, receive: Receive, method: str, path: str, visitor: str, is_owner: bool) -> Receive:
        """``receive`` that counts what is uploaded; it raises Refused, 429 or 503 past what is left of the
        day's allowance, 507 where the disk has no room."""
        if method != "POST" or path not in UPLOADS:
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
