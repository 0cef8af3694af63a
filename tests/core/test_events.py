"""Events: values that cross process borders and the wire."""

import hashlib
import json
import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image as PilImages

from webui.core.errors import RequestError
from webui.core.events import (
    TERMINAL,
    Cancelled,
    Done,
    Event,
    Failed,
    Image,
    Loading,
    LoraSwitch,
    Queued,
    Step,
    to_json,
)
from webui.core.recipe import Recipe, read_picture
from webui.core.request import Request

NOISE = PilImages.fromarray(np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8), "RGB")
RECIPE = Recipe(Request(prompt="née 赤 🍎 <b>", seed=41, width=64, height=64), {"model": {"demo": "abcdef0123456789"}})
EXAMPLES = [
    Queued(3),
    Loading("UNet", 0.25),
    Step(4, 20, 1.23456789),
    Step(5, 20, 1.5, b"\xff\xd8\xffjpeg"),
    Image(0, NOISE, RECIPE),
    Image(1, NOISE, RECIPE, Path("/tmp/00001-41-apple.png"), "could not be saved"),
    Done(2.34567891, {"load": 0.5, "steps": 1.23456789}, ("a warning",)),
    Done(1.0, loras=LoraSwitch(("chalk:0.8", "ink:0:1"), "merged", 0.12345678)),
    Failed("model 'x' cannot be loaded: no such file", bad_input=True),
    Cancelled(3, 20),
]
each_event = pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)


def test_the_examples_below_cover_every_kind_of_event():
    assert {type(event) for event in EXAMPLES} == set(get_args(Event))


def test_done_failed_and_cancelled_end_a_job_and_nothing_else_does():
    assert set(TERMINAL) == {Done, Failed, Cancelled}


@each_event
def test_an_event_survives_pickle(event):
    assert pickle.loads(pickle.dumps(event)) == event


@each_event
def test_an_event_cannot_be_changed(event):
    with pytest.raises(FrozenInstanceError):
        setattr(event, next(iter(vars(event))), None)


@each_event
def test_an_event_s_json_is_plain_and_says_what_it_is(event):
    body = json.loads(json.dumps(to_json(event), allow_nan=False))
    assert body["event"] == type(event).__name__.lower()


def test_a_step_s_json_has_index_total_and_a_preview_only_when_there_is_one():
    assert to_json(Step(3, 20, 0.5)) == {"event": "step", "index": 3, "total": 20, "seconds": 0.5}
    assert to_json(Step(3, 20, 0.5, b"\xff\xd8"))["preview"] == "/9g="


def test_an_image_s_json_has_path_seed_hash_and_settings():
    body = to_json(Image(0, NOISE, RECIPE, Path("/tmp/a.png")))
    assert body["path"] == "/tmp/a.png" and body["seed"] == 41 and body["index"] == 0
    assert body["pixels_sha256"] == hashlib.sha256(np.asarray(NOISE).tobytes()).hexdigest()
    assert "Seed: 41" in body["infotext"] and "warning" not in body
    assert to_json(Image(0, NOISE, RECIPE))["path"] is None
    assert to_json(Image(0, NOISE, RECIPE, warning="disk full"))["warning"] == "disk full"


def test_done_and_failed_say_so_in_json():
    assert to_json(Done(1.23456, {"steps": 1.00006}))["seconds"] == 1.2346
    assert to_json(Failed("no"))["message"] == "no"


def test_done_says_in_json_which_loras_were_applied_and_how():
    body = to_json(Done(1.0, loras=LoraSwitch(("chalk:0.8", "ink:0:1"), "cached", 0.00001234567)))
    assert body["loras"] == {"applied": ["chalk:0.8", "ink:0:1"], "how": "cached", "seconds": 0.000012}
    assert "loras" not in to_json(Done(1.0))


def test_the_pixel_hash_is_of_the_rgb_bytes_and_changes_with_one_pixel():
    rows = b"".join(bytes(NOISE.getpixel((x, y))) for y in range(NOISE.height) for x in range(NOISE.width))
    assert Image(0, NOISE, RECIPE).pixels_sha256 == hashlib.sha256(rows).hexdigest()
    other = NOISE.copy()
    other.putpixel((63, 47), tuple(255 - level for level in NOISE.getpixel((63, 47))))
    assert Image(0, other, RECIPE).pixels_sha256 != Image(0, NOISE, RECIPE).pixels_sha256


@pytest.mark.parametrize(("name", "file_format"), [("a.png", "PNG"), ("deep/b.JPG", "JPEG"), ("c.webp", "WEBP")])
def test_a_picture_is_saved_with_its_recipe_as_its_ending_says(tmp_path, name, file_format):
    picture = Image(0, NOISE, Recipe(Request(seed=5, prompt="a cat")))
    picture.save(tmp_path / name)
    with PilImages.open(tmp_path / name) as saved:
        assert saved.format == file_format and saved.size == NOISE.size
        assert file_format != "PNG" or saved.tobytes() == NOISE.tobytes()
    recipe = read_picture(tmp_path / name)
    assert recipe.request == picture.recipe.request and recipe.pixels_sha256 == picture.pixels_sha256


@pytest.mark.parametrize("name", ["a", "a.bmp", ".png"])
def test_an_ending_that_means_no_format_is_refused_and_nothing_is_written(tmp_path, name):
    with pytest.raises(RequestError, match=r"does not end in one of \.png, \.jpg, \.jpeg, \.webp"):
        Image(0, NOISE, Recipe(Request(seed=5))).save(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []
