"""``/api/models``: what models there are, which one is loaded, and their hashes; for the page and for scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Response

from webui.api.previews import answer_preview, preview_url
from webui.core.errors import RequestError
from webui.core.groups.region import MAX_REGIONS
from webui.core.memory import Asked
from webui.core.weight_files import content_hash
from webui.jobs.protocols import Executor
from webui.library.model_info import describe
from webui.library.scan import LOOK_S
from webui.library.vocabulary import vocabulary_of

Side = Annotated[int, Query(ge=8, le=16_384)]
Count = Annotated[int, Query(ge=1, le=64)]
Controls = Annotated[Sequence[str], Query(max_length=8)]
Regions = Annotated[int, Query(ge=0, le=MAX_REGIONS)]


def models_router(executor: Executor) -> APIRouter:
    """The routes over one executor."""
    router = APIRouter(prefix="/api/models")

    @router.get("")
    def models(reload: bool = False) -> list[dict[str, Any]]:
        if reload:
            executor.reload()
        found = [asdict(describe(file)) for file in executor.catalog().models.values()]
        resident = executor.status().get("model")
        for entry in found:
            entry["preview"] = preview_url(router.prefix, entry["name"]) if entry.pop("has_preview") else None
            entry["resident"] = entry["name"] == resident
        return found

    @router.get("/preview")
    def preview(name: str) -> Response:
        return answer_preview(executor.catalog(LOOK_S).models.get(name))

    @router.get("/vocabulary")
    def vocabulary(name: str) -> dict[str, Any] | None:
        """The words that a model was trained on, where they are few: what the page says of the embedded one."""
        file = executor.catalog(LOOK_S).models.get(name)
        return vocabulary_of(file) if file else None

    @router.get("/memory")
    def memory(
        name: str,
        width: Side,
        height: Side,
        count: Count = 1,
        guided: bool = True,
        control: Controls = (),
        regions: Regions = 0,
        pag: bool = False,
        int8: bool = False,
    ) -> Mapping[str, Any]:
        """What a job would take: weights by part, a step's work, and the plan that fits; nothing is loaded for it."""
        asked = Asked(name, (width, height), count, guided, tuple(control), regions, pag, int8)
        try:
            return executor.tell_memory(asked)
        except RequestError as error:
            raise HTTPException(404, str(error)) from None

    @router.get("/hash")
    def hash_model(name: str) -> dict[str, str]:
        """Apart from the list, because it reads the whole file."""
        file = executor.catalog().models.get(name)
        if file is None or file.checkpoint is None:
            raise HTTPException(404, "there is no usable model with this name")
        try:
            sha256 = content_hash(file)
        except OSError as error:
            raise HTTPException(404, f"the model cannot be read: {error.strerror}") from None
        return {"name": name, "hash": sha256[:10], "sha256": sha256}

    return router
