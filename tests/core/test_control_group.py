"""Controls as values: how they are read, what they make of passes and spans, and what recipes hold of them."""

import json
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image as PilImages

from webui.core.axes import apply, read_axis
from webui.core.checkpoint import Checkpoint
from webui.core.errors import RequestError
from webui.core.files import ControlFile, ModelFile
from webui.core.groups.control import Control
from webui.core.groups.init import Init
from webui.core.images import encode_text, pixels_sha256
from webui.core.recipe import Recipe, RecipeError
from webui.core.request import Request
from webui.core.spans import spans
from webui.core.stages import Pass
from webui.workspace.preset import make_preset, read_preset
from webui.workspace.start_pictures import StartPictures

CANNY = ControlFile("canny", Path("ControlNet/canny.safetensors"))
FILES = SimpleNamespace(controls={"canny": CANNY}, annotators={})
ABOUT = Checkpoint("SD 1.x", "ldm", ("backbone",), 4, 768, 512)
FIRST = Pass(ModelFile("sd", Path("sd"), ABOUT), (64, 64), 10, "Euler", "Default", "a man", "bad", 5.0)
RED, BLUE = (PilImages.new("RGB", (64, 64), colour) for colour in ("red", "blue"))

AS_DRAWN = {"model": "canny", "mode": "balanced"}


def controls(value):
    return Request.parse({"controls": value}).controls


def test_they_are_read_from_lists_json_and_flags():
    one = Control(model="canny", weight=0.8, end=0.5, preprocessor="canny")
    assert controls("model=canny,weight=0.8,end=0.5,preprocessor=canny") == (one,)
    assert controls([one.said]) == controls(json.dumps([one.said])) == controls({**one.said}) == (one,)
    with_picture = controls([{"model": "canny", "image": encode_text(RED), "options": {"low": 50}}])[0]
    assert with_picture.image.getpixel((0, 0)) == (255, 0, 0) and with_picture.options == {"low": 50}
    assert controls("model=a,options=low:50;high:60")[0].options == {"low": 50, "high": 60}
    assert "image" not in with_picture.said and with_picture.said["options"] == {"low": 50}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("canny", "controls must look like model=NAME,image=FILE,weight=0.8, of model, image, weight"),
        ([{}], "controls.1.model is missing"),
        ([{"model": "a", "weight": 2.5}], "controls.1.weight must be at most 2, not 2.5"),
        ([{"model": "a", "mode": "both"}], "controls.1.mode must be 'auto', 'balanced', 'prompt' or 'control'"),
        ([{"model": "a", "image": "!"}], "controls.1.image"),
        ([{"model": "a", "image": {"sha256": "ab" * 32}}], "controls.1.image is the hash of a picture"),
        ([{"model": "a", "image": {"url": "x"}}], "controls.1.image is not a picture: send it as base64"),
        ([{"model": "a", "options": {"low": "x"}}], "controls.1.options.low must be a number"),
        ([{"model": "a"}] * 9, "controls must have at most 8 entries"),
    ],
)
def test_what_is_none_says_why(value, said):
    with pytest.raises(RequestError) as error:
        controls(value)
    assert said in str(error.value)
    assert re.fullmatch(r"controls(\.1(\.\w+)*)?", error.value.field)


def test_each_acts_in_the_passes_of_its_kind_of_model():
    control = Control(model="canny", mode="balanced", image=RED, options={"low": 1, "high": 2})
    other = Pass(
        ModelFile("xl", Path("xl"), Checkpoint("SDXL", "ldm", (), 4, 2048, 1024)), (64, 64), 1, "", "", "", "", 1
    )
    first, refiner = control.stages((FIRST, other), FILES)
    (use,) = first.controls
    assert (use.file, use.weight, use.options) == (CANNY, 1.0, (("high", 2), ("low", 1))) and refiner.controls == ()
    assert CANNY in first.files and pickle.loads(pickle.dumps(first)) == first
    same, another = (
        Control(model="canny", mode="balanced", image=image, options={"high": 2, "low": 1})
        for image in (RED.copy(), BLUE)
    )
    assert same.stages((FIRST,), FILES)[0] == first and hash(same.stages((FIRST,), FILES)[0]) == hash(first)
    assert another.stages((FIRST,), FILES)[0] != first
    assert Control(model="canny", mode="balanced", image=RED, weight=0).stages((FIRST,), FILES) == (FIRST,)


