"""``/api/settings``: what the owner chooses while the server runs. For nobody else it is there."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException
from fastapi.responses import JSONResponse, Response

from webui.api.visitors import Asking
from webui.core.errors import RequestError
from webui.core.filenames import FILENAME_FIELDS, make_stem
from webui.core.visitor import Visitor
from webui.workspace.preferences import Preferences, PreferenceStore

SHOWN = {
    **{"seed": 123456789, "slug": "a-red-apple", "model": "demo", "sampler": "dpm-2m", "steps": 20, "guidance": "7"},
    **{"width": 512, "height": 768, "date": "2026-11-30", "time": "120000"},
}


def preferences_router(preferences: PreferenceStore) -> APIRouter:
    """The routes over what was chosen."""
    router = APIRouter(prefix="/api/settings")

    def tell() -> dict[str, Any]:
        now = preferences.now
        return {
            "settings": now.model_dump(),
            "fixed": {name: f"--{name} {value}" for name, value in preferences.fixed.items()},
            "defaults": Preferences().model_dump(exclude={"pages"}),
            "filename_fields": FILENAME_FIELDS,
            "example": f"{make_stem(now.filename, 1, SHOWN)}.{now.format}",
        }

    @router.get("")
    def show(visitor: Asking) -> dict[str, Any]:
        """What holds, what the command line has set, and what a picture would be called."""
        _check_owner(visitor)
        return tell()

    @router.patch("")
    def change(visitor: Asking, values: Annotated[dict[str, Any], Body()]) -> Response:
        """Any of ``format``, ``quality``, ``filename``, ``metadata`` and ``pages``; it holds at once."""
        _check_owner(visitor)
        try:
            preferences.change(values)
        except RequestError as error:
            told = {"error": "bad input", "detail": str(error), "field": error.field}
            return JSONResponse(told, status_code=422)
        return JSONResponse(tell())

    return router


def _check_owner(visitor: Visitor) -> None:
    """The guard lets nobody else ask; this is the second lock."""
    if not visitor.is_owner:
        raise HTTPException(404, "there is no such route")
