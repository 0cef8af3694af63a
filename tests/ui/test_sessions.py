"""How many pages a visitor may have open, and what waits for those that nobody reads. The clock is the test's own."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from fastapi import HTTPException

from webui.core.visitor import OWNER, Visitor, asked_by
from webui.ui import sessions
from webui.ui.sessions import IDLE_S, MOST_OF_A_GUEST, MOST_SESSIONS, MOST_UNSENT, Sessions

ANN, BOB = Visitor("ann"), Visitor("bob")


class Queue:
    """As Gradio's, of which no page was read."""

    def __init__(self) -> None:
        self.pending_event_ids_session: dict[str, set[str]] = {}
        self.event_ids_to_events: dict[str, Any] = {}
        self.cleaned: list[str] = []

    async def clean_events(self, session_hash: str) -> None:
        self.cleaned.append(session_hash)


class Pages:
    """What visitors open, at a time that the test sets."""

    def __init__(self) -> None:
        self.now_s, self.queue = 0.0, Queue()
        self.all = Sessions(self.queue, lambda: self.now_s)

    def open(self, visitor: Visitor, *names: str) -> None:
        with asked_by(visitor):
            for name in names:
                self.all[name] = asyncio.Queue()

    def refusal(self, visitor: Visitor, size: int) -> str:
        with asked_by(visitor):
            return self.all.refusal(size)


def play(scene: Callable[[Pages], Awaitable[None]]) -> None:
    asyncio.run(scene(Pages()))


def test_a_visitor_has_so_many_and_takes_none_of_others():
    async def scene(pages: Pages) -> None:
        pages.open(BOB, "b")
        pages.open(ANN, *(f"a{number}" for number in range(MOST_OF_A_GUEST["sessions"])))
        with pytest.raises(HTTPException) as refused:
            pages.open(ANN, "one more")
        assert refused.value.status_code == 429 and refused.value.headers["Retry-After"]
        pages.open(BOB, "b2")
        with asked_by(ANN):
            assert "b" not in pages.all and "a0" in pages.all
        with pytest.raises(HTTPException) as refused:
            pages.open(ANN, "b")
        assert refused.value.status_code == 403
        with asked_by(OWNER):
            assert "b" in pages.all
        assert "b" in pages.all and "one more" not in pages.all

    play(scene)


def test_all_guests_together_leave_the_owner_room():
    async def scene(pages: Pages) -> None:
        for number in range(MOST_SESSIONS):
            pages.open(Visitor(f"guest {number // 20}"), f"page {number}")
        with pytest.raises(HTTPException) as refused:
            pages.open(BOB, "b")
        assert refused.value.status_code == 503
        pages.open(OWNER, "owner's")
        assert "page 0" in pages.all

    play(scene)


def test_what_nobody_reads_makes_way_and_what_is_read_stays():
    async def scene(pages: Pages) -> None:
        pages.open(ANN, "read", "left")
        pages.queue.pending_event_ids_session |= {"read": {"1"}, "left": {"2"}}
        pages.now_s = IDLE_S - 1
        pages.all["read"].put_nowait("news")
        assert await pages.all["read"].get() == "news"
        pages.now_s = IDLE_S + 1
        pages.open(BOB, "b")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [*pages.all] == ["read", "b"]
        assert pages.queue.cleaned == ["left"] and [*pages.queue.pending_event_ids_session] == ["read"]
        pages.all["left"].put_nowait("what comes late goes nowhere")
        assert "left" not in pages.all

    play(scene)


def test_what_waits_for_one_page_is_bounded():
    async def scene(pages: Pages) -> None:
        pages.open(ANN, "slow")
        for number in range(MOST_UNSENT + 1):
            assert "slow" in pages.all
            pages.all["slow"].put_nowait(number)
        assert "slow" not in pages.all, "its reader is told, rather than shown a part"
        assert pages.all["slow"].qsize() == MOST_UNSENT

    play(scene)


@pytest.mark.parametrize(("count", "size"), [(MOST_OF_A_GUEST["events"], 10), (2, MOST_OF_A_GUEST["bytes"] // 2)])
def test_a_visitor_has_so_much_done_at_once(count, size):
    async def scene(pages: Pages) -> None:
        pages.open(ANN, "a")
        events = {str(number): SimpleNamespace(request=_request(size)) for number in range(count)}
        pages.queue.pending_event_ids_session["a"] = {*events}
        pages.queue.event_ids_to_events = events
        assert pages.refusal(ANN, size)
        assert pages.refusal(BOB, size) == ""
        del events["0"]
        assert pages.refusal(ANN, size) == ""

    play(scene)


def test_gradios_queue_asks_before_it_takes_an_event():
    """That its names are the ones meant here."""
    with gr.Blocks(analytics_enabled=False) as blocks:
        box = gr.Textbox()
        box.submit(lambda text: text, box, box)
    blocks.queue()
    sessions.bound(blocks)
    queue: Any = blocks._queue

    async def push(name: str, size: int = 10) -> Any:
        body = SimpleNamespace(fn_index=0, session_hash=name, request=None, event_id=None, trigger_id=None)
        with asked_by(ANN):
            return await queue.push(body=body, request=_request(size), username=None)

    async def run() -> None:
        queue.start()
        took, _, state = await push("a")
        assert (took, state) == (True, "success") and queue.pending_messages_per_session.of(ANN) == ["a"]
        took, reason, state = await push("a", MOST_OF_A_GUEST["bytes"])
        assert (took, state) == (False, "queue_full") and "64 MB" in reason

    asyncio.run(run())


def _request(size: int) -> Any:
    return SimpleNamespace(headers={"content-length": str(size)})
