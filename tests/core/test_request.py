"""Requests: what is in range is taken, what is not is refused in words that name the field and the value."""

import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.core.errors import RequestError
from webui.core.images import MAX_SIDE_PX, MIN_SIDE_PX, SIDE_STEP_PX
from webui.core.request import MAX_PROMPT_CHARACTERS, MAX_SEED, LoraRef, Request, near_sides_px

SHORTCUTS = {"guidance_until", "reuse", "token_merging"}
NUMBERS = {"steps", "guidance", "guidance_rescale", "seed", "count", "repeat", "clip_skip", "refiner_at", *SHORTCUTS}
FLOATS = {"guidance", "guidance_rescale", "refiner_at", "guidance_until", "token_merging"}
SIDES = ("width", "height")


def bounds(name: str) -> tuple[float, float]:
    """The least and the greatest value of a field, from its declaration."""
    found = {}
    for limit in Request.model_fields[name].metadata:
        found |= {kind: getattr(limit, kind) for kind in ("ge", "le") if getattr(limit, kind, None) is not None}
    return found["ge"], found["le"]


def refusal(**values) -> RequestError:
    with pytest.raises(RequestError) as caught:
        Request.parse(values)
    return caught.value


def test_every_number_has_a_least_and_a_greatest_value():
    numeric = {name for name, field in Request.model_fields.items() if field.annotation in (int, float)}
    assert numeric == NUMBERS
    assert all(low < high for low, high in map(bounds, numeric))


def test_a_request_is_exact_unless_it_says_otherwise():
    assert Request().approximations == ()
    assert Request(guidance_until=1.0, reuse=1, token_merging=0.0).approximations == ()
    assert Request(guidance_until=0.5, guidance=1.0).approximations == ()  # there is none that could end
    assert Request(guidance_until=0.5, guidance=0.5).approximations == ("guidance stops after 50% of the steps",)
    assert Request(guidance_until=0.5, guidance=1.0, pag={}).approximations  # perturbed attention ends there, too
    assert Request(sampler="LCM").approximations == ()  # a model that was made for it
    assert Request(loras=["few-steps"]).approximations == ()
    assert Request(sampler="TCD", loras=["fast:0.9"]).approximations == ("few steps with TCD",)


def test_what_a_request_gives_up_is_said_in_words():
    assert Request(guidance_until=0.65, reuse=3, token_merging=0.25, int8=True).approximations == (
        "guidance stops after 65% of the steps",
        "step caching every 3 steps",
        "token merging 0.25",
        "int8",
    )


def test_every_field_that_people_see_has_a_label():
    assert all(field.title for field in Request.model_fields.values())


@given(data=st.data(), name=st.sampled_from(sorted(NUMBERS)))
def test_a_number_in_range_is_accepted(data, name):
    low, high = bounds(name)
    strategy = st.floats(low, high) if name in FLOATS else st.integers(low, high)
    value = data.draw(strategy)
    assert getattr(Request.parse({name: value}), name) == value
    assert getattr(Request.parse({name: str(value)}), name) == value  # as forms and command lines send it


@given(data=st.data(), name=st.sampled_from(sorted(NUMBERS)), below=st.booleans())
def test_a_number_out_of_range_is_refused_with_the_field_the_value_and_the_limit(data, name, below):
    low, high = bounds(name)
    far = 2**70
    if name in FLOATS:
        strategy = (
            st.floats(-1e9, low, exclude_max=True, allow_subnormal=False)
            if below
            else st.floats(high, 1e9, exclude_min=True)
        )
    else:
        strategy = st.integers(-far, low - 1) if below else st.integers(high + 1, far)
    value = data.draw(strategy)
    error = refusal(**{name: value})
    assert error.field == name
    assert str(error).startswith(f"{name} must be at {'least' if below else 'most'} ")
    assert f"{low if below else high:.16g}" in str(error)
    assert str(error).endswith(f"not {value!r}")


@pytest.mark.parametrize("name", [*sorted(NUMBERS), *SIDES])
@pytest.mark.parametrize("value", ["abc", "", "1 000", [], {}, None, "{0}"])
def test_what_is_no_number_is_refused_with_the_field_and_the_value(name, value):
    if name in SIDES and value is None:
        assert getattr(Request.parse({name: None}), name) is None  # the model's own size
        return
    error = refusal(**{name: value})
    assert error.field == name
    assert str(error).startswith(f"{name} must be a ")
    assert str(error).endswith(f"not {'nothing' if value is None else repr(value)}")


@pytest.mark.parametrize("name", [*sorted(NUMBERS), *SIDES])
@pytest.mark.parametrize("value", [True, False])
def test_true_and_false_are_no_numbers(name, value):
    error = refusal(**{name: value})
    assert error.field == name and repr(value) in str(error)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf", "-Infinity", 1e400])
def test_guidance_must_be_finite(value):
    error = refusal(guidance=value)
    assert error.field == "guidance" and "finite" in str(error)


@pytest.mark.parametrize("name", ["steps", "seed", "width"])
@pytest.mark.parametrize(
    "value",
    [1.5, "1.5", 1e300, 10**5000, -(10**5000), "9" * 5000],
    ids=["fraction", "text", "float", "5001 digits", "minus 5001 digits", "text of 5000 digits"],
)
def test_fractions_and_numbers_of_thousands_of_digits_are_refused_in_one_short_line(name, value):
    error = refusal(**{name: value})
    assert error.field == name
    assert len(str(error)) < 200 and "\n" not in str(error)


