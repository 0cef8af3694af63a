"""``/api/loras``: what LoRAs there are, for the page's panel and for scripts."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response

from webui.api.previews import answer_preview, preview_url
from webui.core.names import in_tags
from webui.jobs.protocols import Executor
from webui.library.lora_info import describe
from webui.library.scan import LOOK_S


def loras_router(executor: Executor) -> APIRouter:
    """The routes over one executor."""
    router = APIRouter(prefix="/api/loras")

    @router.get("")
    def loras(reload: bool = False) -> list[dict[str, Any]]:
        """``tag`` is what ``<lora:...>`` says for the name, which is empty where no tag can mean the file.

        ``place`` is where the file lies, where others could have its name too.
        """
        if reload:
            executor.reload()
        files = executor.catalog().loras
        found = [asdict(describe(file)) for file in files.values()]
        for entry in found:
            file = files[entry["name"]]
            entry["tag"], entry["place"] = in_tags(file.name, files), file.place if file.namesakes else ""
            entry["preview"] = preview_url(router.prefix, entry["name"]) if entry.pop("has_preview") else None
        return found

    @router.get("/preview")
    def preview(name: str) -> Response:
        return answer_preview(executor.catalog(LOOK_S).loras.get(name))

    return router
