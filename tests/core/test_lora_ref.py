"""LoRAs as people ask for them: weights as numbers, and as points over the steps."""

import json

import pytest
from pydantic import ValidationError

from webui.core.errors import explain
from webui.core.lora_ref import MAX_POINTS, LoraRef
from webui.core.recipe import Recipe
from webui.core.request import Request

FALL = ((0.0, 1.0), (0.5, 0.5))
UNTIL = ((0.0, 1.0), (0.25, 1.0), (0.25, 0.0))


@pytest.mark.parametrize(
    ("text", "unet", "words", "hires"),
    [
        ("x:1@0,0.5@0.5", FALL, FALL, None),
        ("x:1@0;0.5@0.5", FALL, FALL, None),
        ("x:0.5@0.5;1@0", FALL, FALL, None),
        ("x:0.3:1@0;0.5@0.5", FALL, 0.3, None),
        ("x:te=1@0,0.5@0.5:unet=0.7", 0.7, FALL, None),
        ("x:unet=1@0,0.5@0.5", FALL, 1.0, None),
        ("x:0.5:hr=0", 0.5, 0.5, 0.0),
        ("x:1@0,0.5@0.5:hr=0.6@0,1@1", FALL, FALL, ((0.0, 0.6), (1.0, 1.0))),
        ("x:1:start=0:end=0.25", UNTIL, UNTIL, None),
        ("x:start=0:end=0.25", UNTIL, UNTIL, None),
        ("x:1:end=0.25", UNTIL, UNTIL, None),
        ("x:1:start=0", ((0.0, 1.0),), ((0.0, 1.0),), None),
        ("x:0.5:1:start=0.5", ((0, 0), (0.5, 0), (0.5, 1)), ((0, 0), (0.5, 0), (0.5, 0.5)), None),
        ("x:2:start=3:end=9", ((0, 0), (3, 0), (3, 2), (9, 2), (9, 0)), ((0, 0), (3, 0), (3, 2), (9, 2), (9, 0)), None),
    ],
)
def test_a_lora_over_the_steps(text, unet, words, hires):
    ref = LoraRef.model_validate(text)
    assert (ref.strengths, ref.hires_weight) == ((unet, words), hires)
    assert LoraRef.model_validate(str(ref)) == ref == LoraRef.model_validate_json(ref.model_dump_json())
    assert ref.changes == any(isinstance(weight, tuple) for weight in (unet, words, hires)) and ref.acts


@pytest.mark.parametrize("weight", [[[0, 1], [0.5, 0.5]], ((0.5, 0.5), (0, 1)), "1@0;0.5@0.5", "1@0,0.5@0.5"])
def test_points_as_json(weight):
    assert LoraRef(name="x", weight=weight).weight == FALL


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x:1@0,a@1", "'a' is not a number"),
        ("x:1@0,nan@1", "'nan' is not a number"),
        ("x:1@0,99@1", "must have weights from -10 to 10"),
        ("x:1@0,1@1e9", "must have points from 0 to 1000"),
        ("x:1@-1", "has a point before the first step"),
        (f"x:{','.join(['1@0'] * (MAX_POINTS + 1))}", f"must have 1 to {MAX_POINTS} points"),
        ("x:1:start=soon", "start must be a share of the steps or a step, not 'soon'"),
        ("x:1:end=-1", "end must be a share of the steps"),
        ("x:1@0,0@1:end=0.5", "start and end do not go with points"),
        ("x:1:start=0.5:end=0.25", "end=0.25 is before start=0.5"),
        ("x:0,5", "'0,5' is no weight: '0,5' is not a number"),
        ("x:1:1:1", "must be NAME, NAME:WEIGHT or NAME:TEXT:UNET"),
        ("x:1:lbw=OUTALL", "'lbw' is not supported"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(text, reason):
    with pytest.raises(ValidationError) as caught:
        LoraRef.model_validate(text)
    assert reason in explain(caught.value)


@pytest.mark.parametrize("weight", [[], [[0]], [[0, 1, 2]], [None], {"a": 1}, [["x", 1]], "soon", None, True])
def test_a_weight_of_another_kind_is_refused(weight):
    if weight is True:
        assert LoraRef(name="x", weight=weight).weight == 1.0  # as ever
        return
    with pytest.raises(ValidationError):
        LoraRef(name="x", weight=weight)


def test_points_do_not_part_loras():
    request = Request(loras="x:1@0,0.5@0.5, y:1,z:0@0,0@0.5,1@0.5:hr=0 ,w")
    assert [str(ref) for ref in request.loras] == ["x:1@0;0.5@0.5", "y:1", "z:0@0;0@0.5;1@0.5:hr=0", "w:1"]


def test_a_plain_lora_is_written_as_ever_and_points_in_the_second_schema():
    plain = Request(loras=[LoraRef(name="x", weight=0.5)])
    assert json.loads(Recipe(plain).to_json())["request"]["loras"] == [
        {"name": "x", "weight": 0.5, "text_weight": None}
    ]
    assert json.loads(Recipe(plain).to_json())["schema"] == 1
    for text in ("x:1@0;0.5@0.5", "x:1:hr=0"):
        request = Request(loras=[text])
        body = json.loads(Recipe(request).to_json())
        assert body["schema"] == 2 and Recipe.from_json(json.dumps(body)).request == request


def test_a_lora_of_no_weight_at_any_step_does_nothing():
    assert not LoraRef.model_validate("x:0@0;0@1").acts and LoraRef.model_validate("x:0:0@0;1@1").acts


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (99, "weight must be at most 10, not 99"),
        ("soon", "weight must be a number, not 'soon'"),
        ("nan", "weight must be a finite number, not 'nan'"),
        (None, "weight must be a number, not nothing"),
        ([[0, 1], [1]], "weight must be a number, or a list of points (place, weight)"),
    ],
)
def test_the_reason_is_one_and_names_the_field(weight, reason):
    with pytest.raises(ValidationError) as caught:
        LoraRef(name="x", weight=weight)
    assert explain(caught.value).startswith(reason)
