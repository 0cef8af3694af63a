"""LoRAs as people ask for them: weights as numbers, and as points over the steps."""

import json

import pytest
from pydantic import ValidationError

from webui.core.errors import explain
from webui.core.lora_ref import MAX_POINTS, LoraRef, once_each
from webui.core.prompt import split_loras
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.schedule import weight_at

FALL = ((0.0, 1.0), (0.5, 0.5))
UNTIL = ((0.0, 1.0), (0.25, 1.0), (0.25, 0.0))

FULL = ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0))
FIRST_STEP = (*FULL, (2.0, 0.0))
BUT_THE_FIRST = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (2.0, 1.0))
UNTIL_10 = ((0.0, 1.0), (10.0, 1.0), (10.0, 0.0))


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
        ("x:1:start=0:end=1", FULL, FULL, None),
        ("x:1:end=1", FULL, FULL, None),
        ("x:1:end=1.0", FULL, FULL, None),
        ("x:1:stop=1", FIRST_STEP, FIRST_STEP, None),
        ("x:1:start=1", BUT_THE_FIRST, BUT_THE_FIRST, None),
        ("x:1:step=0-10", UNTIL_10, UNTIL_10, None),
        ("x:1:start=0:stop=10", UNTIL_10, UNTIL_10, None),
        ("x:1:stop=0.25", ((0.0, 1.0), (0.25, 1.0), (0.25, 0.0)), UNTIL, None),
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
        ("x:0,5", "'0,5' is not a weight: '0,5' is not a number"),
        ("x:1:1:1", "must be NAME, NAME:WEIGHT or NAME:TEXT:UNET"),
        ("x:1:weight=1", "'weight' is not supported"),
        ("x:te=1:te=0.5", "te= is given twice"),
        (
            "x:1:lbw=1,1",
            "(lbw) must be 17 or 26 values for SD 1.x and SD 2.x, or 12 or 20 for SDXL (it has 2)",
        ),
        ("x:1:lbw=OUTAL", "(lbw) must be values, one a block, or a preset: NONE, ALL, INS, "),
        ("x:1:lbw=outall", "ALL0.5, not 'outall'"),
        ("x:1:lbw=1", "ALL0.5, not '1'"),
        (f"x:1:lbw={'1,' * 16}Q", "(lbw) must have numbers from -10 to 10, R or U (one is 'Q'), not '1,1,"),
        (f"x:1:lbw={'1,' * 16}nan", "(one is 'nan')"),
        (f"x:1:lbw={'1,' * 16}11", "(one is '11')"),
        ("x:1:lbw=OUTALL:x=2", "x is the number for an X in lbw, and there is none"),
        (f"x:1:lbw={'1,' * 16}X:x=a", "x must be a number, not 'a'"),
        ("x:1:lbwe=ATTN", "(lbwe) must be one of ATTNDEEPON, ATTNDEEPOFF, PROJDEEPOFF, not 'ATTN'"),
        ("x:1:step=5", "step must be two steps, as step=5-10"),
        ("x:1:step=5-9:start=1", "without start, end or stop"),
        ("x:1:stop=5:end=9", "stop and end are the same"),
        ("x:1:start=0.25:end=10", "start=0.25 is a share of the steps and end=10 is a step"),
        ("x:1:start=2:end=0.75", "end=0.75 is a share of the steps and start=2 is a step"),
        ("x:1:start=9:stop=5", "stop=5 is before start=9"),
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


@pytest.mark.parametrize(
    ("text", "by_step"),
    [
        ("x:1:stop=1", [1, 0, 0, 0]),
        ("x:1:start=1", [0, 1, 1, 1]),
        ("x:1:step=1-3", [0, 1, 1, 0]),
        ("x:1:start=3", [0, 0, 0, 1]),
        ("x:1:stop=0", [0, 0, 0, 0]),
        ("x:1:start=0:end=1", [1, 1, 1, 1]),
        ("x:1:start=0.5:end=1", [0, 0, 1, 1]),
        ("x:1:start=0.5:end=0.75", [0, 0, 1, 0]),
    ],
)
def test_steps_and_shares_between_which_a_lora_acts(text, by_step):
    weight = LoraRef.model_validate(text).weight
    assert [weight_at(weight, step, 4) for step in range(4)] == by_step


def test_weights_by_block_as_text_and_as_json():
    listed = ",".join(["1", "0.5", *["0"] * 15])
    assert LoraRef(name="x", block_weights=[1, 0.5, *[0] * 15]).block_weights == listed
    for text, weights, elements in [
        ("x:0.8:lbw=OUTALL", "OUTALL", ""),
        ("x:0.8:OUTALL", "OUTALL", ""),
        (f"x:0.8:{listed}", listed, ""),
        (f"x:0.8:lbw= {listed.replace(',', ', ')} ", listed, ""),
        ("x:0.8:lbwe=ATTNDEEPOFF:lbw=MIDD", "MIDD", "ATTNDEEPOFF"),
        (f"x:0.8:lbw={'X,X-0.5,X+1,' + '0,' * 13}0:x=0.5", ",".join(["0.5", "0", "1.5", *["0"] * 14]), ""),
        (f"x:0.8:lbw={'X,' * 16}R", "1," * 16 + "R", ""),
    ]:
        ref = LoraRef.model_validate(text)
        assert (ref.weight, ref.block_weights, ref.block_elements) == (0.8, weights, elements)
        assert LoraRef.model_validate(str(ref)) == ref == LoraRef.model_validate_json(ref.model_dump_json())
        body = json.loads(Recipe(request := Request(loras=[ref])).to_json())
        assert body["schema"] == 2 and Recipe.from_json(json.dumps(body)).request == request
    for wrong in (7, [1, True, *[0] * 15], [[1]] * 17, {"BASE": 1}):
        with pytest.raises(ValidationError):
            LoraRef(name="x", block_weights=wrong)


def test_weights_by_block_do_not_part_loras():
    listed = "1,0,-0.5,R,U,X+0.5" + ",1" * 11
    request = Request(loras=f"x:1:lbw={listed}:hr=0, y:1:lbw=OUTALL,z:lbw={listed}, 2:0.5")
    filled = listed.replace("X+0.5", "1.5")
    assert [str(ref) for ref in request.loras] == [
        f"x:1:hr=0:lbw={filled}",
        "y:1:lbw=OUTALL",
        f"z:1:lbw={filled}",
        "2:0.5",
    ]


def test_random_weights_by_block_are_those_of_the_seed():
    ref = LoraRef.model_validate("x:1:lbw=1,R,U" + ",0" * 14)
    drawn = ref.drawn(7)
    base, random, wide, *rest = map(float, drawn.block_weights.split(","))
    assert drawn == ref.drawn(7) == drawn.drawn(8) != ref.drawn(8)
    assert base == 1 and 0 <= random <= 1 and -0.5 <= wide <= 1.5 and not any(rest)


def test_a_lora_without_weight_in_any_block_does_nothing():
    acts = {"lbw=NONE": False, "lbw=NONE:lbwe=ATTNDEEPON": True, "lbw=NONE:lbwe=ATTNDEEPOFF": False, "lbw=OUTALL": True}
    assert {text: LoraRef.model_validate(f"x:1:{text}").acts for text in acts} == acts
    assert not LoraRef.model_validate("x:0:lbw=ALL").acts


def test_those_named_several_times_become_one_with_the_sum():
    refs = [LoraRef.model_validate(text) for text in ("x:0.5", "y:1", "x:0:0.25", "z:1@0;0@1", "z:1")]
    assert [str(ref) for ref in once_each(refs)] == ["x:0.5:0.75", "y:1", "z:1@0;0@1", "z:1"]


def test_a_picture_s_text_has_weights_by_block_as_their_extension_reads_them():
    refs = tuple(LoraRef.model_validate(text) for text in ("x:0.5:lbw=1" + ",0" * 16, "y:1:lbw=MIDD:lbwe=PROJDEEPOFF"))
    text = Recipe(Request(prompt="a cat", loras=refs, seed=1, width=64, height=64)).infotext()
    prompt = text.partition("\n")[0]
    assert prompt == f"a cat <lora:x:0.5:lbw=1{',0' * 16}> <lora:y:1:lbw=MIDD:lbwe=PROJDEEPOFF>"
    assert split_loras(prompt) == ("a cat", refs)
