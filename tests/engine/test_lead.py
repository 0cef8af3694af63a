"""How far the loop runs ahead of a device: a stand-in for one that does nothing before somebody waits for it."""

from types import SimpleNamespace

import pytest
import torch

from webui.core.events import Done, Step
from webui.engine import lead, preview
from webui.engine.lead import Lead, wait_for


class _Queue:
    """What was asked for and is not done yet, as marks; a wait for one does all up to it."""

    def __init__(self) -> None:
        self.asked = self.done = 0

    def mark(self) -> SimpleNamespace:
        own = SimpleNamespace(place=0)

        def record() -> None:
            self.asked += 1
            own.place = self.asked

        def synchronize() -> None:
            self.done = max(self.done, own.place)

        return SimpleNamespace(record=record, synchronize=synchronize)


@pytest.fixture
def queue(monkeypatch) -> _Queue:
    queue = _Queue()
    monkeypatch.setattr(lead, "EVENTS", {"cpu": queue.mark})
    return queue


def test_one_step_is_under_way_and_no_more(queue) -> None:
    own = Lead(torch.device("cpu"))
    for step in range(1, 6):
        own.follow()
        assert (queue.asked, queue.done) == (step, step - 1)
    own.follow(is_last=True)
    assert (queue.asked, queue.done) == (6, 6)
    own.follow()
    wait_for(torch.device("cpu"))
    assert queue.done == queue.asked


def test_a_device_without_a_queue_waits_for_nothing() -> None:
    Lead(torch.device("meta")).follow()
    wait_for(torch.device("meta"))


def test_a_picture_tells_of_no_step_but_those_that_are_done_or_under_way(queue, darkroom, request_for, monkeypatch):
    monkeypatch.setattr(preview, "BUDGET", 0.0)
    told = []
    for event in darkroom.generate(request_for(steps=5)):
        if isinstance(event, Step):
            told.append((event.index, queue.asked, queue.done))
    assert told == [*((k, k, k - 1) for k in range(1, 5)), (5, 5, 5)] and isinstance(event, Done)


def test_what_a_preview_waits_for_is_not_what_it_costs(queue, darkroom, request_for, monkeypatch):
    """Else it would seem to take a step, and there would be no second one."""
    waited = []
    monkeypatch.setattr(preview, "wait_for", lambda device: waited.append(device.type))
    monkeypatch.setattr(preview, "BUDGET", 1e9)
    steps = [event for event in darkroom.generate(request_for(steps=4)) if isinstance(event, Step)]
    assert len(waited) == sum(step.preview is not None for step in steps) >= 3
