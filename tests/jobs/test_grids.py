"""A grid as a job: in which order it is drawn, its sheet, its end before time, and what a large one needs."""

import shutil

import pytest
from PIL import Image as PilImages

from webui.core.axes import read_axis
from webui.core.events import Cancelled, Done, Image, SavedImage
from webui.core.grid import Grid, in_turn, make_grid
from webui.core.groups.init import Init
from webui.core.recipe import read_picture
from webui.core.request import Request
from webui.core.sheet import read_cells
from webui.core.visitor import Visitor
from webui.jobs.executor import LocalExecutor
from webui.jobs.pace import Pace
from webui.jobs.protocols import NeedsYes, OverBudget, unfinished
from webui.jobs.resolve import plan_work
from webui.jobs.store import Store
from webui.jobs.workers.thread import ThreadWorker
from webui.library.library import DEMO_MODEL, Library

pytestmark = pytest.mark.timeout(60)
WAIT_S = 20
BASE = Request(prompt="a cat", seed=5, steps=1, width=64, height=64)


def grid_of(confirmed=False, base=BASE, **axes) -> Grid:
    return make_grid(base, {place: read_axis(place, *axis) for place, axis in axes.items()}, confirmed=confirmed)


def events_of(job) -> list:
    return [event for _, event in job.follow()]


def sheet_of(job) -> Image:
    assert job.images[-1].is_sheet and not any(image.is_sheet for image in job.images[:-1])
    return job.images[-1]


def start(settings, engine) -> LocalExecutor:
    executor = LocalExecutor(settings, ThreadWorker(settings.engine_options, engine), Store(settings.queue_path))
    executor.warm_up()
    return executor


@pytest.fixture
def two_models(settings):
    folder = settings.data_dir / "models" / "Stable-diffusion" / "other"
    shutil.copytree(DEMO_MODEL, folder, dirs_exist_ok=True)
    return settings


def test_models_change_least_and_pictures_stand_in_their_places(two_models, make_executor, engine):
    executor = make_executor(two_models)
    job = executor.submit(grid_of(x=("model", "demo,other"), y=("steps", "1,2,3")))
    assert isinstance(events_of(job)[-1], Done)
    begun = [engine.begun.get_nowait() for _ in range(6)]
    assert [request.model for request in begun] == ["demo"] * 3 + ["other"] * 3
    assert [image.index for image in job.images] == list(range(7))
    assert [(image.recipe.request.model, image.recipe.request.steps) for image in job.images[:4]] == [
        ("demo", 1),
        ("other", 1),
        ("demo", 2),
        ("other", 2),
    ]
    sheet = sheet_of(job)
    assert [place for place, _ in read_cells(read_picture(sheet.path))] == list(range(6))
    assert sheet.path.parent.parent.name == "grid" and len(list(executor.job(job.id).images)) == 7


def test_loras_change_least_within_a_model(settings, tmp_path):
    weights = grid_of(x=("lora:night", "0.5,1"), y=("steps", "1,2"))
    orders, _ = plan_work(weights, Library(settings).snapshot())
    drawn = [order.request for order in in_turn(orders)]
    assert [request.loras[0].weight for request in drawn] == [0.5, 0.5, 1, 1]
    assert [request.steps for request in drawn] == [1, 2, 1, 2]


def test_a_sampler_may_have_its_schedule_in_its_name(settings):
    orders, _ = plan_work(grid_of(x=("sampler", "DPM++ 2M Karras,Euler a")), Library(settings).snapshot())
    found = [(order.request.sampler, order.request.schedule) for order in orders]
    assert found == [("DPM++ 2M", "Karras"), ("Euler a", "Default")]


def test_the_cells_of_a_start_picture_share_it_and_pictures_that_are_saved_are_let_go_of(executor, settings):
    start = Init(image=PilImages.linear_gradient("L").resize((300, 200)).convert("RGB"))
    base = BASE.model_copy(update={"init": start})
    job = executor.submit(grid_of(base=base, x=("strength", "0.3,0.6"), y=("steps", "1,2")))
    assert isinstance(events_of(job)[-1], Done)
    images = {id(request.init.image) for request in job.requests}
    assert len(images) == 1 and [request.init.strength for request in job.requests[:2]] == [0.3, 0.6]
    *saved, sheet = job.images
    assert {type(picture) for picture in saved} == {SavedImage} and saved[0].size == saved[0].image.size
    held = [sheet.image, job.requests[0].init.image]
    assert job.pixel_bytes == sum(4 * picture.width * picture.height for picture in held)


