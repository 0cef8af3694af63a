"""A worker in a process of its own: the same pictures, cancel within a step, an end that harms nobody else."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from webui.core.engine_options import EngineOptions
from webui.core.errors import RequestError
from webui.core.events import Cancelled, Done, Failed, Image, Step
from webui.core.order import Order
from webui.core.request import LoraRef, Request
from webui.engine.manager import PipelineManager
from webui.jobs.resolve import make_order
from webui.jobs.workers.places import Place
from webui.jobs.workers.process import ProcessWorker
from webui.jobs.workers.worker import WorkerLost

pytestmark = pytest.mark.timeout(300)
FIELDS = {"seed": 7, "width": 64, "height": 64, "steps": 3}


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> EngineOptions:
    return EngineOptions(tmp_path_factory.mktemp("cache"), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def worker(options: EngineOptions) -> Iterator[ProcessWorker]:
    worker = ProcessWorker(options, Place("cpu", "cpu", {"OMP_NUM_THREADS": str(torch.get_num_threads())}))
    yield worker
    worker.close()


@pytest.fixture
def order_for(library):
    def make(**fields) -> Order:
        return make_order(Request(**(FIELDS | fields)), library)

    return make


def hashes(events) -> list[str]:
    return [event.pixels_sha256 for event in events if isinstance(event, Image)]


def test_it_draws_what_this_process_draws(worker, order_for, options):
    loras = (LoraRef(name="blueprint", weight=0.8),)
    orders = [order_for(prompt="a red apple"), order_for(prompt="a panda", count=2, sampler="Euler a", loras=loras)]
    here = PipelineManager(options)
    for order in orders:
        events = list(worker.draw(order))
        assert hashes(events) == hashes(here.draw(order))
        assert {event.recipe.environment["worker"] for event in events if isinstance(event, Image)} == {"cpu"}
        assert isinstance(events[-1], Done) and sum(isinstance(event, Step) for event in events) == 3
    assert worker.status().model == "demo" and "float32" in worker.status().device
    here.close()


def test_cancel_acts_within_a_step_and_the_next_order_is_unharmed(worker, order_for):
    events = []
    for event in worker.draw(order_for(steps=60)):
        events.append(event)
        if isinstance(event, Step) and event.index == 2:
            worker.cancel()
    assert isinstance(events[-1], Cancelled) and events[-1].index < 60
    assert isinstance(list(worker.draw(order_for()))[-1], Done)


def test_nobody_has_to_ask_for_more_once_the_end_is_told(worker, order_for):
    for _ in range(2):
        kinds = []
        for event in worker.draw(order_for()):
            kinds.append(type(event))
            if isinstance(event, Done):
                break
        assert kinds.count(Step) == 3 and kinds[-2:] == [Image, Done]


def test_what_another_order_needs_is_made_ready_on_the_way(worker, order_for):
    for event in worker.draw(order_for(steps=5)):
        if isinstance(event, Step) and event.index == 2:
            worker.prepare(order_for(prompt="the next"))
    assert isinstance(event, Done)


def test_what_it_cannot_do_is_said_as_it_is_here(worker, order_for, library, tmp_path):
    order = order_for()
    gone = replace(library.models["demo"], path=tmp_path / "gone", name="gone")
    missing = replace(order, stages=tuple(replace(stage, model=gone) for stage in order.stages))
    last = list(worker.draw(missing))[-1]
    assert isinstance(last, Failed) and "gone" in last.message
    with pytest.raises(RequestError, match="gone"):
        list(worker.load(missing))


def test_a_process_that_is_killed_is_said_and_another_begins(worker, order_for):
    with pytest.raises(WorkerLost, match="killed by SIGKILL"):
        for event in worker.draw(order_for(steps=60)):
            if isinstance(event, Step) and event.index == 2:
                os.kill(worker._child.process.pid, signal.SIGKILL)
    assert worker.status().model is None
    assert hashes(worker.draw(order_for())) == hashes(worker.draw(order_for()))


def test_one_that_waits_and_is_killed_begins_again_without_a_word(worker, order_for):
    before = list(worker.draw(order_for()))
    os.kill(worker._child.process.pid, signal.SIGKILL)
    worker._child.process.join()
    assert hashes(worker.draw(order_for())) == hashes(before)


def test_once_closed_it_draws_no_more(options, order_for):
    worker = ProcessWorker(options, Place("cpu", "cpu"))
    worker.close()
    with pytest.raises(WorkerLost, match="closed"):
        worker.draw(order_for())
