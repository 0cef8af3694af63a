"""What a picture's settings fill."""

import gradio as gr
import pytest

from webui.core.catalog import Catalog
from webui.core.lora_ref import LoraRef
from webui.core.lora_text import read_refs
from webui.ui.fills import from_picture

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
    assert from_picture(VALUES, ("prompt", "negative"), CATALOG, **how)[:2] == [prompt, "blur"]


def test_a_picture_to_begin_from_has_its_second_pass_behind_it_and_is_drawn_at_its_first_size():
    values, fields = (
        {"steps": 9, "hires": True, "upscale": True, "upscale.upscaler": "Lanczos", "hires.upscaler": "Latent"},
        ("hires", "upscale", "keep_size"),
    )
    assert from_picture(values, fields, CATALOG, with_seed=False, as_start=True)[:3] == [False, True, False]
    assert from_picture(values, fields, CATALOG, with_seed=False)[:2] == [True, True]
    plain = from_picture({"steps": 9}, fields, CATALOG, with_seed=False, as_start=True)
    assert plain[:2] == [False, False] and plain[2] == gr.skip()


def test_loras_of_a_second_pass_become_a_field_s_text():
    (text,) = from_picture({"hires.loras": (LoraRef(name="ink"),)}, ("hires.loras",), CATALOG, with_seed=True)[:1]
    assert read_refs(text) == [{"name": "ink", "weight": 1.0}]
