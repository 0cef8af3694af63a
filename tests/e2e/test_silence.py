"""A server that does not answer: what the page says, what it refuses, and how it goes on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .server import SMALL, Server, free_port
from .tab import Tab

SILENT = "The server does not answer. Your settings are kept."
RELOADED = "() => !window.before && window.darkroom && darkroom.restored.length === darkroom.PAGES.length"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """Starts a server, each time at the same address and with the same data."""
    port, started = free_port(), []

    def start() -> Server:
        started.append(Server(tmp_path, port=port))
        return started[-1]

    yield start
    for server in started:
        server.close()


def expect_silence(tab: Tab) -> None:
    tab.wait_for_message(SILENT)
    tab.page.locator("#darkroom-engine[data-status=degraded]").wait_for()
    assert tab.find("stop").is_disabled()
    tab.find("generate").click()
    assert tab.message == SILENT


@pytest.mark.slow
def test_a_job_goes_on_when_its_server_was_killed_and_nothing_typed_is_lost(start, open_tab):
    tab = open_tab("", start())
    tab.set(prompt="a red", steps=150, width=256, height=256)
    jobs = [tab.generate(), tab.add_job(prompt="a green"), tab.add_job(prompt="a red")]
    tab.wait_for_step()
    tab.page.evaluate("window.before = true")
    tab.leaving = True
    tab.server.process.kill()
    expect_silence(tab)
    prompt = tab.find("prompt").locator("textarea")
    prompt.press("End")
    prompt.press_sequentially(" apple")
    prompt.press("ArrowLeft")
    tab.server = start()
    tab.page.wait_for_function(RELOADED)  # by itself
    tab.wait_for_step()
    assert tab.job == jobs[0]
    tab.leaving = False
    tab.page.wait_for_function("document.activeElement.selectionStart === 'a red appl'.length")
    tab.page.keyboard.type("!")
    assert tab.values("prompt", "steps", "width") == {"prompt": "a red appl!e", "steps": "150", "width": "256"}
    tab.wait_for_queue("2 more wait.", "a red", "a green", "a red")


def test_a_connection_that_comes_back_changes_nothing(open_tab, server):
    tab = open_tab()
    tab.set(prompt="a red", **SMALL)
    ready = tab.message
    tab.leaving = True
    tab.page.evaluate("window.before = true")
    tab.page.route("**/api/health", lambda route: route.abort())
    tab.page.evaluate("dispatchEvent(new Event('offline'))")
    expect_silence(tab)
    tab.page.unroute_all()
    tab.wait_for_message(ready)
    assert not tab.find("stop").is_disabled()
    job = tab.draw()
    assert tab.page.evaluate("window.before")  # the same page
    tab.page.route("**/*", lambda route: route.abort())
    tab.find("generate").click()  # Gradio gives up, and loads the page anew when it can
    expect_silence(tab)
    tab.find("prompt").locator("textarea").fill("a blue")
    tab.page.unroute_all()
    tab.page.wait_for_function(RELOADED)
    tab.wait_for_state("done")
    tab.leaving = False
    assert tab.job == job
    assert tab.values("prompt") == {"prompt": "a blue"}
