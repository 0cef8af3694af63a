"""``/api/presets``: what presets there are, their small pictures, and their files."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Response

from webui.api.previews import HEADERS, preview_url
from webui.workspace.presets import read_thumbnail
from webui.workspace.workspace import Workspace


def presets_router(here: Callable[[], Workspace]) -> APIRouter:
    """The routes over the workspace ``here``."""
    router = APIRouter(prefix="/api/presets")

    @router.get("")
    def presets() -> list[dict[str, Any]]:
        found = []
        for file in here().presets.files().values():
            held = file.preset.model_dump(mode="json") if file.preset else {}
            more = {"notices": file.preset.notices} if file.preset else {"problem": f"{file.path.name} {file.problem}"}
            preview = preview_url(router.prefix, file.name) if read_thumbnail(file) else None
            found.append(held | {"name": file.name, "shipped": file.shipped, "preview": preview} | more)
        return found

    @router.get("/preview")
    def preview(name: str) -> Response:
        file = here().presets.files().get(name)
        picture = read_thumbnail(file) if file else None
        if picture is None:
            raise HTTPException(404, "there is no preview picture of this name")
        return Response(picture, media_type="image/png", headers=HEADERS)

    @router.get("/file")
    def download(name: str) -> Response:
        file = here().presets.files().get(name)
        if file is None or file.preset is None:
            raise HTTPException(404, "there is no usable preset of this name")
        disposition = f"attachment; filename=\"preset.toml\"; filename*=UTF-8''{quote(file.name, safe='')}.toml"
        return Response(
            file.preset.text,
            media_type="application/toml",
            headers={"Content-Disposition": disposition, "X-Content-Type-Options": "nosniff"},
        )

    return router
