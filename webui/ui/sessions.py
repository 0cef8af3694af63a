"""The open pages of all visitors, as Gradio's queue knows them: how many each may have, and what waits to be sent.

Gradio 6.31 keeps messages for sessions that nobody reads, without a bound, and forgets the oldest session when there
are 2,000, a running one too: whoever makes up names for sessions ends the streams of all others.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import gradio as gr
from fastapi import HTTPException

from webui.core.visitor import NOBODY, Visitor, asking

EVENTS_AT_ONCE = 1000  # each follows one job of one page; Gradio's 40 would be few for many visitors
IDLE_S = 300.0  # since its last reader
MOST_SESSIONS = 1000
MOST_UNSENT = 250  # messages of one session, half a minute of a job
LOOK_S = 0.02  # a millisecond, as Gradio has it, keeps an idle server awake: 670 times a second
AGAIN = {"Retry-After": "60"}
MOST_OF_A_GUEST = {"sessions": 32, "events": 32, "bytes": 64 * 2**20}
MOST_OF_THE_OWNER = {"sessions": 500, "events": 500, "bytes": 2**30}


class Messages(asyncio.Queue[Any]):
    """What waits to be sent to one page."""

    def __init__(self, visitor: Visitor, clock: Callable[[], float]) -> None:
        super().__init__()
        self.visitor, self._clock = visitor, clock
        self.read_at_s = clock()
        self.is_over = False

    @property
    def is_idle(self) -> bool:
        """Whether nobody has read of it for long."""
        return self._clock() - self.read_at_s > IDLE_S

    async def get(self) -> Any:
        self.read_at_s = self._clock()
        try:
            return await super().get()
        finally:
            self.read_at_s = self._clock()

    def put_nowait(self, item: Any) -> None:
        if self.qsize() >= MOST_UNSENT or self.is_idle:
            self.is_over = True  # what is left out would be missed by all that comes after it
        if not self.is_over:
            super().put_nowait(item)


class Sessions(dict[str, Messages]):
    """In the place of Gradio's own of ``queue``."""

    def __init__(self, queue: Any, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._queue, self._clock = queue, clock

    def __contains__(self, name: object) -> bool:
        found = self.get(str(name))
        return found is not None and not found.is_over and _may_read(found)

    def __missing__(self, name: str) -> Messages:
        """Takes what nobody will read."""
        return Messages(asking(), self._clock)

    def __setitem__(self, name: str, _messages: Any) -> None:
        """A new one; HTTPException 429 or 503 where there are too many."""
        visitor = asking()
        if (found := self.get(name)) is not None and not _may_read(found):
            raise HTTPException(403, "this page is somebody else's")
        for old in [old for old, messages in self.items() if messages.is_over or messages.is_idle]:
            self._drop(old)
        if len(self.of(visitor)) >= _most(visitor)["sessions"]:
            raise HTTPException(429, "this page is open in too many tabs: close some", AGAIN)
        if len(self) >= MOST_SESSIONS and not visitor.is_owner:
            raise HTTPException(503, "too many people are using this page; try again later", AGAIN)
        super().__setitem__(name, Messages(visitor, self._clock))

    def __delitem__(self, name: str) -> None:
        """Also of one that is gone already."""
        self.pop(name, None)

    def of(self, visitor: Visitor) -> list[str]:
        """The names of the visitor's own."""
        return [name for name, messages in self.items() if messages.visitor.turn == visitor.turn]

    def refusal(self, more_bytes: int) -> str:
        """Why whoever asks may not start another event, whose input takes so much; "" where they may."""
        visitor = asking()
        ids = {key for name in self.of(visitor) for key in self._queue.pending_event_ids_session.get(name, ())}
        events = [event for key in ids if (event := self._queue.event_ids_to_events.get(key))]
        most = _most(visitor)
        if len(events) >= most["events"]:
            return f"{len(events)} of your requests are under way; that is the most at once"
        if more_bytes + sum(_size(event.request) for event in events) > most["bytes"]:
            return f"what you sent and is being worked on may take {most['bytes'] // 2**20} MB"
        return ""

    def _drop(self, name: str) -> None:
        del self[name]
        asyncio.ensure_future(self._queue.clean_events(session_hash=name)).add_done_callback(
            lambda _: self._queue.pending_event_ids_session.pop(name, None)
        )


def bound(blocks: gr.Blocks) -> None:
    """Bounds what the pages of one visitor, and of all, hold. Between ``queue`` and ``launch``."""
    queue: Any = blocks._queue
    queue.sleep_when_free = LOOK_S
    sessions = queue.pending_messages_per_session = Sessions(queue)
    push = queue.push

    async def push_bounded(body: Any, request: Any, username: str | None) -> Any:
        if reason := sessions.refusal(_size(request)):
            return False, reason, "queue_full"
        return await push(body=body, request=request, username=username)

    queue.push = push_bounded
    blocks.create_limiter = lambda: None  # type: ignore[method-assign]  # as many threads as ever


def _may_read(messages: Messages) -> bool:
    """Whether whoever asks may: their visitor, the owner, and Gradio itself, which works for nobody."""
    visitor = asking()
    return visitor.is_owner or visitor == NOBODY or visitor.turn == messages.visitor.turn


def _size(request: Any) -> int:
    told = request.headers.get("content-length", "") if request else ""
    return int(told) if told.isdecimal() else 2**20


def _most(visitor: Visitor) -> dict[str, int]:
    return MOST_OF_THE_OWNER if visitor.is_owner else MOST_OF_A_GUEST
