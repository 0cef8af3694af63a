"""``--auth``: who is logged in, by the cookie of the page's login or by HTTP Basic."""

import base64
import binascii
import secrets
from typing import Any

from starlette.requests import HTTPConnection


class Login:
    """The login of ``app``, which is Gradio's application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def lets_in(self, request: HTTPConnection) -> bool:
        """Whether the request is of somebody who has logged in. Without ``--auth`` everyone has."""
        return self._app.auth is None or self._has_session(request) or self._has_password(request)

    def _has_session(self, request: HTTPConnection) -> bool:
        """The cookie that Gradio's login sets, under either of its names."""
        names = (f"access-token-{self._app.cookie_id}", f"access-token-unsecure-{self._app.cookie_id}")
        return any(request.cookies.get(name) in self._app.tokens for name in names)

    def _has_password(self, request: HTTPConnection) -> bool:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        known = self._app.auth.get(user, "")
        return secrets.compare_digest(password.encode(), known.encode()) and known != ""
