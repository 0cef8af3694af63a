"""``/api/workspace``: what a guest has here, to be taken away or deleted. The owner's is the data folder."""

from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import StreamingResponse

from webui.api.visitors import Asking
from webui.api.zips import Zips
from webui.core.visitor import Visitor
from webui.jobs.protocols import Executor
from webui.workspace.workspace import UNUSED_S, Workspaces


def workspace_router(executor: Executor, workspaces: Workspaces, zips: Zips) -> APIRouter:
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
        return zips.answer(visitor, workspaces.of(_guest(visitor)).files(), "darkroom.zip")

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
        raise HTTPException(404, "nothing is kept for visitors without a cookie")
    return visitor


def _size(path: Any) -> int:
    try:
        return int(path.stat().st_size)
    except OSError:
        return 0
