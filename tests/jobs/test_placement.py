"""Who draws what: the worker that has the model, then the LoRAs; and who may be passed for that."""

from dataclasses import dataclass, replace

import pytest

from webui.core.order import Order
from webui.core.request import Request
from webui.core.stages import Pass
from webui.core.visitor import OWNER, Visitor
from webui.jobs.placement import Habits, Passing, rank
from webui.jobs.workers.worker import WorkerStatus

IDLE = WorkerStatus("cpu")


@dataclass(eq=False)
class Sent:
    name: str
    orders: tuple[Order, ...]
    visitor: Visitor = OWNER


@pytest.fixture
def order_for(library):
    def make(model: str, loras=()) -> Order:
        file = replace(library.models["demo"], name=model)
        return Order(Request(), (Pass(file, (64, 64), 1, "Euler", "Default", "", "", 5.0, loras=loras),))

    return make


def with_models(*names: str, **fields) -> WorkerStatus:
    return WorkerStatus("cpu", names[-1], models=names, **fields)


def test_the_model_that_is_in_use_then_in_memory_then_loras_then_one_without_a_model(order_for):
    asked, loras = order_for("a", ("night",)), Habits()
    loras.note(asked)
    better_first = [
        (with_models("b", "a"), loras),
        (with_models("b", "a"), Habits()),
        (with_models("a", "b"), loras),
        (with_models("a", "b"), Habits()),
        (IDLE, Habits()),
        (with_models("b", memory_bytes={"allocated": 1}), Habits()),
        (with_models("b", memory_bytes={"allocated": 2}), Habits()),
    ]
    ranks = [rank(asked, *each) for each in better_first]
    assert ranks == sorted(ranks, reverse=True) and len(set(ranks)) == len(ranks)


def test_a_job_of_the_worker_s_model_comes_first_but_passes_nobody_for_ever(order_for):
    other, jobs = Sent("b", (order_for("b"),)), [Sent(f"a{k}", (order_for("a"),)) for k in range(9)]
    line, passing, taken = [other, *jobs], Passing(1), []
    while line:
        job, passed = passing.choose(line, with_models("a"), Habits())
        passing.note(job, passed)
        line.remove(job)
        taken.append(job.name)
    assert taken[:5] == ["a0", "a1", "a2", "a3", "b"]


def test_another_visitor_is_never_passed(order_for):
    stranger = Sent("b", (order_for("b"),), Visitor("somebody"))
    passing = Passing(3)
    job, passed = passing.choose([stranger, Sent("a", (order_for("a"),))], with_models("a"), Habits())
    assert job is stranger and not passed
