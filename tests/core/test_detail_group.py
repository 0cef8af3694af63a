"""Details as values: how they are read, the stage they become, its cost, and what recipes and presets hold of them."""

import json
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from webui.core.axes import apply, read_axis
from webui.core.errors import RequestError
from webui.core.files import FinderFile, LoraFile, ModelFile
from webui.core.found import Spot
from webui.core.groups.detail import Detail
from webui.core.order import Order
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.stages import Pass, steps_of
from webui.core.stages import Upscale as Enlarging
from webui.workspace.preset import make_preset, read_preset

FACE, NIGHT = FinderFile("face", Path("adetailer/face.onnx")), LoraFile("night", Path("night.safetensors"))
FILES = SimpleNamespace(finders={"face": FACE}, loras={"night": NIGHT}, embeddings_in=lambda _text: {}, embeddings={})
FIRST = Pass(ModelFile("sd", Path("sd")), (768, 512), 20, "Euler", "Default", "a man", "bad", 5.0)


def details(value):
    return Request.parse({"detail": value}).detail


def test_they_are_read_from_lists_json_and_flags():
    two = (Detail(finder="face", prompt="eyes, (sharp:1.2), a=b", at_most=2), Detail())
    assert details([two[0].model_dump(), {}]) == details(json.dumps([two[0].said, {}])) == two
    assert details("finder=face,at_most=2,prompt=eyes, (sharp:1.2), a=b") == two[:1]
    assert details({"finder": "face"}) == details('{"finder": "face"}') == (Detail(finder="face"),)
    assert str(two[0]) == "finder=face,at_most=2,prompt=eyes, (sharp:1.2), a=b" and str(two[1]) == "finder=demo-subject"
    assert details(None) == details("") == details("[]") == details(()) == ()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "face",
            "detail must look like finder=NAME,prompt=TEXT, of finder, prompt, negative, strength, padding, dilate,"
            " threshold, at_most, not 'face'",
        ),
        ("finder=a,finder=b", "detail must name finder once, not 'finder=a,finder=b'"),
        ("finder=a,strength=2", "detail.1.strength must be at most 1, not '2'"),
        ("[{", "detail must be JSON that can be read, not '[{'"),
        ([{"find": "a"}], "detail.1.find is not a known setting"),
        ([{"finder": ""}], "detail.1.finder must not be empty"),
        ([{}] * 9, "detail must have at most 8 entries"),
        (7, "detail must be a list, not 7"),
        ([{"padding": True}], "must be a number"),
        ([{"dilate": -129}], "detail.1.dilate must be at least -128, not -129"),
    ],
)
def test_what_is_none_says_why(value, said):
    with pytest.raises(RequestError) as error:
        details(value)
    assert said in str(error.value)
    assert re.fullmatch(r"detail(\.1\.\w+)?", error.value.field)


def test_each_is_a_stage_behind_the_passes_and_before_enlarging():
    request = Request(detail=({"finder": "face", "strength": 0.5, "at_most": 3}, {"prompt": "[PROMPT], sharp"}))
    stages = (FIRST,)
    for detail in request.detail:
        stages = detail.stages(stages, FILES)
    first, face, subject = stages
    assert first == FIRST and (face.finder, face.at_most, face.padding_px, face.size) == (FACE, 3, 32, (768, 512))
    assert (face.each.size, face.each.strength, face.each.prompt, face.each.negative) == (
        (512, 512),
        0.5,
        "a man",
        "bad",
    )
    assert (subject.finder, subject.each.prompt, subject.name) == ("demo-subject", "a man, sharp", "detail")
    assert face.files == (FACE, FIRST.model) and pickle.loads(pickle.dumps(stages)) == stages
    assert steps_of(face) == 10 and face.cost == pytest.approx(3 * 10 * 2 * 512 * 512 / 1e6)
    half = Order(request, stages).share(20)
    assert 0.6 < half < 0.7  # of one part in each
    enlarging = Request(upscale={"upscaler": "Lanczos"}).upscale.stages(stages, FILES)[-1]
    assert isinstance(enlarging, Enlarging) and enlarging.size == (1536, 1024)


def test_its_loras_are_the_picture_s_unless_it_names_its_own():
    (_, detail) = Detail(loras=({"name": "night", "weight": 0.5},)).stages((FIRST,), FILES)
    assert [str(use) for use in detail.each.loras] == ["night:0.5"]


def test_a_grid_varies_a_field_of_all_of_them_or_the_list_itself():
    request = Request(detail=({"finder": "face", "prompt": "a"}, {}))
    axis = read_axis("x", "detail.strength", "0.2,0.7")
    assert (axis.title, axis.label(1)) == ("Details: Strength", "Details: Strength: 0.7")
    varied = apply(axis, 1, request, None)
    assert varied.detail == (Detail(finder="face", prompt="a", strength=0.7), Detail(strength=0.7))
    assert apply(axis, 0, Request(), None).detail == (Detail(strength=0.2),)
    whole = read_axis("x", "detail", '"","finder=face,strength=0.3"')
    assert [len(apply(whole, k, request, None).detail) for k in range(2)] == [0, 1]


def test_texts_have_places_and_their_templates():
    request = Request(prompt="a", detail=({"prompt": "b"}, {"negative": "c"}))
    assert request.texts["detail.1.prompt"] == "b" and request.texts["detail.2.negative"] == "c"
    changed = request.with_texts({"detail.2.prompt": "d", "detail.2.template": "{d|d}", "prompt": "e"})
    assert (changed.prompt, changed.detail[1].prompt, changed.detail[1].template) == ("e", "d", "{d|d}")
    assert changed.detail[0] == request.detail[0]


def test_recipes_hold_them_and_what_they_found_and_older_ones_are_as_they_were():
    found = ((Spot((1, 2, 30, 40), 0.75),), ())
    recipe = Recipe(Request(seed=1, detail=({"finder": "face"}, {})), found=found)
    again = Recipe.from_json(recipe.to_json())
    assert again.found == found and again.request.detail == recipe.request.detail
    body = json.loads(recipe.to_json())
    assert body["schema"] == 3 and body["found"] == [[{"box": [1, 2, 30, 40], "score": 0.75}], []]
    plain = json.loads(Recipe(Request(seed=1)).to_json())
    assert plain["schema"] == 1 and "detail" not in plain["request"] and "found" not in plain


def test_a_preset_has_a_table_for_each():
    preset = make_preset(
        name="x",
        fields={
            "prompt": "a {thing}",
            "detail": [{"finder": "face", "prompt": "the {thing}'s face"}, {"strength": 0.2}],
        },
        variables={"thing": "cat"},
    )
    assert "the {thing}'s face" in preset.text and "[fields]\nprompt = " in preset.text
    assert read_preset(preset.text.encode(), "y") == preset
    request = preset.request({"thing": "dog"})
    assert [detail.prompt for detail in request.detail] == ["the dog's face", ""]
    assert request.detail[1] == Detail(strength=0.2)
    assert preset.request(overrides={"detail": ()}).detail == ()
    assert read_preset(make_preset(name="x", fields={"detail": ""}).text.encode(), "y").fields == {"detail": []}
    tables = b"[fields]\nprompt = 'a'\n[[detail]]\nfinder = 'face'\n[[detail]]\n"
    assert read_preset(tables, "y").request().detail == (Detail(finder="face"), Detail())
    with pytest.raises(RequestError, match=r"detail must be tables, \[\[detail\]\]"):
        read_preset(b"[detail]\nfinder = 'x'\n", "y")
    with pytest.raises(RequestError, match="must be a list of tables"):
        read_preset(b"detail = [3]\n", "y")
