"""``/api/info``: what a picture, or settings as text, tell of how it was made. The body is kept nowhere."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from webui.core.errors import RequestError
from webui.core.images import ImageError
from webui.interop.picture_info import read_info, read_text
from webui.jobs.protocols import Executor


def info_router(executor: Executor) -> APIRouter:
    """The route over one executor, whose models and samplers the settings are mapped to."""
    router = APIRouter()

    @router.post("/api/info")
    async def info(request: Request) -> dict[str, Any]:
        body = await request.body()
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/plain":
            text = body.decode("utf-8", "replace")
            return (await run_in_threadpool(lambda: read_text(text, executor.catalog()))).to_json()
        try:
            found = await run_in_threadpool(lambda: read_info(body, executor.catalog()))
        except ImageError as error:
            raise RequestError(f"the picture {error}") from None
        return found.to_json()

    return router
