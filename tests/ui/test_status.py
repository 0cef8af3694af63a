"""The status line: what it says of each event, and its progress bar."""

from pathlib import Path

import pytest

from webui.core.events import Cancelled, Done, Failed, Loading
from webui.core.ledger import PARTS
from webui.core.order import Order
from webui.core.request import Request
from webui.jobs.job import LocalJob
from webui.ui import stream
from webui.ui.stream import ledger_html, status_html


@pytest.mark.parametrize(
    ("event", "text", "value"),
    [
        (Loading("Starting the engine", 0.0), "Starting the engine ...", None),
        (Loading("Merging 2 LoRAs", 0.0), "Merging 2 LoRAs ...", None),
        (Loading("The memory is too small: 2 merges.", 0.0), "The memory is too small: 2 merges.", None),
        (Loading("Loading x: UNet, 1.20 of 3.97 GiB", 0.3), "Loading x: UNet, 1.20 of 3.97 GiB", "0.3000"),
        (Loading("Loading <b>2</b>", 0.5), "Loading &lt;b&gt;2&lt;/b&gt; ...", "0.5000"),
    ],
)
def test_loading_says_how_far_it_is_where_that_is_known(event, text, value):
    shown = status_html(event, None)
    assert 'data-state="loading"' in shown
    assert f">{text}</span>" in shown
    assert (f'<progress max="1" value="{value}"' in shown) if value else ("<progress" not in shown)


PARTS_S = {"steps": 1.5, "load": 0.5}


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Done(2.0, PARTS_S), "Done in 2.0 s."),
        (Failed("no", False, 2.0, PARTS_S), "no"),
        (Cancelled(3, 9, 2.0, PARTS_S), "Stopped at step 3 of 9."),
    ],
)
def test_a_job_that_ended_has_its_ledger_beside_the_status(event, text):
    status, ledger = status_html(event, None).split("</div>")
    assert text in status and "ledger" not in status
    assert 'aria-label="Steps 75% · Loading 25%"' in ledger
    assert '<li data-part="steps">Steps <b>1.50 s</b> <small>75%</small></li><li data-part="load">Loading' in ledger
    assert 'data-part="steps" style="flex-grow:0.7500"' in ledger


@pytest.mark.parametrize("event", [Done(1.0), Done(0.0, dict.fromkeys(PARTS, 0.0)), Failed("no"), Cancelled(), None])
def test_without_seconds_there_is_no_ledger(event):
    assert "ledger" not in status_html(event, None)


def test_every_part_has_a_name_and_a_colour_and_a_strange_one_is_only_text():
    assert set(stream.PARTS) == set(PARTS)
    style = (Path(stream.__file__).parent / "static/style.css").read_text("utf-8")
    assert all(f'.ledger [data-part="{part}"]' in style for part in PARTS if part != "other")
    shown = ledger_html({'"><img src=x>': 100.0})
    assert "<img" not in shown and "1 min 40 s" in shown


def test_a_job_that_failed_can_be_tried_again_unless_what_was_asked_is_wrong():
    job = LocalJob([Order(Request(), ())], lambda _: None)
    assert f'data-again="{job.id}">Try again</button>' in status_html(Failed("out of memory"), job)
    assert "Try again" not in status_html(Failed("no such model", bad_input=True), job)
    assert "Try again" not in status_html(Failed("the queue is full"), None)
