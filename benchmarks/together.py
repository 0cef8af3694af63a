"""Strangers who send a picture each at the same time: drawn one after the other, and together (``serve --together``).

Both ways are the product's own queue and one engine, by turns. The first picture's time is what somebody waits who
comes when nobody else is there yet; the last one's, what all of them wait.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import offer
from webui.app import go_offline
from webui.core.events import Done, Image
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.visitor import Visitor
from webui.engine.manager import PipelineManager
from webui.jobs.executor import LocalExecutor
from webui.jobs.workers.thread import ThreadWorker

VISITORS = (2, 4, 8)
THINGS = ("red apple", "blue fish", "green cat", "yellow boat", "white house", "black dog", "orange bird", "pink cup")
SIDES_PX = {"demo": {"cpu": 128, "cuda": 128}, "sd15": {"cpu": 256, "cuda": 512}}
STEPS = {"demo": {"cpu": 20, "cuda": 20}, "sd15": {"cpu": 4, "cuda": 20}}


@dataclass
class _Way:
    """The samples of one way for so many visitors."""

    a_minute: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    last_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)


def run(options: Options) -> list[Row]:
    """For each number of visitors: pictures a minute, seconds to the first and last, processor time of a picture."""
    go_offline()
    side = options.side or SIDES_PX[options.size][options.device]
    steps = options.steps or STEPS[options.size][options.device]
    with tempfile.TemporaryDirectory() as folder:
        model = offer(options.size, Path(folder))
        settings = Settings(device="cuda" if options.device == "cuda" else "cpu", data_dir=Path(folder), model=model)
        manager = PipelineManager(settings.engine_options)
        executors = {
            name: LocalExecutor(
                settings.model_copy(update={"together": most}), ThreadWorker(settings.engine_options, manager)
            )
            for name, most in (("one by one", 1), ("together", max(VISITORS)))
        }
        asked = Request(model=model, steps=steps, width=side, height=side)
        rows = [row for count in VISITORS for row in _rows(executors, asked, count, options.rounds)]
        for executor in executors.values():
            executor.close()
    return rows


def _rows(executors: Mapping[str, LocalExecutor], asked: Request, count: int, rounds: int) -> Iterator[Row]:
    ways = {name: _Way() for name in executors}
    worst = met = 0
    for k in range(rounds + 1):
        drawn = {}
        for name in executors if k % 2 else reversed([*executors]):
            drawn[name] = _draw(executors[name], asked, count, seed=100 * k, way=ways[name] if k else _Way())
        worst = max(worst, *map(_difference, *drawn.values()))
        met = max(int(str(picture.recipe.environment.get("together", 1))) for picture in drawn["together"])
    before, now = ways.values()
    note = f"({met} in a forward; pixels differ by up to {worst} of 255)"
    what = f"{count} visitors, {asked.width} px, {asked.steps} steps"
    for unit, title in (
        ("pictures/min", "a_minute"),
        ("s to the first picture", "first_s"),
        ("s to the last picture", "last_s"),
        ("s of processor time a picture", "processor_s"),
    ):
        alone = Row(f"{what}: one by one", unit, getattr(before, title))
        yield alone
        yield compared(f"{what}: together", unit, getattr(now, title), alone, note)


def _draw(executor: LocalExecutor, asked: Request, count: int, seed: int, way: _Way) -> Sequence[Image]:
    """All visitors' pictures, in the order in which they were asked for."""
    began, worked = time.perf_counter(), time.process_time()
    requests = [
        asked.model_copy(update={"prompt": f"a {THINGS[k % len(THINGS)]}, flat style", "seed": seed + k})
        for k in range(count)
    ]
    with executor._queue.changed:  # all are there before the first is taken
        jobs = [
            executor.submit(request, keep=False, visitor=Visitor(f"{k:032x}", origin=f"10.0.0.{k + 1}"))
            for k, request in enumerate(requests)
        ]
    pictures: list[Image] = []
    ends_s: list[float] = []
    for job in jobs:
        events = [event for _, event in job.follow()]
        if not isinstance(end := events[-1], Done):
            raise RuntimeError(f"the job ended with {end}")
        ends_s.append(end.seconds)
        pictures += [event for event in events if isinstance(event, Image)]
    took_s = time.perf_counter() - began
    way.first_s.append(min(ends_s))
    way.last_s.append(max(ends_s))
    way.a_minute.append(60 * count / took_s)
    way.processor_s.append((time.process_time() - worked) / count)
    return pictures


def _difference(one: Image, other: Image) -> int:
    return int(np.abs(np.asarray(one.image, np.int16) - np.asarray(other.image, np.int16)).max())