def test_without_a_picture_it_sees_what_is_drawn_of_the_start_picture():
    start = PilImages.new("RGB", (128, 128), "red")
    start.paste("blue", (64, 64, 128, 128))
    mask = PilImages.new("L", (128, 128))
    mask.paste(255, (64, 64, 128, 128))
    init = Init(image=start, mask=mask, only_masked=True, padding=0)
    (first, *_) = Control(model="canny", mode="balanced").stages(init.stages((FIRST,), FILES), FILES)
    assert first.controls[0].image.getcolors() == [(64 * 64, (0, 0, 255))]
    guide = PilImages.new("RGB", (32, 32), "black")
    guide.paste("white", (16, 16, 32, 32))
    (own, *_) = Control(model="canny", mode="balanced", image=guide, resize="just resize").stages(
        init.stages((FIRST,), FILES), FILES
    )
    assert own.controls[0].image.size == (64, 64) and own.controls[0].image.getpixel((32, 32)) == (255, 255, 255)
    wider = Init(image=start, outpaint=(8, 0, 0, 0), resize="resize and fill")
    use = Control(model="canny", mode="balanced").stages(wider.stages((FIRST,), FILES), FILES)[0].controls[0]
    assert (use.image.size, use.resize) == ((136, 128), "resize and fill")


def test_steps_are_spans_by_which_of_them_act():
    uses = Request(controls=[{"image": RED} | AS_DRAWN, {"image": RED, "start": 0.2, "end": 0.55} | AS_DRAWN])
    stage = FIRST
    for control in uses.controls:
        (stage,) = control.stages((stage,), FILES)
    told = spans(stage)
    assert [(span.stop, span.controls) for span in told] == [
        (2, ((0, 1.0),)),
        (5, ((0, 1.0), (1, 1.0))),
        (10, ((0, 1.0),)),
    ]
    assert len(spans(FIRST)) == 1 and spans(FIRST)[0].controls == ()


def test_recipes_have_the_hashes_of_their_pictures_and_are_filled_in_again(tmp_path):
    request = Request(seed=1, controls=[{"model": "canny", "image": RED}, {"model": "canny"}], init=Init(image=BLUE))
    kept = StartPictures(tmp_path)
    kept.keep(request)
    recipe = Recipe(request)
    body = json.loads(recipe.to_json())
    assert body["pictures"] == {"controls.1.image": pixels_sha256(RED)} and body["schema"] == 3
    assert [entry["image"] for entry in body["request"]["controls"]] == [None, None]
    again = Recipe.from_json(recipe.to_json())
    assert json.loads(again.to_json()) == body
    filled = again.with_pictures(kept.find)
    assert filled.request == request and json.loads(filled.to_json()) == body
    with pytest.raises(RecipeError, match="its picture controls.1.image is not here"):
        again.with_pictures(lambda sha256: BLUE if sha256 == pixels_sha256(BLUE) else None)
    assert "pictures" not in json.loads(Recipe(Request(seed=1)).to_json())


def test_a_grid_varies_a_number_of_all_of_them():
    request = Request(controls=[{"model": "canny", "image": RED}])
    axis = read_axis("x", "controls.weight", "0.5,1")
    assert axis.title == "Controls: Weight"
    varied = apply(axis, 0, request, None).controls[0]
    assert (varied.weight, varied.image.getpixel((0, 0))) == (0.5, (255, 0, 0))
    with pytest.raises(RequestError, match="controls.image"):
        read_axis("x", "controls.image", "a,b")


def test_a_preset_names_a_model_and_how_and_no_picture():
    fields = {"prompt": "a", "controls": [{"model": "canny", "preprocessor": "canny", "options": {"low": 50}}]}
    preset = make_preset(name="x", fields=fields)
    assert read_preset(preset.text.encode(), "y") == preset
    assert preset.request().controls == (Control(model="canny", preprocessor="canny", options={"low": 50}),)
    over = preset.request(overrides={"controls": [{"image": encode_text(RED), "weight": 0.5}]}).controls[0]
    assert (over.model, over.preprocessor, over.weight, over.image.size) == ("canny", "canny", 0.5, (64, 64))
    assert preset.request(overrides={"controls": [{"model": "b"}]}).controls == (Control(model="b"),)
    with_picture = make_preset(name="x", fields={"controls": [{"model": "canny", "image": encode_text(RED)}]})
    assert "image" not in with_picture.text
