"""What one visitor may hold at a time, and all together, on a clock of the test's own."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from webui.api import held
from webui.api.held import GUEST, MB, MOST_STREAMS, UPLOADS, Held, Place, Refused
from webui.core.hosting import Limits

LIMITS = Limits()
EVENTS = ("GET", "/api/jobs/x/events")
Enter = Callable[..., Awaitable[None]]


def play(tmp_path: Path, scene: Callable[[Held, AsyncExitStack, Enter], Awaitable[None]]) -> None:
    async def run() -> None:
        kept = Held(tmp_path)
        async with AsyncExitStack() as stack:

            async def enter(route: tuple[str, str], visitor: str, is_owner: bool = False) -> None:
                (await stack.enter_async_context(kept.place(*route, visitor, is_owner))).begin()

            await scene(kept, stack, enter)
        assert not kept._holdings, "nothing is left of who has gone"

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/gradio_api/queue/data", "/api/jobs/x/events", "/sdapi/v1/txt2img"])
def test_streams_are_bounded_for_each_visitor(tmp_path, path):
    async def scene(kept: Held, stack: AsyncExitStack, enter: Enter) -> None:
        route = ("POST" if path.startswith("/sdapi") else "GET", path)
        for _ in range(GUEST.streams):
            await enter(route, "a")
        with pytest.raises(Refused) as refused:
            await enter(route, "a")
        assert refused.value.status_code == 429 and int(refused.value.headers["Retry-After"]) > 0
        assert str(GUEST.streams) in refused.value.detail
        await enter(route, "b")
        await enter(("GET", "/api/jobs/x"), "a")

    play(tmp_path, scene)


def test_an_answer_that_begins_while_its_request_waits_to_go_on_keeps_no_turn():
    """Each such stream would keep one for ever, until nothing of its visitor was answered any more."""

    async def run() -> None:
        turns = asyncio.Semaphore(1)
        place = Place(turns, lambda: 0.0)
        await place.take_turn()

        async def receive() -> dict[str, Any]:
            await turns.acquire()  # by somebody else
            return {"type": "http.request", "body": b"", "more_body": False}

        listening = asyncio.create_task(place.counted(receive)())
        for _ in range(3):
            await asyncio.sleep(0)
        place.begin()
        turns.release()
        await listening
        assert not turns.locked()

    asyncio.run(run())


def test_streams_take_turns_to_begin(tmp_path):
    async def scene(kept: Held, stack: AsyncExitStack, enter: Enter) -> None:
        begun = [await stack.enter_async_context(kept.place(*EVENTS, "a", False)) for _ in range(GUEST.at_once)]
        another = asyncio.create_task(enter(EVENTS, "a"))
        await asyncio.sleep(0)
        assert not another.done()
        begun[0].begin()
        begun[0].begin()
        await another

    play(tmp_path, scene)


def test_all_guests_together_leave_the_owner_streams(tmp_path):
    async def scene(kept: Held, stack: AsyncExitStack, enter: Enter) -> None:
        for number in range(MOST_STREAMS // 2):
            await enter(EVENTS, f"guest {number // GUEST.streams}")
        with pytest.raises(Refused) as refused:
            await enter(EVENTS, f"guest {MOST_STREAMS // 2 // GUEST.streams}")
        assert refused.value.status_code == 503
        for number in range(MOST_STREAMS // 2):  # each newcomer still has one
            await enter(EVENTS, f"newcomer {number}")
        with pytest.raises(Refused):
            await enter(EVENTS, "newcomer 0")
        with pytest.raises(Refused):
            await enter(EVENTS, "another")
        await enter(EVENTS, "owner", True)

    play(tmp_path, scene)


def test_streams_leave_sockets_for_everything_else(tmp_path):
    async def run() -> None:
        kept = Held(tmp_path, sockets=32)
        async with AsyncExitStack() as stack:
            for number in range(16):
                await stack.enter_async_context(kept.place(*EVENTS, f"guest {number}", False))
            with pytest.raises(Refused):
                await stack.enter_async_context(kept.place(*EVENTS, "another", False))

    asyncio.run(run())


def test_requests_take_turns_and_too_many_are_refused(tmp_path):
    async def scene(kept: Held, stack: AsyncExitStack, enter: Enter) -> None:
        async def ask(done: asyncio.Event) -> None:
            async with kept.place("POST", "/api/info", "a", False):
                await done.wait()

        done = asyncio.Event()
        tasks = [asyncio.create_task(ask(done)) for _ in range(GUEST.at_once + GUEST.waiting)]
        await asyncio.sleep(0)
        with pytest.raises(Refused) as refused:
            await enter(("POST", "/api/info"), "a")
        assert refused.value.status_code == 429
        await enter(("POST", "/api/info"), "b")
        done.set()
        await asyncio.gather(*tasks)
        await enter(("POST", "/api/info"), "a")

    play(tmp_path, scene)


@pytest.mark.parametrize("route", [("POST", "/api/info"), ("POST", "/sdapi/v1/txt2img")])
def test_bodies_that_come_slowly_hold_no_turns_and_make_way(tmp_path, route):
    now_s = 1000.0

    async def run() -> None:
        nonlocal now_s
        kept = Held(tmp_path, lambda: now_s)
        most = GUEST.streams if route[1] in held.CALLS else GUEST.at_once + GUEST.waiting
        ended: list[int] = []

        async def drip() -> None:
            async with kept.place(*route, "nobody", False) as place:
                with pytest.raises(HTTPException) as refused:
                    await place.counted(asyncio.Event().wait)()
            ended.append(refused.value.status_code)

        async def ask() -> bytes:
            async with kept.place(*route, "nobody", False) as place:
                return (await place.counted(whole)())["body"]

        async def whole() -> dict[str, Any]:
            return {"type": "http.request", "body": b"all of it"}

        drips = [asyncio.create_task(drip()) for _ in range(most - 1)]
        await asyncio.sleep(0)
        assert await ask() == b"all of it"
        drips.append(asyncio.create_task(drip()))
        await asyncio.sleep(0)
        with pytest.raises(Refused):
            await ask()
        now_s += held.HASTE_S
        for count in range(1, most):
            assert await ask() == b"all of it"
            await asyncio.sleep(0)
            drips.append(asyncio.create_task(drip()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert ended == [408] * count
        for task in drips:
            task.cancel()

    asyncio.run(run())


class Uploading:
    """Bytes that visitors send, a megabyte a time."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.free_bytes = 1000.0, 2**40
        self.held = Held(folder, clock=lambda: self.now_s)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=self.free_bytes))

    def send(
        self, visitor: str, megabytes: int, is_owner: bool = False, body: bytes = b"x" * MB, path: str = UPLOADS[0]
    ) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": True}

        async def run() -> None:
            listen = self.held.counted(receive, "POST", path, visitor, is_owner)
            for _ in range(megabytes):
                await listen()

        asyncio.run(run())


