"""The Python way in, as programs use it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image as PilImages

import webui
from webui import Darkroom, Request, Settings
from webui.core.axes import read_axis
from webui.core.errors import RequestError
from webui.core.events import Cancelled, Done, Image, Loading, Step
from webui.core.grid import make_grid

SMALL = {"prompt": "a red apple, flat style", "width": 64, "height": 64, "steps": 2, "seed": 7}


@pytest.fixture
def darkroom(settings: Settings):
    with Darkroom(settings) as darkroom:
        yield darkroom


def test_the_package_names_what_programs_need_and_nothing_else():
    assert {getattr(webui, name).__name__ for name in webui.__all__} == set(webui.__all__)
    with pytest.raises(AttributeError, match="module 'webui' has no attribute 'Lightroom'"):
        _ = webui.Lightroom


def test_asking_for_them_imports_no_engine():
    program = "import sys\nfrom webui import *\nDarkroom().catalog()\nprint({'torch', 'gradio'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"


def test_the_documented_example_runs_as_it_stands_there(repository: Path, tmp_path: Path):
    example = re.search(r"```python\n(.*?)```", (repository / "docs/python.md").read_text("utf-8"), re.S)
    assert example and len(example[1].splitlines()) <= 12
    environment = os.environ | {"PYTHONPATH": str(repository), "WEBUI_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "-c", example[1]]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    made = sorted(path.name for path in tmp_path.glob("*.png"))
    assert len(made) == 2 and all(PilImages.open(tmp_path / name).size == (128, 128) for name in made)


def test_pictures_come_with_their_recipes_and_a_recipe_makes_its_picture_again(darkroom: Darkroom):
    first, second = darkroom.draw(Request(**SMALL, count=2))
    assert [picture.seed for picture in (first, second)] == [7, 8] and first.image.size == (64, 64)
    assert first.pixels_sha256 != second.pixels_sha256
    assert [picture.pixels_sha256 for picture in darkroom.draw(first.recipe.drawn_as())] == [
        picture.pixels_sha256 for picture in (first, second)
    ]


def test_events_tell_how_far_it_is_and_it_can_be_stopped(darkroom: Darkroom):
    assert list(darkroom.load("demo")) and list(darkroom.load("demo")) == []
    assert [type(event) for event in darkroom.generate(Request(**SMALL))] == [Step, Step, Image, Done]
    assert list(darkroom.generate(Request(**SMALL), cancelled=lambda: True)) == [Cancelled(0, 2)]


@pytest.mark.parametrize("fields", [{"model": "nope"}, {"sampler": "nope"}, {"loras": ("nope",)}])
def test_bad_input_is_refused_at_once_and_nothing_is_loaded(darkroom: Darkroom, fields):
    for ask in (darkroom.draw, darkroom.generate, darkroom.plan):
        with pytest.raises(RequestError, match="nope"):
            ask(Request(**(SMALL | fields)))
    assert "manager" not in vars(darkroom)


def test_what_is_closed_holds_no_model_and_opens_again(darkroom: Darkroom):
    (before,) = darkroom.draw(Request(**SMALL))
    manager = darkroom.manager
    darkroom.close()
    darkroom.close()
    assert manager.model_name is None
    events = list(darkroom.generate(Request(**SMALL)))
    assert isinstance(events[0], Loading) and events[-2].pixels_sha256 == before.pixels_sha256
    assert darkroom.manager is not manager


def test_a_device_that_is_not_there_is_refused(settings: Settings):
    with pytest.raises(RequestError, match="device 'mps' is not available here"):
        Darkroom(settings.model_copy(update={"device": "mps"})).draw(Request(**SMALL))


def test_a_grid_is_drawn_as_its_pictures_alone_and_a_sheet(darkroom):
    grid = make_grid(Request(**SMALL), {"x": read_axis("x", "steps", "1,2"), "y": read_axis("y", "guidance", "1,5")})
    *cells, sheet = darkroom.draw(grid)
    assert [(cell.index, cell.recipe.request.steps) for cell in cells] == [(0, 1), (1, 2), (2, 1), (3, 2)]
    assert sheet.is_sheet and sheet.index == 4
    (alone,) = darkroom.draw(Request(**SMALL | {"guidance": 5.0}))
    assert cells[3].pixels_sha256 == alone.pixels_sha256
