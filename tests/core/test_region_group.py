"""Regions as values: how they are read, what is refused and where, what passes are told, what is kept of them."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image as PilImages

from webui.core import images
from webui.core.axes import apply, read_axis
from webui.core.compared import settings_told
from webui.core.errors import RequestError
from webui.core.files import ModelFile
from webui.core.groups.pag import Pag
from webui.core.groups.region import Region, fits
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.spans import Term, spans
from webui.core.stages import Pass
from webui.interop.infotext import read_infotext
from webui.workspace.preset import make_preset, read_preset

FILES = SimpleNamespace(embeddings_in=lambda _text: {}, embeddings={})
FIRST = Pass(ModelFile("sd", Path("sd")), (512, 256), 20, "Euler", "Default", "a field", "bad", 5.0)
LEFT = {"box": (0, 0, 0.5, 1), "prompt": "a red apple, (big:1.2)"}


def mask(size=(64, 32), box=(8, 8, 24, 24), mode="L"):
    image = PilImages.new(mode, size)
    image.paste(255 if mode == "L" else "white", box)
    return image


def regions(value):
    return Request.parse({"regions": value}).regions


def test_they_are_read_from_lists_json_and_flags():
    left = Region(**LEFT)
    assert regions([LEFT]) == regions(json.dumps([left.said])) == regions(LEFT) == (left,)
    assert regions("box=0:0:0.5:1,prompt=a red apple, (big:1.2)") == regions([LEFT | {"box": "0:0:.5:1"}]) == (left,)
    assert str(left) == "box=0:0:0.5:1,prompt=a red apple, (big:1.2)"
    assert regions(str(Region(**LEFT, weight=0.8))) == (Region(**LEFT, weight=0.8),)
    assert regions(None) == regions("") == regions(()) == ()


def test_a_mask_is_kept_small_and_grey_whatever_it_came_as():
    coloured = mask((1024, 512), (128, 128, 384, 384), "RGBA")
    kept = Region(mask=coloured, prompt="a").mask
    assert images.decode_text(kept).mode == "L" and images.decode_text(kept).size == (256, 128)
    assert kept == Region(mask=f"data:image/png;base64,{images.encode_text(coloured)}", prompt="a").mask
    assert kept == Region(mask=kept, prompt="a").mask
    assert fits(kept, (512, 256)) and fits(kept, (520, 256)) and not fits(kept, (512, 512))


@pytest.mark.parametrize(
    ("value", "said", "field"),
    [
        ([{**LEFT, "box": "0:0:1.2:1"}], "regions.1.box must be left:top:right:bottom, shares", "regions.1.box"),
        ([{**LEFT, "box": [0, 0, float("nan"), 1]}], "shares of the picture from 0 to 1", "regions.1.box"),
        ([LEFT, {**LEFT, "box": "0:0:1"}], "regions.2.box must be left:top:right:bottom", "regions.2.box"),
        ([{**LEFT, "box": "0.5:0:0.5:1"}], "regions.1.box is empty: right must be more than left", "regions.1.box"),
        ([LEFT, {"prompt": "a"}], "Region 2 needs a box or a mask", "regions.2.box"),
        ([{**LEFT, "mask": mask()}], "Region 1 has a box and a mask: it takes one", "regions.1.box"),
        ([LEFT, {**LEFT, "prompt": " "}], "Region 2 needs a prompt", "regions.2.prompt"),
        ([{"mask": {"sha256": "ab" * 32}, "prompt": "a"}], "regions.1.mask is the hash of a picture", "regions.1.mask"),
        ([{"mask": "!", "prompt": "a"}], "regions.1.mask is not base64 text of a picture", "regions.1.mask"),
        ([{"mask": "/etc/passwd", "prompt": "a"}], "regions.1.mask", "regions.1.mask"),
        ([{"mask": PilImages.new("L", (64, 64)), "prompt": "a"}], "mask is black all over", "regions.1.mask"),
        ([{**LEFT, "weight": 1.5}], "regions.1.weight must be at most 1", "regions.1.weight"),
        ([{**LEFT, "feather": -1}], "regions.1.feather must be at least 0", "regions.1.feather"),
        ([LEFT] * 9, "regions must have at most 8 entries", "regions"),
        ("left", "regions must look like box=0:0:0.5:1,prompt=TEXT, of box, mask, weight, feather, prompt", "regions"),
    ],
)
def test_what_cannot_be_is_named_at_its_field(value, said, field):
    with pytest.raises(RequestError) as error:
        regions(value)
    assert said in str(error.value) and error.value.field == field


def told(*found, prompt="a field", steps=20):
    stages = (replace(FIRST, prompt=prompt, steps=steps),)
    for region in found:
        stages = region.stages(stages, FILES)
    return stages[0]


def test_each_is_a_term_of_its_own_in_every_span():
    stage = told(Region(**LEFT), Region(box="0.5:0:1:1", prompt="[PROMPT] AND a [cow:hen:0.5]:0.5"))
    first, second = spans(stage)
    assert first.terms == (
        Term("a field"),
        Term("a red apple, (big:1.2)", region=1),
        Term("a field", region=2),
        Term("a cow", 0.5, 2),
    )
    assert (first.stop, second.terms[-1]) == (10, Term("a hen", 0.5, 2))
    assert stage.rows == 4 and stage.cost == 2 * told().cost
    assert replace(stage, pag=Pag()).rows == 7, "each prompt's answer once more"


def test_a_second_pass_of_another_shape_draws_the_middle_of_them():
    first, second = Region(**LEFT).stages((FIRST, replace(FIRST, name="hires", size=(512, 512))), FILES)
    assert first.regions[0].area.seen == (0, 0, 1, 1) and second.regions[0].area.seen == (0.25, 0, 0.75, 1)


def test_their_words_are_drawn_and_filtered_like_others():
    request = Request(prompt="a field", regions=[LEFT])
    assert request.texts == {"prompt": "a field", "negative": "", "regions.1.prompt": LEFT["prompt"]}
    again = request.with_texts({"regions.1.prompt": "a pear", "regions.1.template": "a {pear|fig}"})
    assert (again.regions[0].prompt, again.regions[0].template) == ("a pear", "a {pear|fig}")
    assert Request(prompt="a", regions=[LEFT | {"prompt": "[a:b:0.5]"}]).has_marks


def test_recipes_hold_them_with_their_masks():
    request = Request(prompt="a", width=512, height=256, seed=1, regions=[LEFT, {"mask": mask(), "prompt": "a cow"}])
    read = Recipe.from_json(Recipe(request).to_json())
    assert read.request.regions == request.regions and read.schema == 3
    assert "regions" not in json.loads(Recipe(Request(prompt="a", seed=1)).to_json())["request"]
    words = settings_told(read)
    assert words["Regions 1"] == "box 0, 0, 0.5, 1, prompt a red apple, (big:1.2)"
    assert words["Regions 2"].startswith("mask ") and len(words["Regions 2"]) < 60


def test_the_text_for_other_programs_says_them_and_is_read_back():
    odd = {"box": (0.5, 0, 1, 1), "weight": 0.8, "feather": 0.1, "prompt": 'a "cow", Steps: 3\nred'}
    request = Request(prompt="a", width=512, height=256, seed=1, regions=[LEFT, odd, {"mask": mask(), "prompt": "b"}])
    text = Recipe(request).infotext()
    assert 'Region 1 box: "0:0:0.5:1", Region 1 prompt: "a red apple, (big:1.2)", Region 2 box' in text
    found = read_infotext(text)
    assert regions(found.values["regions"]) == request.regions[:2]
    assert found.unmapped == ["region 3: its mask is not in the text"]


def test_presets_hold_them_and_fill_their_variables():
    preset = make_preset(name="two", variables={"what": "apple"}, fields={"regions": [LEFT | {"prompt": "an {what}"}]})
    read = read_preset(preset.text.encode(), "two")
    assert read.request({"what": "egg"}).regions == (Region(box="0:0:0.5:1", prompt="an egg"),)
    assert read.fields == preset.fields and "[[regions]]" in preset.text


def test_a_grid_varies_them_all_at_once():
    request = Request(prompt="a", regions=[LEFT, LEFT | {"box": "0.5:0:1:1"}])
    axis = read_axis("x", "regions.weight", "0.5, 1")
    assert [region.weight for region in apply(axis, 0, request, None).regions] == [0.5, 0.5]
    word = apply(read_axis("x", "prompt:apple", "apple, pear"), 1, request, None)
    assert [region.prompt for region in word.regions] == ["a red pear, (big:1.2)"] * 2


def test_regional_prompters_settings_are_said_not_to_be_honoured():
    """As that extension of A1111's writes them."""
    text = "sky ADDROW sea\nSteps: 4, Seed: 1, RP Active: True, RP Divide mode: Matrix, RP Matrix submode: Rows,"
    text += ' RP Mask submode: Mask, RP Ratios: "1,1", RP Base Ratios: 0.2, RP Use Base: False, RP Use Common: False'
    found = read_infotext(text)
    said = "Regional Prompter divided the picture (divide mode Matrix, matrix submode Rows, ratios 1,1, base ratios 0.2"
    assert [line.startswith(said) for line in found.unmapped] == [True] and "regions" not in found.values