@given(st.integers(MIN_SIDE_PX // SIDE_STEP_PX, MAX_SIDE_PX // SIDE_STEP_PX), st.sampled_from(SIDES))
def test_every_multiple_of_8_in_range_is_a_side(eighth, name):
    assert getattr(Request.parse({name: eighth * SIDE_STEP_PX}), name) == eighth * SIDE_STEP_PX


@given(st.integers(-(2**40), 2**40).filter(lambda px: px % 8 or not 64 <= px <= 2048), st.sampled_from(SIDES))
def test_any_other_side_is_refused_with_the_near_sizes(side_px, name):
    error = refusal(**{name: side_px})
    near = near_sides_px(side_px)
    assert error.field == name
    assert str(error).startswith(f"{name} ") and str(error).endswith(f"not {side_px}")
    assert all(str(px) in str(error) for px in near)
    assert all(getattr(Request.parse({name: px}), name) == px for px in near)


@given(st.integers(MIN_SIDE_PX, MAX_SIDE_PX))
def test_the_near_sizes_of_a_side_in_range_are_its_neighbours(side_px):
    near = near_sides_px(side_px)
    assert min(near) <= side_px <= max(near)
    assert max(near) - min(near) == (0 if side_px % SIDE_STEP_PX == 0 else SIDE_STEP_PX)


def test_width_63_says_that_64_is_near():
    assert "64" in str(refusal(width=63))
    assert "96 or 104" in str(refusal(height=100))


@given(st.integers(1, 16), st.integers(1, 100))
def test_the_last_picture_s_seed_is_still_a_seed(count, repeat):
    last = MAX_SEED - count * repeat + 1
    assert Request.parse({"seed": last, "count": count, "repeat": repeat}).seed == last
    if count * repeat > 1:
        assert "seed" in str(refusal(seed=last + 1, count=count, repeat=repeat))


def test_any_whole_number_that_json_carries_exactly_is_a_seed():
    assert Request.parse({"seed": MAX_SEED}).seed == json.loads(json.dumps(float(MAX_SEED))) == 2**53 - 1
    assert refusal(seed=MAX_SEED + 1).field == "seed"
    assert refusal(seed=-2).field == "seed"


@pytest.mark.parametrize("name", ["prompt", "negative"])
def test_a_prompt_of_100_000_characters_is_refused_with_both_lengths_and_without_the_text(name):
    error = refusal(**{name: "x" * 100_000})
    assert str(error) == f"{name} must be at most {MAX_PROMPT_CHARACTERS} characters long; it has 100,000"


@given(st.text(max_size=200))
def test_any_text_is_a_prompt(text):
    assert Request.parse({"prompt": text}).prompt == text


def test_the_longest_prompt_is_accepted_whole():
    text = "赤" * MAX_PROMPT_CHARACTERS
    assert Request.parse({"prompt": text}).prompt == text


@pytest.mark.parametrize("value", [None, 5, ["a"], "\ud800", b"\xff"])
def test_a_prompt_that_is_no_text_is_refused(value):
    error = refusal(prompt=value)
    assert error.field == "prompt" and str(error).startswith("prompt ")


@pytest.mark.parametrize("name", ["sampler", "schedule", "model"])
def test_a_name_of_a_million_characters_is_refused(name):
    error = refusal(**{name: "x" * 1_000_000})
    assert error.field == name and len(str(error)) < 200


def test_an_unknown_setting_is_named():
    error = refusal(sampler_name="Euler")
    assert error.field == "sampler_name"
    assert str(error) == "sampler_name is not a known setting"


def test_every_problem_is_named_at_once():
    assert {"steps", "width", "guidance"} <= set(str(refusal(steps=0, width=63, guidance=-1)).replace(";", " ").split())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from([*Request.model_fields, "init", "name"]) | st.text(max_size=12)


@given(st.dictionaries(keys, json_values, max_size=8))
def test_any_json_object_is_a_request_or_a_request_error(values):
    try:
        request = Request.parse(values)
    except RequestError as error:
        assert str(error)
    else:
        assert request.width is None or request.width % SIDE_STEP_PX == 0
        assert 1 <= request.steps <= 150 and math.isfinite(request.guidance)


@given(
    st.builds(
        Request,
        prompt=st.text(max_size=50),
        negative=st.text(max_size=50),
        steps=st.integers(1, 150),
        guidance=st.floats(0, 30),
        width=st.none() | st.integers(8, 256).map(lambda n: n * 8),
        seed=st.integers(-1, 2**32),
        count=st.integers(1, 16),
        loras=st.lists(st.builds(LoraRef, name=st.text(min_size=1, max_size=9), weight=st.floats(-10, 10)), max_size=3),
    )
)
def test_a_request_survives_json_and_pickle(request_):
    assert Request.model_validate_json(request_.model_dump_json()) == request_
    assert Request.parse(json.loads(json.dumps(request_.model_dump()))) == request_
    assert pickle.loads(pickle.dumps(request_)) == request_
    assert hash(Request.parse(request_.model_dump())) == hash(request_)


def test_a_request_cannot_be_changed():
    request = Request(prompt="a red apple")
    with pytest.raises(ValueError, match="frozen"):
        request.prompt = "a green apple"


def test_an_empty_prompt_is_allowed():
    assert Request.parse({}).prompt == Request.parse({"prompt": ""}).prompt == ""


def test_the_number_of_pictures_is_count_times_repeat():
    assert Request(count=3, repeat=4).image_count == 12


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"loras": {"a": 1}}, "loras must be a list, not {'a': 1}"),
        ({"loras": [None]}, "loras.1 must be an object, not nothing"),
        ({"init": ""}, "init must be an object, not ''"),
        ({"strict": 2}, "strict must be true or false, not 2"),
        ({"prompt": "\ud800"}, "prompt must be valid Unicode text, not"),
    ],
)
def test_what_has_another_form_is_said_in_plain_words(values, reason):
    with pytest.raises(RequestError) as raised:
        Request.parse(values)
    assert str(raised.value).startswith(reason)
