"""``/api/models/files`` and ``/api/models/additions``: models that the owner adds. For nobody else these are there."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from webui.api.visitors import Asking
from webui.core.tensor_file import LENGTH_BYTES, MAX_HEADER_BYTES
from webui.core.visitor import Visitor
from webui.jobs.protocols import Executor
from webui.library.adding.additions import Additions
from webui.library.adding.incoming import RESERVE_BYTES, Incoming, NoRoom, Place, Taken, free_bytes

WRITE_BYTES = 4 * 2**20
"""So much is written at a time, by a thread."""
T = TypeVar("T")
Name = Annotated[str, Query(max_length=1000)]
Size = Annotated[int, Query(ge=0, le=2**50)]


class Asked(BaseModel):
    """What is to be added: a path of this machine or an https address; its name and hash where they are given."""

    model_config = ConfigDict(extra="forbid")

    source: Annotated[str, Field(max_length=4000)]
    name: Annotated[str, Field(max_length=1000)] = ""
    sha256: Annotated[str, Field(max_length=100)] = ""


def additions_router(executor: Executor, additions: Additions) -> APIRouter:
    """The routes over what is on its way."""
    router = APIRouter(prefix="/api/models")
    _add_files(router, executor, additions)
    _add_additions(router, executor, additions)
    return router


def _add_files(router: APIRouter, executor: Executor, additions: Additions) -> None:
    """Where files go, what one is, and one that is sent."""
    shelves = additions.shelves

    @router.get("/files")
    def folders(visitor: Asking) -> dict[str, Any]:
        """Where files of each kind go, how much room there is, and whether addresses are fetched."""
        _check_owner(visitor)
        return {
            "folders": {kind: str(folder) for kind, folder in shelves.folders.items()},
            "free_bytes": max(0, free_bytes(shelves.folders["model"]) - RESERVE_BYTES),
            "offline": additions.is_offline,
        }

    @router.post("/files/check")
    async def check(request: Request, visitor: Asking, name: Name, size_bytes: Size) -> dict[str, Any]:
        """What a file is and where it would go, by its first bytes, which are the body. Nothing is kept."""
        _check_owner(visitor)
        start = bytearray()
        async for part in request.stream():
            start += part
            if len(start) > LENGTH_BYTES + MAX_HEADER_BYTES:
                raise HTTPException(413, "more than the head of a file came")

        def look() -> dict[str, Any]:
            checked = shelves.check_name(name)
            needed = shelves.needed_bytes(checked, bytes(start), size_bytes)
            if needed > len(start):
                return {"needed_bytes": needed}
            place = shelves.find_place(checked, bytes(start[:needed]), size_bytes)
            shelves.check_free(place)
            return {"kind": place.kind, "about": place.about, "path": str(place.path)}

        return await asyncio.to_thread(_worded, look)

    @router.put("/files", status_code=201)
    async def upload(request: Request, visitor: Asking, name: Name) -> dict[str, Any]:
        """The body is the file. It is refused as soon as its first bytes show that it cannot be used."""
        _check_owner(visitor)
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            raise HTTPException(411, "say how long the file is, in Content-Length")
        incoming = Incoming(shelves, _worded(lambda: shelves.check_name(name)), int(length))
        try:
            waiting = bytearray()
            async for part in request.stream():
                waiting += part
                if len(waiting) >= WRITE_BYTES:
                    await asyncio.to_thread(_worded, lambda data=bytes(waiting): incoming.write(data))
                    waiting.clear()
            await asyncio.to_thread(_worded, lambda: incoming.write(bytes(waiting)))
            place, sha256 = await asyncio.to_thread(_worded, incoming.finish)
        finally:
            await asyncio.shield(asyncio.to_thread(incoming.drop))
        return await asyncio.to_thread(_describe, executor, place, sha256)


def _add_additions(router: APIRouter, executor: Executor, additions: Additions) -> None:
    """What the server brings by itself."""

    @router.get("/additions")
    def show(visitor: Asking) -> list[dict[str, Any]]:
        """What is on its way from addresses and paths, what has come or failed, and what can be gone on with."""
        _check_owner(visitor)
        return [
            told | {"as": _name_of(executor, Path(told["path"])) if told["state"] == "done" else ""}
            for told in additions.show()
        ]

    @router.post("/additions", status_code=202)
    def add(visitor: Asking, asked: Asked) -> dict[str, Any]:
        """Begins to bring a file: a copy, or from an address. ``GET`` says how far it is."""
        _check_owner(visitor)
        return additions.describe(additions.add(asked.source, asked.name, asked.sha256))

    @router.post("/additions/{addition_id}/again", status_code=202)
    def again(visitor: Asking, addition_id: str, name: Name = "") -> dict[str, Any]:
        """Goes on with what failed or what an earlier server left; from its beginning under another name."""
        _check_owner(visitor)
        try:
            return additions.describe(additions.again(addition_id, name))
        except LookupError:
            raise HTTPException(404, "nothing with this id is on its way") from None

    @router.delete("/additions/{addition_id}")
    def remove(visitor: Asking, addition_id: str) -> dict[str, bool]:
        """Stops it and takes away what has come of it; of what is in its place only the line goes."""
        _check_owner(visitor)
        try:
            additions.remove(addition_id)
        except LookupError:
            raise HTTPException(404, "nothing with this id is on its way") from None
        return {"removed": True}


def _check_owner(visitor: Visitor) -> None:
    """The guard lets nobody else ask; this is the second lock."""
    if not visitor.is_owner:
        raise HTTPException(404, "there is no such route")


def _worded(act: Callable[[], T]) -> T:
    """What ``act`` gives; 409 for a name that is taken, 507 for a disk that is too full."""
    try:
        return act()
    except Taken as error:
        raise HTTPException(409, str(error)) from None
    except NoRoom as error:
        raise HTTPException(507, str(error)) from None


def _describe(executor: Executor, place: Place, sha256: str) -> dict[str, Any]:
    executor.reload()
    told = {"kind": place.kind, "about": place.about, "path": str(place.path), "size_bytes": place.size_bytes}
    return told | {"sha256": sha256, "as": _name_of(executor, place.path)}


def _name_of(executor: Executor, path: Path) -> str:
    """By which name the file can be drawn with; empty where it is not there."""
    catalog = executor.catalog()
    weights = catalog.models, catalog.loras, catalog.vaes, catalog.parts, catalog.embeddings
    kinds = *weights, catalog.upscalers, catalog.finders, catalog.controls
    return next((name for files in kinds for name, file in files.items() if file.path == path), "")
