"""Parts of a job side by side: what comes of them in order, how far they are together, how they end."""

import pytest
from PIL import Image as PilImages

from webui.core.events import Cancelled, Done, Failed, Image, Step
from webui.core.files import ModelFile
from webui.core.order import Order
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.stages import Pass
from webui.jobs.job import LocalJob
from webui.jobs.parts import Making, Part

STEPS = 10


def order(model: ModelFile, finished: int = 0, **fields) -> Order:
    request = Request(**({"seed": 5, "steps": STEPS, "width": 64, "height": 64} | fields))
    stage = Pass(model, (64, 64), STEPS, request.sampler, request.schedule, "", "", request.guidance)
    return Order(request, (stage,), finished=finished)


def making(model: ModelFile, *orders: Order, spread: bool = True) -> Making:
    return Making(LocalJob(orders, lambda job: None), spread)


def picture(index: int = 0) -> Image:
    return Image(index, PilImages.new("RGB", (8, 8)), Recipe(Request(seed=index)))


def begin(made: Making, count: int) -> list[Part]:
    return [made.begin(0.0) for _ in range(count)]


@pytest.fixture
def model(library) -> ModelFile:
    return library.models["demo"]


def test_spread_a_part_is_a_batch_else_an_order(model):
    orders = order(model, repeat=3, count=2), order(model)
    spread = [(part.order.finished, part.order.until, part.first) for part in making(model, *orders).waiting]
    assert spread == [(0, 2, 0), (2, 4, 0), (4, 6, 0), (0, 1, 6)]
    whole = making(model, *orders, spread=False).waiting
    assert [(part.order.batches, part.steps) for part in whole] == [(3, 3 * STEPS), (1, STEPS)]


def test_what_is_finished_is_no_part(model):
    made = making(model, order(model, finished=2, repeat=3), order(model, finished=1))
    assert [(part.order.finished, part.first) for part in made.waiting] == [(2, 0)]
    made = making(model, order(model, finished=1))
    assert made.is_over and made.outcome() == Done(0.0)


def test_pictures_come_in_order_whoever_is_first(model):
    made = making(model, order(model, repeat=3))
    first, second, third = begin(made, 3)
    assert made.in_order(third, picture(2)) == []
    assert made.end(third, Done(1.0), 1.0) == []
    assert [each.index for each in made.in_order(first, picture(0))] == [0]
    assert made.in_order(second, picture(1)) == []
    assert [each.index for each in made.end(first, Done(1.0), 1.0)] == [1]
    assert [each.index for each in made.end(second, Done(1.0), 1.0)] == [2]
    assert made.is_over


def test_steps_are_counted_together(model):
    made = making(model, order(model, repeat=4))
    first, second = begin(made, 2)
    assert made.counted(first, Step(3, 4 * STEPS, 0.3)) == Step(3, 4 * STEPS, 0.15)
    told = made.counted(second, Step(STEPS + 5, 4 * STEPS, 0.5))  # an order's steps count all its batches
    assert (told.index, told.total, told.seconds) == (8, 4 * STEPS, pytest.approx(0.4))
    made.end(first, Done(1.0, {"steps": 1.0}), 1.0)
    assert made.counted(second, Step(STEPS + 6, 4 * STEPS, 0.6)).index == STEPS + 6


def test_of_two_that_fail_or_stop_the_failure_is_told_and_nothing_more_is_begun(model):
    made = making(model, order(model, repeat=4))
    first, second = begin(made, 2)
    made.end(first, Failed("no"), 1.0)
    assert not made.waiting and not made.is_over
    made.counted(second, Step(STEPS + 4, 4 * STEPS, 0.4))
    made.end(second, Cancelled(), 1.0)
    assert made.is_over and made.outcome() == Failed("no")


def test_what_was_drawn_out_of_order_before_a_failure_is_not_lost(model):
    made = making(model, order(model, repeat=3))
    first, second, third = begin(made, 3)
    made.in_order(third, picture(2))
    made.end(third, Done(1.0), 1.0)
    assert [each.index for each in made.end(first, Failed("no"), 1.0)] == [2]


def test_a_cancelled_job_says_how_far_all_were(model):
    made = making(model, order(model, repeat=2))
    for part, reached in zip(begin(made, 2), (3, STEPS + 4), strict=True):
        made.counted(part, Step(reached, 2 * STEPS, 0.1))
    made.give_up(Cancelled())
    for part in list(made.begun):
        made.end(part, Cancelled(), 1.0)
    assert made.outcome() == Cancelled(7, 2 * STEPS)


def test_a_part_whose_worker_ended_is_drawn_again_from_its_first_picture_that_is_not_there(model):
    made = making(model, order(model, repeat=3), spread=False)
    (part,) = begin(made, 1)
    made.counted(part, Step(STEPS, 3 * STEPS, 0.1))
    assert made.in_order(part, picture(0))
    made.counted(part, Step(STEPS + 7, 3 * STEPS, 0.2))
    made.take_back(part, 1.0)
    assert made.waiting[0] is part and part.order.finished == 1 and part.lost == 1
    again = made.begin(2.0)
    assert made.counted(again, Step(STEPS + 1, 3 * STEPS, 0.1)).index == STEPS + 1
    assert made.in_order(again, picture(0)) == []  # it is there
    assert [each.index for each in made.in_order(again, picture(1))] == [1]


def test_what_is_skipped_is_left_out_and_the_rest_goes_on(model):
    made = making(model, order(model, repeat=3), spread=False)
    (part,) = begin(made, 1)
    assert made.in_order(part, picture(0))
    made.counted(part, Step(STEPS + 4, 3 * STEPS, 0.2))
    numbers, kept = made.skip(part, Cancelled(), 1.0)
    assert (numbers, kept) == ([1], []) and made.waiting[0].order.finished == 2
    made.job.leave_out(numbers)
    part = made.begin(1.0)
    assert made.counted(part, Step(2 * STEPS + 1, 3 * STEPS, 0.1)).index == 2 * STEPS + 1
    made.end(part, Done(1.0), 2.0)
    assert made.outcome().warnings == ("Picture 2 was skipped.",)


def test_a_part_that_is_skipped_holds_nobody_up(model):
    made = making(model, order(model, repeat=2))
    first, second = begin(made, 2)
    made.in_order(second, picture(1))
    made.end(second, Done(1.0), 1.0)
    numbers, kept = made.skip(first, Cancelled(), 1.0)
    assert numbers == [0] and [each.index for each in kept] == [1] and made.is_over


def test_of_what_is_there_nothing_is_drawn_again_wherever_it_is(model):
    job = LocalJob([order(model, repeat=4)], lambda job: None, skipped=[2])
    job.publish(picture(0))
    assert [part.order.finished for part in Making(job, spread=True).waiting] == [1, 3]


def test_the_ledger_is_of_what_passed(model):
    made = making(model, order(model, repeat=2))
    for part in begin(made, 2):
        made.end(part, Done(4.0, {"steps": 3.0, "decode": 1.0}), 4.0)
    assert made.outcome().parts_s == {"steps": 3.0, "decode": 1.0}
    assert dict(made.parts_s) == {"steps": 6.0, "decode": 2.0}
