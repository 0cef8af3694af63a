"""What the page is told of a grid while it is drawn."""

import asyncio
import html
import json
import re

from PIL import Image as PilImages

from webui.core.axes import read_axis
from webui.core.events import Done, Image, Step
from webui.core.grid import make_grid
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.sheet import make_sheet
from webui.jobs.job import LocalJob
from webui.jobs.resolve import plan_work
from webui.library.library import Library
from webui.ui import stream


def cells_of(view: stream.View) -> list | None:
    found = re.search(r'data-cells="([^"]*)"', view.preview or "")
    return [(index, place) for index, place, _ in json.loads(html.unescape(found[1]))["cells"]] if found else None


def test_the_table_grows_cell_by_cell_and_the_sheet_stands_first_in_the_gallery(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "MIN_INTERVAL_S", 0.0)
    base = Request(prompt="a cat", seed=5, steps=1, width=64, height=64)
    axes = {"x": read_axis("x", "steps", "1,2"), "y": read_axis("y", "guidance", "1,2")}
    orders, grid = plan_work(make_grid(base, axes), Library(settings).snapshot())
    job = LocalJob(orders, lambda _: None, grid=grid)
    images = [
        Image(k, PilImages.new("RGB", (64, 64), (k, 0, 0)), Recipe(order.request)) for k, order in enumerate(orders)
    ]

    async def watch() -> list:
        seen = []
        views = stream.watch(job, tmp_path)
        for k, image in enumerate(images):
            job.publish(image)
            seen.append(cells_of(await anext(views)))
            job.publish(Step(k + 1, 4, 0.1, b"jpeg"))
            step = await anext(views)
            assert cells_of(step) is None and "preview-live" in step.preview, "no cell is told twice for a preview"
        job.publish(make_sheet(grid, images, 4)[0])
        job.publish(Done(1.0))
        *_, last = [view async for view in views]
        return [*seen, last]

    *grown, last = asyncio.run(watch())
    assert grown == [[(at, at) for at in range(k + 1)] for k in range(4)]
    assert cells_of(last) == grown[-1]
    assert [caption for _, caption in last.gallery] == ["Sheet of all", *["Seed 5"] * 4]
    assert "X/Y/Z plot" in last.infotext
