"""Several workers: pictures a minute with one, two and four processes on the CPU, what an event costs on its way from a
process, and a cluster that is made up: who would draw what, by the product's own rules, on a clock that only counts.

The cluster has 64 workers. Its 10,000 jobs have models and LoRA sets of which few are common and many rare, and take
what a table says; a hundred of them wait at a time, as many as one visitor may have. It is drawn a second time with
each job going to the next worker that is free, whatever it has in memory.
"""

import heapq
import itertools
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.measure import Options, Row, compared
from webui.app import make_executor
from webui.core.errors import RequestError
from webui.core.events import Image, Step
from webui.core.order import Order
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.stages import LoraUse, Pass
from webui.core.visitor import OWNER, Visitor
from webui.core.work import Batch
from webui.jobs.executor import LocalExecutor
from webui.jobs.placement import Habits, Passing, rank
from webui.jobs.queue import MAX_WAITING, Queue
from webui.jobs.resolve import make_order
from webui.jobs.workers.cluster import check_installed
from webui.jobs.workers.places import places_of
from webui.jobs.workers.process import ProcessWorker
from webui.jobs.workers.thread import ThreadWorker
from webui.jobs.workers.worker import Worker, WorkerStatus
from webui.library.library import Library

WORKERS, JOBS = 64, 10_000
MODELS, SETS = 6, 40
TAKES_S = (2.0, 3.0, 4.0, 8.0, 15.0, 40.0)
"""What jobs take: previews and quick models, pictures, batches, large pictures."""
SWITCH_S, MERGE_S = 6.0, 0.4
"""A model of SDXL's size from a disk, a set of LoRAs merged."""
PROMISED_BUSY, PROMISED_MS = 0.97, 0.3
PICTURES = 12


@dataclass(eq=False)
class _Sent:
    """A job of the made-up cluster."""

    id: str
    orders: tuple[Order, ...]
    takes_s: float
    visitor: Visitor = OWNER
    cost: float = 1.0
    pixel_bytes: int = 0


@dataclass(eq=False)
class _Placed:
    """A worker of the made-up cluster: what it has in memory, and what it did."""

    status: WorkerStatus = field(default_factory=lambda: WorkerStatus("made up"))
    habits: Habits = field(default_factory=Habits)
    drew_s: float = 0.0
    switches: int = 0
    merges: int = 0


def run(options: Options) -> list[Row]:
    """The cluster, the overhead of an event, the pictures a minute."""
    return [*_cluster(), *_overhead(options), *_pictures(options)]


def _cluster() -> Iterator[Row]:
    for placed, name in ((False, "in turn"), (True, "placed")):
        workers, whole_s = simulate(placed)
        busy = sum(worker.drew_s for worker in workers) / (whole_s * len(workers))
        label = f"a cluster of {WORKERS}, {JOBS:,} jobs, {name}"
        holds = busy >= PROMISED_BUSY if placed else None
        yield Row(f"{label}: share of the time in which workers draw", "", [busy], holds=holds)
        yield Row(f"{label}: models loaded", "", [sum(worker.switches for worker in workers)])
        yield Row(f"{label}: sets of LoRAs merged", "", [sum(worker.merges for worker in workers)])


def simulate(placed: bool, seed: int = 0) -> tuple[list[_Placed], float]:
    """The workers after all jobs, and the seconds until the first had nothing more to begin."""
    jobs = iter(_jobs(random.Random(seed)))
    queue: Queue[_Sent] = Queue(lambda *_: None)
    passing: Passing[_Sent] = Passing(WORKERS)
    workers = [_Placed() for _ in range(WORKERS)]
    idle, ends, now, number = list(workers), list[tuple[float, int, _Placed]](), 0.0, itertools.count()
    while True:
        for job in itertools.islice(jobs, MAX_WAITING - len(queue)):
            queue.put(job, accepted=True)
        begun = [(worker, taken) for worker in list(idle) if (taken := _take(worker, idle, queue, passing, placed))]
        for worker, taken in begun:
            heapq.heappush(ends, (now + _begin(worker, taken), next(number), worker))
        if not begun and not len(queue):
            return workers, now
        if not begun:
            now, _, worker = heapq.heappop(ends)
            idle.append(worker)


def _take(
    worker: _Placed, idle: list[_Placed], queue: Queue[_Sent], passing: Passing[_Sent], placed: bool
) -> _Sent | None:
    def pick(jobs: Iterator[_Sent]) -> _Sent | None:
        if not placed:
            return next(jobs, None)
        job, passed = passing.choose(jobs, worker.status, worker.habits)
        if job is None or max(idle, key=lambda each: rank(job.orders[0], each.status, each.habits)) is not worker:
            return None
        passing.note(job, passed)
        return job

    taken = queue.take(pick)
    if taken:
        idle.remove(worker)
    return taken


