"""``/controlnet``: the HTTP API of A1111's extension sd-webui-controlnet, beside units in ``/sdapi/v1``'s bodies."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body
from starlette.concurrency import run_in_threadpool

from webui.core import images
from webui.interop import controlnet_lists as lists
from webui.jobs.protocols import Executor

Values = Annotated[dict[str, Any], Body()]


def controlnet_router(executor: Executor) -> APIRouter:
    """The routes over one executor. Maps are made one call at a time, whoever asks."""
    router = APIRouter(prefix="/controlnet")
    turn = asyncio.Semaphore(1)

    def names() -> list[str]:
        return [name for name, file in executor.catalog().controls.items() if not file.problem]

    @router.get("/version")
    def version() -> dict[str, int]:
        return {"version": lists.VERSION}

    @router.get("/settings")
    def settings() -> dict[str, int]:
        return {"control_net_unit_count": lists.UNITS, "control_net_max_models_num": lists.UNITS}

    @router.get("/model_list")
    def model_list() -> dict[str, list[str]]:
        return {"model_list": lists.models(names())}

    @router.get("/module_list")
    def module_list(alias_names: bool = False) -> dict[str, Any]:
        return lists.modules(lists.usable_maps(executor.catalog().annotators), alias_names)

    @router.get("/control_types")
    def control_types() -> dict[str, Any]:
        return lists.control_types(lists.usable_maps(executor.catalog().annotators), names())

    @router.post("/detect")
    async def detect(values: Values) -> dict[str, Any]:
        def made() -> list[str]:
            asked = lists.read_detection(values, executor.catalog().annotators)
            return [images.encode_text(drawn) for drawn in asked.maps()]

        async with turn:
            return {"images": await run_in_threadpool(made), "info": "Success", "poses": []}

    return router
