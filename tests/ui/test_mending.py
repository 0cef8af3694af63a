"""What was refused in the words of the page: its field, and the values that make it good."""

import json
from typing import Any

import pytest

from tests.ui.scripts import evaluate

DESCRIBE = "([refused, held]) => darkroomMends.describe(refused, (field) => held[field])"
LORAS = json.dumps([{"name": "ink"}, {"name": "Chalk", "weight": 0.5}])
LEFT = '[{"name":"ink"}]'
DETAIL = json.dumps([{"finder": "a"}, {"finder": "b", "prompt": "a face, <lora:gone:1>", "strength": 2}])


def described(refused: str, how: str | None = None, value: str | None = None, instead: str = "", **held: str) -> Any:
    fields = {name.replace("__", "."): text for name, text in held.items()}
    told = {"refused": refused, "how": how, "value": value} | ({"instead": instead} if instead else {})
    return evaluate(["mends.js"], DESCRIBE, [told, fields])


def test_a_number_is_used_at_its_own_field():
    told = described("width", "use", "64", width="65")
    assert told == {"field": "width", "label": "Use 64", "to": {"width": "64"}}
    assert described("init.strength", "use", "1")["field"] == "strength"
    assert described("hires.scale", "use", "4", hires__scale="8")["to"] == {"hires.scale": "4"}
    assert described("refiner", "use", "", refiner="x")["label"] == "Use none"
    assert described("seed") == {"field": "seed"}
    assert described("width", "use", "64", width="64") is None  # it is mended


@pytest.mark.parametrize(
    ("how", "name", "prompt", "field", "entry", "to"),
    [
        ("remove", "Chalk", "", "loras", 2, {"loras": LEFT}),
        ("remove", "gone", "a cat, <lora:gone:0.5>, red", "prompt", None, {"prompt": "a cat, red"}),
        ("remove", "gone", "<LORA:sub/Gone.safetensors> a cat", "prompt", None, {"prompt": "a cat"}),
        ("keep", "Chalk", "a <lora:chalk:1> cat", "prompt", None, {"prompt": "a cat"}),
        ("keep", "INK", "<lora:ink:1> <lora:Ink:2>", "prompt", None, {"prompt": ""}),
        ("keep", "b", "<lora:b:1> <lora:c> <lora:b:2>", "prompt", None, {"prompt": "<lora:b:1> <lora:c>"}),
    ],
)
def test_a_lora_goes_where_it_stands(how, name, prompt, field, entry, to):
    told = described("loras", how, name, loras=LORAS, prompt=prompt)
    label = "Keep the first" if how == "keep" else "Remove it"
    assert told == {"field": field, "label": label, "to": to} | ({"entry": entry} if entry else {})


@pytest.mark.parametrize(
    ("instead", "prompt", "field", "to"),
    [
        (
            "gone",
            "a cat, <lora:gone:0.5>,  <lora:gones> red",
            "prompt",
            {"prompt": "a cat, <lora:night:0.5>,  <lora:gones> red"},
        ),
        ("lora", "<lora:lora:1:2> <LYCO:sub/Lora>", "prompt", {"prompt": "<lora:night:1:2> <LYCO:sub/Lora>"}),
        ("Chalk", "", "loras", {"loras": '[{"name":"ink"},{"name":"night","weight":0.5}]'}),
    ],
)
def test_a_near_name_takes_the_place_of_a_lora_s(instead, prompt, field, to):
    told = described("loras", "use", "night", instead, loras=LORAS, prompt=prompt)
    assert (told["field"], told["label"], told["to"]) == (field, "Use night", to)
    row = described("detail.2.loras", "use", "night", "gone", detail=DETAIL)
    assert json.loads(row["to"]["detail"])[1]["prompt"] == "a face, <lora:night:1>"


def test_a_lora_of_a_style_is_told_at_the_prompt():
    assert described("loras", "remove", "gone", loras=LORAS, prompt="a cat") == {"field": "prompt"}


def test_entries_of_lists_are_mended_in_their_list():
    weight = described("loras.2.weight", "use", "10", loras=LORAS)
    assert (weight["field"], weight["entry"], weight["name"]) == ("loras", 2, "weight")
    assert json.loads(weight["to"]["loras"])[1]["weight"] == 10
    strength = described("detail.2.strength", "use", "1", detail=DETAIL)
    assert (strength["entry"], strength["name"]) == (2, "strength")
    assert [entry.get("strength") for entry in json.loads(strength["to"]["detail"])] == [None, 1]
    lora = described("detail.2.loras", "remove", "gone", detail=DETAIL)
    assert (lora["entry"], lora["name"]) == (2, "prompt")
    assert json.loads(lora["to"]["detail"])[1]["prompt"] == "a face"
    assert described("detail.3.loras", "remove", "gone", detail=DETAIL) is None


@pytest.mark.parametrize("form", ["__colour__", "__2$$colour__", "__~colour__", "__colour(x=1)__"])
def test_a_wildcard_goes_in_whatever_form(form):
    told = described("negative", "remove", "colour", negative=f"{form}, a cat, {form}")
    assert told == {"field": "negative", "label": "Remove it", "to": {"negative": "a cat"}}
    assert described("prompt", "remove", "hue", prompt=f"{form} cat") == {"field": "prompt"}
