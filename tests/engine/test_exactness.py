"""The same recipe gives the same picture, bit for bit: in a new process, after other work, alone or among others."""

import json
import subprocess
import sys

import numpy as np
import pytest

from webui.core.events import Image
from webui.core.request import LoraRef
from webui.core.samplers import SAMPLERS
from webui.engine.preview import Previewer

STEPS = 4  # enough for the third order of a multistep sampler
WAYS = ("DPM++ 2M", "Euler a", "Heun", "PNDM", "DPM++ SDE", "LCM")
"""One of each way of stepping, and of drawing noise on the way."""

ALONE = """
import json, sys
from pathlib import Path
from webui.core.events import Image
from webui.core.recipe import Recipe
from webui.core.settings import Settings
from webui.darkroom import Darkroom

darkroom = Darkroom(Settings(device=sys.argv[2], dtype="float32", data_dir=Path(sys.argv[1])))
for line in sys.stdin:
    request = Recipe.from_json(line).drawn_as()
    pictures = [event for event in darkroom.generate(request) if isinstance(event, Image)]
    print(json.dumps([picture.pixels_sha256 for picture in pictures]), flush=True)
"""


@pytest.fixture(scope="module")
def pictures(run):
    """By sampler, two pictures drawn together; jobs of all kinds run between them."""
    found = {}
    for number, sampler in enumerate(SAMPLERS):
        found[sampler] = [event for event in run(sampler=sampler, count=2, steps=STEPS) if isinstance(event, Image)]
        if number % 4 == 0:
            run(prompt="a panda", loras=(LoraRef(name="blueprint", weight=0.8),), steps=2)
    return found


def test_every_sampler_draws_the_same_in_a_new_process_and_another_order(run, pictures, tmp_path, repository, device):
    hires = {"scale": 1.5, "upscaler": "Latent", "steps": 4, "sampler": "Euler a"}
    twice = [
        event for event in run(count=2, steps=2, hires=hires, loras=("blueprint:0.8",)) if isinstance(event, Image)
    ]
    recipes = [twice[1].recipe, *(pictures[sampler][1].recipe for sampler in reversed(SAMPLERS))]
    lines = "".join(f"{recipe.to_json()}\n" for recipe in recipes)
    command = [sys.executable, "-c", ALONE, str(tmp_path), device]
    done = subprocess.run(command, input=lines, cwd=repository, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    drawn = [twice, *(pictures[sampler] for sampler in reversed(SAMPLERS))]
    assert answers == [[picture.pixels_sha256 for picture in together] for together in drawn]


@pytest.mark.parametrize(
    "sampler", [pytest.param(sampler, marks=() if sampler in WAYS else pytest.mark.slow) for sampler in SAMPLERS]
)
def test_picture_k_of_a_batch_is_that_seed_alone_strictly_or_else_within_one_level_in_float32(run, pictures, sampler):
    fields = {"sampler": sampler, "steps": STEPS}
    strict = [event for event in run(**fields, count=2, strict=True) if isinstance(event, Image)]
    assert len(strict) == len(pictures[sampler]) == 2
    for k, (picture, together) in enumerate(zip(strict, pictures[sampler], strict=True)):
        (alone,) = (event for event in run(**fields, seed=11 + k) if isinstance(event, Image))
        assert picture.pixels_sha256 == alone.pixels_sha256
        assert picture.recipe.batch.count == 1
        assert abs(levels(alone) - levels(together)).max() <= 1
    assert abs(levels(strict[0]) - levels(strict[1])).max() > 1


def levels(picture: Image) -> np.ndarray:
    return np.asarray(picture.image).astype(np.int16)


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler a", "DPM++ SDE"])
def test_previews_change_nothing(run, monkeypatch, sampler):
    seen = [event.pixels_sha256 for event in run(sampler=sampler) if isinstance(event, Image)]
    monkeypatch.setattr(Previewer, "preview", lambda *_: None)
    assert [event.pixels_sha256 for event in run(sampler=sampler) if isinstance(event, Image)] == seen


def test_the_recipe_names_what_was_used(run):
    events = run(loras=(LoraRef(name="blueprint", weight=0.5),), sampler="Heun")
    (picture,) = (event for event in events if isinstance(event, Image))
    recipe = picture.recipe
    assert set(recipe.hashes) == {"model", "lora"} and set(recipe.lora_hashes) == {"blueprint"}
    assert recipe.sampler["class"] == "HeunDiscreteScheduler" and recipe.sampler["config"]["beta_start"] > 0
    assert {"torch", "diffusers", "transformers", "darkroom", "device", "dtype", "attention", "threads"} <= set(
        recipe.environment
    )
    assert recipe.environment["dtype"] == "float32"
