"""``/api/history``: the pictures that were made for the visitor who asks."""

import logging
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, HTTPException, Query, Response
from fastapi.responses import FileResponse

from webui.api.history_many import Here, Text, Wanted, add_boards, add_many, answered, entry
from webui.api.zips import Zips
from webui.core.compared import differing
from webui.core.errors import RequestError
from webui.core.images import ImageError
from webui.core.recipe import RecipeError, read_picture
from webui.workspace.history import MAX_OFFSET, History, HistoryError, Picture
from webui.workspace.thumbnails import MEDIA_TYPE, Thumbnails

log = logging.getLogger(__name__)

# A file of any origin is sent as a picture, whatever else its bytes would make of it.
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, no-cache"}
PICTURE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


def history_router(here: Here, zips: Zips) -> APIRouter:
    """The routes over the workspace ``here``, with those for many pictures at a time before those for one."""
    router = APIRouter(prefix="/api/history")
    _add_listing(router, here)
    add_many(router, here, zips)
    add_boards(router, here)
    _add_showing(router, here)
    _add_files(router, here)
    _add_changing(router, here)
    return router


def _add_listing(router: APIRouter, here: Here) -> None:
    @router.get("")
    @answered()
    def search(
        wanted: Wanted,
        before: Text = "",
        limit: Annotated[int, Query(ge=1, le=500)] = 60,
        offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    ) -> dict[str, Any]:
        """``next`` is for ``before``, and is there for the newest first alone; ``offset`` goes with every order."""
        if before and wanted.order != "newest":
            raise RequestError("before goes with the newest first; other orders have offset", field="before")
        page = here().history.search(wanted, before, limit, offset)
        return {
            "pictures": [entry(picture) for picture in page.pictures],
            "total": page.total,
            "unread": page.unread,
            "next": page.next,
            "models": page.models,
            "loras": page.loras,
            "days": page.days,
        }

    @router.get("/ids")
    @answered()
    def ids(
        wanted: Wanted,
        offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
        limit: Annotated[int | None, Query(ge=0, le=MAX_OFFSET)] = None,
    ) -> dict[str, list[str]]:
        """Of all pictures that fit, in their order."""
        return {"ids": here().history.ids(wanted, offset, -1 if limit is None else limit)}


def _add_showing(router: APIRouter, here: Here) -> None:
    @router.get("/{picture_id}")
    @answered()
    def show(picture_id: str) -> dict[str, Any]:
        """With its settings as text, or why they cannot be read."""
        picture = _find(here().history, picture_id)
        try:
            recipe = read_picture(picture.path)
        except (RecipeError, ImageError) as error:
            return entry(picture) | {"infotext": "", "problem": str(error)}
        return entry(picture) | {"infotext": recipe.infotext() if recipe else "", "problem": ""}

    @router.get("/{picture_id}/differences/{other_id}")
    @answered()
    def differences(picture_id: str, other_id: str) -> dict[str, Any]:
        """The settings that are not the same in both, or why they cannot be told."""
        history = here().history
        recipes = []
        for one in (picture_id, other_id):
            picture = _find(history, one)
            try:
                recipes.append(read_picture(picture.path))
            except (RecipeError, ImageError) as error:
                return {"differences": [], "problem": f"{picture.path.name}: {error}"}
        first, second = recipes
        if first is None or second is None:
            return {"differences": [], "problem": "Only pictures from Darkroom say all their settings."}
        found = differing(first, second)
        return {
            "differences": [{"name": name, "one": one, "other": other} for name, one, other in found],
            "problem": "",
        }


def _add_files(router: APIRouter, here: Here) -> None:
    @router.get("/{picture_id}/thumbnail")
    @answered()
    def thumbnail(picture_id: str, afterwards: BackgroundTasks) -> Response:
        """The first of a server's life is followed by a clean-up, which nobody waits for."""
        workspace = here()
        if workspace.tidied.acquire(blocking=False):
            afterwards.add_task(_prune, workspace.history, workspace.thumbnails)
        picture = _find(workspace.history, picture_id)
        try:
            data = workspace.thumbnails.get(picture.path, picture.mtime_ns, picture.size_bytes)
        except ImageError as error:
            raise HTTPException(404, f"the picture {error}") from None
        return Response(data, media_type=MEDIA_TYPE, headers=HEADERS | {"Cache-Control": "private, max-age=3600"})

    @router.get("/{picture_id}/picture")
    @answered()
    def picture_file(picture_id: str) -> FileResponse:
        path = _find(here().history, picture_id).path
        media_type = PICTURE_TYPES[path.suffix.lower()]
        return FileResponse(
            path, media_type=media_type, headers=HEADERS, filename=path.name, content_disposition_type="inline"
        )


def _add_changing(router: APIRouter, here: Here) -> None:
    @router.put("/{picture_id}/favourite")
    @answered()
    def favour(picture_id: str) -> dict[str, bool]:
        history = here().history
        history.set_favourite(_find(history, picture_id), True)
        return {"favourite": True}

    @router.delete("/{picture_id}/favourite")
    @answered()
    def unfavour(picture_id: str) -> dict[str, bool]:
        history = here().history
        history.set_favourite(_find(history, picture_id), False)
        return {"favourite": False}

    @router.delete("/{picture_id}")
    @answered()
    def delete(picture_id: str) -> dict[str, str]:
        """Into the trash: ``restore`` brings it back."""
        workspace = here()
        picture = _find(workspace.history, picture_id)
        workspace.history.delete(picture)
        workspace.thumbnails.forget(picture.path, picture.mtime_ns, picture.size_bytes)
        return {"deleted": picture.id}

    @router.post("/{picture_id}/restore")
    @answered()
    def restore(picture_id: str) -> dict[str, Any]:
        if (picture := here().history.restore(picture_id)) is None:
            raise HTTPException(404, "no picture with this id is in the trash")
        return entry(picture)


def _find(history: History, picture_id: str) -> Picture:
    if (picture := history.find(picture_id)) is None:
        raise HTTPException(404, "there is no picture with this id")
    return picture


def _prune(history: History, thumbnails: Thumbnails) -> None:
    """Removes thumbnails of pictures that are gone, after the index has caught up with the folder."""
    try:
        history.refresh(thorough=True)
        thumbnails.prune(history.identities())
    except HistoryError as error:
        log.warning("old thumbnails could not be removed: %s", error)
