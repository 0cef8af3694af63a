"""An engine made of nothing, whose steps pass when the test says so."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from PIL import Image as PilImages

from webui.core.events import Cancelled, Done, Event, Image, Loading, Step
from webui.core.files import ModelFile
from webui.core.order import Order
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.settings import Settings
from webui.jobs.executor import LocalExecutor
from webui.jobs.workers.thread import ThreadWorker
from webui.library.library import Library, Snapshot


class FakeManager:
    """As ``PipelineManager``. Steps pass at once, or one by one with ``let`` after ``hold`` was called.

    ``begun`` and ``ended`` receive each request as its work begins and ends, ``prepared`` those that are to be made
    ready, ``warmed`` the sizes of warm-ups; ``most_at_once`` is how many ran at the same time, ``threads`` where.
    """

    device_description = "a fake device"
    memory_plan = "nowhere"
    model_names = ["demo"]
    memory_bytes: dict[str, int] = {}
    room = None

    def __init__(self) -> None:
        self.model_name: str | None = "demo"
        self.begun: queue.Queue[Request] = queue.Queue()
        self.ended: queue.Queue[Request] = queue.Queue()
        self.prepared: queue.Queue[Request] = queue.Queue()
        self.warmed: queue.Queue[tuple[int, int]] = queue.Queue()
        self.step_s = 0.01
        self.parts_s: dict[str, float] = {}
        self.failure: Exception | None = None
        self.failure_to_prepare: Exception | None = None
        self.slow_to_load = False
        self.deaf = False
        self.silent = False
        self.most_at_once = 0
        self.threads: set[str] = set()
        self._active = 0
        self._held = False
        self._steps = threading.Semaphore(0)

    def hold(self) -> None:
        """From now on each step waits for ``let``."""
        self._held = True

    def let(self, steps: int = 1) -> None:
        """Lets so many steps pass."""
        self._steps.release(steps)

    def go_on(self) -> None:
        """Lets everything pass."""
        self._held = False
        self._steps.release(1000)

    def load(self, file: ModelFile, lenders: Sequence[ModelFile], cancelled: Callable[[], bool]) -> Iterator[Loading]:
        if self.failure:
            raise self.failure
        yield Loading(file.name, 0.0)
        self.model_name = file.name

    def warm_up(self, order: Order) -> None:
        self.warmed.put(order.stages[0].size)

    def prepare(self, order: Order) -> None:
        self.threads.add(threading.current_thread().name)
        self.prepared.put(order.request)
        if self.failure_to_prepare:
            raise self.failure_to_prepare

    def draw(self, order: Order, cancelled: Callable[[], bool]) -> Iterator[Event]:
        request = order.request
        self.threads.add(threading.current_thread().name)
        self._active += 1
        self.most_at_once = max(self.most_at_once, self._active)
        self.begun.put(request)
        try:
            yield from self._events(request, order.finished // request.count, cancelled)
        finally:
            self._active -= 1
            self.ended.put(request)

    def _events(self, request: Request, finished: int, cancelled: Callable[[], bool]) -> Iterator[Event]:
        """Those of a request of whose batches so many are ``finished``."""
        steps, count = request.steps, request.count
        total = steps * request.repeat
        if self.slow_to_load:
            yield Loading("a large model", 0.0)
            if not self._passed(cancelled):
                yield Cancelled(0, total)
                return
        for batch in range(finished, request.repeat):
            for index in range(batch * steps + 1, (batch + 1) * steps + 1):
                if not self._passed(cancelled):
                    yield Cancelled(index - 1, total, parts_s=self.parts_s)
                    return
                yield Step(index, total, index * self.step_s, f"preview {index}".encode() if index % 2 else None)
            if self.failure:
                raise self.failure
            for k in range(batch * count, (batch + 1) * count):
                own = request.model_copy(update={"seed": request.seed + k, "count": 1, "repeat": 1})
                yield Image(k, PilImages.new("RGB", (64, 64), (k, 0, 0)), Recipe(own))
        if not self.silent:
            yield Done(total * self.step_s, self.parts_s)

    def _passed(self, cancelled: Callable[[], bool]) -> bool:
        """Waits for the next step; False where the job was cancelled meanwhile."""
        while self._held and not self._steps.acquire(timeout=0.005):
            if cancelled() and not self.deaf:
                return False
        return self.deaf or not cancelled()


@pytest.fixture
def library(settings: Settings) -> Snapshot:
    return Library(settings).snapshot()


@pytest.fixture
def engine() -> FakeManager:
    return FakeManager()


@pytest.fixture
def make_engine() -> type[FakeManager]:
    return FakeManager


@pytest.fixture
def make_executor(engine) -> Iterator[Callable[[Settings], LocalExecutor]]:
    made = []

    def make(settings: Settings) -> LocalExecutor:
        executor = LocalExecutor(settings, ThreadWorker(settings.engine_options, engine))
        made.append(executor)
        return executor

    yield make
    engine.go_on()
    for executor in made:
        executor.close()


@pytest.fixture
def executor(make_executor, settings) -> LocalExecutor:
    """With the fake engine."""
    return make_executor(settings)
