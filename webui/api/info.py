"""``POST /api/info``: what a picture, the body of the request, says of how it was made."""

from typing import Any

from fastapi import APIRouter, Body, HTTPException

from webui.core.executor import Executor
from webui.core.images import MAX_FILE_BYTES, ImageError
from webui.core.picture_info import read_info


def info_router(executor: Executor) -> APIRouter:
    """The route over one executor's models, which say whether what a picture names is here."""
    router = APIRouter(prefix="/api/info")

    @router.post("")
    def info(picture: bytes = Body(media_type="image/*", max_length=MAX_FILE_BYTES)) -> dict[str, Any]:
        try:
            return read_info(picture, executor.catalog()).to_json()
        except ImageError as error:
            raise HTTPException(422, f"the picture {error}") from None

    return router
