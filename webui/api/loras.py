"""``/api/loras``: what LoRAs there are, for the page's panel and for scripts."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response

from webui.api.previews import answer_preview, preview_url
from webui.core.executor import Executor
from webui.core.lora_info import describe


def loras_router(executor: Executor) -> APIRouter:
    """The routes over one executor."""
    router = APIRouter(prefix="/api/loras")

    @router.get("")
    def loras() -> list[dict[str, Any]]:
        found = [asdict(describe(file)) for file in executor.catalog(reload=True).loras.values()]
        for entry in found:
            entry["preview"] = preview_url(router.prefix, entry["name"]) if entry.pop("has_preview") else None
        return found

    @router.get("/preview")
    def preview(name: str) -> Response:
        return answer_preview(executor.catalog().loras.get(name))

    return router
