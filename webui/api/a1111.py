"""``/sdapi/v1``: A1111's HTTP API, as far as the programs that speak it depend on it.

Unlike ``/api/jobs`` an answer waits for its pictures. ``options``, ``progress`` and ``interrupt`` name no job: they are
the visitor's, over their calls that came through here. Of who comes without a cookie nothing is kept between calls:
progress shows none of theirs, and interrupt stops none. Who goes away has their call stopped.
"""

import base64
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from html import escape as html_escape
from typing import Annotated, Any

import psutil
from cachetools import LRUCache
from fastapi import APIRouter, Body, HTTPException
from fastapi import Request as HttpRequest
from starlette.concurrency import run_in_threadpool

from webui.api.a1111_calls import Call, answer, in_one, nothing_made
from webui.core import images
from webui.core.errors import RequestError
from webui.core.events import Done, Failed
from webui.core.files import LoraFile
from webui.core.images import ImageError
from webui.core.latent_filters import LATENT_FILTERS
from webui.core.tensor_file import BadFile, read_header
from webui.core.visitor import asking
from webui.interop.a1111 import answers, extras, grids, pictures, requests
from webui.interop.a1111.refusals import ADETAILER, CONTROLNET, SCRIPTS, flag
from webui.interop.a1111.requests import Options
from webui.interop.picture_info import read_info
from webui.jobs.protocols import Executor, NeedsYes
from webui.workspace.presets import PresetStore
from webui.workspace.styles import with_styles

Values = Annotated[dict[str, Any], Body()]
KEPT_CALLERS = 1000

# What clients ask for, and what there is none of here.
NOTHING: Mapping[str, Any] = {
    "scripts": {"txt2img": [grids.TITLE, ADETAILER, CONTROLNET], "img2img": [grids.TITLE, *SCRIPTS]},
    "cmd-flags": {},
    "latent-upscale-modes": [{"name": name} for name in LATENT_FILTERS],
    "hypernetworks": [],
    "face-restorers": [],
    "realesrgan-models": [],
    "script-info": [],
}


class Caller:
    """What lasts between a visitor's calls: options, and the calls that are not answered yet, oldest first.

    Of one that ``is_new`` nothing lasts.
    """

    def __init__(self, options: Options, is_new: bool) -> None:
        self.options, self.is_new = options, is_new
        self.calls: list[Call] = []


class Callers:
    """All visitors that called of late. ``model`` is used where none is named, or one that the visitor may use;
    ``presets`` are those of whoever asks."""

    def __init__(self, executor: Executor, model: str, presets: Callable[[], PresetStore]) -> None:
        self._executor, self._model, self.presets = executor, model, presets
        self._known: LRUCache[str, Caller] = LRUCache(KEPT_CALLERS)
        self._lock = threading.Lock()

    def here(self) -> Caller:
        """The visitor who asks."""
        visitor = asking()
        with self._lock:
            found = None if visitor.is_new else self._known.get(visitor.id)
        if found is None:
            models = self._executor.catalog().models
            known = self._model in models or visitor.is_owner
            model = self._model if known else next(iter(models), self._model)
            found = Caller(Options(model), visitor.is_new)
            with self._lock:
                found = found if visitor.is_new else self._known.setdefault(visitor.id, found)
        return found


def a1111_router(executor: Executor, model: str, presets: Callable[[], PresetStore]) -> APIRouter:
    """The routes over one executor; ``model`` is used where none is named, ``presets`` as styles and in grids."""
    router = APIRouter(prefix="/sdapi/v1")
    callers = Callers(executor, model, presets)
    _add_drawing(router, executor, callers)
    _add_options(router, executor, callers)
    _add_lists(router, executor, presets)
    _add_tools(router, executor)

    @router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False)
    async def nothing(path: str, http: HttpRequest) -> None:
        raise HTTPException(404, f"{http.method} /sdapi/v1/{path[:80]} is not supported here")

    return router


