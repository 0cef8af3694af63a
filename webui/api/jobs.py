"""``/api/jobs``: submit, watch, fetch, cancel. A job opens for its visitor and the owner alone."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from cachetools import LRUCache
from fastapi import APIRouter, Body, Depends, Header, HTTPException, Query, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from webui.api.queue import summary, thumbnail_of
from webui.api.visitors import Asking
from webui.core.errors import RequestError
from webui.core.events import Image, to_json
from webui.core.grid import Grid, is_grid, read_grid
from webui.core.groups import LISTS
from webui.core.images import ImageError
from webui.core.request import Request
from webui.core.visitor import OWNER
from webui.core.without import without_lora
from webui.core.work import Work
from webui.jobs.protocols import ENDED, Executor, Job, NeedsYes, unfinished
from webui.workspace.history import History, HistoryError
from webui.workspace.preset import compare_pins
from webui.workspace.presets import PresetStore
from webui.workspace.styles import with_styles
from webui.workspace.workspace import Workspace

MOST_IDS = 500  # that one question may name
DRAWN = ("loading", "running")


def jobs_router(executor: Executor, here: Callable[[], Workspace]) -> APIRouter:
    """The routes over one executor and the presets of the workspace ``here``."""
    router = APIRouter(prefix="/api")

    @router.get("/health")
    async def health() -> dict[str, Any]:
        return dict(executor.status())

    @router.post("/jobs", status_code=202)
    def submit(values: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        """In a thread of its own: with a preset, files may have to be hashed."""
        return _submit(executor, here().presets, values)

    @router.get("/jobs")
    def look(ids: Annotated[list[str] | None, Query(alias="id", max_length=MOST_IDS)] = None) -> list[dict[str, Any]]:
        """Those of the jobs that are known, without ids one's own: how far each is, and its place while it waits."""
        jobs = executor.jobs(OWNER) if ids is None else [job for job in map(executor.job, ids) if job]
        return [{"id": job.id, "state": job.state, "position": job.position} for job in jobs]

    @router.get("/queue")
    def queue(visitor: Asking) -> list[dict[str, Any]]:
        """One's own jobs that are drawn or wait, in the order of their turns, as people see them."""
        return summary(executor, visitor)

    _add_looking(router, executor, here)
    _add_asking(router, executor)
    return router


def _known(executor: Executor) -> Callable[[str], Job]:
    """The job of an id, which is part of the address."""

    def find(job_id: str) -> Job:
        job = executor.job(job_id)
        if job is None:
            raise HTTPException(404, "no job has this id")
        return job

    return find


def _add_looking(router: APIRouter, executor: Executor, here: Callable[[], Workspace]) -> None:
    """What is to be seen of one job."""
    encoded: LRUCache[tuple[str, int, bool], str] = LRUCache(64)  # for all who follow one job
    KnownJob = Annotated[Job, Depends(_known(executor))]

    @router.get("/jobs/{job_id}")
    def show(job: KnownJob, visitor: Asking, pictures: bool = False, history: bool = False) -> Response:
        """Its request without the pictures in it, unless ``pictures`` asks for them; with ``history``
        each of its pictures says which one of ``/api/history`` it is, null where it is none."""
        listed = {group: {"__all__": set(made_of.pictures)} for group, made_of in LISTS.items()}
        without: Any = None if pictures else {"init": {"image", "mask"}, **listed}
        request, grid = None, {}
        with suppress(RequestError):  # the picture that it starts from is gone
            grid = {"grid": job.work.to_json()} if isinstance(job.work, Grid) else {}
            request = job.request.model_dump(mode="json", exclude=without)
        images = job.images
        told = [to_json(image, visitor.is_owner) for image in images]
        if history:
            known = _ids(here().history, images)
            ids = [known.get(image.path) if image.path else None for image in images]
            told = [said | {"history": picture_id} for said, picture_id in zip(told, ids, strict=True)]
        shown = {"id": job.id, "state": job.state, "request": request, **grid, "images": told}
        return Response(json.dumps(shown), media_type="application/json")  # here, not on the event loop

    @router.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
    async def events(
        job: KnownJob, visitor: Asking, last_event_id: Annotated[int, Header(ge=0)] = 0
    ) -> AsyncIterator[ServerSentEvent]:
        async for number, event in job.follow_async(after=last_event_id):
            if (text := encoded.get((job.id, number, visitor.is_owner))) is None:
                is_picture, arguments = isinstance(event, Image), (event, visitor.is_owner)
                told = await run_in_threadpool(to_json, *arguments) if is_picture else to_json(*arguments)
                text = encoded[job.id, number, visitor.is_owner] = json.dumps(told)
            yield ServerSentEvent(raw_data=text, id=str(number))

    @router.get("/jobs/{job_id}/images/{index}")
    def image(job: KnownJob, index: int) -> Response:
        return _png(job, index)

    @router.get("/jobs/{job_id}/preview")
    def preview(job: KnownJob) -> Response:
        """A small JPEG of what is drawn, of the newest picture, or of the picture that it starts from."""
        if (small := thumbnail_of(job)) is None:
            raise HTTPException(404, "there is nothing to see of this job yet")
        return Response(small, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})


