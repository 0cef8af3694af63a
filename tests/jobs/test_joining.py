"""Jobs of several visitors in one forward, with the real engine: everybody gets their own picture, whatever happens to
others."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from webui.core.errors import RequestError
from webui.core.events import Cancelled, Done, Event, Failed, Image, Step
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.together import meeting
from webui.core.verdict import judge
from webui.core.visitor import Visitor
from webui.engine.decode import NotFinite
from webui.engine.manager import PipelineManager
from webui.engine.passes import Passes
from webui.engine.together import Together
from webui.jobs.executor import LocalExecutor
from webui.jobs.job import LocalJob
from webui.jobs.joining import Joining
from webui.jobs.parts import Making
from webui.jobs.resolve import make_order
from webui.jobs.store import Store

pytestmark = pytest.mark.timeout(300)
SIDE = {"width": 64, "height": 64}
APPLE = Request(prompt="a red apple, flat style", seed=5, steps=8, **SIDE)
FISH = Request(prompt="a blue fish", negative="red", seed=9, steps=6, guidance=7.0, sampler="DPM++ 2M", **SIDE)
CATS = Request(prompt="a green cat", seed=1, steps=8, count=2, guidance=3.0, **SIDE)


@pytest.fixture
def held(settings: Settings, tmp_path: Path) -> Iterator[LocalExecutor]:
    """Draws nothing before ``warm_up``, and up to four pictures at once then."""
    executor = LocalExecutor(settings.model_copy(update={"together": 4}), store=Store(tmp_path / "queue.sqlite3"))
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Iterator[Callable[[Request], list[Image]]]:
    """The pictures of a request, drawn by themselves."""
    settings = Settings(device="cpu", dtype="float32", data_dir=tmp_path_factory.mktemp("alone"))
    executor, known = LocalExecutor(settings), dict[str, list[Image]]()

    def draw(request: Request) -> list[Image]:
        key = request.model_dump_json()
        if key not in known:
            known[key] = [
                event for event in events_of(executor.submit(request, keep=False)) if isinstance(event, Image)
            ]
        return known[key]

    yield draw
    executor.close()


def events_of(job: LocalJob) -> list[Event]:
    return [event for _, event in job.follow()]


def send(executor: LocalExecutor, *requests: Request) -> list[LocalJob]:
    """Each from a visitor of their own."""
    return [
        executor.submit(request, visitor=Visitor(f"{number:032x}", origin=f"10.0.0.{number}"))
        for number, request in enumerate(requests, start=1)
    ]


def pictures_of(job: LocalJob) -> list[Image]:
    events = events_of(job)
    assert isinstance(events[-1], Done), events[-1]
    return [event for event in events if isinstance(event, Image)]


def difference(one: Image, other: Image) -> int:
    return int(np.abs(np.asarray(one.image, np.int16) - np.asarray(other.image, np.int16)).max())


def assert_same(found: list[Image], wanted: list[Image], most: int = 1) -> None:
    assert [picture.seed for picture in found] == [picture.seed for picture in wanted]
    for picture, other in zip(found, wanted, strict=True):
        assert picture.recipe.request == other.recipe.request
        assert difference(picture, other) <= most


def together(picture: Image) -> object:
    return picture.recipe.environment.get("together")


def test_everybody_gets_the_picture_that_they_would_get_alone(held, alone):
    jobs = send(held, APPLE, FISH, CATS)
    held.warm_up()
    for job, request in zip(jobs, (APPLE, FISH, CATS), strict=True):
        found = pictures_of(job)
        assert_same(found, alone(request))
        assert {together(picture) for picture in found} == {4}
    assert together(alone(APPLE)[0]) is None


def test_verify_says_that_others_were_drawn_beside_it(held, alone):
    job, _ = send(held, APPLE, FISH)
    held.warm_up()
    (found,) = pictures_of(job)
    (again,) = alone(APPLE)
    verdict = judge(found.image, Recipe(**{**vars(found.recipe), "pixels_sha256": found.pixels_sha256}), again)
    assert verdict.outcome in ("identical", "equal")
    if verdict.outcome == "equal":
        assert verdict.reasons == ("environment: together 2, now 1",)


def test_one_that_is_cancelled_leaves_the_others(held, alone):
    longer = APPLE.model_copy(update={"steps": 20})
    gone, stays = send(held, longer.model_copy(update={"prompt": "a boat"}), longer)
    held.warm_up()
    for _, event in gone.follow():
        if isinstance(event, Step) and event.index == 3:
            gone.cancel()
    last = events_of(gone)[-1]
    assert isinstance(last, Cancelled) and 3 <= last.index < 20
    (found,) = pictures_of(stays)
    assert together(found) == 2
    assert_same([found], alone(longer))


def test_one_that_fails_leaves_the_others(held, alone, monkeypatch):
    decode = Passes._decode

    def fail(self: Passes, latents: torch.Tensor):
        if self._run.order.request.prompt == FISH.prompt:
            raise NotFinite("it is none")
        return decode(self, latents)

    monkeypatch.setattr(Passes, "_decode", fail)
    bad, good = send(held, FISH, APPLE)
    held.warm_up()
    assert isinstance(events_of(bad)[-1], Failed)
    assert_same(pictures_of(good), alone(APPLE))


def test_what_cannot_be_asked_at_once_is_asked_one_by_one(held, alone, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Together, "_predict", fail)
    jobs = send(held, APPLE, FISH)
    held.warm_up()
    for job, request in zip(jobs, (APPLE, FISH), strict=True):
        found = pictures_of(job)
        assert_same(found, alone(request), most=0)
        assert together(found[0]) is None
    assert caplog.text.count("2 pictures could not be drawn together: CUDA out of memory") == 1


def test_memory_that_ends_for_one_of_them_is_made_when_the_others_are_done(held, alone, monkeypatch):
    shrunk, draw = [], Passes.draw

    def fail_once(self: Passes, stage, *more):
        events = draw(self, stage, *more)
        if self._run.order.request.prompt == FISH.prompt and not shrunk:
            shrunk.append(None)
            yield next(events)
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield from events

    monkeypatch.setattr(Passes, "draw", fail_once)
    decoded, there = list[str](), list[list[str]]()
    decode, make_room = Passes._decode, PipelineManager._make_room

    def note(self: Passes, latents: torch.Tensor):
        decoded.append(self._run.order.request.prompt)
        return decode(self, latents)

    monkeypatch.setattr(Passes, "_decode", note)
    monkeypatch.setattr(PipelineManager, "_make_room", lambda *given: there.append([*decoded]) or make_room(*given))
    jobs = send(held, APPLE, FISH)
    held.warm_up()
    assert_same(pictures_of(jobs[0]), alone(APPLE))
    assert_same(pictures_of(jobs[1]), alone(FISH))
    assert there == [[APPLE.prompt]]


def test_a_strict_request_is_drawn_by_itself_to_the_bit(held, alone):
    strict = APPLE.model_copy(update={"strict": True})
    jobs = send(held, strict, FISH, CATS)
    held.warm_up()
    (found,) = pictures_of(jobs[0])
    assert together(found) is None
    assert difference(found, alone(strict)[0]) == 0
    assert together(pictures_of(jobs[1])[0]) == 3


def test_nothing_is_drawn_together_unless_that_is_asked_for(settings, tmp_path, alone):
    executor = LocalExecutor(settings, store=Store(tmp_path / "queue.sqlite3"))
    jobs = send(executor, APPLE, FISH)
    executor.warm_up()
    try:
        for job, request in zip(jobs, (APPLE, FISH), strict=True):
            assert_same(pictures_of(job), alone(request), most=0)
    finally:
        executor.close()


def test_a_filter_that_fails_for_a_guest_leaves_the_owner_s(settings, tmp_path, alone):
    (settings.filters_dir).mkdir(parents=True)
    (settings.filters_dir / "filters.py").write_text("def check_picture(picture): exit()")
    executor = LocalExecutor(settings.model_copy(update={"together": 2}), store=Store(tmp_path / "queue.sqlite3"))
    own, (guest,) = executor.submit(APPLE), send(executor, FISH)
    executor.warm_up()
    try:
        assert isinstance(events_of(guest)[-1], Failed)
        assert_same(pictures_of(own), alone(APPLE))
    finally:
        executor.close()


# ---- who joins ----


@pytest.fixture
def job_of(library) -> Callable[..., LocalJob]:
    return lambda **fields: LocalJob(
        [make_order(Request(**({"prompt": "x", "seed": 1, "steps": 8, **SIDE} | fields)), library)], lambda _: None
    )


@pytest.fixture
def drawn(job_of) -> list:
    """A job of eight steps, three of which are done."""
    part = Making(job_of(), spread=False).begin(0.0)
    part.reached = 3
    return [part]


def test_jobs_join_in_their_turns_up_to_so_many_pictures(job_of, drawn):
    first, second = job_of(steps=30), job_of()
    assert Joining(drawn, [], 2).job(iter([first, second])) is first
    assert Joining(drawn, [], 1).job(iter([first, second])) is None
    assert Joining(drawn, [], 2).job(iter([job_of(count=2)])) is None


def test_one_that_does_not_fit_is_passed_only_by_those_that_end_as_soon(job_of, drawn):
    large, longer, shorter = job_of(width=128), job_of(steps=6), job_of(steps=5)
    assert Joining(drawn, [], 4).job(iter([large, longer])) is None
    assert Joining(drawn, [], 4).job(iter([large, longer, shorter])) is shorter
    waits = Making(job_of(width=128), spread=False)
    assert Joining(drawn, [waits], 4).job(iter([longer])) is None
    assert Joining(drawn, [waits], 4).making() is None


def test_the_next_part_of_a_job_that_was_begun_joins(job_of, drawn):
    waits = Making(job_of(steps=50), spread=False)
    assert Joining(drawn, [waits], 4).making() is waits


@pytest.mark.parametrize(
    "fields",
    [
        {"strict": True},
        {"reuse": 2},
        {"token_merging": 0.3},
        {"hires": {"scale": 2}},
        {"refiner": "demo"},
        {"pag": {"scale": 3.0}},
        {"prompt": "a cat <lora:sepia:0@0,1@0.5>"},
    ],
)
def test_what_is_more_than_one_plain_pass_is_drawn_by_itself(library, fields):
    asked = {"prompt": "a cat", "seed": 1, "steps": 4, **SIDE} | fields
    try:
        order = make_order(Request(**asked), library)
    except RequestError as error:
        pytest.fail(str(error))
    assert meeting(order) is None
    assert meeting(make_order(Request(prompt="a cat", seed=1, **SIDE), library)) is not None


def test_the_thread_is_the_device_s_one(held, monkeypatch):
    names = set()
    predict = Together._predict
    monkeypatch.setattr(
        Together, "_predict", lambda *given: names.add(threading.current_thread().name) or predict(*given)
    )
    jobs = send(held, APPLE, FISH)
    held.warm_up()
    for job in jobs:
        pictures_of(job)
    assert names == {"device"}
