"""Gradio's application with something of ours in front, and what it keeps of visitors."""

import asyncio
import threading
import tracemalloc
import weakref
from typing import Any

import gradio as gr
from gradio.routes import App

from webui.ui.application import Application, Visitors


class Text(str):
    """Text that can be watched."""


def test_nothing_that_a_visitor_sent_or_got_is_kept():
    """Somebody could fill the server's memory with it."""
    with gr.Blocks(analytics_enabled=False) as blocks:
        box, choice, shown = gr.Textbox(), gr.Dropdown(["a"]), gr.HTML()
        answer = (lambda text: [gr.update(choices=["b"], value="b"), Text(f"got {text}")], box, [choice, shown])
        box.submit(*answer)
    app = Application(lambda inner, _: inner)
    App.create_app(blocks, app=app)
    watched: list[weakref.ref[Any]] = []

    async def call() -> None:
        visitor = app.state_holder["visitor"]
        sent = Text("sent")
        watched.append(weakref.ref(sent))
        function = blocks.fns[0]
        await blocks.preprocess_data(function, [sent], visitor)
        got = function.fn(sent)
        watched.append(weakref.ref(got[1]))
        await blocks.postprocess_data(function, got, visitor)

    before = {*threading.enumerate()}
    asyncio.run(call())
    for thread in {*threading.enumerate()} - before:
        thread.join()  # one lets go of what it was given a moment after its answer is there
    assert [value() for value in watched] == [None, None]
    visitor = app.state_holder["visitor"]
    assert list(visitor.components) == []
    assert visitor[choice._id].choices == [("b", "b")], "what the page itself changed is kept"


def test_a_visitor_takes_no_room_for_what_the_page_has_for_all():
    with gr.Blocks() as blocks:
        controls = [gr.Textbox(visible=False) for _ in range(800)]
    visitors = Visitors()
    visitors.set_blocks(blocks)
    tracemalloc.start()
    try:
        for number in range(100):
            visitors[f"page {number}"]
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken_bytes < 100 * 8_000
    own = gr.Textbox("mine", render=False)
    visitors["page 1"][controls[3]._id] = own
    assert visitors["page 1"][controls[3]._id] is own and visitors["page 2"][controls[3]._id] is controls[3]
