"""``/api/history``: the pictures that were made for the visitor who asks."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, HTTPException, Query, Response
from fastapi.responses import FileResponse

from webui.core.images import ImageError
from webui.core.recipe import RecipeError, read_picture
from webui.workspace.history import Filter, History, HistoryError, Picture
from webui.workspace.picture_files import local_time
from webui.workspace.thumbnails import MEDIA_TYPE, Thumbnails
from webui.workspace.workspace import Workspace

log = logging.getLogger(__name__)

# A file of any origin is sent as a picture, whatever else its bytes would make of it.
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, no-cache"}
PICTURE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}

Text = Annotated[str, Query(max_length=1000)]
Here = Callable[[], Workspace]


def history_router(here: Here) -> APIRouter:
    """The routes over the workspace ``here``."""
    router = APIRouter(prefix="/api/history")
    _add_reading(router, here)
    _add_files(router, here)
    _add_changing(router, here)
    return router


def _add_reading(router: APIRouter, here: Here) -> None:
    @router.get("")
    @_answered()
    def search(
        query: Text = "",
        model: Text = "",
        lora: Text = "",
        first_day: Annotated[date | None, Query(alias="from")] = None,
        last_day: Annotated[date | None, Query(alias="to")] = None,
        favourites: bool = False,
        before: Text = "",
        limit: Annotated[int, Query(ge=1, le=500)] = 60,
    ) -> dict[str, Any]:
        page = here().history.search(Filter(query, model, lora, first_day, last_day, favourites), before, limit)
        return {
            "pictures": [_entry(picture) for picture in page.pictures],
            "total": page.total,
            "unread": page.unread,
            "next": page.next,
            "models": page.models,
            "loras": page.loras,
        }

    @router.get("/{picture_id}")
    @_answered()
    def show(picture_id: str) -> dict[str, Any]:
        """With its settings as text, or why they cannot be read."""
        picture = _find(here().history, picture_id)
        try:
            recipe = read_picture(picture.path)
        except (RecipeError, ImageError) as error:
            return _entry(picture) | {"infotext": "", "problem": str(error)}
        return _entry(picture) | {"infotext": recipe.infotext() if recipe else "", "problem": ""}


def _add_files(router: APIRouter, here: Here) -> None:
    @router.get("/{picture_id}/thumbnail")
    @_answered()
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
    @_answered()
    def picture_file(picture_id: str) -> FileResponse:
        path = _find(here().history, picture_id).path
        media_type = PICTURE_TYPES[path.suffix.lower()]
        return FileResponse(
            path, media_type=media_type, headers=HEADERS, filename=path.name, content_disposition_type="inline"
        )


def _add_changing(router: APIRouter, here: Here) -> None:
    @router.put("/{picture_id}/favourite")
    @_answered()
    def favour(picture_id: str) -> dict[str, bool]:
        history = here().history
        history.set_favourite(_find(history, picture_id), True)
        return {"favourite": True}

    @router.delete("/{picture_id}/favourite")
    @_answered()
    def unfavour(picture_id: str) -> dict[str, bool]:
        history = here().history
        history.set_favourite(_find(history, picture_id), False)
        return {"favourite": False}

    @router.delete("/{picture_id}")
    @_answered()
    def delete(picture_id: str) -> dict[str, str]:
        """Into the trash: ``restore`` brings it back."""
        workspace = here()
        picture = _find(workspace.history, picture_id)
        workspace.history.delete(picture)
        workspace.thumbnails.forget(picture.path, picture.mtime_ns, picture.size_bytes)
        return {"deleted": picture.id}

    @router.post("/{picture_id}/restore")
    @_answered()
    def restore(picture_id: str) -> dict[str, Any]:
        if (picture := here().history.restore(picture_id)) is None:
            raise HTTPException(404, "no picture of this id is in the trash")
        return _entry(picture)


def _find(history: History, picture_id: str) -> Picture:
    if (picture := history.find(picture_id)) is None:
        raise HTTPException(404, "there is no picture of this id")
    return picture


def _prune(history: History, thumbnails: Thumbnails) -> None:
    """Removes thumbnails of pictures that are gone, after the index has caught up with the folder."""
    try:
        history.refresh()
        thumbnails.prune(history.identities())
    except HistoryError as error:
        log.warning("old thumbnails could not be removed: %s", error)


@contextmanager
def _answered() -> Iterator[None]:
    """What the history cannot do now, as 503."""
    try:
        yield
    except HistoryError as error:
        raise HTTPException(503, str(error)) from None


def _entry(picture: Picture) -> dict[str, Any]:
    return {
        "id": picture.id,
        "name": picture.path.name,
        "made_at": local_time(picture.mtime_ns).isoformat(),
        "size_bytes": picture.size_bytes,
        "width": picture.width,
        "height": picture.height,
        "prompt": picture.prompt,
        "model": picture.model,
        "loras": picture.loras,
        "favourite": picture.favourite,
    }