def test_progress_counts_through_the_whole_grid(executor, engine):
    engine.hold()
    job = executor.submit(grid_of(x=("steps", "1,2,3")))
    events = job.follow()
    engine.let(4)
    step = next(event for _, event in events if getattr(event, "index", 0) == 4)
    assert step.total == 6
    engine.go_on()


def test_what_was_drawn_before_a_stop_is_on_a_sheet(executor, engine):
    engine.hold()
    job = executor.submit(grid_of(x=("steps", "1,1,5")))
    engine.let(2)
    events = job.follow()
    assert [next(event for _, event in events if isinstance(event, Image)).index for _ in range(2)] == [0, 1]
    job.cancel()
    assert isinstance(list(events)[-1][1], Cancelled)
    assert [place for place, _ in read_cells(read_picture(sheet_of(job).path))] == [0, 1]
    nothing = executor.submit(grid_of(x=("steps", "9,9")))
    nothing.cancel()
    assert isinstance(events_of(nothing)[-1], Cancelled) and nothing.images == ()


def test_a_failed_grid_can_be_drawn_again_whole(executor, engine):
    engine.failure = RuntimeError("no")
    job = executor.submit(grid_of(x=("steps", "1,2")))
    assert events_of(job)[-1].message and unfinished(job) == job.work
    engine.failure = None
    again = executor.submit(unfinished(job))
    assert isinstance(events_of(again)[-1], Done) and sheet_of(again)


def test_a_killed_grid_goes_on_where_it_was_and_has_its_sheet(settings, make_engine):
    first = make_engine()
    first.hold()
    executor = start(settings, first)
    job = executor.submit(grid_of(x=("steps", "2,1,1"), y=("guidance", "2,3")))
    events = job.follow()
    first.let(3)
    assert [next(event for _, event in events if isinstance(event, Image)).index for _ in range(2)] == [0, 1]
    executor._keeper.close()  # from here on nothing reaches the disk
    executor._keeper._store = None
    second = make_engine()
    revived = start(settings, second)
    job = revived.job(job.id)
    assert isinstance(events_of(job)[-1], Done) and job.grid.shape == (3, 2, 1)
    assert second.begun.qsize() == 4
    sheet = sheet_of(job)
    assert len(list(read_cells(read_picture(sheet.path)))) == 6
    with PilImages.open(sheet.path) as saved:
        assert saved.size == sheet.size
    for one, manager in ((executor, first), (revived, second)):
        manager.go_on()
        one.close()
    last = start(settings, make_engine())
    ended = last.job(job.id)
    assert ended.state == "done" and isinstance(ended.work, Grid) and sheet_of(ended).path == sheet.path
    last.close()


def test_a_grid_of_very_many_pictures_needs_a_yes_and_says_how_long_it_takes(executor, engine, settings):
    many = {"x": ("seed", "1-100"), "y": ("steps", "1-6")}
    with pytest.raises(NeedsYes, match="this grid is 600 pictures, and how long they take is not known here yet"):
        executor.submit(grid_of(**many))
    assert isinstance(events_of(executor.submit(grid_of(x=("seed", "1-3"))))[-1], Done)
    pace = Pace(settings.cache_dir / "pace.json")
    pace.note(1.0, {"steps": 30.0, "load": 100.0})
    executor._pace = Pace(settings.cache_dir / "pace.json")  # as the next process knows it
    with pytest.raises(
        NeedsYes, match=r"they take about (\d+ minutes|\d+ seconds|a minute)\. More than 500 need a yes"
    ):
        executor.submit(grid_of(**many))
    engine.hold()
    executor.submit(grid_of(confirmed=True, **many)).cancel()


def test_guests_grids_are_held_to_their_limits_and_filters(make_executor, settings):
    guest = Visitor("0123")
    executor = make_executor(settings)
    with pytest.raises(OverBudget, match="an hour are the limit"):
        large = BASE.model_copy(update={"width": 512, "height": 512, "steps": 100})
        executor.submit(grid_of(base=large, x=("seed", "1-200")), visitor=guest)
    folder = settings.filters_dir
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.txt").write_text("dragon\n")
    with pytest.raises(ValueError, match="does not draw “dragon” for guests"):
        executor.submit(grid_of(x=("prompt:cat", "dog,dragon")), visitor=guest)


def test_a_sheet_that_cannot_be_made_costs_no_picture(executor, monkeypatch):
    monkeypatch.setattr("webui.jobs.saving.make_sheet", lambda *_: 1 / 0)
    job = executor.submit(grid_of(x=("steps", "1,2")))
    last = events_of(job)[-1]
    assert isinstance(last, Done) and "The sheet could not be made" in last.warnings[0] and len(job.images) == 2
