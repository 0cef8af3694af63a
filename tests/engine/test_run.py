"""How far an order is: steps by passes, warnings once, seconds by part."""

from pathlib import Path

import pytest

from webui.core.files import ModelFile
from webui.core.order import Order
from webui.core.request import Request
from webui.core.stages import Pass
from webui.engine.denoise import Stopped
from webui.engine.run import Run, check_with, steps_of


def stage(**fields) -> Pass:
    usual = {
        "model": ModelFile("m", Path("m")),
        "size": (64, 64),
        "steps": 10,
        "sampler": "Euler",
        "schedule": "Default",
    }
    return Pass(**(usual | {"schedule": "Default", "prompt": "", "negative": "", "guidance": 5.0} | fields))


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({}, 10),
        ({"begin": "picture", "strength": 0.3}, 3),
        ({"begin": "picture", "strength": 0.01}, 1),
        ({"begin": "picture", "strength": 0.0}, 0),
        ({"begin": "handover"}, 0),
    ],
)
def test_a_pass_adds_the_steps_that_it_takes_but_for_those_it_shares(fields, steps):
    assert steps_of(stage(**fields)) == steps


def test_the_total_is_that_of_all_batches_with_all_their_stages():
    stages = stage(handover_at=0.5), stage(begin="handover"), stage(begin="picture", strength=0.5)
    run = Run(Order(Request(repeat=3), stages), lambda: False, None)
    assert (run.batch_steps, run.total) == (15, 45)


def test_it_stops_where_it_is_asked_to():
    asked = iter([False, True, False, True])
    for check in (Run(Order(Request(), ()), lambda: next(asked), None).check, check_with(lambda: next(asked))):
        check()
        with pytest.raises(Stopped):
            check()


def test_warnings_are_kept_once_in_the_order_in_which_they_came():
    run = Run(Order(Request(), ()), lambda: False, None)
    run.warn("b", "a")
    run.warn("b", "c")
    run.warn()
    assert list(run.warnings) == ["b", "a", "c"]


def test_seconds_go_to_their_part_also_where_it_fails():
    run = Run(Order(Request(), ()), lambda: False, None)
    with run.part("load"):
        pass
    before = run.parts_s["load"]
    with pytest.raises(ZeroDivisionError), run.part("load"):
        _ = 1 / 0
    assert run.parts_s["load"] > before > 0 and list(run.parts_s) == ["load"]
