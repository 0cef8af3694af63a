"""Who sends a request: the one place where a ``Visitor`` is made of headers, cookies and the login.

Where there are no guests, everybody who gets in is the owner. Where there are, nothing is granted for coming from this
machine, which all who come through a tunnel do.
"""

from dataclasses import replace
from http.cookies import SimpleCookie
from typing import Annotated
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, Request
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from webui.api.connections import PEER
from webui.api.errors import answer
from webui.api.login import Login
from webui.api.seen import Seen
from webui.core.hosting import Hosting
from webui.core.keys import Keys
from webui.core.visitor import OWNER, Visitor

GUEST_S = 30 * 24 * 3600  # longer than a workspace lasts unused
OWNER_S = 90 * 24 * 3600


class Visitors:
    """Knows the visitors of one server by its ``keys``, which are None where there are no guests.

    ``named`` says that the host gave several accounts, so that a login's name is a visitor.
    """

    def __init__(
        self,
        keys: Keys | None,
        login: Login,
        named: bool = False,
        root_path: str = "",
        hosting: Hosting | None = None,
        seen: Seen | None = None,
    ) -> None:
        self._keys, self._login, self._named, self._root_path = keys, login, named, root_path
        self._hosting, self._seen = hosting or Hosting(), seen or Seen()

    def of(self, request: HTTPConnection) -> tuple[Visitor, str]:
        """Who sends the request, and the cookie that they keep or are to be given; "" for those who need none."""
        if self._keys is None:
            return OWNER, ""
        if self.has_owners_key(request):
            return OWNER, ""
        origin = self._keys.origin(request.scope.get("state", {}).get(PEER, ""))
        if self._named and (name := self._login.name_of(request)):
            return replace(self._keys.named_guest(name), origin=origin), ""
        token = request.cookies.get(self._keys.guest_cookie, "")
        if guest := self._keys.guest(token):
            return replace(guest, origin=origin), token
        token = self._keys.new_token()
        guest = self._keys.guest(token, is_new=True)
        assert guest
        return replace(guest, origin=origin), token

    def receive(self, request: HTTPConnection, visitor: Visitor) -> str:
        """Notes that the visitor is here; returns why they may not come in, "" for those who may."""
        self._seen.note(visitor, (self._login.name_of(request) or "") if self._named else "")
        return self._hosting.refusal(visitor)

    def has_owners_key(self, request: HTTPConnection) -> bool:
        """Whether the owner's key or cookie came with it, which needs no login."""
        if self._keys is None:
            return False
        return self._keys.find_owner(request.headers.get("authorization", ""), request.cookies) is not None

    def cookie(self, token: str, scope: Scope) -> str:
        """The header that has a guest's browser or program keep its cookie."""
        assert self._keys
        return _cookie(self._keys.guest_cookie, token, GUEST_S, scope)

    def answer_link(self, scope: Scope, path: str) -> Response | None:
        """The answer to the owner's link: the cookie, and the way to the plain address. None for other addresses."""
        if path != "/" or scope.get("method") not in ("GET", "HEAD"):
            return None
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        key = next((value for name, value in query if name == "owner"), None)
        if self._keys is None or key is None:
            return None
        if not self._keys.is_owner_key(key):
            return answer(scope, 403, "not the owner", "this is not the owner's key; the server says it at its start")
        rest = urlencode([(name, value) for name, value in query if name != "owner"])
        way = RedirectResponse(f"{self._root_path}/{'?' if rest else ''}{rest}", 303)
        way.headers["Cache-Control"] = "no-store"
        way.headers.append("Set-Cookie", _cookie(self._keys.owner_cookie, self._keys.owner_token, OWNER_S, scope))
        return way


def _cookie(name: str, value: str, max_age_s: int, scope: Scope) -> str:
    """For this site alone and out of reach of scripts, and over TLS alone where it comes that way."""
    cookie: SimpleCookie = SimpleCookie({name: value})
    forwarded = dict(scope["headers"]).get(b"x-forwarded-proto", b"")
    is_secure = scope.get("scheme") == "https" or forwarded.startswith(b"https")
    attributes = {"path": "/", "max-age": max_age_s, "httponly": True, "samesite": "Lax", "secure": is_secure}
    for attribute, held in attributes.items():
        cookie[name][attribute] = held
    return cookie[name].OutputString()


def visitor_of(request: Request) -> Visitor:
    """The visitor that the guard has found for this request."""
    visitor: Visitor = request.scope["visitor"]
    return visitor


Asking = Annotated[Visitor, Depends(visitor_of)]
