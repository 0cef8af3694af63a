"""Who a request is of, by its head: cookies, the owner's key and link, the login."""

import asyncio
import base64
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from webui.api.guard import Guard
from webui.api.held import Held
from webui.api.hosts import AllowedHosts
from webui.api.login import Login
from webui.api.streams import Streams
from webui.api.visitors import Asking, Visitors
from webui.core.keys import Keys
from webui.core.settings import Settings
from webui.core.visitor import asking

KEYS = Keys("open-sesame", b"secret")
OWNER_COOKIE = f"{KEYS.owner_cookie}={KEYS.owner_token}"


class Site:
    """A guarded application whose routes say who asks."""

    def __init__(self, tmp_path, accounts: dict[str, str] | None = None, keys: Keys | None = KEYS, **settings: Any):
        self.gradio = SimpleNamespace(auth=accounts, cookie_id="x", tokens={"token": "ann"})
        inner = FastAPI()

        @inner.api_route("/{path:path}", methods=["GET", "POST", "HEAD"])
        def route(path: str, visitor: Asking) -> dict[str, Any]:
            assert asking() == visitor
            return {"id": visitor.id, "is_owner": visitor.is_owner, "is_new": visitor.is_new}

        login, values = Login(self.gradio), Settings(**settings)
        visitors = Visitors(keys, login, len(accounts or ()) > 1, values.root_path)
        self._app = Guard(inner, AllowedHosts(values), login, visitors, tmp_path, Streams(), Held(tmp_path))
        self.client = self.visitor()

    def visitor(self, base_url: str = "http://127.0.0.1") -> "Client":
        return Client(httpx.ASGITransport(self._app), base_url)


