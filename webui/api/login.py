"""``--auth``: who is logged in, by the cookie of the page's login or by HTTP Basic."""

import base64
import binascii
import secrets
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

from webui.core.visitor import OWNER


class Login:
    """The login of ``app``, which is Gradio's application."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._owners_token = secrets.token_urlsafe(16)

    def lets_in(self, request: HTTPConnection) -> bool:
        """Whether the request is of somebody who has logged in. Without ``--auth`` everyone has."""
        return self._app.auth is None or self.name_of(request) is not None

    def name_of(self, request: HTTPConnection) -> str | None:
        """Under which name they have logged in; None where they have not."""
        return self._name_in_session(request) or self._name_with_password(request)

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
        known = self._app.auth.get(user, "") if self._app.auth else ""
        return user if secrets.compare_digest(password.encode(), known.encode()) and known != "" else None
