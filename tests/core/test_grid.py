"""A grid's axes and their values, the requests that come of them, and the order in which they are drawn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImages

from webui.core.axes import read_axis, split
from webui.core.differences import apply, difference
from webui.core.errors import RequestError
from webui.core.grid import MAX_PICTURES, Grid, is_grid, make_grid, name_place, read_grid
from webui.core.groups.init import Init
from webui.core.groups.variation import Variation
from webui.core.request import LoraRef, Request
from webui.core.visitor import Visitor, asked_by
from webui.core.work import from_text, to_text

BASE = Request(prompt="a red apple on a red table", negative="red fog", seed=7, steps=5)


def grid_of(request: Request = BASE, presets=None, **axes) -> Grid:
    return make_grid(request, {place: read_axis(place, *axis) for place, axis in axes.items()}, presets)


@pytest.mark.parametrize(
    ("field", "text", "values"),
    [
        ("steps", "10,20, 30", "10 20 30"),
        ("steps", "1-5", "1 2 3 4 5"),
        ("steps", "1-10 (+2)", "1 3 5 7 9"),
        ("steps", "10-1 (-3), 40", "10 7 4 1 40"),
        ("steps", "3-1", "3 2 1"),
        ("steps", "1-10 [5]", "1 3 5 7 10"),
        ("seed", "1 - 3", "1 2 3"),
        ("width", "64-128 (+32)", "64 96 128"),
        ("guidance", "1-2 [3]", "1 1.5 2"),
        ("guidance", "0-1 (+0.3)", "0 0.3 0.6 0.9"),
        ("guidance", [1, 2.5, "3-4"], "1 2.5 3 4"),
        ("lora:a", "-1-1 [3]", "-1 0 1"),
        ("lora:a", [[[0, 1], [0.5, 0.25]], 1], "1@0;0.25@0.5 1"),
        ("sampler", "DPM++ 2M, Euler", "DPM++ 2M|Euler"),
    ],
)
def test_values_are_read_as_a1111_reads_them(field, text, values):
    assert list(read_axis("x", field, text).values) == values.split("|" if "|" in values else " ")


def test_a_value_with_a_comma_is_quoted_and_an_empty_one_takes_the_word_away():
    x = read_axis("x", "prompt:red", 'red,"green, or blue",')
    grid = make_grid(BASE, {"x": x})
    prompts = [(request.prompt, request.negative) for request in grid.requests]
    assert prompts[1] == ("a green, or blue apple on a green, or blue table", "green, or blue fog")
    assert prompts[2] == ("a  apple on a  table", " fog")
    assert [x.label(k) for k in range(3)] == ["red", "green, or blue", "without “red”"]


@given(st.integers(-500, 500), st.integers(-500, 500), st.integers(6, 60))
def test_a_range_counts_from_its_first_value_to_its_last(first, last, step):
    sign = "+" if last >= first else "-"
    values = list(map(int, read_axis("x", "seed", f"{first}-{last} ({sign}{step})").values))
    assert values == list(range(first, last + 1, step) if sign == "+" else range(first, last - 1, -step))


def test_cells_are_the_combinations_of_all_values_with_what_was_asked_for_else():
    grid = grid_of(x=("steps", "4,8"), y=("variation.strength", "0,0.5"), z=("lora:night", "0.5,1"))
    assert grid.shape == (2, 2, 2) and grid.image_count == 8
    told = [(r.steps, r.variation.strength, r.loras[0].weight) for r in grid.requests]
    assert told[:3] == [(4, 0.0, 0.5), (8, 0.0, 0.5), (4, 0.5, 0.5)] and told[7] == (8, 0.5, 1.0)
    assert {request.prompt for request in grid.requests} == {BASE.prompt}
    assert all("sampler" not in request.model_fields_set for request in grid.requests), "left to what suits the model"
    assert name_place(grid.axes, 3) == "Steps: 8, Variation: Variation strength: 0.5, night: 0.5"


def test_a_seed_left_open_is_the_same_in_all_cells_and_along_its_axis():
    open_seed = BASE.model_copy(update={"seed": -1, "variation": Variation(strength=0.2)})
    cells = grid_of(open_seed, x=("steps", "1,2"), y=("guidance", "1,2")).requests
    assert len({request.seed for request in cells}) == 1 and cells[0].seed >= 0
    assert len({request.variation.seed for request in cells}) == 1 and cells[0].variation.seed >= 0
    by_seed = grid_of(open_seed, x=("seed", "-1,-1,5"), y=("steps", "1,2")).requests
    assert [request.seed for request in by_seed[:3]] == [request.seed for request in by_seed[3:]]
    assert len({request.seed for request in by_seed}) == 3 and by_seed[2].seed == 5


def test_a_lora_of_the_axis_takes_the_place_of_the_same_one_in_request_and_prompt():
    asked = Request(prompt="a cat <lora:night:0.3>, <lora:sepia:1>", loras=(LoraRef(name="few"),))
    first, scheduled = grid_of(asked, x=("lora:Night", "0.7,1@0;0@0.5")).requests
    assert {ref.name: ref.weight for ref in first.loras} == {"few": 1.0, "night": 0.7, "sepia": 1.0}
    assert first.prompt == "a cat ,"
    assert scheduled.loras[1].weight == ((0.0, 1.0), (0.5, 0.0))


def test_a_group_is_turned_on_by_its_fields_and_off_by_its_name():
    on, off = grid_of(x=("upscale", "true,no")).requests
    assert on.upscale and off.upscale is None
    assert [request.upscale.scale for request in grid_of(x=("upscale.scale", "2,4")).requests] == [2, 4]
    start = BASE.model_copy(update={"init": Init(image=PilImages.new("RGB", (64, 64)), strength=0.2)})
    held = grid_of(start, x=("strength", "0.5,0.75")).requests
    assert [request.init.strength for request in held] == [0.5, 0.75] and held[0].init.image is start.init.image


def test_details_and_hires_fix_are_axes_by_their_fields():
    asked = Request(prompt="a red cat", detail=[{"prompt": "red eyes"}, {"strength": 0.1}], hires={"prompt": "red fur"})
    cells = grid_of(
        asked, x=("detail.strength", "0.2,0.3"), y=("hires", "true,false"), z=("prompt:red", "blue")
    ).requests
    assert [[detail.strength for detail in cell.detail] for cell in cells[:2]] == [[0.2, 0.2], [0.3, 0.3]]
    assert cells[0].detail[0].prompt == "blue eyes" and cells[0].hires.prompt == "blue fur" and cells[2].hires is None
    assert [cell.hires.strength for cell in grid_of(x=("hires.strength", "0.3-0.5 [2]")).requests] == [0.3, 0.5]


def test_presets_are_laid_down_before_all_other_axes():
    def presets(name, request):
        return request.model_copy(update={"prompt": f"{name} red", "steps": 1})

    cells = grid_of(presets=presets, x=("prompt:red", "blue"), y=("preset", "A,B"), z=("steps", "9")).requests
    assert [(request.prompt, request.steps) for request in cells] == [("A blue", 9), ("B blue", 9)]


@pytest.mark.parametrize(
    ("field", "values", "reason"),
    [
        ("step", "1", "x: There is no field to vary called “step”; did you mean steps"),
        ("hiress", "1", "x: There is no field to vary"),
        ("loras", "a:1", "x: a LoRA is varied by its name: lora:NAME"),
        ("lora:", "1", "x: lora: names nothing"),
        ("", "1", "x: the field is missing"),
        (None, "1", "x: the field is missing"),
        ("steps", "", "x: steps has no values"),
        ("steps", "10,200", "x: steps must be at most 150, not '200'"),
        ("steps", "5,many", "x: steps must be a whole number, not 'many'"),
        ("steps", "1-10 (-1)", "never comes to its end"),
        ("steps", "1-10 (+0)", "never comes to its end"),
        ("steps", "1-10 [0]", "has no values"),
        ("steps", "1-999999", "has 999,999 values; 200 is the limit"),
        ("steps", [{}], "must be a number or text, not {}"),
        ("steps", 5, "must be a list or text"),
        ("width", "100", "such as 96 or 104"),
        ("upscale", "perhaps", "upscale must be true or false, not 'perhaps'"),
        ("upscale.scale", "2,99", "upscale.scale must be at most 16, not '99'"),
        ("init.strength", "0.5", "there is no start picture"),
        ("prompt:dog", "cat", "prompt:dog: the word is in neither"),
        ("lora:a", "x", "lora:a: weight must be a number, not 'x'"),
        ("preset", "A", "there are no presets here"),
    ],
)
def test_bad_axes_are_refused_with_the_value_and_the_reason(field, values, reason):
    with pytest.raises(RequestError) as caught:
        grid_of(x=(field, values))
    assert reason in str(caught.value) and caught.value.field == "x"


def test_bad_grids_are_refused():
    with pytest.raises(RequestError, match="x and y both vary steps"):
        grid_of(x=("steps", "1"), y=("steps", "2"))
    with pytest.raises(RequestError, match="x is missing"):
        make_grid(BASE, {})
    with pytest.raises(RequestError, match=f"40,000 cells are too many; {MAX_PICTURES:,} is the limit"):
        grid_of(x=("seed", "1-200"), y=("variation.seed", "1-200"))
    with pytest.raises(RequestError, match="6,400 pictures are too many"):
        grid_of(BASE.model_copy(update={"count": 16}), x=("seed", "1-200"), y=("steps", "1,2"))
    many = {"x": ("seed", "1-200"), "y": ("steps", "1,2,3")}
    assert grid_of(**many).image_count == 600
    with asked_by(Visitor("a guest")), pytest.raises(RequestError, match="600 cells are too many; 500 is the limit"):
        grid_of(**many)
    with pytest.raises(RequestError, match="must look like FIELD=VALUE"):
        split("steps")


def test_schedules_are_not_varied_where_the_sampler_s_name_has_one():
    karras = {"sampler": "DPM++ 2M Karras"}
    grid = grid_of(x=("sampler", "DPM++ 2M Karras, Euler a"), y=("hires.schedule", "Default"))
    assert [request.sampler for request in grid.requests] == ["DPM++ 2M Karras", "Euler a"]
    for base, axes, place in (
        (BASE, {"x": ("schedule", "Default"), "y": ("sampler", "Euler, DPM++ 2M karras")}, "x"),
        (BASE, {"x": ("sampler", "Euler, DPM++ 2M karras"), "z": ("schedule", "Default")}, "z"),
        (BASE.model_copy(update=karras), {"x": ("schedule", "Default,Karras")}, "x"),
        (Request(hires=karras), {"x": ("hires.schedule", "Default,Karras")}, "x"),
    ):
        with pytest.raises(RequestError, match=f"^{place}: the sampler “DPM.. 2M [Kk]arras” has its schedule in its"):
            grid_of(base, **axes)


def test_json_bodies_ask_for_grids():
    body = {
        "request": {"prompt": "x"},
        "x": {"field": "steps", "values": [1, 2]},
        "z": {"field": "seed", "values": "1-3"},
    }
    assert is_grid(body) and not is_grid({"prompt": "x"})
    assert read_grid(body, BASE).shape == (2, 1, 3)
    for wrong, reason in (
        ({"x": [1]}, "x must be an object"),
        ({"x": {"field": "steps", "values": [1], "step": 2}}, "x must be an object"),
        ({"w": {}}, "w is not a known setting of a grid"),
        ({"yes": "y"}, "yes must be true or false"),
        ({"x": None, "z": None}, "x is missing"),
    ):
        with pytest.raises(RequestError, match=reason):
            read_grid(body | wrong, BASE)


def test_a_grid_survives_as_text():
    start = BASE.model_copy(update={"init": Init(image=PilImages.new("RGB", (64, 64)))})
    grid = grid_of(start, x=("steps", "1-40"), y=("upscale", "true,false"))
    text = to_text(grid, lambda picture: "kept")
    again = from_text(text, {"kept": start.init.image}.get)
    assert isinstance(again, Grid) and again.axes == grid.axes and again.requests == grid.requests
    assert [len(cell) for cell in again.cells] == [1] * 80
    assert len(text) < 80 * 120, "thousands of cells would be written again with each picture"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(st.text(max_size=3), values, max_size=5)


@given(bodies, bodies)
def test_a_difference_makes_the_one_of_the_other(base, body):
    assert apply(base, difference(base, body)) == body
    assert difference(body, body) == {}
