"""``/api/presets``: what presets there are, their small pictures and their files; saved, renamed, deleted, imported."""

from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from webui.api.previews import HEADERS, preview_url
from webui.core.errors import RequestError
from webui.jobs.protocols import Executor, find_picture
from webui.workspace.preset import make_preset
from webui.workspace.preset_family import family_of, fits
from webui.workspace.preset_making import of_page, of_picture, of_words, read_variables
from webui.workspace.presets import PresetFile, read_thumbnail
from webui.workspace.workspace import Workspace

Here = Callable[[], Workspace]
Name = Annotated[str, Query(max_length=255)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Saving(_Body):
    """A preset of a page's ``values``, by field; of the chosen ``picture``, so that it is made again; or a style of the
    page's words. ``picture`` is named JOB/PLACE, and is the preset's small picture in any case.

    ``variables`` are lines ``name = value``.
    """

    name: str
    note: str = ""
    settings: Literal["page", "picture", "words"] = "page"
    values: dict[str, Any] = Field(default_factory=dict)
    styles: list[str] = Field(default_factory=list)
    variables: str = ""
    picture: str = ""
    replace: bool = False


class Renaming(_Body):
    """What it is to be called."""

    name: str
    to: str


def presets_router(executor: Executor, here: Here) -> APIRouter:
    """The routes over the workspace ``here`` and the executor's pictures and models."""
    router = APIRouter(prefix="/api/presets")
    _add_reading(router, executor, here)
    _add_changing(router, executor, here)
    return router


def _add_reading(router: APIRouter, executor: Executor, here: Here) -> None:
    def find(name: str) -> PresetFile:
        file = here().presets.files().get(name)
        if file is None or file.preset is None:
            raise HTTPException(404, "there is no usable preset with this name")
        return file

    @router.get("")
    def presets(model: Name = "") -> list[dict[str, Any]]:
        """``fits`` is whether each is for this model, or for any."""
        models = executor.catalog().models
        found = []
        for file in here().presets.files().values():
            told = {"name": file.name, "shipped": file.shipped, "lent": file.lent}
            told["preview"] = preview_url(router.prefix, file.name) if read_thumbnail(file) else None
            if (preset := file.preset) is None:
                found.append(told | {"problem": f"{file.path.name} {file.problem}"})
                continue
            told |= {"notices": preset.notices, "is_style": preset.is_style}
            told |= {"family": family_of(preset, models), "fits": fits(preset, model, models)}
            found.append(preset.model_dump(mode="json") | told)
        return found

    @router.get("/preview")
    def preview(name: str) -> Response:
        file = here().presets.files().get(name)
        picture = read_thumbnail(file) if file else None
        if picture is None:
            raise HTTPException(404, "there is no preview picture with this name")
        return Response(picture, media_type="image/png", headers=HEADERS)

    @router.get("/file")
    def download(name: str) -> Response:
        file = find(name)
        assert file.preset
        disposition = f"attachment; filename=\"preset.toml\"; filename*=UTF-8''{quote(file.name, safe='')}.toml"
        return Response(
            file.preset.text,
            media_type="application/toml",
            headers={"Content-Disposition": disposition, "X-Content-Type-Options": "nosniff"},
        )

    @router.get("/warnings")
    def warnings(name: str) -> dict[str, Any]:
        """What to know before it is used. Apart from the list, because it reads whole files."""
        preset = find(name).preset
        assert preset
        return {"warnings": preset.warnings(executor.catalog())}


def _add_changing(router: APIRouter, executor: Executor, here: Here) -> None:
    @router.post("")
    def save(body: Saving) -> dict[str, str]:
        store = here().presets
        found = find_picture(executor, body.picture)
        held: dict[str, Any] = {}
        if body.settings == "words":
            held = of_words(body.values, store.styles(body.styles))
        elif body.settings == "page":
            held = of_page(body.values, store.styles(body.styles)) | {"variables": read_variables(body.variables)}
        elif found:
            held = of_picture(found[1], found[0].request.count, str(executor.status().get("device")))
        else:
            reason = "there is no picture yet: draw one first, or save the settings of this page"
            raise RequestError(reason, field="picture")
        preset = make_preset(name=body.name, note=body.note, **held)
        store.save(preset, found[1].image if found else None, body.replace)
        return {"name": preset.name}

    @router.patch("")
    def rename(body: Renaming) -> dict[str, str]:
        return {"name": here().presets.rename(body.name, body.to)}

    @router.delete("")
    def delete(name: Name) -> dict[str, str]:
        here().presets.delete(name)
        return {"deleted": name}

    @router.post("/import")
    async def take_in(request: Request, name: Name) -> dict[str, Any]:
        """The body is the file: a preset's TOML, or A1111's ``styles.csv``, as its ``name`` ends."""
        body = await request.body()
        names, notices = await run_in_threadpool(lambda: here().presets.add(name, body))
        return {"names": names, "notices": notices}