class Client:
    """A browser: it keeps its cookies, and follows no way by itself."""

    def __init__(self, transport: httpx.ASGITransport, base_url: str) -> None:
        self._client = httpx.AsyncClient(transport=transport, base_url=base_url)

    def ask(self, path: str = "/api/models", method: str = "GET", **headers: str) -> httpx.Response:
        return asyncio.run(self._client.request(method, path, headers=headers))

    def who(self, path: str = "/api/models", method: str = "GET", **headers: str) -> dict[str, Any]:
        answer = self.ask(path, method, **headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


def test_without_guests_everybody_is_the_owner_and_gets_no_cookie(tmp_path):
    site = Site(tmp_path, keys=None)
    for path in ("/", "/api/jobs", "/?owner=x"):
        answer = site.client.ask(path)
        assert answer.json() == {"id": "owner", "is_owner": True, "is_new": False}
        assert "set-cookie" not in answer.headers


def test_nothing_makes_this_machines_browser_the_owner_where_there_are_guests(tmp_path):
    site = Site(tmp_path)
    for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Host": "localhost"}, {"Cookie": "darkroom-owner=owner"}):
        found = site.visitor().who(**headers)
        assert not found["is_owner"] and found["is_new"]


def test_a_guest_is_known_from_the_page_on(tmp_path):
    site = Site(tmp_path)
    first = site.client.ask("/")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/" in cookie and "Secure" not in cookie
    assert first.json()["is_new"] and first.json()["id"] not in cookie
    again = site.client.who()
    assert not again["is_new"] and again["id"] == first.json()["id"] == site.client.who("/")["id"]
    other = site.visitor()
    other.ask("/")
    assert other.who()["id"] != again["id"]


def test_what_starts_a_job_gives_a_cookie_and_other_routes_none(tmp_path):
    site = Site(tmp_path)
    for method, path, gives in (
        *(("POST", "/api/jobs", True), ("POST", "/sdapi/v1/txt2img", True), ("GET", "/api/jobs", False)),
        *(("GET", "/api/health", False), ("GET", "/assets/x.js", False), ("POST", "/gradio_api/queue/join", False)),
    ):
        client = site.visitor()
        answer = client.ask(path, method)
        assert ("set-cookie" in answer.headers) is gives, path
        assert (client.who()["id"] == answer.json()["id"]) is gives


@pytest.mark.parametrize("value", ["", "x", "0" * 32, f"{'0' * 32}.{'0' * 64}", KEYS.owner_token, "a" * 5000])
def test_a_forged_cookie_is_none(tmp_path, value):
    found = Site(tmp_path).client.who(Cookie=f"{KEYS.guest_cookie}={value}; {KEYS.owner_cookie}={value[:-1]}")
    assert found["is_new"] and not found["is_owner"]


def test_the_owners_link_sets_the_cookie_and_leads_to_the_plain_address(tmp_path):
    site = Site(tmp_path)
    answer = site.client.ask("/?owner=open-sesame&preset=A%20b")
    assert answer.status_code == 303 and answer.headers["location"] == "/?preset=A+b"
    assert answer.headers["cache-control"] == "no-store" and answer.headers["referrer-policy"] == "same-origin"
    assert "HttpOnly" in answer.headers["set-cookie"] and "open-sesame" not in answer.headers["set-cookie"]
    assert site.client.who()["is_owner"] and site.client.who("/")["is_owner"]
    for path in ("/?owner=wrong", "/?owner=", "/?owner=%C3%A9"):
        refused = site.visitor().ask(path)
        assert refused.status_code == 403 and KEYS.owner_cookie not in refused.headers.get("set-cookie", "")
    elsewhere = site.visitor()
    assert not elsewhere.who("/api/models?owner=open-sesame")["is_owner"], "an address of the page alone"


def test_the_owners_link_keeps_a_root_path_and_tls(tmp_path):
    client = Site(tmp_path, root_path="/sd").visitor()
    answer = client.ask("/?owner=open-sesame", **{"X-Forwarded-Proto": "https"})
    assert answer.headers["location"] == "/sd/" and "Secure" in answer.headers["set-cookie"]
    assert "Secure" in Site(tmp_path).visitor("https://127.0.0.1").ask("/").headers["set-cookie"]


def test_programs_send_the_owners_key(tmp_path):
    site = Site(tmp_path)
    assert site.client.who(Authorization="Bearer open-sesame")["is_owner"]
    for wrong in ("Bearer open", "Basic open-sesame", "open-sesame", "Bearer", "Bearer  "):
        assert not site.client.who(Authorization=wrong)["is_owner"]


class TestLogin:
    @pytest.fixture
    def site(self, tmp_path) -> Site:
        return Site(tmp_path, {"guest": "k7mq"})

    def test_guests_log_in_and_the_owner_need_not(self, site):
        assert site.client.ask().status_code == 401
        assert site.client.who(Cookie=OWNER_COOKIE)["is_owner"]
        assert site.client.who(Authorization="Bearer open-sesame")["is_owner"]
        assert site.visitor().ask("/?owner=open-sesame").status_code == 303
        assert site.client.ask(Authorization="Bearer wrong").status_code == 401

    def test_gradio_takes_the_owner_for_logged_in_too(self, tmp_path):
        seen: list[dict[str, str]] = []
        gradio = SimpleNamespace(auth={"guest": "k7mq"}, cookie_id="x", tokens={})
        inner = FastAPI()

        @inner.get("/config")
        def config(visitor: Asking) -> None:
            pass

        @inner.middleware("http")
        async def note(request, call_next):
            seen.append(dict(request.cookies))
            return await call_next(request)

        login = Login(gradio)
        visitors, hosts = Visitors(KEYS, login), AllowedHosts(Settings())
        guard = Guard(inner, hosts, login, visitors, tmp_path, Streams(), Held(tmp_path))
        client = Client(httpx.ASGITransport(guard), "http://127.0.0.1")
        for headers in ({"Cookie": f"a=b; {OWNER_COOKIE}"}, {"Authorization": "Bearer open-sesame"}):
            assert client.ask("/config", **headers).status_code == 200
            assert gradio.tokens.get(seen[-1]["access-token-unsecure-x"]) == "owner"
        assert seen[0]["a"] == "b" and len(gradio.tokens) == 1

    def test_a_shared_passphrase_is_no_visitor(self, site):
        basic = {"Authorization": "Basic " + base64.b64encode(b"guest:k7mq").decode()}
        one, other = site.visitor(), site.visitor()
        for client in (one, other):
            assert client.who("/", **basic)["is_new"]
        assert one.who(**basic)["id"] != other.who(**basic)["id"]

    def test_a_name_is_one_where_there_are_several(self, tmp_path):
        site = Site(tmp_path, {"ann": "a", "bob": "b"})
        ann, bob = ({"Authorization": "Basic " + base64.b64encode(text).decode()} for text in (b"ann:a", b"bob:b"))
        found = site.visitor().ask("/api/jobs", "POST", **ann)
        assert not found.json()["is_new"] and "set-cookie" not in found.headers
        assert site.visitor().who(**ann) == found.json() == site.visitor().who(Cookie="access-token-x=token")
        assert site.visitor().who(**bob)["id"] != found.json()["id"]
        assert site.visitor().ask(Authorization=ann["Authorization"][:-2]).status_code == 401
