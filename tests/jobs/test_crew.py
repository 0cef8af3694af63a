"""Several workers before one queue: jobs spread, pictures in order, lost workers made up for, nothing drawn twice."""

import threading
from collections.abc import Iterator

import pytest
from PIL import Image as PilImages

from webui.api.queue import _told, summary
from webui.core.events import Cancelled, Done, Event, Failed, Image, Loading, Step
from webui.core.order import Order
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.visitor import OWNER, Visitor
from webui.jobs.executor import LocalExecutor
from webui.jobs.workers.worker import WorkerLost, WorkerStatus

pytestmark = pytest.mark.timeout(60)
WAIT_S = 20
STEPS = 3


class FakeWorker:
    """Draws its order's batches, each step once ``let`` says so, if it is held; may end in mid-work."""

    def __init__(self, held: bool = False) -> None:
        self.orders: list[Order] = []
        self.loads: list[str] = []
        self.ends = 0
        self.away = ""
        self.model: str | None = None
        self._held, self._steps = held, threading.Semaphore(0)
        self._cancelled = threading.Event()
        self.begun = threading.Event()

    def let(self, steps: int = 10_000) -> None:
        self._steps.release(steps)

    def draw(self, order: Order) -> Iterator[Event]:
        self._cancelled.clear()
        self.orders.append(order)
        self.begun.set()
        return self._events(order)

    def _events(self, order: Order) -> Iterator[Event]:
        request = order.request
        self.model = order.passes[0].model.name
        batches = range(order.finished // request.count, order.finished // request.count + order.batches)
        for batch in batches:
            for step in range(1, STEPS + 1):
                while self._held and not self._steps.acquire(timeout=0.005):
                    if self._cancelled.is_set():
                        yield Cancelled()
                        return
                if self.ends:
                    self.ends -= 1
                    self.model = None
                    raise WorkerLost("The worker has ended.")
                yield Step(batch * STEPS + step, STEPS * request.repeat, 0.1 * step)
            for k in range(request.count):
                own = request.picture(batch * request.count + k)
                yield Image(batch * request.count + k, PilImages.new("RGB", (64, 64)), Recipe(own))
        yield Done(0.3, {"steps": 0.3})

    def cancel(self) -> None:
        self._cancelled.set()

    def load(self, order: Order) -> Iterator[Loading]:
        self.loads.append(order.passes[0].model.name)
        yield Loading("model", 0.0)

    def prepare(self, order: Order) -> None:
        pass

    def status(self) -> WorkerStatus:
        return WorkerStatus("a fake", self.model, models=(self.model,) if self.model else (), away=self.away)

    def close(self) -> None:
        self._cancelled.set()


@pytest.fixture
def start(settings):
    made: list[LocalExecutor] = []

    def start(**workers: FakeWorker) -> LocalExecutor:
        made.append(LocalExecutor(settings, workers))
        return made[-1]

    yield start
    for executor in made:
        for hand in executor._crew.hands:
            hand.worker.let()
        executor.close()


def request(**fields) -> Request:
    return Request(**({"prompt": "a cat", "seed": 5, "steps": STEPS, "width": 64, "height": 64} | fields))


def events_of(job) -> list[Event]:
    return [event for _, event in job.follow()]


def test_a_job_of_many_pictures_is_spread_and_comes_back_in_order(start):
    slow, quick = FakeWorker(held=True), FakeWorker()
    executor = start(slow=slow, quick=quick)
    job = executor.submit(request(repeat=6))
    assert slow.begun.wait(WAIT_S)
    while len(quick.orders) < 5:
        quick.begun.wait(WAIT_S)
    assert [image.index for image in job.images] in ([], [*range(6)][: len(job.images)])
    slow.let()
    events = events_of(job)
    assert [event.index for event in events if isinstance(event, Image)] == list(range(6))
    assert [event.seed for event in events if isinstance(event, Image)] == list(range(5, 11))
    drawn = [(order.finished, order.until) for worker in (slow, quick) for order in worker.orders]
    assert sorted(drawn) == [(k, k + 1) for k in range(6)]
    assert isinstance(events[-1], Done) and executor.totals().pictures == 6 and executor.totals().steps == 6 * STEPS


def test_files_are_named_in_order_too(start):
    slow, quick = FakeWorker(held=True), FakeWorker()
    executor = start(slow=slow, quick=quick)
    job = executor.submit(request(repeat=4))
    assert slow.begun.wait(WAIT_S)
    slow.let()
    events_of(job)
    assert [image.path.name for image in job.images] == sorted(image.path.name for image in job.images)


def test_a_lost_worker_s_part_is_drawn_by_another_and_the_job_says_so(start):
    first, second = FakeWorker(), FakeWorker()
    first.ends = 1
    executor = start(first=first, second=second)
    job = executor.submit(request(repeat=4))
    events = events_of(job)
    assert isinstance(events[-1], Done)
    assert [event.index for event in events if isinstance(event, Image)] == list(range(4))


def test_what_ends_every_worker_is_given_up_and_the_next_job_is_drawn(start):
    first, second = FakeWorker(), FakeWorker()
    first.ends = second.ends = 3
    executor = start(first=first, second=second)
    assert isinstance(events_of(executor.submit(request()))[-1], Failed)
    first.ends = second.ends = 0
    assert isinstance(events_of(executor.submit(request()))[-1], Done)


def test_a_cancelled_job_stops_on_all_workers_and_others_go_on(start):
    workers = {name: FakeWorker(held=True) for name in ("first", "second")}
    executor = start(**workers)
    job = executor.submit(request(repeat=5))
    for worker in workers.values():
        assert worker.begun.wait(WAIT_S)
    job.cancel()
    assert isinstance(events_of(job)[-1], Cancelled) and sum(len(worker.orders) for worker in workers.values()) == 2
    for worker in workers.values():
        worker.let()
    assert isinstance(events_of(executor.submit(request()))[-1], Done)


def test_skip_leaves_out_the_first_that_is_drawn_and_the_others_go_on(start):
    workers = {name: FakeWorker(held=True) for name in ("first", "second")}
    executor = start(**workers)
    job = executor.submit(request(repeat=4))
    for worker in workers.values():
        assert worker.begun.wait(WAIT_S)
    job.skip()
    while not job.skipped:
        workers["first"].begun.wait(0.01)
    for worker in workers.values():
        worker.let()
    last = events_of(job)[-1]
    assert isinstance(last, Done) and last.warnings == ("Picture 1 was skipped.",)
    assert [image.index for image in job.images] == [1, 2, 3]


def test_jobs_go_where_their_model_is(start, settings):
    first, second = FakeWorker(), FakeWorker()
    second.model = "demo"
    executor = start(first=first, second=second)
    for _ in range(3):
        events_of(executor.submit(request()))
    assert not first.orders and len(second.orders) == 3


def test_each_worker_is_made_ready_before_it_draws(start):
    first, second = FakeWorker(), FakeWorker()
    executor = start(first=first, second=second)
    executor.warm_up()
    events_of(executor.submit(request(repeat=4)))
    wait = threading.Event()
    while not (first.loads and second.loads):
        wait.wait(0.01)
    assert first.loads == second.loads == ["demo"]


def test_health_lists_the_workers(start):
    first, second = FakeWorker(held=True), FakeWorker()
    executor = start(first=first, second=second)
    job = executor.submit(request())
    assert first.begun.wait(WAIT_S)
    status = executor.status()
    assert [(each["name"], each["running"]) for each in status["workers"]] == [("first", True), ("second", False)]
    first.let()
    assert isinstance(events_of(job)[-1], Done)


def test_a_failure_stops_the_other_parts(start):
    class Failing(FakeWorker):
        def _events(self, order):
            yield Failed("no memory")

    failing, held = Failing(), FakeWorker(held=True)
    executor = start(held=held, failing=failing)
    job = executor.submit(request(repeat=5))
    last = events_of(job)[-1]
    assert last == Failed("no memory") and len(held.orders) <= 1 and len(failing.orders) == 1


def test_a_worker_that_is_away_gets_nothing_and_one_that_comes_draws(start):
    first = FakeWorker()
    first.away = "is starting"
    executor = start(first=first)
    job = executor.submit(request())
    second = FakeWorker()
    executor._crew.join("second", second)
    assert isinstance(events_of(job)[-1], Done)
    assert not first.orders and len(second.orders) == 1
    assert executor.status()["workers"][0]["trouble"] == "is starting"
    executor._crew.leave("second")
    job = executor.submit(request())
    first.away = ""
    executor._crew.wake()
    assert isinstance(events_of(job)[-1], Done) and len(first.orders) == 1 and len(second.orders) == 1
    assert "workers" not in executor.status()


def test_what_goes_wrong_at_the_end_of_a_part_ends_its_job_and_not_the_worker(start, monkeypatch):
    executor = start(only=FakeWorker())
    keep, broken = executor._crew._desk.finish, []

    def finish(making):
        if not broken:
            broken.append(making)
            raise RuntimeError("the disk is gone")
        keep(making)

    monkeypatch.setattr(executor, "finish", finish)
    assert isinstance(events_of(executor.submit(request()))[-1], Failed)
    assert isinstance(events_of(executor.submit(request()))[-1], Done)


def test_a_job_says_who_draws_it_and_guests_are_not_told(start):
    workers = {name: FakeWorker(held=True) for name in ("first", "second")}
    executor = start(**workers)
    job = executor.submit(request(repeat=2))
    for worker in workers.values():
        assert worker.begun.wait(WAIT_S)
    assert set(job.workers) == {"first", "second"}
    (told,) = summary(executor, OWNER)
    assert set(told["workers"]) == {"first", "second"}
    guest = Visitor("ann")
    theirs = executor.submit(request(), visitor=guest)
    for worker in workers.values():
        worker.let()
    events_of(theirs)
    assert theirs.workers == ()
    theirs.workers = ("first",)
    assert all("workers" not in each for each in _told([theirs], [0], guest))
