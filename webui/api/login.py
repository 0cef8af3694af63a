"""``--auth``: who is logged in, by the cookie of the page's login or by HTTP Basic; logging in and out."""

import base64
import binascii
import math
import secrets
import time
from collections.abc import Callable
from typing import Annotated, Any

from cachetools import TTLCache
from fastapi import APIRouter, Form, HTTPException, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.requests import HTTPConnection
from starlette.types import Scope

from webui.api.attempts import MOST_KNOWN, Attempts
from webui.core.visitor import OWNER

SESSION_S = 7 * 24 * 3600
KNOWN_S = 90 * 24 * 3600  # a browser is known so long after a login, and an address
FOUND, AGAIN_S = "login.name", "login.again_s"


class Login:
    """The login of ``app``, which is Gradio's application; ``clock`` gives seconds.

    ``passphrase`` is one that was made by chance: nobody comes to it by guessing, so whoever has it never waits for the
    wrong tries of others, who all come from one address through a tunnel.
    """

    def __init__(self, app: Any, clock: Callable[[], float] = time.monotonic, passphrase: str = "") -> None:
        self._app, self._passphrase = app, passphrase
        self._owners_token = secrets.token_urlsafe(16)
        self._attempts = Attempts(clock)
        self._known: TTLCache[tuple[str, str], bool] = TTLCache(MOST_KNOWN, KNOWN_S, timer=clock)

    def lets_in(self, request: HTTPConnection) -> bool:
        """Whether the request is of somebody who has logged in. Without ``--auth`` everyone has."""
        return self._app.auth is None or self.name_of(request) is not None

    def name_of(self, request: HTTPConnection) -> str | None:
        """Under which name they have logged in; None where they have not."""
        if FOUND not in request.scope:
            request.scope[FOUND] = self._name_in_session(request) or self._name_with_password(request)
        name: str | None = request.scope[FOUND]
        return name

    def admit_owner(self, request: HTTPConnection) -> Scope:
        """The request as Gradio takes it from somebody who has logged in: the owner's key is enough."""
        scope = request.scope
        if self._app.auth is None or self._name_in_session(request):
            return scope
        self._app.tokens[self._owners_token] = OWNER.id
        others = [value for name, value in scope["headers"] if name == b"cookie"]
        cookie = b"; ".join([*others, f"{self._cookies[1]}={self._owners_token}".encode()])
        headers = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
        return {**scope, "headers": [*headers, (b"cookie", cookie)]}

    @property
    def _cookies(self) -> tuple[str, str]:
        """The names of the cookie that Gradio's login sets, over TLS and without."""
        return f"access-token-{self._app.cookie_id}", f"access-token-unsecure-{self._app.cookie_id}"

    def _name_in_session(self, request: HTTPConnection) -> str | None:
        held = (self._app.tokens.get(request.cookies.get(name)) for name in self._cookies)
        return next(filter(None, held), None)

    def _name_with_password(self, request: HTTPConnection) -> str | None:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        try:
            return user if self.check(request, user, password) else None
        except HTTPException as error:
            request.scope[AGAIN_S] = error
            return None

    def check(self, request: HTTPConnection, name: str, password: str) -> bool:
        """Whether it is the password of that name; HTTPException 429 where there were too many wrong tries."""
        address = request.client.host if request.client else ""
        tokens = [token for cookie in self._cookies if (token := request.cookies.get(cookie))]
        known = next((way for way in (*tokens, address) if (name, way) in self._known), "")
        right = self._app.auth.get(name, "") if self._app.auth else ""
        is_right = right != "" and secrets.compare_digest(password.encode(), right.encode())
        if is_right and right == self._passphrase:
            return True
        if wait_s := self._attempts.wait_s(name, address, known):
            again_s = math.ceil(wait_s)
            detail = f"too many wrong names and passwords; try again in {again_s} s"
            raise HTTPException(429, detail, {"Retry-After": str(again_s)})
        if is_right:
            self._known[name, address] = True
            return True
        self._attempts.failed(name, address, known)
        return False

    def open_session(self, name: str, answer: Response) -> None:
        """Gives the answer the cookies of a new session."""
        token = secrets.token_urlsafe(16)
        self._app.tokens[token] = name
        self._known[name, token] = True
        safe, plain = self._cookies
        answer.set_cookie(safe, token, max_age=SESSION_S, httponly=True, secure=True)
        answer.set_cookie(plain, token, max_age=SESSION_S, httponly=True)

    def close_session(self, request: HTTPConnection, answer: Response) -> None:
        """Ends the session of the request, and no other of that name."""
        for cookie in self._cookies:
            token = request.cookies.get(cookie, "")
            for name in filter(None, [self._app.tokens.pop(token, None)]):
                self._known.pop((name, token), None)
            answer.delete_cookie(cookie)


def login_router(login: Login, root_path: str) -> APIRouter:
    """Gradio's routes in our way: wrong tries are slowed down, and one logs out alone."""
    router = APIRouter(include_in_schema=False)

    @router.post("/login")
    @router.post("/login/")
    async def log_in(
        request: Request, username: Annotated[str, Form()] = "", password: Annotated[str, Form()] = ""
    ) -> JSONResponse:
        name = username.strip()
        if not login.check(request, name, password):
            raise HTTPException(400, "Incorrect credentials.")
        answer = JSONResponse({"success": True})
        login.open_session(name, answer)
        return answer

    @router.get("/logout")
    async def log_out(request: Request) -> RedirectResponse:
        answer = RedirectResponse(f"{root_path}/", 303)
        login.close_session(request, answer)
        return answer

    return router
