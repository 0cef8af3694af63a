"""One client's socket: uvicorn's side of it, and how long and how many may be held open.

uvicorn 0.54 waits for ever for a request's head and for whoever does not read an answer. How fast a body must come is
``bodies``' part, which can answer.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

PEER = "peer"
"""Under which the state of a request has the address that its connection comes from, whatever its head says."""
LOOK_EVERY_S = 2.0
HEAD_S = 15.0  # from the connection, or the last answer, to the end of a request's head
# How long a client may take to ask again. Programs keep theirs for 5 s, uvicorn too: one of them that asks in that very
# moment would find its connection closed, and have no answer.
KEPT_S = 12.0
STALLED_S = 30.0  # an answer of which its client takes nothing for so long is broken off
MOST_SOCKETS = 4096
MOST_FILES = 65_536
OTHER_FILES = 256  # those of models, pictures and libraries
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 10\r\n"
    b"Content-Length: 52\r\nConnection: close\r\n\r\nThe server has too many connections; try again soon."
)


class Sockets:
    """All that are open, in one event loop: ``waiting`` are those from which a head is to come, oldest first."""

    def __init__(self, most: int = MOST_SOCKETS) -> None:
        self.most = most
        self.waiting: dict[Connection, None] = {}

    def protocol(self) -> Callable[..., asyncio.Protocol]:
        """What uvicorn makes for each client."""
        return lambda **options: Connection(self, **options)


class Connection(H11Protocol):
    """uvicorn's protocol; a new one takes the place of the one that has waited longest where there are too many."""

    def __init__(self, sockets: Sockets, **options: Any) -> None:
        super().__init__(**options)
        self.timeout_keep_alive = KEPT_S  # type: ignore[assignment]
        self._sockets = sockets
        self._since_s = self._moved_s = 0.0
        self._unsent_bytes = 0
        self._looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, PEER: self.client[0] if self.client else ""}
        self._wait()
        self._looking = self.loop.call_later(LOOK_EVERY_S, self._look_again)
        if len(self.connections) <= self._sockets.most:
            return
        oldest = next(iter(self._sockets.waiting))
        if oldest is self:  # all others are being answered
            transport.write(FULL)
            transport.close()
        else:
            oldest.give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._sockets.waiting.pop(self, None)
        if self._looking:
            self._looking.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle and not self.cycle.response_complete:
            self._sockets.waiting.pop(self, None)

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()

    def look(self, now_s: float) -> None:
        """Ends what takes too long; ``now_s`` is on the loop's clock."""
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes == 0 or unsent_bytes < self._unsent_bytes:
            self._moved_s = now_s
        self._unsent_bytes = unsent_bytes
        is_late = self in self._sockets.waiting and now_s - self._since_s > HEAD_S
        if is_late or now_s - self._moved_s > STALLED_S:
            self.give_up()

    def give_up(self) -> None:
        """Closes it at once, whatever is still to be sent or to come."""
        self._sockets.waiting.pop(self, None)
        self.transport.abort()

    def _wait(self) -> None:
        self._since_s = self._moved_s = self.loop.time()
        self._sockets.waiting.pop(self, None)
        self._sockets.waiting[self] = None

    def _look_again(self) -> None:
        self._looking = self.loop.call_later(LOOK_EVERY_S, self._look_again)
        self.look(self.loop.time())

    def _should_upgrade_to_ws(self) -> bool:
        return False  # nothing here speaks it, and it would leave these limits


def raise_file_limit() -> int:
    """Lets this process have as many files open as the system allows it; gives how many sockets there may be."""
    if sys.platform == "win32":
        return MOST_SOCKETS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return MOST_SOCKETS if soft == resource.RLIM_INFINITY else max(32, min(MOST_SOCKETS, soft - OTHER_FILES))
