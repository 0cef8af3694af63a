"""``/api/controls``: what control files there are, pictures for them that page and scripts hand in, and the maps that
preprocessors make of these."""

import asyncio
import io
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Request, Response
from PIL.Image import Image as PilImage
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from webui.core import images
from webui.core.control_file import misfit, read_control
from webui.core.errors import RequestError, refusal
from webui.core.files import ControlFile, ModelFile
from webui.core.groups.control import Control
from webui.core.images import MAX_SIDE_PX, MIN_SIDE_PX, ImageError
from webui.core.maps import MAPS, choose_map, make_map
from webui.core.tensor_file import BadFile
from webui.jobs.protocols import Executor
from webui.workspace.workspace import Workspace

HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=86400"}
Side = Annotated[int, Body(ge=MIN_SIDE_PX, le=MAX_SIDE_PX)]


def controls_router(executor: Executor, here: Callable[[], Workspace]) -> APIRouter:
    """The routes over one executor and the pictures of the workspace ``here``."""
    router = APIRouter(prefix="/api/controls")

    @router.get("")
    def controls(reload: bool = False, model: str = "") -> list[dict[str, str]]:
        """``problem`` is why one cannot be used, ``misfit`` why not with the ``model`` that is named."""
        if reload:
            executor.reload()
        catalog = executor.catalog()
        return [_describe(file, catalog.models.get(model)) for file in catalog.controls.values()]

    @router.get("/preprocessors")
    def preprocessors() -> list[dict[str, Any]]:
        """What makes a map of a picture, with the numbers that it can be told; ``problem`` is what it lacks here."""
        annotators = executor.catalog().annotators
        return [
            {
                "name": row.name,
                "title": row.title,
                "options": [vars(option) for option in row.options],
                "needs_mask": row.needs_mask,
                "problem": row.lacks(annotators),
            }
            for row in MAPS.values()
        ]

    _add_pictures(router, executor, here)
    return router


def _add_pictures(router: APIRouter, executor: Executor, here: Callable[[], Workspace]) -> None:
    """What is done with pictures."""

    @router.post("/pictures")
    async def keep(request: Request) -> dict[str, Any]:
        """Keeps the picture that is the body, no larger than what can be drawn; its ``sha256`` stands for it below."""
        body = await request.body()

        def kept() -> dict[str, Any]:
            try:
                picture = images.shrink(images.plain(images.open_image(body)), MAX_SIDE_PX)
            except ImageError as error:
                raise RequestError(f"the picture {error}", "image") from None
            sha256 = here().start_pictures.hold(picture)
            return {"sha256": sha256, "width": picture.width, "height": picture.height}

        return await run_in_threadpool(kept)

    @router.get("/pictures/{sha256}")
    def picture(sha256: str) -> Response:
        if (found := here().start_pictures.find(sha256)) is None:
            raise HTTPException(404, "there is no picture of this hash")
        return _png(found)

    turn = asyncio.Semaphore(1)

    @router.post("/map")
    async def show_map(
        image: Annotated[Any, Body()],
        width: Side,
        height: Side,
        preprocessor: Annotated[str, Body(max_length=100)] = "none",
        options: Annotated[dict[str, float] | None, Body(max_length=8)] = None,
        resize: Annotated[str, Body(max_length=40)] = "crop and resize",
    ) -> Response:
        """The map as a control would be shown it, one at a time. ``image`` is base64, or the ``sha256`` of one that is
        kept."""
        asked = {"model": "any", "image": image, "resize": resize, "options": options or {}}

        def made() -> Response:
            try:
                control = Control.model_validate(asked, context={"find": here().start_pictures.find})
            except ValidationError as error:
                raise refusal(error) from None
            if control.image is None:
                raise RequestError("there is no picture to make a map of", "image")
            networks = choose_map(preprocessor).find_networks(executor.catalog().annotators)
            size = width, height
            return _png(make_map(preprocessor, control.image, size, control.resize, control.options, networks=networks))

        async with turn:
            return await run_in_threadpool(made)


def _describe(file: ControlFile, model: ModelFile | None) -> dict[str, str]:
    told = {"name": file.name, "form": "", "family": "", "about": "", "problem": "", "misfit": ""}
    try:
        kind = read_control(file)
    except BadFile as error:
        return told | {"problem": str(error)}
    fit = misfit(file.name, kind, model) if model else ""
    return told | {"form": kind.form, "family": kind.family, "about": kind.title, "misfit": fit}


def _png(picture: PilImage) -> Response:
    data = io.BytesIO()
    picture.save(data, "PNG", compress_level=1)
    return Response(data.getvalue(), media_type="image/png", headers=HEADERS)
