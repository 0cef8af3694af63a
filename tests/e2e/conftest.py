"""One server for all tests here, a browser for those that need one."""

import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .server import Server
from .start_pictures import picture, png
from .tab import WINDOW, Tab

LEAVING = "AbortError|Connection errored out|net::ERR_|network error|status of 404"
REFUSED = "status of 4(09|22)"
EMPTIED = "status of 404.*/thumbnail"
SPARE = "robots.txt"
"""Where a page is that no test uses: there it does nothing."""
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first is the same browser without windows: it takes a sixth less of the processor."""
CLOSE = "document.querySelectorAll('.toast-close').forEach((button) => button.click())"


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that most tests share."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server of the test's own: ``start_server("--auth", "a:b")``."""
    started: list[Server] = []

    def start(*flags: str, **options) -> Server:
        folder = tmp_path / f"server-{len(started)}"
        folder.mkdir()
        started.append(Server(folder, *flags, **options))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def start_file(tmp_path: Path) -> Path:
    """A start picture as a file."""
    path = tmp_path / "start.png"
    path.write_bytes(png(picture()))
    return path


@pytest.fixture(scope="package")
def browser():
    """A real Chromium. Playwright holds an event loop while it is open: until the last test here."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        reason = "no chromium on PATH (on Debian: apt install chromium-headless-shell): the page was NOT tested"
        if os.environ.get("CI"):
            pytest.fail(reason)
        warnings.warn(pytest.PytestWarning(reason), stacklevel=1)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def context(browser):
    """One visitor's browser for all tests, one after another: it keeps what it has fetched, and nothing else."""
    # Nothing fades or slides for a visitor who asks for that, and the browser has a fifth less to do.
    with _new_context(browser, reduced_motion="reduce") as context:
        yield context


@contextmanager
def _new_context(browser, **options: Any) -> Iterator[Any]:
    context = browser.new_context(viewport=WINDOW, accept_downloads=True, **options)
    context.set_default_timeout(90_000)
    yield context
    context.close()


@pytest.fixture(scope="module")
def host(server: Server) -> Server:
    """The server whose page a module's tests open."""
    return server


@pytest.fixture
def open_tab(context, host: Server) -> Iterator[Callable[..., Tab]]:
    """Opens tabs of one visitor: they share the browser's memory."""
    yield from tab_opener(context, host)


@pytest.fixture
def newcomer(browser, host: Server) -> Iterator[Tab]:
    """A tab of a browser that was never here, where nothing is turned off."""
    with _new_context(browser) as context, _watching(context) as tabs:
        tabs.append(_new_tab(context, host, newcomer=True))
        yield tabs[0].open()


@pytest.fixture(scope="module")
def kept_tabs() -> Iterator[list[Tab]]:
    """The module's own tab, once a test has asked for it."""
    tabs: list[Tab] = []
    yield tabs
    for tab in tabs:
        _put_away(tab)


@pytest.fixture
def tab(request, context, host: Server, kept_tabs: list[Tab]) -> Iterator[Tab]:
    """A tab as a newcomer finds it, with pictures of the tests before at most. Opening a page takes seconds, so one
    serves a module's tests until one of them fails."""
    failed = request.session.testsfailed
    with _watching(context) as tabs:
        if kept_tabs:
            tabs.append(kept_tabs.pop())
            tabs[0].begin_anew()
        else:
            tabs.append(_new_tab(context, host))
            tabs[0].open().keep()
        yield tabs[0]
        if request.session.testsfailed == failed:
            tabs[0].leave()
            kept_tabs.append(tabs[0])
        else:
            tabs[0].new = None


def tab_opener(context, default: Server) -> Iterator[Callable[..., Tab]]:
    with _watching(context) as tabs:

        def open_one(query: str = "", server: Server = default) -> Tab:
            tabs.append(_new_tab(context, server))
            return tabs[-1].open(query)

        yield open_one


def _new_tab(context, server: Server, newcomer: bool = False) -> Tab:
    if spare := [page for page in context.pages if page.url.endswith(SPARE)]:
        spare[0].bring_to_front()
        return Tab(spare[0], server)
    page = context.new_page()
    # Messages lie over the page for some seconds: they are closed where they are in the way, as a person does.
    page.add_locator_handler(page.locator(".toast-close").first, lambda _: page.evaluate(CLOSE), no_wait_after=True)
    return Tab(page, server, newcomer).watch()


def _put_away(tab: Tab) -> None:
    """Leaves the page for the next test to open: where it was open before, that takes the browser half as long."""
    page, tab.leaving = tab.page, True
    if page.is_closed():
        return
    if tab.is_newcomer or tab.server.process.poll() is not None:
        page.close()
        return
    page.unroute_all()
    page.goto(tab.server.url + SPARE)
    page.evaluate("[sessionStorage, localStorage].forEach((storage) => storage.clear())")
    page.set_viewport_size(WINDOW)


@contextmanager
def _watching(context) -> Iterator[list[Tab]]:
    """The tabs of one test. It may leave no error on a console, send no request elsewhere, and open no dialog; jobs
    that still run are stopped, and the browser forgets all but what it has fetched."""
    troubles: list[str] = []
    tabs: list[Tab] = []

    def heed(request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            troubles.append(f"a request to {request.url}")

    def read(line) -> None:
        here = [tab for tab in tabs if tab.page == line.page]
        known = [LEAVING for tab in here if tab.leaving] + [REFUSED for tab in here if tab.is_refused]
        known += [EMPTIED for tab in here if tab.is_emptied]
        text = f"{line.text} {line.location.get('url', '')}"
        if line.type == "error" and not any(re.search(words, text) for words in known):
            troubles.append(f"console: {text}")

    watches = {
        "request": heed,
        "weberror": lambda error: troubles.append(f"a page error: {error.error}"),
        "console": read,
        "dialog": lambda dialog: (troubles.append(f"a dialog: {dialog.message}"), dialog.dismiss()),
    }
    for event, watch in watches.items():
        context.on(event, watch)
    yield tabs
    servers = {tab.server for tab in tabs}
    for tab in tabs:
        tab.stop_if_busy()
        if tab.new is None:
            _put_away(tab)
    for event, watch in watches.items():
        context.remove_listener(event, watch)
    _forget(context, [server.url for server in servers])
    for server in servers:
        server.settle()
    assert not troubles, troubles


def _forget(context, origins: list[str]) -> None:
    context.clear_cookies()
    context.clear_permissions()
    page = next((page for page in context.pages if not page.is_closed()), None) or context.new_page()
    session = context.new_cdp_session(page)
    for origin in origins:
        session.send("Storage.clearDataForOrigin", {"origin": origin.rstrip("/"), "storageTypes": "local_storage"})
    session.detach()