def _add_drawing(router: APIRouter, executor: Executor, callers: Callers) -> None:
    """What draws, how far it is, and its end."""

    @router.post("/txt2img")
    async def txt2img(body: Values, http: HttpRequest) -> dict[str, Any]:
        return await _draw(executor, callers, body, http, with_picture=False)

    @router.post("/img2img")
    async def img2img(body: Values, http: HttpRequest) -> dict[str, Any]:
        return await _draw(executor, callers, body, http, with_picture=True)

    @router.post("/extra-single-image")
    async def extra_single_image(body: Values, http: HttpRequest) -> dict[str, Any]:
        return await _enlarge(executor, callers, body, http, single=True)

    @router.post("/extra-batch-images")
    async def extra_batch_images(body: Values, http: HttpRequest) -> dict[str, Any]:
        return await _enlarge(executor, callers, body, http, single=False)

    @router.get("/progress")
    async def progress(skip_current_image: bool = False) -> dict[str, Any]:
        calls = callers.here().calls.copy()
        if not calls:
            return answers.progress(None, None, "0", 0, False)
        first, waiting = calls[0], sum(in_one(call.job).repeat for call in calls[1:])
        found = answers.progress(in_one(first.job), first.event, first.started, waiting, first.stopped)
        if first.preview and not skip_current_image:
            found["current_image"] = base64.b64encode(first.preview).decode("ascii")
        return found

    @router.post("/interrupt")
    def interrupt() -> None:
        for call in callers.here().calls[:1]:
            call.stop()

    @router.post("/skip")
    def skip() -> None:
        """The pictures that are drawn now are left out; pictures of one batch together."""
        for call in callers.here().calls[:1]:
            call.job.skip()


async def _draw(
    executor: Executor, callers: Callers, body: Mapping[str, Any], http: HttpRequest, with_picture: bool
) -> dict[str, Any]:
    """The answer to a call, when its job has ended; a client that goes away has it stopped."""
    caller = await run_in_threadpool(callers.here)
    try:
        call = await run_in_threadpool(_submit, executor, caller, body, with_picture, callers.presets)
    except requests.NotFound as error:
        raise HTTPException(404, str(error)) from None
    await _follow(call, caller, http)
    return await run_in_threadpool(answer, call, body)


async def _enlarge(
    executor: Executor, callers: Callers, body: Mapping[str, Any], http: HttpRequest, single: bool
) -> dict[str, Any]:
    """The answer of A1111's extras; without an upscaler it is the pictures themselves."""

    def submit() -> tuple[Call | None, list[str]]:
        work, pictures = extras.read_extras(body, single)
        if work is None:
            return None, [images.encode_text(picture) for picture in pictures]
        try:
            return Call(executor.submit(work, keep=False), ()), []
        except RequestError as error:
            raise extras.in_their_words(error) from None

    caller = await run_in_threadpool(callers.here)
    call, encoded = await run_in_threadpool(submit)
    if call is None:
        return extras.answer(encoded, "", single)
    await _follow(call, caller, http)
    if not isinstance(call.event, Done) or not call.job.images:
        raise nothing_made(call, "interrupted before all pictures were enlarged")
    html = "<br>".join(html_escape(picture.recipe.infotext()) for picture in call.job.images)
    made = await run_in_threadpool(lambda: [picture.encode() for picture in call.job.images])
    return extras.answer([base64.b64encode(png).decode("ascii") for png in made], f"<p>{html}</p>", single)


async def _follow(call: Call, caller: Caller, http: HttpRequest) -> None:
    """Waits for the end of a call; a client that goes away has it stopped. Raises what it failed for."""
    caller.calls.append(call)
    try:
        async for _, event in call.job.follow_async():
            call.see(event)
            if await http.is_disconnected():
                await run_in_threadpool(call.stop)
    finally:
        caller.calls.remove(call)
    if isinstance(call.event, Failed):
        if call.event.bad_input:
            raise RequestError(call.event.message)
        raise HTTPException(500, call.event.message)


def _submit(
    executor: Executor, caller: Caller, body: Mapping[str, Any], with_picture: bool, here: Callable[[], PresetStore]
) -> Call:
    catalog, presets = executor.catalog(), here()
    options = requests.read_options(body.get("override_settings"), catalog, caller.options)
    script = grids.TITLE if grids.is_plot(body) else None
    asked = requests.read_request(body, catalog, options, with_picture, script)
    request = with_styles(asked.request, presets.styles(requests.read_styles(body)))
    plot = grids.read_plot(body, request, catalog, presets.over, with_picture) if script else None
    try:
        job = executor.submit(plot.grid if plot else request, keep=flag(body.get("save_images")))
    except NeedsYes as error:
        raise RequestError(f'{error}: send "yes": true', field="yes") from None
    except RequestError as error:
        raise requests.in_their_words(error) from None
    restored = body.get("override_settings_restore_afterwards")
    if restored is not None and not flag(restored):
        caller.options = options
    comments = (*asked.comments, *(plot.comments if plot else ()))
    maps = asked.shown if options.detected_maps else ()
    return Call(job, comments, plot is None or plot.with_pictures, maps)