def _add_asking(router: APIRouter, executor: Executor) -> None:
    """What is asked of one job."""
    KnownJob = Annotated[Job, Depends(_known(executor))]

    @router.delete("/jobs/{job_id}")
    def cancel(job: KnownJob) -> JSONResponse:
        job.cancel()
        return JSONResponse({"id": job.id}, status_code=202)

    @router.post("/jobs/{job_id}/skip", status_code=202)
    def skip(job: KnownJob) -> dict[str, Any]:
        """Leaves out the pictures that are drawn now, within a step, and goes on with the next."""
        if job.state not in DRAWN:
            raise HTTPException(409, "this job is not being drawn")
        job.skip()
        return {"id": job.id}

    @router.post("/jobs/{job_id}/move")
    def move(job: KnownJob, before: Annotated[str | None, Body(embed=True)] = None) -> dict[str, Any]:
        """Puts a job that waits before another of the same visitor's, or behind all of them."""
        if not executor.move(job.id, before):
            raise HTTPException(409, "this job, or the one to come before, no longer waits")
        return {"id": job.id, "position": job.position}

    @router.post("/jobs/{job_id}/without", status_code=202)
    def without(
        job: KnownJob, lora: Annotated[str, Body(max_length=300)], picture: Annotated[int, Body(ge=0)] = 0
    ) -> dict[str, Any]:
        """Another job, which is not saved: a picture of this one, with its seed, without one of its LoRAs."""
        images = job.images
        if picture >= len(images):
            raise HTTPException(404, f"the job has {len(images)} pictures so far, numbered from 0")
        if (request := without_lora(images[picture].recipe.request, lora)) is None:
            raise HTTPException(409, f"this picture was drawn without {lora}")
        return _accepted(executor, executor.submit(request, keep=False))

    @router.post("/jobs/{job_id}/again", status_code=202)
    def again(job: KnownJob) -> dict[str, Any]:
        """Another job, of what this one has not finished."""
        if job.state not in ENDED:
            raise HTTPException(409, "this job has not ended")
        return _accepted(executor, executor.submit(unfinished(job)))


def _ids(history: History, images: Sequence[Image]) -> Mapping[Path, str]:
    """The ids that the history has for them, by their paths."""
    with suppress(HistoryError):  # then it is not to be had, and the pictures still are
        return history.ids_of(image.path for image in images if image.path)
    return {}


def _png(job: Job, index: int) -> Response:
    found = next((image for image in job.images if image.index == index), None)
    if found is None:
        raise HTTPException(404, f"the job has {len(job.images)} pictures so far, numbered from 0")
    try:
        return Response(_saved(found) or found.encode(), media_type="image/png")
    except ImageError:
        raise HTTPException(404, "the file of this picture is no longer there") from None


def _saved(picture: Image) -> bytes | None:
    """The file of the picture, where it is one of these pixels: encoding it again takes a hundred times as long."""
    with suppress(OSError):
        if picture.path and picture.path.suffix == ".png":
            data = picture.path.read_bytes()
            return data if picture.pixels_sha256.encode() in data else None
    return None


def _submit(executor: Executor, presets: PresetStore, values: dict[str, Any]) -> dict[str, Any]:
    asked = values.pop("request", {}) if (wants_grid := is_grid(values)) else values
    if not isinstance(asked, dict):
        raise RequestError("request must be an object", field="request")
    styles = presets.styles(asked.pop("styles", ()))
    preset = presets.get(asked.pop("preset")) if "preset" in asked else None
    if preset is None:
        request = Request.parse(asked)
    else:
        variables = asked.pop("variables", {})
        if not isinstance(variables, dict):
            raise RequestError("variables must be an object of names and texts", field="variables")
        request = preset.request(variables, asked)
    request = with_styles(request, styles)
    work: Work = request
    if wants_grid:
        work = read_grid(values, request, presets.over)
    try:
        job = executor.submit(work)
    except NeedsYes as error:
        raise RequestError(f'{error}: send "yes": true', field="yes") from None
    if preset is None:
        return _accepted(executor, job)
    catalog = executor.catalog()
    warnings = preset.notices + compare_pins(preset.pins, job.request, catalog.models, catalog.loras)
    return _accepted(executor, job, warnings)


def _accepted(executor: Executor, job: Job, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """The answer for a job that is queued."""
    if warning := executor.status().get("warning"):
        warnings = [*warnings, str(warning)]
    return {"id": job.id} | ({"warnings": list(warnings)} if warnings else {})
