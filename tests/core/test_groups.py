"""A variation as a value: which passes know of it, whose seed goes up, and what recipes say."""

import json
import pickle

import pytest
from PIL import Image as PilImages

from webui.core.errors import RequestError
from webui.core.groups import GROUP_FIELDS, group_values, nest
from webui.core.groups.init import Init
from webui.core.groups.variation import Variation
from webui.core.recipe import Batch, Recipe
from webui.core.request import MAX_SEED, Request
from webui.core.stages import Pass

VARIED = Request(seed=5, count=2, repeat=2, variation={"seed": 9, "strength": 0.3})
PLAIN = (
    '{"schema": 1, "darkroom": "0.1.0", "request": {"prompt": "a cat", "negative": "", "steps": 20, "guidance": 5.0, '
    '"width": null, "height": null, "seed": 7, "count": 1, "repeat": 1, "strict": false, "sampler": "DPM++ 2M", '
    '"schedule": "Default", "clip_skip": 1, "model": "demo", "vae": "", "prediction": "auto", "refiner": "", '
    '"refiner_at": 0.8, "loras": [], "guidance_until": 1.0, "reuse": 1, "token_merging": 0.0}, "start": null, '
    '"hashes": {}, "batch": null, "sampler": {}, "environment": {}, "pixels_sha256": ""}'
)


def make_pass(begin):
    return Pass(None, (64, 64), 2, "Euler", "Default", "", "", 5.0, begin=begin)


def test_all_passes_know_of_it_but_those_that_go_on_with_latents():
    stages = tuple(map(make_pass, ("noise", "handover", "picture")))
    varied = Variation(seed=9, strength=0.3)
    assert [stage.variation for stage in varied.stages(stages, None)] == [varied, None, varied]
    assert Variation(seed=9).stages(stages, None) == stages
    assert pickle.loads(pickle.dumps(varied.stages(stages, None))) == varied.stages(stages, None)


def test_the_variation_s_seed_goes_up_in_place_of_the_picture_s():
    own = [VARIED.picture(k) for k in range(4)]
    assert [(one.seed, one.variation.seed, one.image_count) for one in own] == [(5, 9 + k, 1) for k in range(4)]
    off = Request(seed=5, count=2, variation={"seed": 9})
    assert (off.picture(1).seed, off.picture(1).variation.seed) == (6, 9)


def test_the_last_picture_s_seed_is_still_a_seed():
    most = {"seed": MAX_SEED, "count": 1}
    assert Request(**most | {"count": 3}, variation={"seed": 1, "strength": 0.5}).image_count == 3
    with pytest.raises(RequestError, match=r"^variation.seed: the last picture's seed would be above"):
        Request.parse({"count": 2, "variation": {"seed": MAX_SEED, "strength": 0.5}})
    with pytest.raises(RequestError, match=r"^variation.strength must be at most 1, not 1.5"):
        Request.parse({"variation": {"strength": 1.5}})


def test_a_plain_picture_s_recipe_is_what_it_was():
    assert Recipe(Request(prompt="a cat", seed=7)).to_json() == PLAIN
    assert Recipe.from_json(PLAIN).request == Request(prompt="a cat", seed=7)


def test_a_varied_one_names_a_schema_that_knows_variations():
    recipe = Recipe(VARIED.picture(3), batch=Batch(5, 2, 1))
    body = json.loads(recipe.to_json())
    assert (body["schema"], body["request"]["variation"]) == (2, {"seed": 12, "strength": 0.3})
    read = Recipe.from_json(recipe.to_json())
    assert read.request == recipe.request
    assert read.drawn_as() == VARIED.model_copy(update={"repeat": 1, "variation": VARIED.variation.picture(2)})
    started = recipe.request.model_copy(update={"variation": None, "init": Init(image=PilImages.new("RGB", (8, 8)))})
    assert json.loads(Recipe(started).to_json())["schema"] == 1


def test_other_programs_read_it_in_the_words_that_they_have():
    assert "Seed: 5, " in Recipe(VARIED.picture(3)).infotext()
    assert ", Variation seed: 12, Variation seed strength: 0.3, " in Recipe(VARIED.picture(3)).infotext()
    assert "Variation" not in Recipe(Request(variation={"seed": 9})).infotext()


def test_fields_of_groups_go_by_their_group_s_name():
    of_upscale = ["upscale", *(f"upscale.{field}" for field in ("scale", "width", "height", "upscaler"))]
    of_hires = [name for name in GROUP_FIELDS if name.startswith("hires")]
    assert {"hires", "hires.scale", "hires.loras", "hires.prompt"} <= {*of_hires} and "hires.template" not in of_hires
    of_guiding = ["pag", "pag.scale", "pag.adaptive", "nag", "nag.scale", "nag.tau", "nag.alpha"]
    assert [*GROUP_FIELDS] == ["variation.seed", "variation.strength", *of_guiding, *of_hires, *of_upscale]
    assert nest({"steps": 3, "variation.seed": 9, "variation.strength": 0.3}) == {
        "steps": 3,
        "variation": {"seed": 9, "strength": 0.3},
    }
    assert group_values(VARIED) == {"variation.seed": 9, "variation.strength": 0.3}
    assert group_values(Request()) == {}


def test_a_group_with_a_switch_is_on_by_it_or_by_any_of_its_fields_and_off_by_it_alone():
    assert nest({"upscale": True}) == {"upscale": {}}
    assert nest({"upscale.scale": 3}) == nest({"upscale": True, "upscale.scale": 3}) == {"upscale": {"scale": 3}}
    assert nest({"upscale": False, "upscale.scale": 3}) == {"upscale": None}
    told = group_values(Request(upscale={"scale": 3}))
    assert told.items() >= {"upscale": True, "upscale.scale": 3.0}.items()
    assert "upscale.only" not in told
