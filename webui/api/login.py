"""``--auth`` for the routes that are ours: Gradio's own check covers Gradio's routes only."""

import base64
import binascii
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import HTTPException, Request

from webui.core.settings import is_loopback


def login_check(app: Any) -> Callable[[Request], Awaitable[None]]:
    """A dependency for our routers: lets pass who is logged in at the page, or sends HTTP Basic.

    ``app`` is Gradio's application. Without ``--auth`` everyone passes. The refusal names no scheme, because
    browsers would answer one with a dialog of their own over the login page.
    """

    async def check(request: Request) -> None:
        if app.auth is None or _has_session(app, request) or _has_password(app, request):
            return
        raise HTTPException(401, "log in at the page, or send name and password as HTTP Basic")

    return check


def refuse_other_names(request: Request) -> None:
    """A dependency for what is the owner's and has no password: lets pass who calls this machine by a local name.

    A web page whose own name was made to point here sends that name, and so does a proxy that lets strangers in.
    """
    if not is_loopback(request.url.hostname or ""):
        raise HTTPException(403, "only this machine is answered, under its local names; --auth lets in who logs in")


def _has_session(app: Any, request: Request) -> bool:
    """The cookie that Gradio's login sets, under either of its names.

    Gradio lets browsers send it with what other sites ask for, and lets those sites read the answers; we do not.
    """
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(request.cookies.get(name) in app.tokens for name in names)


def _has_password(app: Any, request: Request) -> bool:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    known = app.auth.get(user, "")
    return secrets.compare_digest(password.encode(), known.encode()) and known != ""
