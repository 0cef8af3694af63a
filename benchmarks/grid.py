"""A grid, beside the same pictures one after the other in the same order; and what its sheet and its table take of it.

Both go through one executor that saves them, take turns, and are counted in processor time, which other programs on the
machine do not lengthen.
"""

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import offer
from webui.core.axes import read_axis
from webui.core.events import Failed
from webui.core.grid import Grid, make_grid
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.sheet import make_sheet
from webui.core.work import Work
from webui.jobs.executor import LocalExecutor
from webui.jobs.job import LocalJob
from webui.library.library import DEMO_MODEL
from webui.ui.stream import watch

PROMPT = "a red apple, flat style, on a blue background"
MOST = 1.05
"""Of the time of the single pictures that a grid may take."""
MOST_SHOWN = 0.02
"""Of a grid's time that its growing table may take."""


def run(options: Options) -> list[Row]:
    """Milliseconds of processor time: three LoRA weights by two models by two prompts, sent in a bad order."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(device="cpu", dtype="float32", data_dir=Path(folder))
        grid = _grid(options, Path(folder))
        executor = LocalExecutor(settings)
        try:
            return _measure(executor, grid, options)
        finally:
            executor.close()


def _grid(options: Options, folder: Path) -> Grid:
    model = offer(options.size, folder)
    if options.size == "demo":
        shutil.copytree(DEMO_MODEL, folder / "models" / "Stable-diffusion" / "other", dirs_exist_ok=True)
        x, y = read_axis("x", "model", "demo,other"), read_axis("y", "lora:night", "0,0.5,1")
    else:
        x, y = read_axis("x", "guidance", "3,6"), read_axis("y", "seed", "1,2,3")
    side, steps = options.side or (128 if options.size == "demo" else 256), options.steps or 12
    request = Request(prompt=PROMPT, model=model, seed=7, steps=steps, width=side, height=side)
    return make_grid(request, {"x": x, "y": y, "z": read_axis("z", "prompt:apple", "apple,car")})


def _measure(executor: LocalExecutor, grid: Grid, options: Options) -> list[Row]:
    samples: dict[str, list[float]] = {"alone": [], "grid": [], "sheet": [], "table": []}
    same = True
    for k in range(options.rounds + 1):
        drawn = _finish(executor, grid)
        turns = [order.request for order, _ in drawn.turns]
        together_ms = _timed(partial(_finish, executor, grid))
        alone_ms = _timed(partial(_one_by_one, executor, turns))
        sheet_ms = _timed(partial(_put_together, grid, drawn))
        table_ms = _timed(partial(_show, drawn))
        single = {_finish(executor, turns[0]).images[0].pixels_sha256, drawn.images[drawn.turns[0][1]].pixels_sha256}
        same = same and len(single) == 1
        if k:
            for name, taken in zip(samples, (alone_ms, together_ms, sheet_ms, table_ms), strict=True):
                samples[name].append(taken)
    alone = Row(f"{len(turns)} pictures, one after the other in the grid's order", "ms", samples["alone"])
    whole = compared("the grid with its sheet", "ms", samples["grid"], alone, f"at most {MOST}")
    shown = compared("a page that follows all of it", "ms", samples["table"], whole, f"at most {MOST_SHOWN}")
    return [
        alone,
        replace(whole, holds=same and whole.ratio is not None and whole.ratio <= MOST),
        compared("its sheet, put together and encoded", "ms", samples["sheet"], whole),
        replace(shown, holds=shown.ratio is not None and shown.ratio <= MOST_SHOWN),
    ]


def _finish(executor: LocalExecutor, work: Work) -> LocalJob:
    job = executor.submit(work)
    for _, event in job.follow():
        if isinstance(event, Failed):
            raise RuntimeError(event.message)
    return job


def _one_by_one(executor: LocalExecutor, requests: Sequence[Request]) -> None:
    for request in requests:
        _finish(executor, request)


def _put_together(grid: Grid, job: LocalJob) -> bytes:
    sheet, _ = make_sheet(grid, job.images[:-1], grid.image_count)
    return sheet.encode()


def _show(job: LocalJob) -> int:
    return asyncio.run(_watch(job))


async def _watch(job: LocalJob) -> int:
    """All that a page is told of a job that has ended, but for previews: each cell, and the end."""
    with tempfile.TemporaryDirectory() as shown:
        return len(json.dumps([view.preview async for view in watch(job, Path(shown))]))


def _timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return 1e3 * (time.process_time() - started)
