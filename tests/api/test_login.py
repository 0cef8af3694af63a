"""Guessing is slowed down, and nobody is locked out by others' guesses. The clock is the test's own."""

import asyncio
import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cachetools import TTLCache
from fastapi import FastAPI

from webui.api.errors import ERROR_ANSWERS
from webui.api.guard import Guard
from webui.api.held import Held
from webui.api.hosts import AllowedHosts
from webui.api.login import SESSION_S, Login, login_router
from webui.api.streams import Streams
from webui.api.visitors import Visitors
from webui.core.settings import Settings

RIGHT, WRONG = "s3cret", "guess"


class Site:
    """A server with a login, and browsers at addresses of their own."""

    def __init__(self, folder: Path, passphrase: str = "") -> None:
        self.now_s = 0.0
        gradio = SimpleNamespace(auth={"ann": RIGHT, "bob": "other"}, cookie_id="x")
        gradio.tokens = TTLCache(100, SESSION_S, timer=lambda: self.now_s)
        inner, login = FastAPI(exception_handlers=dict(ERROR_ANSWERS)), Login(gradio, lambda: self.now_s, passphrase)
        inner.include_router(login_router(login, ""))

        @inner.get("/api/x")
        async def route() -> str:
            return "in"

        hosts, visitors = AllowedHosts(Settings()), Visitors(None, login)
        self._app = Guard(inner, hosts, login, visitors, folder, Streams(), Held(folder))

    def browser(self, address: str = "10.0.0.1") -> "Browser":
        return Browser(httpx.ASGITransport(self._app, client=(address, 1)))


class Browser:
    def __init__(self, transport: httpx.ASGITransport) -> None:
        self._client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    def ask(self, method: str = "GET", path: str = "/api/x", **options: Any) -> httpx.Response:
        return asyncio.run(self._client.request(method, path, **options))

    def log_in(self, password: str, name: str = "ann") -> httpx.Response:
        return self.ask("POST", "/login", data={"username": name, "password": password})

    def basic(self, password: str, name: str = "ann") -> httpx.Response:
        encoded = base64.b64encode(f"{name}:{password}".encode()).decode()
        return self.ask(headers={"Authorization": f"Basic {encoded}"})


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path)


def guess(browser: Browser, way: str, times: int = 5) -> None:
    for _ in range(times):
        assert getattr(browser, way)(WRONG).status_code == {"log_in": 400, "basic": 401}[way]


@pytest.mark.parametrize("way", ["log_in", "basic"])
def test_wrong_tries_cost_a_pause_that_ends(site, way):
    browser = site.browser()
    guess(browser, way)
    answer = getattr(browser, way)(RIGHT)
    assert answer.status_code == 429 and "try again in" in answer.json()["detail"]
    site.now_s += int(answer.headers["Retry-After"])
    assert getattr(browser, way)(RIGHT).status_code == 200
    for _ in range(50):
        assert getattr(browser, way)(RIGHT).status_code == 200, "who knows it is never slow"


@pytest.mark.parametrize("way", ["log_in", "basic"])
def test_a_passphrase_made_by_chance_lets_in_whatever_others_guess(tmp_path, way):
    site = Site(tmp_path, passphrase=RIGHT)
    guess(site.browser(), way)
    assert getattr(site.browser(), way)(WRONG).status_code in (429, 401)  # from the same address, as through a tunnel
    assert getattr(site.browser(), way)(RIGHT).status_code == 200


def test_many_addresses_share_the_tries_for_a_name_and_leave_others_theirs(site):
    for number in range(4):
        guess(site.browser(f"10.0.1.{number}"), "log_in")
    assert site.browser("10.0.2.1").log_in(WRONG).status_code == 429
    assert site.browser("10.0.2.1").log_in("other", "bob").status_code == 200


def test_names_that_nobody_has_are_counted_together(site):
    codes = [site.browser(f"10.1.0.{number}").log_in(WRONG, f"name {number}").status_code for number in range(61)]
    assert codes == [400] * 60 + [429]


@pytest.mark.parametrize("way", ["log_in", "basic"])
def test_who_has_been_in_before_gets_in_whatever_others_guess(site, way):
    known = site.browser("10.9.9.9")
    assert getattr(known, way)(RIGHT).status_code == 200
    for number in range(4):
        guess(site.browser(f"10.0.1.{number}"), way)
    assert getattr(site.browser("10.0.3.1"), way)(RIGHT).status_code == 429
    site.now_s += 1
    assert getattr(known, way)(RIGHT).status_code == 200
    guess(known, way)
    assert getattr(known, way)(RIGHT).status_code == 429, "its own tries are counted too"


def test_a_session_ends_by_itself_and_by_logging_out_alone(site):
    browser, other = site.browser(), site.browser()
    for one in (browser, other):
        answer = one.log_in(RIGHT)
        assert answer.status_code == 200 and f"Max-Age={SESSION_S}" in answer.headers["set-cookie"]
        assert one.ask().status_code == 200
    cookies = dict(browser._client.cookies)
    assert browser.ask(path="/logout").status_code == 303
    assert browser.ask().status_code == 401 and other.ask().status_code == 200
    assert (
        site.browser()
        .ask(headers={"Cookie": "; ".join(f"{name}={held}" for name, held in cookies.items())})
        .status_code
        == 401
    ), "the cookie alone is worth nothing"
    site.now_s += SESSION_S
    assert other.ask().status_code == 401
