"""A warm-up has the size of the last picture, where that is quick, in this process or a later one."""

import pytest
from job_events import WAIT_S, events_of
from PIL import Image as PilImages

from webui.core.events import Done, Image, Step
from webui.core.images import MIN_SIDE_PX
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.jobs.last_size import QUICK_STEP_S, LastSize

pytestmark = pytest.mark.timeout(60)
SMALLEST = (MIN_SIDE_PX, MIN_SIDE_PX)


def request(**fields) -> Request:
    return Request(**({"prompt": "a cat", "seed": 5, "steps": 3} | fields))


def size_of_warm_up(executor, engine):
    executor.warm_up()
    return engine.warmed.get(timeout=WAIT_S)


def test_the_first_one_is_the_engine_s_choice(executor, engine):
    assert size_of_warm_up(executor, engine) == SMALLEST


def test_it_has_the_last_picture_s_size(make_executor, engine, settings):
    for width, height in ((128, 64), (256, 192)):
        first = make_executor(settings)
        events_of(first.submit(request(width=width, height=height)))
        first.close()
        assert size_of_warm_up(make_executor(settings), engine) == (width, height)


def test_a_size_that_takes_long_is_not_waited_for(make_executor, engine, settings):
    first = make_executor(settings)
    events_of(first.submit(request(width=128, height=64)))
    engine.step_s = QUICK_STEP_S
    events_of(first.submit(request(width=512, height=512)))
    first.close()
    assert size_of_warm_up(make_executor(settings), engine) == SMALLEST


def test_a_sampler_that_asks_twice_a_step_is_at_none_at_first(make_executor, engine, settings, monkeypatch):
    job = request(width=128, height=64)
    picture = Image(0, PilImages.new("RGB", (64, 64)), Recipe(job))
    told = [Step(0, 2, 0.01), Step(2, 2, 0.02), picture, Done(0.02)]
    monkeypatch.setattr(engine, "_events", lambda *_: iter(told))
    first = make_executor(settings)
    assert isinstance(events_of(first.submit(job))[-1], Done)
    first.close()
    assert size_of_warm_up(make_executor(settings), engine) == (128, 64)


def test_another_model_s_size_is_not_taken(make_executor, engine, settings):
    LastSize(settings.cache_dir / "last-size.json").keep("another", (768, 768), 0.1)
    assert size_of_warm_up(make_executor(settings), engine) == SMALLEST


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"model": "demo", "width": "64", "height": 64}',
        '{"model": "demo", "width": 64, "height": 65}',
        '{"model": "demo", "width": 64, "height": 800000}',
        "\xff",
    ],
)
def test_a_file_that_says_nothing_is_passed_over(make_executor, engine, settings, text):
    settings.cache_dir.mkdir(parents=True)
    (settings.cache_dir / "last-size.json").write_bytes(text.encode("latin-1"))
    executor = make_executor(settings)
    assert size_of_warm_up(executor, engine) == SMALLEST
    assert events_of(executor.submit(request(width=128, height=64)))[-1].seconds >= 0
    executor.close()
    assert size_of_warm_up(make_executor(settings), engine) == (128, 64)


def test_a_folder_that_cannot_be_written_to_harms_no_job(make_executor, engine, settings, tmp_path):
    settings.data_dir.mkdir(parents=True)
    settings.cache_dir.write_text("a file in the folder's place")
    assert isinstance(events_of(make_executor(settings).submit(request(width=128, height=64)))[-1], Done)