@pytest.fixture
def uploading(tmp_path, monkeypatch) -> Uploading:
    return Uploading(tmp_path, monkeypatch)


def test_a_day_of_uploads_is_bounded_for_each_visitor(uploading):
    uploading.send("a", LIMITS.upload_mb)
    with pytest.raises(Refused) as refused:
        uploading.send("a", 1)
    assert refused.value.status_code == 429 and "512 MB" in refused.value.detail
    with pytest.raises(Refused):
        uploading.send("a", 1, path="/api/controls/pictures")
    uploading.send("b", 1)
    uploading.send("owner", 2 * LIMITS.upload_mb, is_owner=True)
    uploading.now_s += int(refused.value.headers["Retry-After"]) - 1
    with pytest.raises(Refused):
        uploading.send("a", 1)
    uploading.now_s += 2
    uploading.send("a", 1)


def test_all_uploads_of_a_day_are_bounded(uploading):
    visitors = LIMITS.upload_mb_in_all // LIMITS.upload_mb
    for number in range(visitors):
        uploading.send(f"guest {number}", LIMITS.upload_mb)
    with pytest.raises(Refused) as refused:
        uploading.send("another", 1)
    assert refused.value.status_code == 503
    uploading.send("owner", 1, is_owner=True)


def test_files_count_however_small_they_are(uploading):
    body = b'\r\n--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' * 1000
    most = LIMITS.upload_mb * MB // (len(body) + 1000 * held.FILE_BYTES)
    uploading.send("a", most, body=body)
    with pytest.raises(Refused):
        uploading.send("a", 1, body=body)


def test_uploads_leave_room_on_the_disk(uploading):
    uploading.send("a", 1)
    uploading.free_bytes = held.FREE_BYTES - 1
    for is_owner in (False, True):
        with pytest.raises(Refused) as refused:
            uploading.send("a", 1, is_owner)
        assert refused.value.status_code == 507
    uploading.free_bytes = held.FREE_BYTES
    uploading.send("a", 1)
