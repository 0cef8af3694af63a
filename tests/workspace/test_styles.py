"""Styles: what lies around a prompt, in which order, and what of a preset makes it one."""

import pytest

from webui.core.errors import RequestError
from webui.core.request import LoraRef, Request
from webui.workspace.preset import make_preset
from webui.workspace.presets import PresetStore
from webui.workspace.styles import with_styles


def style(name: str, **fields):
    return make_preset(name=name, fields=fields, variables={"prompt": ""})


OIL = style("Oil", prompt="oil painting of {prompt}", negative="photo", loras=["ink:0.5"])
NIGHT = style("Night", prompt="{prompt}, at night", negative="sun, noon")
QUIET = style("Quiet", negative="noise")


def test_styles_lie_around_the_words_in_their_order_and_add_their_loras():
    asked = Request(prompt="a fox", negative="blur", loras=("sepia:1",), steps=9)
    both = with_styles(asked, (OIL, NIGHT, QUIET))
    assert both.prompt == "oil painting of a fox, at night"
    assert with_styles(asked, (NIGHT, OIL)).prompt == "oil painting of a fox, at night"
    assert both.negative == "blur, photo, sun, noon, noise"
    assert both.loras == (LoraRef(name="sepia"), LoraRef(name="ink", weight=0.5))
    assert (both.steps, with_styles(asked, ())) == (9, asked)
    assert with_styles(Request(loras=("INK:0.9",)), (OIL,)).loras == (LoraRef(name="INK", weight=0.9),)
    assert with_styles(Request(), (NIGHT, OIL)).prompt == "oil painting of at night"
    assert "steps" not in with_styles(Request(prompt="a"), (OIL,)).model_fields_set  # the model's own stay


def test_a_second_pass_with_words_of_its_own_has_the_styles_too():
    drawn = with_styles(Request(prompt="a fox", hires={"prompt": "a fox's fur"}), (NIGHT,))
    assert drawn.hires and drawn.hires.prompt == "a fox's fur, at night" and drawn.hires.negative == ""
    assert with_styles(Request(prompt="a fox", hires={}), (NIGHT,)).hires.prompt == ""


def test_a_prompt_that_grows_too_long_names_the_style():
    with pytest.raises(RequestError, match=r"prompt would have 8,003 characters with the style 'Night'"):
        with_styles(Request(prompt="x" * 7_993), (NIGHT,))


@pytest.mark.parametrize(
    "held",
    [
        {"fields": {"prompt": "a cat"}, "variables": {"prompt": ""}},
        {"fields": {"prompt": "{prompt}, oil", "steps": 3}, "variables": {"prompt": ""}},
        {"fields": {"prompt": "{prompt}, {colour}"}, "variables": {"prompt": "", "colour": "red"}},
        {"fields": {"prompt": "{prompt}, oil"}},
        {"fields": {"prompt": "{prompt}, oil"}, "variables": {"prompt": ""}, "init": {"strength": 0.3}},
    ],
)
def test_what_sets_more_than_words_is_no_style(held, tmp_path):
    preset, store = make_preset(name="x", **held), PresetStore(tmp_path)
    assert not preset.is_style and QUIET.is_style and OIL.is_style
    store.save(preset)
    with pytest.raises(RequestError, match="preset 'x' is not a style"):
        store.styles(["x"])


def test_names_of_styles_are_read_with_care(tmp_path):
    store = PresetStore(tmp_path)
    for each in (OIL, NIGHT):
        store.save(each)
    assert store.styles(["night", "Oil", "Night"]) == (NIGHT, OIL)
    assert [found.name for found in store.all_styles() if found.family != "demo"] == ["Night", "Oil"]
    for names, reason in ((["Nihgt"], "did you mean Night"), ("Oil", "must be a list"), ([3], "must be text")):
        with pytest.raises(RequestError, match=reason):
            store.styles(names)
