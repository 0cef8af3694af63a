"""How long, and how many, sockets may be held open: on a clock and over transports of the test's own."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from webui.api.connections import HEAD_S, KEPT_S, PEER, STALLED_S, Connection, Sockets, raise_file_limit

HEAD = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


class Wire(asyncio.Transport):
    """What a client sends and takes."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        super().__init__({"peername": (address, 5000)})
        self.sent, self.unsent_bytes, self.aborted, self.closed = b"", 0, False, False

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Clients:
    """Of one server, whose application ``app`` is."""

    def __init__(self, app: Callable[..., Any], most: int = 100) -> None:
        self._config, self._state, self.sockets = (
            Config(app, lifespan="off", log_config=None),
            ServerState(),
            Sockets(most),
        )
        self.all: list[Connection] = []

    def connect(self, address: str = "127.0.0.1") -> tuple[Connection, Wire]:
        wire = Wire(address)
        connection = Connection(self.sockets, config=self._config, server_state=self._state, app_state={})
        connection.connection_made(wire)
        self.all.append(connection)
        return connection, wire

    def end(self) -> None:
        for connection in self.all:
            connection.connection_lost(None)


def test_the_address_of_a_connection_is_told_beside_what_a_head_may_say():
    seen: list[Any] = []

    async def look(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["state"][PEER])
        await _answers(scope, receive, send)

    async def play() -> None:
        clients = Clients(look)
        connection, _ = clients.connect("192.0.2.7")
        connection.data_received(b"GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
        await _settle()
        clients.end()

    asyncio.run(play())
    assert seen == ["192.0.2.7"]


async def _answers(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _goes_on(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"news", "more_body": True})
    await asyncio.Event().wait()


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("part", [b"", b"GET /x HT", HEAD[:-2]], ids=["silence", "half a line", "half a head"])
def test_a_head_has_so_long_also_after_an_answer(part):
    async def play() -> None:
        clients = Clients(_answers)
        for answered in (0, 1):
            connection, wire = clients.connect()
            if answered:
                connection.data_received(HEAD)
                await _settle()
                assert wire.sent.endswith(b"ok")
            if part:
                connection.data_received(part)
            now_s = asyncio.get_running_loop().time()
            connection.look(now_s + HEAD_S - 1)
            assert not wire.aborted
            connection.look(now_s + HEAD_S + 1)
            assert wire.aborted
        clients.end()

    asyncio.run(play())


def test_a_connection_is_kept_for_longer_than_programs_keep_theirs():
    """Else one that asks in the moment of its end gets no answer: httpx, and so gradio_client, keep theirs for 5 s."""
    assert 2 * httpx.Limits().keepalive_expiry < KEPT_S < HEAD_S

    async def play() -> None:
        connection, _ = Clients(_answers).connect()
        connection.data_received(HEAD)
        await _settle()
        left_s = connection.timeout_keep_alive_task.when() - asyncio.get_running_loop().time()
        assert KEPT_S - 1 < left_s <= KEPT_S
        connection.connection_lost(None)

    asyncio.run(play())


def test_an_answer_goes_on_while_its_client_takes_of_it():
    async def play() -> None:
        clients = Clients(_goes_on)
        connection, wire = clients.connect()
        connection.data_received(HEAD)
        await _settle()
        now_s = asyncio.get_running_loop().time()
        for _ in range(10):  # nothing is left unsent: a quiet stream
            now_s += STALLED_S - 1
            connection.look(now_s)
        for unsent_bytes in (900, 700, 500):  # slow, but it moves
            wire.unsent_bytes, now_s = unsent_bytes, now_s + STALLED_S - 1
            connection.look(now_s)
        assert not wire.aborted
        for unsent_bytes in (500, 600, 600):  # what is added is no sign of life
            wire.unsent_bytes, now_s = unsent_bytes, now_s + STALLED_S / 2
            connection.look(now_s)
        assert wire.aborted
        clients.end()

    asyncio.run(play())


def test_too_many_cost_the_one_that_has_waited_longest_its_place():
    async def play() -> None:
        clients = Clients(_goes_on, most=3)
        held, silent, second = (clients.connect() for _ in range(3))
        held[0].data_received(HEAD)
        await _settle()
        new = clients.connect()
        assert silent[1].aborted and not any(wire.is_closing() for _, wire in (held, second, new))
        clients.end()

    asyncio.run(play())


def test_where_all_are_being_answered_a_new_one_is_told_so():
    async def play() -> None:
        clients = Clients(_goes_on, most=2)
        for _ in range(2):
            clients.connect()[0].data_received(HEAD)
        await _settle()
        _, wire = clients.connect()
        assert wire.sent.startswith(b"HTTP/1.1 503 ") and b"Retry-After" in wire.sent and wire.closed
        head, body = wire.sent.split(b"\r\n\r\n")
        assert b"Content-Length: %d\r\n" % len(body) in head
        clients.end()

    asyncio.run(play())


def test_the_file_limit_is_raised_as_far_as_the_system_lets_it():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, before[1]))
        sockets = raise_file_limit()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert 0 < sockets < soft <= hard and (soft > 400 or hard == 400)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
