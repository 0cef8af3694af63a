"""What stands before every route: hosts, other sites, the login, sizes, headers. The routes here are a stand-in."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse

from webui.api import bodies
from webui.api.errors import ERROR_ANSWERS
from webui.api.guard import Guard
from webui.api.held import Held
from webui.api.hosts import AllowedHosts
from webui.api.login import Login
from webui.api.policy import FILES
from webui.api.streams import Streams
from webui.api.visitors import Visitors
from webui.core.settings import Settings

LOCAL = "127.0.0.1:7860"


class Site:
    """A guarded application that notes whether it was reached, and how many bytes were taken off the wire."""

    def __init__(self, uploads: Path, auth: bool = False, **settings: Any) -> None:
        self.reached: list[str] = []
        self.taken_bytes = 0
        self.streams = Streams()
        self.hosts = AllowedHosts(Settings(**settings))
        login = SimpleNamespace(auth={"ann": "s3cret"} if auth else None, cookie_id="x", tokens={"token": "ann"})
        inner = FastAPI(exception_handlers=dict(ERROR_ANSWERS))

        @inner.get("/page")
        async def page(request: Request) -> HTMLResponse:
            answer = HTMLResponse(request.state.nonce)
            answer.set_cookie("token", "x", httponly=True, samesite="none", secure=True)
            answer.set_cookie("token-unsecure", "x", httponly=True)
            return answer

        @inner.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
        async def route(request: Request) -> JSONResponse:
            self.reached.append(request.url.path)
            size = len(await request.body())
            return JSONResponse({"size": size}, headers={"Access-Control-Allow-Origin": "*"})

        visitors = Visitors(None, Login(login))
        guard = Guard(inner, self.hosts, Login(login), visitors, uploads, self.streams, Held(uploads))

        async def app(scope, receive, send):
            async def counted():
                message = await receive()
                self.taken_bytes += len(message.get("body", b""))
                return message

            await guard(scope, counted, send)

        self._app = app

    def ask(self, method: str = "GET", path: str = "/api/health", body: Any = None, **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{LOCAL}") as client:
                return await client.request(method, path, content=body, headers=names)

        return asyncio.run(send())


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path)


LOCAL_NAMES = [LOCAL, "localhost", "LOCALHOST:1", "localhost.", "127.8.9.1:80", "[::1]:7860", "app.localhost"]
OTHER_NAMES = ["evil.example", "evil.example:1", "localhost.evil.example", "127.0.0.1.evil.example", "a b", "a/b", "@a"]
ADDRESSES = ["192.168.1.5:7860", "0.0.0.0:7860", "[fe80::1]:7860", "10.0.0.1"]


@pytest.mark.parametrize(
    ("settings", "known", "unknown"),
    [
        ({}, [*LOCAL_NAMES, "host.docker.internal:7860"], [*OTHER_NAMES, *ADDRESSES, "mybox", "mybox.lan"]),
        ({"host": "0.0.0.0"}, [*LOCAL_NAMES, *ADDRESSES, "mybox", "mybox.local"], [*OTHER_NAMES, "other.local"]),
        ({"host": "Box.lan"}, [*LOCAL_NAMES, *ADDRESSES, "box.lan:80"], [*OTHER_NAMES, "a.box.lan"]),
        (
            {"allow_host": ("Sd.Example",)},
            [*LOCAL_NAMES, "sd.example", "SD.example:444"],
            [*OTHER_NAMES, "a.sd.example"],
        ),
    ],
    ids=["this machine alone", "every address", "a name", "an allowed name"],
)
def test_only_names_of_this_server_are_answered(tmp_path, monkeypatch, settings, known, unknown):
    monkeypatch.setattr("socket.gethostname", lambda: "MyBox")
    site = Site(tmp_path, **settings)
    for name in known:
        assert site.ask(Host=name).status_code == 200, name
    reached = len(site.reached)
    for name in unknown:
        for headers in ({"Host": name}, {"Host": LOCAL, "X_Forwarded_Host": name}):
            answer = site.ask(**headers)
            assert answer.status_code == 403 and "--allow-host" in answer.json()["detail"], headers
    assert len(site.reached) == reached


def test_a_share_link_is_a_name_from_when_it_is_known(site):
    page = {"Host": "abc.gradio.live", "Origin": "https://abc.gradio.live"}
    assert site.ask("POST", **page).status_code == 403
    site.hosts.add("abc.gradio.live")
    assert site.ask("POST", **page).status_code == 200
    assert site.ask("POST", Origin="https://abc.gradio.live").status_code == 200, "a tunnel that changes Host"
    assert site.ask("POST", Host="abc.gradio.live", Origin="https://evil.example").status_code == 403


OTHER_SITES = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1.evil.example"},
    {"Origin": "http://localhost:7860"},
    {"Origin": "http://127.0.0.1:3000"},
    {"Origin": "file://"},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"},
    {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
    {"Sec_Fetch_Site": "same-origin", "Origin": "https://evil.example"},
]


@pytest.mark.parametrize("headers", OTHER_SITES, ids=lambda headers: " ".join(headers.values()))
def test_another_sites_page_gets_nothing_done_and_reads_nothing(site, headers):
    for method, path in (
        *(("POST", "/api/jobs"), ("DELETE", "/api/jobs/x"), ("GET", "/api/history"), ("POST", "/sdapi/v1/interrupt")),
        *(("POST", "/gradio_api/queue/join"), ("POST", "/gradio_api/upload"), ("GET", "/config"), ("GET", "/logout")),
        *(("POST", "/login"), ("OPTIONS", "/api/jobs"), ("GET", "/"), ("PUT", "/api/history/x/favourite")),
    ):
        answer = site.ask(method, path, **headers)
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    assert site.reached == []


def test_our_own_page_and_programs_are_answered(site):
    for headers in (
        {},
        {"Origin": f"http://{LOCAL}"},
        {"Origin": f"http://{LOCAL}", "Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Mode": "cors"},  # some programs say no more
        {"Host": "127.0.0.1", "Origin": "http://127.0.0.1:8080"},  # a proxy that leaves out the port
        {"Origin": "http://127.0.0.1:7875", "Sec_Fetch_Site": "same-origin"},  # one that says ours
    ):
        answer = site.ask("POST", "/api/jobs", **headers)
        assert answer.status_code == 200, headers
        assert "access-control-allow-origin" not in answer.headers


def test_links_on_other_sites_can_be_followed_but_not_to_log_somebody_out(site):
    visit = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert site.ask("GET", "/", **visit).status_code == 200
    assert site.ask("GET", "/logout", **visit).status_code == 403
    assert site.ask("GET", "/logout/", **visit).status_code == 403
    assert site.ask("POST", "/login", **visit).status_code == 403, "a form"


PROTECTED = ["/api/jobs", "/sdapi/v1/txt2img", "/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/cancel"]


class TestLogin:
    @pytest.fixture
    def site(self, tmp_path) -> Site:
        return Site(tmp_path, auth=True)

    @pytest.mark.parametrize(
        "path", [*PROTECTED, "/config", "/openapi.json", "/nothing", "/loginx", "/gradio_api/heartbeat/x"]
    )
    def test_comes_before_the_first_byte_of_a_body(self, site, path):
        for headers in (
            {},
            {"Authorization": "Bearer x"},
            {"Authorization": "Basic !!"},
            {"Cookie": "access-token-x=y"},
        ):
            answer = site.ask("POST", path, b"{" * 10**6, **headers)
            assert answer.status_code == 401 and {"error", "detail"} <= set(answer.json())
            assert ("www-authenticate" in answer.headers) == path.startswith("/sdapi/")
        assert site.taken_bytes == 0 and site.reached == []

    def test_lets_in_with_a_password_or_with_the_pages_cookie(self, site):
        basic = "Basic " + base64.b64encode(b"ann:s3cret").decode()
        for headers in (
            *({"Authorization": basic}, {"Cookie": "access-token-x=token"}),
            {"Cookie": "access-token-unsecure-x=token; other=1"},
        ):
            for path in PROTECTED:
                assert site.ask("POST", path, **headers).status_code == 200
        assert (
            site.ask("POST", "/api/jobs", Cookie="access-token-x=token", Origin="https://evil.example").status_code
            == 403
        )

    def test_the_page_to_log_in_at_needs_none(self, site):
        parts = ("/assets/index.js", "/favicon.ico", "/manifest.webmanifest", "/icons/icon.svg")
        for path in ("/", "/theme.css", *parts, "/gradio_api/startup-events"):
            assert site.ask("GET", path).status_code == 200
        assert site.ask("POST", "/login", b"username=ann").status_code == 200
        assert site.ask("POST", "/login/", b"username=ann").status_code == 200


LIMITED = [
    ("/api/tokens", 64 * 2**10),
    ("/login", 64 * 2**10),
    ("/gradio_api/cancel", 64 * 2**10),
    ("/api/jobs", 32 * 2**20),
    ("/sdapi/v1/img2img", 32 * 2**20),
    ("/gradio_api/queue/join", 32 * 2**20),
    ("/gradio_api/run/txt2img", 32 * 2**20),
    ("/api/info", 20 * 2**20),
]


@pytest.mark.parametrize(("path", "limit"), LIMITED)
def test_a_body_may_be_so_large_whether_its_length_is_told_or_not(site, path, limit):
    piece = b"x" * (limit // 4)

    async def pieces(number: int) -> AsyncIterator[bytes]:
        for _ in range(number):
            yield piece

    assert site.ask("POST", path, piece * 4).json() == {"size": limit}
    assert site.ask("POST", path, pieces(4)).json() == {"size": limit}
    site.taken_bytes = 0
    answer = site.ask("POST", path, piece * 4 + b"x")
    assert answer.status_code == 413 and "the limit is" in answer.json()["detail"]
    assert site.taken_bytes == 0
    answer = site.ask("POST", path, pieces(1000))
    assert answer.status_code == 413 and "the limit is" in answer.json()["detail"]
    assert site.taken_bytes == 5 * len(piece), "the rest is left on the wire"


def test_uploads_have_a_limit_of_their_own(site, monkeypatch):
    assert bodies.limit_of("/gradio_api/upload").max_bytes == bodies.UPLOAD_BYTES > 50 * 2**20
    monkeypatch.setitem(bodies.LIMITS, "/gradio_api/upload", bodies.Limit(10, None))
    assert site.ask("POST", "/gradio_api/upload", b"x" * 11).status_code == 413


@pytest.mark.parametrize("value", [b"{},", b"[", b"1,", b'{"a":'])
def test_a_body_of_nothing_but_brackets_is_refused_before_it_is_parsed(site, value):
    answer = site.ask("POST", "/gradio_api/queue/join", value * 200_000)
    assert answer.status_code == 413 and "too many values" in answer.json()["detail"]
    picture = base64.b64encode(bytes(range(256)) * 40_000)
    assert site.ask("POST", "/api/jobs", b'{"init":{"image":"' + picture + b'"}}').status_code == 200


def test_gradio_serves_files_of_the_one_folder_and_fetches_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    site = Site(folder)
    for route in ("/gradio_api/file=", "/gradio_api/file/"):
        for path in (
            *("http://example.com/x", "https://example.com/x", "HTTPS://example.com/x", "//example.com/x", ""),
            *("https://example.com/%2e%2e/%2e%2e/uploads/x", "uploads/x"),
            *(tmp_path / "x", folder / ".." / "x", folder / "link" / "x", "/etc/passwd", "x.png", "\\\\host\\share"),
        ):
            assert site.ask("GET", f"{route}{path}").status_code == 403, path
    assert site.reached == []
    assert site.ask("GET", f"/gradio_api/file={folder / 'hash' / 'a picture.png'}").status_code == 200
    for route in ("proxy=https://a.hf.space/x", "component_server", "process_recording", "deep_link", "dev/reload"):
        assert site.ask("POST", f"/gradio_api/{route}").status_code == 404
    assert len(site.reached) == 1


def test_every_answer_says_that_it_is_no_frame_and_no_other_type(site):
    for answer in (site.ask(), site.ask(Host="evil.example"), site.ask("POST", "/login", b"x" * 70_000)):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == FILES and "frame-ancestors 'self'" in FILES
        assert answer.headers["x-frame-options"] == "SAMEORIGIN"


def test_a_page_runs_scripts_of_this_server_alone(site):
    pages = [site.ask(path="/page") for _ in range(2)]
    assert pages[0].text != pages[1].text, "a nonce is of one answer"
    for page in pages:
        scripts, *others = page.headers["content-security-policy"].split("; ")
        assert scripts == f"script-src 'self' 'unsafe-eval' 'nonce-{page.text}'"
        assert "object-src 'none'" in others and "frame-ancestors 'self'" in others


@pytest.mark.parametrize(("scheme", "ends"), [("http", "SameSite=Lax"), ("https", "SameSite=Lax; Secure")])
def test_no_cookie_goes_along_from_other_sites_nor_in_the_clear(site, scheme, ends):
    first, second = site.ask(path=f"{scheme}://{LOCAL}/page").headers.get_list("set-cookie")
    assert first == "token=x; HttpOnly; Path=/; Secure; SameSite=Lax"
    assert second == f"token-unsecure=x; HttpOnly; Path=/; {ends}"


def test_behind_a_root_path_the_routes_are_the_same(tmp_path):
    site = Site(tmp_path)
    login = Login(SimpleNamespace(auth={"a": "b"}, cookie_id="x", tokens={}))
    visitors = Visitors(None, login)
    guard = Guard(site._app, site.hosts, login, visitors, tmp_path, site.streams, Held(tmp_path))

    async def status(path: str) -> int:
        sent: list[dict[str, Any]] = []
        scope = {"type": "http", "method": "GET", "path": path, "root_path": "/sd", "headers": [], "query_string": b""}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request"}

        await guard(scope, receive, send)
        return sent[0]["status"]

    for path in ("/api/health", "/sd/api/health", "/sd/gradio_api/file=http://x"):
        assert asyncio.run(status(path)) == 401
    for path in ("/", "/sd", "/sd/", "/sd/theme.css"):
        assert asyncio.run(status(path)) < 400


class TestStreams:
    def test_end_when_the_server_stops_and_in_the_way_of_the_protocol(self, monkeypatch, tmp_path):
        monkeypatch.setattr("webui.api.streams.LAST_NEWS_S", 0)

        async def stream() -> list[dict[str, Any]]:
            sent: list[dict[str, Any]] = []
            streams = Streams()
            started = asyncio.Event()

            async def app(scope, receive, send):
                assert (await receive())["type"] == "http.request"
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"news", "more_body": True})
                started.set()
                assert (await receive())["type"] == "http.disconnect"

            first = iter([{"type": "http.request", "body": b"", "more_body": False}])

            async def receive():
                message = next(first, None)
                return message if message else await asyncio.Event().wait()

            async def send(message):
                sent.append(message)

            login = Login(SimpleNamespace(auth=None))
            hosts, visitors = AllowedHosts(Settings()), Visitors(None, login)
            guard = Guard(app, hosts, login, visitors, tmp_path, streams, Held(tmp_path))
            scope = {"type": "http", "method": "GET", "path": "/api/jobs/x/events", "headers": []}
            task = asyncio.create_task(guard(scope, receive, send))
            await started.wait()
            await asyncio.sleep(0)
            assert not task.done()
            await asyncio.to_thread(streams.end)
            await task
            return sent

        sent = asyncio.run(stream())
        assert [message.get("body") for message in sent] == [None, b"news", b""]
        assert [message.get("more_body") for message in sent[1:]] == [True, False]

    def test_one_who_only_looks_is_told_that_the_client_has_gone(self):
        async def look() -> list[bool]:
            left = asyncio.Event()
            first = iter([{"type": "http.request", "body": b"", "more_body": False}])

            async def receive():
                message = next(first, None)
                if message is None:
                    await left.wait()
                return message or {"type": "http.disconnect"}

            with Streams().listen(receive) as listen:
                request = Request({"type": "http"}, listen)
                await request.body()
                looks = [await request.is_disconnected(), await request.is_disconnected()]
                left.set()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                return [*looks, await request.is_disconnected(), await request.is_disconnected()]

        assert asyncio.run(look()) == [False, False, True, True]


def test_web_sockets_are_kept_to_the_same_rules(tmp_path):
    async def closes(site: Site, **headers: str) -> bool:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        named = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "websocket", "path": "/gradio_api/x", "headers": named}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})

        login = Login(SimpleNamespace(auth=None))
        visitors = Visitors(None, login)
        guard = Guard(app, site.hosts, login, visitors, tmp_path, site.streams, Held(tmp_path))
        await guard(scope, _nothing, send)
        return [message["type"] for message in sent] == ["websocket.close"]

    site = Site(tmp_path)
    assert asyncio.run(closes(site, Host="evil.example"))
    assert asyncio.run(closes(site, Host=LOCAL, Origin="https://evil.example"))
    assert not asyncio.run(closes(site, Host=LOCAL, Origin=f"http://{LOCAL}"))


async def _nothing() -> dict[str, Any]:
    return {}


def test_a_body_that_does_not_come_is_not_waited_for(site, monkeypatch):
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 2_000
        await asyncio.Event().wait()

    monkeypatch.setattr("webui.api.bodies.PATIENCE_S", 0.0)
    monkeypatch.setattr("webui.api.bodies.LEAST_BYTES_S", 1e6)
    answer = site.ask("POST", "/api/jobs", pieces())
    assert (answer.status_code, answer.json()["error"]) == (408, "too slow") and "too slowly" in answer.json()["detail"]


def test_one_who_waits_for_an_answer_is_not_slow(site, monkeypatch):
    monkeypatch.setattr("webui.api.bodies.PATIENCE_S", 60.0)

    async def waits() -> bool:
        messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Any:
            return next(messages, None) or await asyncio.Event().wait()

        listen = bodies.counted(receive, bodies.OTHERS)
        await listen()
        monkeypatch.setattr("webui.api.bodies.PATIENCE_S", 0.0)
        waiting = asyncio.ensure_future(listen())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done = waiting.done()
        waiting.cancel()
        return done

    assert asyncio.run(waits()) is False
