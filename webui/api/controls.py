"""``/api/controls``: what control files there are, pictures for them that page and scripts hand in, and the maps that
preprocessors make of these, and things in them by clicks."""

import asyncio
import io
from collections.abc import Callable
from typing import Annotated, Any, Literal

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
from webui.core.names import unknown
from webui.core.segmenter import FIELD, MOST_POINTS, Eye, Point
from webui.core.segmenter_file import Segmenter, find_segmenters
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

    @router.get("/segmenters")
    def segmenters() -> dict[str, Any]:
        """``names`` of those that find things by clicks; ``problem`` is why there is none."""
        try:
            return {"names": [one.name for one in find_segmenters(executor.catalog().annotators)], "problem": ""}
        except BadFile as error:
            return {"names": [], "problem": f"The segmenter {error}."}

    _add_pictures(router, here)
    _add_work(router, executor, here)
    return router


def _add_pictures(router: APIRouter, here: Callable[[], Workspace]) -> None:
    """Pictures that are kept."""

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


def _add_work(router: APIRouter, executor: Executor, here: Callable[[], Workspace]) -> None:
    """What is made of pictures, one at a time."""
    turn, eye = asyncio.Semaphore(1), Eye()

    async def take_turn(work: Callable[[], PilImage]) -> Response:
        async with turn:
            return await run_in_threadpool(lambda: _png(work()))

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

        def made() -> PilImage:
            control, picture = _read(here, image, resize=resize, options=options or {})
            networks = choose_map(preprocessor).find_networks(executor.catalog().annotators)
            size = width, height
            return make_map(preprocessor, picture, size, control.resize, control.options, networks=networks)

        return await take_turn(made)

    @router.post("/segment")
    async def segment(
        image: Annotated[Any, Body()],
        points: Annotated[list[Point], Body(min_length=1, max_length=MOST_POINTS)],
        labels: Annotated[list[Literal[0, 1]] | None, Body(max_length=MOST_POINTS)] = None,
        segmenter: Annotated[str, Body(max_length=255)] = "",
    ) -> Response:
        """White where the thing is that the ``points`` (x, y in px) are on, at the picture's size.

        ``labels`` say of each point that it is on the thing (1, all where nothing is said) or beside it (0). ``image``
        as for a map; what was seen of it is kept. ``segmenter`` is one of the names, the first where nothing is said.
        """

        def found() -> PilImage:
            chosen = _choose(executor, segmenter)
            _, picture = _read(here, image)
            return eye.find(chosen, picture, points, [1] * len(points) if labels is None else labels)

        return await take_turn(found)


def _read(here: Callable[[], Workspace], image: Any, **more: Any) -> tuple[Control, PilImage]:
    """A control with this picture, and the picture."""
    try:
        context = {"find": here().start_pictures.find}
        control = Control.model_validate({"model": "any", "image": image, **more}, context=context)
    except ValidationError as error:
        raise refusal(error) from None
    if control.image is None:
        raise RequestError("there is no picture", "image")
    return control, control.image


def _choose(executor: Executor, name: str) -> Segmenter:
    try:
        known = {one.name: one for one in find_segmenters(executor.catalog().annotators)}
    except BadFile as error:
        raise RequestError(f"the segmenter {error}", FIELD) from None
    if name and name not in known:
        raise unknown("segmenter", name, known, field=FIELD)
    return known[name] if name else next(iter(known.values()))


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
