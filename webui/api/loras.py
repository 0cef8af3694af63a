"""``/api/loras``: what LoRAs there are, for the page's panel and for scripts."""

from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Response

from webui.core.executor import Executor
from webui.core.lora_info import describe, read_preview

# A stranger's picture is a picture, whatever else its bytes would make of it.
PREVIEW_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=300"}


def loras_router(executor: Executor) -> APIRouter:
    """The routes over one executor."""
    router = APIRouter(prefix="/api/loras")

    @router.get("")
    def loras() -> list[dict[str, Any]]:
        found = [asdict(describe(file)) for file in executor.catalog().loras.values()]
        for entry in found:
            shown = entry.pop("has_preview")
            entry["preview"] = f"api/loras/preview?{urlencode({'name': entry['name']})}" if shown else None
        return found

    @router.get("/preview")
    def preview(name: str) -> Response:
        file = executor.catalog().loras.get(name)
        picture = read_preview(file) if file else None
        if picture is None:
            raise HTTPException(404, "there is no preview picture of this name")
        return Response(picture[0], media_type=picture[1], headers=PREVIEW_HEADERS)

    return router
