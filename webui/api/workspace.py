"""``/api/workspace``: what a guest has here, to be taken away or deleted. The owner's is the data folder."""

import zipfile
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import StreamingResponse

from webui.api.visitors import Asking
from webui.core.visitor import Visitor
from webui.jobs.protocols import Executor
from webui.workspace.workspace import UNUSED_S, Workspace, Workspaces

BLOCK_BYTES = 2**20


def workspace_router(executor: Executor, workspaces: Workspaces) -> APIRouter:
    """The routes over the workspaces of all visitors."""
    router = APIRouter(prefix="/api/workspace")

    @router.get("")
    def show(visitor: Asking) -> dict[str, Any]:
        """``dropped_after_days`` without a visit it is gone; null for the owner's."""
        files = [] if visitor.is_owner else list(workspaces.of(visitor).files())
        return {
            "is_owner": visitor.is_owner,
            "files": len(files),
            "size_bytes": sum(_size(path) for path, _ in files),
            "dropped_after_days": None if visitor.is_owner else round(UNUSED_S / 86400),
        }

    @router.get("/export")
    def export(visitor: Asking) -> StreamingResponse:
        """All of it as one zip, made while it is sent."""
        workspace = workspaces.of(_guest(visitor))
        return StreamingResponse(
            zipped(workspace),
            media_type="application/zip",
            headers={"Content-Disposition": 'attachment; filename="darkroom.zip"', "Cache-Control": "no-store"},
        )

    @router.delete("")
    def delete(visitor: Asking) -> dict[str, bool]:
        """Their jobs are stopped, and all that was kept is gone."""
        executor.forget(_guest(visitor))
        workspaces.delete(visitor.id)
        return {"deleted": True}

    return router


def _guest(visitor: Visitor) -> Visitor:
    if visitor.is_owner:
        raise HTTPException(403, "the owner's workspace is the data folder itself")
    if visitor.is_new:
        raise HTTPException(404, "there is nothing of who comes without a cookie")
    return visitor


def _size(path: Any) -> int:
    try:
        return int(path.stat().st_size)
    except OSError:
        return 0


class _Sink:
    """What a zip is written to, and taken from in pieces."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        self._held += data
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken = bytes(self._held)
        self._held.clear()
        return taken


def zipped(workspace: Workspace) -> Iterator[bytes]:
    """The files of the workspace as a zip, in pieces; pictures are packed as they are."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for path, name in workspace.files():
            try:
                with path.open("rb") as file, archive.open(zipfile.ZipInfo.from_file(path, name), "w") as entry:
                    while block := file.read(BLOCK_BYTES):
                        entry.write(block)
                        yield sink.take()
            except FileNotFoundError:  # it was deleted meanwhile
                continue
    yield sink.take()
