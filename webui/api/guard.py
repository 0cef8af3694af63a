"""What stands before every route, Gradio's too: who may ask, and how much.

By the head of a request alone, before any of its body is read: the name it came under, whether another site's page
sends it (``hosts``), who asks (``visitors``), whether it needs a login (``login``), and how large it says its body is
(``bodies``).
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webui.api import bodies
from webui.api.errors import A1111_PATHS, SHORT, answer, route_of
from webui.api.guests import may_ask
from webui.api.held import Held, Refused
from webui.api.hosts import AllowedHosts
from webui.api.login import AGAIN_S, Login
from webui.api.policy import policy
from webui.api.streams import Streams
from webui.api.visitors import Visitors
from webui.core.disk import is_below
from webui.core.errors import BAD_INPUT
from webui.core.visitor import Visitor, asked_by
from webui.workspace.served import served_dir

# The login page and what it is made of; Gradio asks itself for its start-up.
WITHOUT_LOGIN = ("/", "/login", "/logout", "/theme.css", "/gradio_api/theme.css", "/gradio_api/startup-events")
PARTS_OF_PAGE = (
    "/assets/",
    "/static/",
    "/svelte/",
    "/favicon.ico",
    "/manifest.",
    "/icons/",
    "/languages/",
    "/pwa_icon",
    "/robots.txt",
)
# Routes of Gradio that no page of ours asks: they fetch addresses, run programs, fill memory or the disk, never end.
UNUSED = (
    "token",
    "proxy=",
    "vibe-",
    "undo-vibe-",
    "component_server",
    "process_recording",
    "deep_link",
    "stream/",
    "dev/",
)
FILES = ("/gradio_api/file=", "/gradio_api/file/")
# What newcomers see first, whatever others hold.
ALWAYS = (*WITHOUT_LOGIN, "/api/health", "/config", "/gradio_api/info")
OWN_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"SAMEORIGIN",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"same-origin",
}


class Guard:
    """ASGI middleware around ``app``. ``uploads`` is the one folder whose files Gradio may serve."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: AllowedHosts,
        login: Login,
        visitors: Visitors,
        uploads: Path,
        streams: Streams,
        held: Held,
    ) -> None:
        self._app, self._hosts, self._login, self._visitors = app, hosts, login, visitors
        self._uploads, self._streams, self._held = uploads, streams, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = route_of(scope)
        headers = Headers(scope=scope)
        limit = bodies.limit_of(path)
        visitor, token = self._visitors.of(HTTPConnection(scope))
        refusal = self._refusal(scope, path, headers, limit, visitor)
        if scope["type"] == "websocket":
            if refusal:
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self._app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        scope.setdefault("state", {})["nonce"] = nonce
        cookies = [self._visitors.cookie(token, scope)] if token and _gives_cookie(scope, path) else []
        answering = _Answer(send, scope["state"], scope.get("scheme") == "https", cookies)
        if refusal := refusal or self._visitors.answer_link(scope, path):
            await refusal(scope, receive, answering.send)
            return
        if self._visitors.has_owners_key(request := HTTPConnection(scope)):
            scope = self._login.admit_owner(request)
        scope["visitor"] = visitor
        coming = bodies.counted(receive, limit)
        if path in ALWAYS or path.startswith(PARTS_OF_PAGE):
            await self._let_through(scope, coming, answering)
            return
        who = (visitor.turn, visitor.is_owner)
        place = self._held.place(scope["method"], path, *who)
        try:
            async with place as held:
                answering.begun = held.begin
                coming = held.counted(self._held.counted(coming, scope["method"], path, *who))
                await self._let_through(scope, coming, answering)
        except Refused as error:
            short = SHORT.get(error.status_code, "refused")
            response = answer(scope, error.status_code, short, error.detail, error.headers)
            await response(scope, receive, answering.send)

    async def _let_through(self, scope: Scope, receive: Receive, answering: "_Answer") -> None:
        with self._streams.listen(receive) as listen, asked_by(scope["visitor"]):
            try:
                await self._app(scope, listen, answering.send)
            except RuntimeError as error:  # Gradio 6.31 raises it in a stream that has told its client already
                if not isinstance(error.__cause__, HTTPException):
                    raise
        await answering.finish()

    def _refusal(
        self, scope: Scope, path: str, headers: Headers, limit: bodies.Limit, visitor: Visitor
    ) -> Response | None:
        """The answer to a request that goes no further, or None."""
        if (name := self._hosts.find_unknown(headers)) is not None:
            detail = f"this server does not go by the name {name[:80]!r}; if it should, start it with --allow-host NAME"
            return answer(scope, 403, "unknown host", detail)
        if self._hosts.is_cross_origin(headers) and not _is_visit(scope, path, headers):
            return answer(scope, 403, "another site", "a page of another site may not ask this")
        request = HTTPConnection(scope)
        needs_none = path in WITHOUT_LOGIN or path.startswith(PARTS_OF_PAGE)
        if not (needs_none or self._login.lets_in(request) or self._visitors.has_owners_key(request)):
            if isinstance(error := scope.get(AGAIN_S), HTTPException):
                return answer(scope, 429, SHORT[429], error.detail, error.headers)
            # Only for programs: at a challenge browsers open a dialog of their own over the login page.
            challenge = {"WWW-Authenticate": 'Basic realm="Darkroom"'} if path.startswith(A1111_PATHS) else None
            detail = "log in at the page, or send name and password as HTTP Basic"
            return answer(scope, 401, "not logged in", detail, challenge)
        if why := self._visitors.receive(request, visitor):
            return answer(scope, 403, "closed", why)
        is_unused = path.startswith("/gradio_api/") and path.removeprefix("/gradio_api/").startswith(UNUSED)
        if is_unused or not (visitor.is_owner or may_ask(scope.get("method", ""), path)):
            return answer(scope, 404, "not found", "there is no such route")
        theirs = served_dir(self._uploads, visitor)
        for route in FILES:
            if f"{path}/".startswith(route) and not is_below(path.removeprefix(route), theirs):
                return answer(scope, 403, "not served", "only uploaded files and pictures that were made are served")
        if reason := bodies.refusal(headers, limit):
            return answer(scope, 413, "too large", reason)
        return None