def _add_options(router: APIRouter, executor: Executor, callers: Callers) -> None:
    @router.get("/options")
    def options() -> dict[str, Any]:
        return callers.here().options.to_json(executor.catalog())

    @router.post("/options")
    def set_options(values: Values) -> None:
        caller = callers.here()
        changed = requests.read_options(values, executor.catalog(), caller.options)
        if caller.is_new and changed != caller.options:
            raise HTTPException(
                403, "options are kept for those who keep their cookie; send override_settings with a request"
            )
        caller.options = changed


def _add_lists(router: APIRouter, executor: Executor, presets: Callable[[], PresetStore]) -> None:
    """What can be chosen."""

    @router.get("/sd-models")
    def sd_models() -> list[dict[str, Any]]:
        """Hashes are null, as A1111's are before it has read a file."""
        usable = [file for file in executor.catalog().models.values() if file.checkpoint]
        return [
            {"title": requests.title(file), "model_name": file.name, "filename": file.path.name}
            | {"hash": None, "sha256": None, "config": None}
            for file in usable
        ]

    @router.get("/samplers")
    def samplers() -> list[dict[str, Any]]:
        return answers.samplers(executor.catalog())

    @router.get("/upscalers")
    def upscalers() -> list[dict[str, Any]]:
        return extras.upscalers(executor.catalog())

    @router.get("/schedulers")
    def schedulers() -> list[dict[str, Any]]:
        return answers.schedulers(executor.catalog())

    @router.get("/loras")
    def loras() -> list[dict[str, Any]]:
        return [
            {"name": file.name, "alias": metadata.get("ss_output_name", file.name), "path": file.path.name}
            | {"metadata": metadata}
            for file in executor.catalog().loras.values()
            for metadata in [_metadata(file) if asking().is_owner else {}]  # trainers write folders into it
        ]

    @router.get("/embeddings")
    def embeddings() -> dict[str, Any]:
        unknown = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": None, "vectors": None}
        return {"loaded": dict.fromkeys(executor.catalog().embeddings, unknown), "skipped": {}}

    @router.get("/sd-vae")
    def sd_vae() -> list[dict[str, Any]]:
        return [{"model_name": name, "filename": file.path.name} for name, file in executor.catalog().vaes.items()]

    @router.get("/prompt-styles")
    def prompt_styles() -> list[dict[str, Any]]:
        return [requests.style(preset.name, preset.fields) for preset in presets().all_styles()]

    for name, value in NOTHING.items():
        router.add_api_route(f"/{name}", lambda value=value: value, methods=["GET"], response_model=None, name=name)


def _add_tools(router: APIRouter, executor: Executor) -> None:
    @router.get("/memory")
    def memory() -> dict[str, Any]:
        ram = psutil.virtual_memory()
        status = executor.status()
        return {
            "ram": {"free": ram.available, "used": ram.total - ram.available, "total": ram.total},
            "cuda": status.get("memory_bytes") or {},
        }

    @router.post("/png-info")
    async def png_info(values: Values) -> dict[str, Any]:
        def read() -> dict[str, Any]:
            return answers.png_info(read_info(pictures.read_file("image", values.get("image")), executor.catalog()))

        try:
            return await run_in_threadpool(read)
        except ImageError as error:
            raise RequestError(f"image {error}", field="image") from None

    @router.post("/refresh-checkpoints")
    @router.post("/refresh-loras")
    @router.post("/refresh-embeddings")
    @router.post("/refresh-vae")
    def refresh() -> None:
        executor.reload()


def _metadata(file: LoraFile) -> Mapping[str, str]:
    with suppress(BadFile, OSError):
        return read_header(file.path).metadata
    return {}
