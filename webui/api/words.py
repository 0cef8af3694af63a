"""``/api/words``: what prompts can be completed with beside LoRAs, for the page's prompt boxes and for scripts."""

import gzip
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from webui.core.tensor_file import BadFile
from webui.core.visitor import asking
from webui.core.wildcards import Entry, Wildcard
from webui.core.words import TagList, Words
from webui.jobs.protocols import Executor
from webui.library.scan import LOOK_S

SHOWN = 3  # texts of a wildcard
MOST_SHOWN = 500  # wildcards of which texts are told: each is a file to read
EMPTY: Mapping[str, str] = MappingProxyType({})


def words_router(executor: Executor) -> APIRouter:
    """The routes over one executor."""
    router = APIRouter(prefix="/api/words")

    @router.get("")
    def words(request: Request) -> Response:
        """Names of embeddings; wildcards with some of their texts; lists of tags, those that cannot be used for their
        owner alone."""
        catalog = executor.catalog(LOOK_S)
        known = catalog.words
        lists = [_of_list(each) for each in _lists(known).values()]
        told = {
            "embeddings": [*catalog.embeddings],
            "wildcards": [_of_wildcard(each, k) for k, each in enumerate(known.wildcards.values() if known else ())],
            "tags": [each for each in lists if asking().is_owner or not each["problem"]],
        }
        body = json.dumps(told, ensure_ascii=False).encode()
        return _unless_known(request, body, hashlib.sha256(body).hexdigest()[:20], "application/json")

    @router.get("/tags")
    def tags(request: Request, name: str) -> Response:
        """A list's tags as lines: category, how often it is used, name and aliases, with tabs between."""
        found = _lists(executor.catalog(LOOK_S).words).get(name)
        if found is None or found.problem:
            raise HTTPException(404, "there is no usable list of tags with this name")
        body, kind = found.lines.packed, "text/plain; charset=utf-8"
        if "gzip" in request.headers.get("accept-encoding", ""):
            return _unless_known(request, body, found.version, kind, {"Content-Encoding": "gzip"})
        return _unless_known(request, gzip.decompress(body), found.version, kind)

    return router


def _lists(known: Words | None) -> dict[str, TagList]:
    return dict(known.tag_lists) if known else {}


def _of_list(found: TagList) -> dict[str, Any]:
    return {"name": found.name, "version": found.version, "tags": found.lines.tags, "problem": found.problem}


def _of_wildcard(found: Wildcard, place: int) -> dict[str, Any]:
    entries: tuple[Entry, ...] = ()
    if place < MOST_SHOWN:
        with suppress(BadFile):  # said where it is drawn
            entries = found.entries
    return {"name": found.name, "texts": len(entries), "some": [entry.text[:60] for entry in entries[:SHOWN]]}


def _unless_known(
    request: Request, body: bytes, version: str, kind: str, further: Mapping[str, str] = EMPTY
) -> Response:
    """The body, or 304 for who has this version already."""
    headers = {"ETag": f'W/"{version}"', "Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
    if f'"{version}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=kind, headers={**headers, **further})
