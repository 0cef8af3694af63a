"""What fills a page's fields, and what a picture's settings fill."""

from dataclasses import replace
from typing import Any

import gradio as gr
import pytest

from webui.core.catalog import Catalog
from webui.core.lora_ref import LoraRef
from webui.core.lora_text import read_refs
from webui.ui.fills import Fills, from_picture

CATALOG = Catalog({}, {}, {}, {}, {"Euler": ("Default",)})
VALUES = {"prompt": "a red apple", "negative": "blur", "template": "a {red|green} apple", "negative_template": ""}


@pytest.mark.parametrize(
    ("how", "prompt"),
    [
        ({"with_seed": False}, "a {red|green} apple"),
        ({"with_seed": True}, "a red apple"),
        ({"with_seed": False, "keep_texts": True}, "a red apple"),
    ],
)
def test_new_pictures_take_the_template_and_the_same_picture_its_words(how, prompt):
    assert from_picture(VALUES, ("prompt", "negative"), CATALOG, **how) == {"prompt": prompt, "negative": "blur"}


def test_a_picture_s_prompt_has_its_styles_in_it_so_the_page_s_go_off():
    assert from_picture(VALUES, ("prompt", "styles"), CATALOG, with_seed=True)["styles"] == ""
    assert from_picture({"steps": 9}, ("steps", "styles"), CATALOG, with_seed=True) == {"steps": 9}


def test_a_picture_to_begin_from_has_its_second_pass_behind_it_and_is_drawn_at_its_first_size():
    values, fields = (
        {"steps": 9, "hires": True, "upscale": True, "upscale.upscaler": "Lanczos", "hires.upscaler": "Latent"},
        ("hires", "upscale", "keep_size"),
    )
    start = from_picture(values, fields, CATALOG, with_seed=False, as_start=True)
    assert start == {"hires": False, "upscale": True, "keep_size": False}
    assert from_picture(values, fields, CATALOG, with_seed=False) == {"hires": True, "upscale": True}
    plain = from_picture({"steps": 9}, fields, CATALOG, with_seed=False, as_start=True)
    assert plain == {"hires": False, "upscale": False}


def test_loras_of_a_second_pass_become_a_field_s_text():
    values = {"hires.loras": (LoraRef(name="ink"),)}
    filled = from_picture(values, ("hires.loras",), CATALOG, with_seed=True)
    assert read_refs(filled["hires.loras"]) == [{"name": "ink", "weight": 1.0}]


@pytest.fixture
def fills() -> Fills:
    fills = Fills("txt2img", {"prompt": None, "seed": None})
    fills.add("half", lambda: {"seed": 7})

    def told(prompt: str, seed: int) -> dict[str, Any]:
        return {"prompt": prompt, "seed": seed}

    fills.add("told", told)
    return fills


def test_what_a_way_does_not_name_stays(fills):
    assert fills.fill('["half", {}]') == [gr.skip(), 7]
    assert fills.fill('["told", {"prompt": "a", "seed": 3}]') == ["a", 3]


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "3", '"half"', "[]"),
        *('["half"]', '["half", 3]', '["half", {}, {}]', '["nothing", {}]', "[[], {}]"),
        *('["half", {"more": 1}]', '["told", {"prompt": "a"}]', '["told", {"prompt": 3, "seed": 3}]'),
        *('["told", {"prompt": "a", "seed": "3"}]', '["told", {"prompt": "a", "seed": true}]', "[" * 100_000),
    ],
)
def test_what_no_page_asks_is_refused(fills, text):
    with pytest.raises(gr.Error, match="does not fit its field"):
        fills.fill(text)


def test_what_a_model_says_of_itself_is_left_to_it(tmp_path):
    """The form and the prediction of a picture are in the fields where the model's file says another."""
    from webui.core.checkpoint import Checkpoint
    from webui.core.files import ModelFile

    checkpoint = Checkpoint("Z-Image", "", ("backbone",), 16, 32, 1024, prediction="flow")
    catalog = replace(CATALOG, models={"z": ModelFile("z", tmp_path, checkpoint)})
    for form, filled in {"Turbo": "auto", "Base": "Base"}.items():
        values = {"model": "z", "form": form, "prediction": "auto"}
        assert from_picture(values, ("form",), catalog, with_seed=True)["form"] == filled
    assert from_picture({"model": "z"}, ("form",), catalog, with_seed=True)["form"] == "auto"
