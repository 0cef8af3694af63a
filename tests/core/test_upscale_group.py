"""Enlarging as a value: the stage it becomes, how large pictures get, what recipes and other programs are told."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image as PilImages

from webui.core.errors import Mend, RequestError
from webui.core.files import UpscalerFile
from webui.core.groups.init import Init
from webui.core.groups.upscale import Upscale
from webui.core.order import plan
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.stages import Pass

FILE = UpscalerFile("sharp", Path("ESRGAN/sharp.pth"), namesakes=("old/sharp",), place="sharp")
FILES = SimpleNamespace(upscalers={"sharp": FILE})
FIRST = Pass(None, (512, 384), 2, "Euler", "Default", "", "", 5.0)


def size_of(*size, **fields):
    return Upscale(**fields).enlarged(size)


def test_it_is_one_more_stage_behind_all_others():
    first, second = Upscale(upscaler="sharp", scale=4).stages((FIRST,), FILES)
    assert first == FIRST and (second.file, second.size, second.init) == (FILE, (2048, 1536), None)
    assert second.steps_taken == 8 * 6 and pickle.loads(pickle.dumps(second)) == second
    _, second = Upscale(upscaler="Lanczos").stages((FIRST,), FILES)
    assert (second.file, second.size, second.steps_taken, second.files) == (None, (1024, 768), 0, ())


def test_a_picture_of_which_a_part_was_drawn_is_enlarged_whole():
    init = Init(image=PilImages.new("RGB", (300, 200)), mask=PilImages.new("L", (300, 200), 255), only_masked=True)
    started = Pass(None, (512, 512), 2, "Euler", "Default", "", "", 5.0, init=init)
    assert Upscale(upscaler="Lanczos", scale=3).stages((started,), FILES)[1].size == (900, 600)


def test_alone_it_is_the_only_stage_and_begins_from_the_picture():
    init = Init(image=PilImages.new("RGB", (101, 67)))
    order = plan(Request(init=init, upscale={"upscaler": "sharp", "scale": 1.5, "only": True}), FILES)
    (only,) = order.stages
    assert (only.size, only.init, order.passes, order.files) == ((152, 100), init, (), (FILE,))
    assert order.warnings == (FILE.ambiguity,) and order.request.task == "upscale"


def test_one_side_brings_the_other_and_two_are_taken_as_they_are():
    assert size_of(300, 200, width=900) == (900, 600)
    assert size_of(300, 200, height=100) == (150, 100)
    assert size_of(300, 200, width=640, height=640, scale=9) == (640, 640)
    assert size_of(300, 200, width=0, height="", scale=3) == (900, 600)  # as forms send what is empty


def test_what_would_be_too_large_is_told_with_the_scale_that_would_not():
    assert size_of(2048, 2048, scale=4) == (8192, 8192)
    with pytest.raises(RequestError, match=r"2048 x 1000 px would become 16384 x 8000 px.* 8192 px .* is 4$") as error:
        size_of(2048, 1000, scale=8)
    assert error.value.field == "upscale.scale" and error.value.mend == Mend("use", 4.0)
    with pytest.raises(RequestError, match=r"^upscale.scale must be at most 16, not 17"):
        Request.parse({"upscale": {"scale": 17}})
    with pytest.raises(RequestError, match=r"^upscale.height must be at most 8192, not 8193"):
        Request.parse({"upscale": {"height": 8193}})


def test_recipes_of_schema_2_and_a1111_s_words_say_it():
    recipe = Recipe(Request(seed=1, upscale={"scale": 4, "upscaler": "a, b"}))
    body = json.loads(recipe.to_json())
    assert body["schema"] == 2 and body["request"]["upscale"]["scale"] == 4
    assert Recipe.from_json(recipe.to_json()).request == recipe.request
    assert ", Postprocess upscale by: 4, Postprocess upscaler: a  b, " in recipe.infotext()
    alone = Recipe(Request(seed=1, upscale={"width": 640, "only": True}))
    assert Recipe.from_json(alone.to_json()).request == alone.request
    assert alone.infotext().startswith("Postprocess upscale to: 640x?, Postprocess upscaler: realesr-animevideov3, Ver")
