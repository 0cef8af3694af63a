"""Answers that go on until there is news, and their end when the server stops."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Message, Receive

LAST_NEWS_S = 0.3  # what has just ended is told before its stream is closed
HUNG_UP: Message = {"type": "http.disconnect"}


class Streams:
    """All that are open. Each hears its client hang up when they are to end, which is what it listens for."""

    def __init__(self) -> None:
        self._open: set[asyncio.Future[Message]] = set()

    def end(self) -> None:
        """From another thread: they end a moment later."""
        for gone in list(self._open):
            loop = gone.get_loop()
            loop.call_soon_threadsafe(loop.call_later, LAST_NEWS_S, _settle, gone, HUNG_UP)

    @contextmanager
    def listen(self, receive: Receive) -> Iterator[Receive]:
        """The ``receive`` of one request, which disconnects at the end, too. A body that still comes is waited for.

        Once its client has gone it says so without waiting, as those expect who only look whether it has.
        """
        is_whole = False
        gone: asyncio.Future[Message] | None = None
        watching: asyncio.Task[None] | None = None

        async def watch(gone: asyncio.Future[Message]) -> None:
            _settle(gone, await receive())

        async def receive_or_end() -> Message:
            nonlocal is_whole, gone, watching
            if not is_whole:
                message = await receive()
                is_whole = not message.get("more_body", False)
                return message
            if gone is None:
                gone = asyncio.get_running_loop().create_future()
                self._open.add(gone)
                watching = asyncio.create_task(watch(gone))
            return gone.result() if gone.done() else await asyncio.shield(gone)

        try:
            yield receive_or_end
        finally:
            if gone and watching:
                self._open.discard(gone)
                watching.cancel()


def _settle(gone: "asyncio.Future[Message]", message: Message) -> None:
    if not gone.done():
        gone.set_result(message)
