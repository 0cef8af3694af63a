"""The jobs of one click: what of them stays in memory."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image as PilImages

from webui.core.events import Done, Event, Image
from webui.core.order import Order
from webui.core.recipe import Recipe
from webui.jobs import executor as executors
from webui.jobs import registry
from webui.jobs.workers.thread import ThreadWorker
from webui.ui import layout, stream
from webui.workspace.workspace import Workspaces

JOBS, KEPT = 60, 5


class Painter:
    """An engine that has each picture ready at once."""

    device_description, memory_plan, model_name, room = "none", "nowhere", "demo", None
    model_names = (model_name,)
    memory_bytes: dict[str, int] = {}
    parts_s: dict[str, float] = {}

    def __init__(self) -> None:
        self.pictures: list[weakref.ref[PilImages.Image]] = []

    def draw(self, order: Order, _cancelled: Any) -> Iterator[Event]:
        request = order.request
        picture = PilImages.new("RGB", (request.width, request.height))
        self.pictures.append(weakref.ref(picture))
        yield Image(0, picture, Recipe(request))
        yield Done(0.0)


@pytest.fixture
def painter() -> Painter:
    return Painter()


@pytest.fixture
def executor(settings, painter, monkeypatch):
    monkeypatch.setattr(registry, "KEPT_JOBS", KEPT)
    monkeypatch.setattr(stream, "MIN_INTERVAL_S", 0)
    executor = executors.LocalExecutor(settings, ThreadWorker(settings.engine_options, painter))
    yield executor
    executor.close()


def test_a_page_keeps_no_more_pictures_in_memory_than_the_executor(executor, painter, settings, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(settings.cache_dir / "gradio"))
    page = layout.build_page(executor, Workspaces(settings.data_dir).here)
    [draw] = [event for event in page.fns.values() if event.api_name == "txt2img"]
    values = [block.value for block in draw.inputs]
    size = {"txt2img-width": 64, "txt2img-height": 64, "txt2img-steps": 1}
    values = [size.get(block.elem_id, value) for block, value in zip(draw.inputs, values, strict=True)]

    async def run() -> list[Any]:
        return [update async for update in draw.fn(*values)]

    for _ in range(JOBS):
        gallery, *_ = asyncio.run(run())[-1]
        assert len(gallery) == 1
    gc.collect()
    assert len(painter.pictures) == JOBS
    assert sum(picture() is not None for picture in painter.pictures) <= KEPT + 1
