"""Loops that meet: what one forward answers for all is what each would have been answered by itself."""

from collections.abc import Iterator

import pytest
import torch

from webui.core.events import Event, Image, Loading
from webui.core.order import Order
from webui.core.request import Request
from webui.core.settings import Settings
from webui.engine.manager import PipelineManager
from webui.engine.run import never
from webui.engine.together import Alone, Asked, Together
from webui.jobs.resolve import make_order
from webui.library.library import Library

SIDE = {"width": 64, "height": 64}


@pytest.fixture
def drawn_by(settings: Settings, device: str) -> Iterator[tuple[PipelineManager, Library]]:
    settings = settings.model_copy(update={"device": device})
    manager = PipelineManager(settings.engine_options)
    yield manager, Library(settings)
    manager.close()


def draw(manager: PipelineManager, *orders: Order) -> list[list[Image]]:
    """The pictures of orders that meet."""
    left = list(enumerate(orders))[1:]

    def more():
        if not left:
            return None
        number, order = left.pop(0)
        return number, manager.meet(order, never)

    found: list[list[Image]] = [[] for _ in orders]
    for number, event in manager.draw_together(0, manager.meet(orders[0], never, joins=False), more):
        if isinstance(event, Image):
            found[number].append(event)
    return found


def test_orders_of_other_steps_samplers_and_batches_meet_at_any_step(drawn_by):
    manager, library = drawn_by
    requests = (
        Request(prompt="a red apple", seed=5, steps=6, **SIDE),
        Request(prompt="a fish", negative="red", seed=9, steps=4, guidance=7.0, sampler="DPM++ 2M", **SIDE),
        Request(prompt="a green cat", seed=1, steps=6, count=2, sampler="Euler a", **SIDE),
    )
    orders = [make_order(request, library.snapshot()) for request in requests]
    alone = [[event for event in manager.draw(order) if isinstance(event, Image)] for order in orders]
    for found, wanted in zip(draw(manager, *orders), alone, strict=True):
        assert len(found) == len(wanted)
        for picture, other in zip(found, wanted, strict=True):
            assert picture.recipe.environment["together"] == 4
            far = max(high for _, high in _differences(picture, other))
            assert far <= (1 if manager.dtype == torch.float32 else 24)


def test_what_would_change_the_weights_waits_until_the_others_are_done(drawn_by):
    manager, library = drawn_by
    plain = make_order(Request(prompt="a cat", seed=1, steps=3, **SIDE), library.snapshot())
    worn = make_order(Request(prompt="a cat <lora:sepia:1>", seed=1, steps=3, **SIDE), library.snapshot())
    alone = [next(event for event in manager.draw(order) if isinstance(event, Image)) for order in (plain, worn)]
    (first,), (second,) = draw(manager, plain, worn)
    assert [first.pixels_sha256, second.pixels_sha256] == [picture.pixels_sha256 for picture in alone]


def _differences(one: Image, other: Image):
    from PIL import ImageChops

    return ImageChops.difference(one.image, other.image).getextrema()


# ---- the order in which things go on, with a network made of nothing ----


class Form:
    form = "a form"


class Doubling:
    """Answers twice what it sees; notes how many were asked at once."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def join(self, prepared, counts):
        return prepared[0]

    def predict(self, latents, time, prepared, shortcuts=None):
        self.asked.append(len(latents))
        return [latents * 2 + time.reshape(-1, 1, 1, 1)]


def loop(backbone: Doubling, value: float, steps: int, cancelled=never) -> Iterator[Event | Asked]:
    seen = torch.full((1, 1, 1, 1), value)
    for step in range(steps):
        asked = Asked(cancelled, backbone, seen, torch.tensor(step), Form())  # type: ignore[arg-type]
        yield asked
        if cancelled():
            return
        (said,) = asked.said or backbone.predict(seen, asked.time, None)
        yield Loading(f"{float(said):g}", step / steps)


def told(*given) -> list[tuple[str, str]]:
    return [(whose, event.what) for whose, event in Together().draw(*given)]


def test_each_is_answered_for_its_own_time_and_picture():
    backbone = Doubling()
    left = [("b", loop(backbone, 10.0, 1))]
    found = told("a", loop(backbone, 1.0, 2), lambda: left.pop() if left else None)
    assert found == [("a", "2"), ("b", "20"), ("a", "3")]
    assert backbone.asked == [2, 1]


def test_one_that_is_cancelled_while_it_waits_ends_at_once():
    backbone, other = Doubling(), Doubling()
    is_over: list[bool] = []
    waits = loop(other, 10.0, 5, cancelled=lambda: bool(is_over))
    left = [("b", waits)]
    events = Together().draw("a", loop(backbone, 1.0, 5), lambda: left.pop() if left else None)
    assert [next(events)[0] for _ in range(2)] == ["a", "a"], "another network's forward waits"
    is_over.append(True)
    assert [whose for whose, _ in events] == ["a"] * 3
    assert waits.gi_frame is None and other.asked == []  # type: ignore[attr-defined]


def test_who_is_to_be_alone_goes_on_when_all_others_are_over():
    backbone = Doubling()

    def alone() -> Iterator[Event | Alone]:
        yield Loading("begins", 0.0)
        yield Alone(never)
        yield Loading("alone", 0.0)

    left = [("c", loop(backbone, 1.0, 1)), ("b", alone())]
    found = told("a", loop(backbone, 1.0, 3), lambda: left.pop() if left else None)
    assert found == [("b", "begins"), *[("a", text) for text in ("2", "3", "4")], ("b", "alone")]
    assert len(left) == 1, "nobody joins while one waits for the others to end"


def test_so_many_as_did_not_go_at_once_are_not_tried_again():
    class Small(Doubling):
        def predict(self, latents, *more):
            if len(latents) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().predict(latents, *more)

    backbone = Small()
    left = [(name, loop(backbone, 1.0, 3)) for name in "edcb"]
    found = told("a", loop(backbone, 1.0, 3), lambda: left.pop() if left else None)
    assert sorted(found) == sorted((name, text) for name in "abcde" for text in ("2", "3", "4"))
    assert set(backbone.asked) == {1, 2}