class _Answer:
    """An answer on its way out: with our headers and cookies, without leave for other sites, always with an end.

    Gradio 6.31 has one status for all that goes wrong in a function of the page; bad input has its own here.
    """

    def __init__(self, send: Send, state: Mapping[str, Any], is_https: bool, cookies: Iterable[str] = ()) -> None:
        self._send, self._state, self._is_https = send, state, is_https
        self._cookies = [(b"set-cookie", cookie.encode("latin-1")) for cookie in cookies]
        self._is_open = False
        self.begun: Callable[[], None] = lambda: None  # told when the answer's head is on its way

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [
                (name, _guarded(value, self._is_https) if name.lower() == b"set-cookie" else value)
                for name, value in message.get("headers", [])
                if not name.lower().startswith(b"access-control-") and name.lower() != b"x-content-type-options"
            ]
            allowed = policy(Headers(raw=kept).get("content-type", ""), self._state["nonce"])
            own = (*OWN_HEADERS.items(), (b"content-security-policy", allowed.encode("ascii")))
            status = message["status"]
            status = 422 if status == 500 and BAD_INPUT in self._state else status
            message = {**message, "status": status, "headers": [*kept, *own, *self._cookies]}
            self._is_open = True
            self.begun()
        elif message["type"] == "http.response.body":
            self._is_open = message.get("more_body", False)
        await self._send(message)

    async def finish(self) -> None:
        """Closes a stream that was broken off, in the way of its protocol."""
        if self._is_open:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _gives_cookie(scope: Scope, path: str) -> bool:
    """Whether the answer has the guest's cookie: the page, whose own requests then have it, and what starts a job."""
    return path == "/" or (scope["method"], path) == ("POST", "/api/jobs") or path.startswith(A1111_PATHS)


def _guarded(cookie: bytes, is_https: bool) -> bytes:
    """A cookie that no other site's page sends along, and that is not sent in the clear where there is https."""
    first, *rest = cookie.split(b"; ")
    kept = [part for part in rest if not part.lower().startswith(b"samesite=")]
    secure = [b"Secure"] if is_https and b"secure" not in map(bytes.lower, kept) else []
    return b"; ".join([first, *kept, b"SameSite=Lax", *secure])


def _is_visit(scope: Scope, path: str, headers: Headers) -> bool:
    """Whether somebody follows a link to us: the page it was on learns nothing of the answer."""
    follows = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return follows and scope.get("method") in ("GET", "HEAD") and "origin" not in headers and path != "/logout"
