"""The files that a page is made of: ours as one script and one sheet of styles, and all of them kept in memory.

A new browser asks for a hundred, and Gradio 6.31 reads each anew, compresses it anew, and does not say that it will
never change.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cachetools import LRUCache
from fastapi import APIRouter
from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PLACES = ("/assets/", "/static/", "/theme.css")
NAMED_BY_CONTENT = re.compile(r"/assets/[\w.-]+-[\w-]{8,}\.(js|css)")
FOR_EVER = "public, max-age=31536000, immutable"
MOST_BYTES = 32 * 2**20
CONDITIONS = (b"if-none-match", b"if-modified-since")
TYPES = {".js": "text/javascript", ".css": "text/css"}


def bundle(files: Iterable[Path]) -> tuple[str, str]:
    """These files as one, in their order: its name, which says what is in it, and its text."""
    paths = [*files]
    text = "".join(path.read_text("utf-8") for path in paths)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"darkroom-{digest}{paths[0].suffix}", text


def files_router(bundles: Iterable[tuple[str, str]], mended: Iterable[tuple[str, str]] = ()) -> APIRouter:
    """Routes of these, which stand among the files of Gradio's page, or in the place of one: its name does not say
    then what is in it."""
    router = APIRouter(include_in_schema=False)

    def add(name: str, text: str, kept: str) -> None:
        answer = Response(text, media_type=TYPES[Path(name).suffix], headers={"Cache-Control": kept})
        router.add_api_route(f"/assets/{name}", lambda: answer, methods=["GET"])

    for name, text in bundles:
        add(name, text, FOR_EVER)
    for name, text in mended:
        add(name, text, "no-cache")
    return router


@dataclass(frozen=True)
class File:
    """An answer as it was given once."""

    headers: list[tuple[bytes, bytes]]
    body: bytes


class KeptFiles:
    """ASGI middleware that asks ``app`` once for each file of the page, and from then on answers by itself.

    What ``app`` has not, or is asked for in part, is its own to say. At most 32 MiB are kept, those that were asked
    for last.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._kept: LRUCache[tuple[str, str], File] = LRUCache(MOST_BYTES, getsizeof=lambda file: len(file.body))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")) if scope["type"] == "http" else ""
        headers = Headers(scope=scope) if path else Headers()
        if not path.startswith(PLACES) or scope["method"] != "GET" or "range" in headers:
            await self._app(scope, receive, send)
            return
        accepted = headers.get("accept-encoding", "")
        key = path, "br" if "br" in accepted else "gzip" if "gzip" in accepted else ""
        file = self._kept.get(key) or await self._ask(key, scope, receive, send)
        if file is None:
            return
        known = Headers(raw=file.headers).get("etag")
        is_known = known is not None and headers.get("if-none-match") == known
        await send({"type": "http.response.start", "status": 304 if is_known else 200, "headers": [*file.headers]})
        await send({"type": "http.response.body", "body": b"" if is_known else file.body})

    async def _ask(self, key: tuple[str, str], scope: Scope, receive: Receive, send: Send) -> File | None:
        """The file, which is kept; None where the answer is no file, and has gone out."""
        asked = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] not in CONDITIONS]}
        messages: list[Message] = []

        async def take(message: Message) -> None:
            messages.append(message)

        await self._app(asked, receive, take)
        if messages[0]["status"] != 200:
            for message in messages:
                await send(message)
            return None
        body = b"".join(message.get("body", b"") for message in messages[1:])
        own = MutableHeaders(raw=[*messages[0]["headers"]])
        own["content-length"] = str(len(body))
        own.setdefault("etag", f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        if NAMED_BY_CONTENT.fullmatch(key[0]):
            own.setdefault("cache-control", FOR_EVER)
        file = File(own.raw, body)
        if len(body) < MOST_BYTES:
            self._kept[key] = file
        return file