def _begin(worker: _Placed, job: _Sent) -> float:
    """What the worker does now; how long it takes."""
    (first,) = job.orders[0].passes
    takes_s = job.takes_s
    worker.drew_s += takes_s
    if worker.status.model != first.model.name:
        worker.status, worker.habits = WorkerStatus("made up", first.model.name, models=(first.model.name,)), Habits()
        worker.switches += 1
        takes_s += SWITCH_S
    if first.loras and not worker.habits.has(job.orders[0]):
        worker.merges += 1
        takes_s += MERGE_S
    worker.habits.note(job.orders[0])
    return takes_s


def _jobs(draw: random.Random) -> Iterator[_Sent]:
    snapshot = Library(Settings(data_dir=Path(tempfile.gettempdir()) / "darkroom-workers")).snapshot()
    demo, lora = snapshot.models["demo"], next(iter(snapshot.loras.values()))
    common = [1 / (place + 1) for place in range(max(MODELS, SETS))]
    for number in range(JOBS):
        (model,) = draw.choices(range(MODELS), common[:MODELS])
        (worn,) = draw.choices(range(SETS), common[:SETS])
        named = type(demo)(**{**vars(demo), "name": f"model {model}"})
        loras = (LoraUse(lora, worn / SETS),) if worn else ()
        stage = Pass(named, (64, 64), 20, "Euler", "Default", "", "", 5.0, loras=loras)
        yield _Sent(str(number), (Order(Request(), (stage,)),), draw.choice(TAKES_S))


def _overhead(options: Options) -> Iterator[Row]:
    """Processor time of this process for what comes of an order, an event, in the thread and in a process."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), device="cpu")
        order = make_order(Request(seed=7, steps=20, width=128, height=128), Library(settings).snapshot())
        (place,) = places_of(["cpu"], 1, {})
        process = ProcessWorker(settings.engine_options, place)
        spent = [_event_ms(process, order) for _ in range(options.rounds + 1)][1:]
        process.close()
        holds = median(spent) <= PROMISED_MS
        yield Row("an event of a process, in the one that asked: processor time", "ms", spent, holds=holds)
        yield _overhead_of_ray(settings, order, options.rounds)


def _overhead_of_ray(settings: Settings, order: Order, rounds: int) -> Row:
    """The same of an actor on this machine."""
    name = "an event of a Ray actor, in the one that asked: processor time"
    with suppress(RequestError):
        check_installed()
        executor = make_executor(settings.model_copy(update={"ray": "local"}))
        (hand,) = executor._crew.hands
        spent = [_event_ms(hand.worker, order) for _ in range(rounds + 1)][1:]
        executor.close()
        return Row(name, "ms", spent)
    return Row(name, "ms", (), note="not run: Ray is not installed")


def _event_ms(worker: Worker, order: Order) -> float:
    began = time.process_time()
    count = sum(isinstance(event, Step | Image) for event in worker.draw(order))
    return 1e3 * (time.process_time() - began) / count


def _pictures(options: Options) -> Iterator[Row]:
    cores = os.cpu_count() or 1
    alone: Row | None = None
    for count in (1, 2, 4):
        if count > cores:
            yield Row(f"{count} workers on the CPU", "pictures/min", (), note=f"not run: there are {cores} cores")
            continue
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings(data_dir=Path(folder), device="cpu")
            workers: dict[str, Worker] = {"": ThreadWorker(settings.engine_options)}
            if count > 1:
                places = places_of(["cpu"] * count, cores, {})
                workers = {place.name: ProcessWorker(settings.engine_options, place) for place in places}
            executor = LocalExecutor(settings, workers)
            samples = [_a_minute(executor) for _ in range(options.rounds + 1)][1:]
            executor.close()
        name = f"{count} worker{'s' * (count > 1)} on {cores} cores"
        row = Row(name, "pictures/min", samples) if alone is None else compared(name, "pictures/min", samples, alone)
        alone = alone or row
        yield row


def _a_minute(executor: LocalExecutor) -> float:
    began = time.perf_counter()
    job = executor.submit(Batch((Request(seed=7, steps=20, width=128, height=128, repeat=PICTURES),)), keep=False)
    for _ in job.follow():
        pass
    return 60 * len(job.images) / (time.perf_counter() - began)
