"""A1111's "X/Y/Z plot" as a grid."""

import pytest

from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.files import ModelFile, VaeFile
from webui.core.request import Request
from webui.interop.a1111.grids import AXES, is_plot, read_plot
from webui.library.library import DEMO_MODEL, find_models

SAMPLERS = {"DPM++ 2M": ("Default", "Karras"), "Euler a": ("Default",), "DDIM": ("Default",)}
BASE = Request(prompt="a red apple", negative="red", seed=3)
FLAGS = [True, False, False, False, 0, False, False]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory) -> Catalog:
    from webui.core.settings import Settings

    folder = tmp_path_factory.mktemp("data")
    demo = find_models(Settings(data_dir=folder))["demo"].checkpoint
    models = {"demo": ModelFile("demo", DEMO_MODEL, demo), "v1-5": ModelFile("v1-5", folder / "v1-5.safetensors", demo)}
    return Catalog(models, {}, {"soft": VaeFile("soft", folder / "soft.pt")}, {}, SAMPLERS)


def plot(catalog, *args, flags=FLAGS, with_picture=False, request=BASE, **body):
    args = [*args, *["Nothing", "", []] * (3 - len(args) // 3), *flags]
    return read_plot({"script_args": args} | body, request, catalog, None, with_picture)


def values_of(found) -> list:
    return [(axis.field, *axis.values) for axis in found.grid.axes if axis]


def test_only_the_script_itself_is_known():
    assert is_plot({"script_name": "X/Y/Z Plot"}) and not is_plot({"script_name": "x/y plot"})
    assert not is_plot({}) and not is_plot({"script_name": 5})


def test_axes_are_told_by_their_place_in_the_list_of_the_page_or_by_name(catalog):
    assert values_of(plot(catalog, 4, "1-10 (+3)", [], "CFG Scale", "1-2 [3]", [])) == [
        ("steps", "1", "4", "7", "10"),
        ("guidance", "1", "1.5", "2"),
    ]
    names = [name for name, _, only in AXES if only != "img2img"]
    assert values_of(plot(catalog, names.index("Clip skip"), "1,2", None)) == [("clip_skip", "1", "2")]
    names = [name for name, _, only in AXES if only != "txt2img"]
    assert values_of(plot(catalog, str(names.index("Sampler")), "", ["Euler a"], with_picture=True)) == [
        ("sampler", "Euler a")
    ]


def test_values_are_ours_under_our_names(catalog):
    found = plot(
        catalog,
        *("Checkpoint name", "", ["v1-5.safetensors", "demo"]),
        *("Sampler", "k_euler_a, DDIM", []),
        *("VAE", "None,soft.pt", []),
    )
    assert values_of(found) == [("model", "v1-5", "demo"), ("sampler", "Euler a", "DDIM"), ("vae", "", "soft")]
    assert values_of(plot(catalog, "Schedule type", "", ["karras"])) == [("schedule", "Karras")]
    assert values_of(plot(catalog, "Seed", "5,6", [])) == [("seed", "5", "6")]


def test_the_first_value_of_prompt_sr_is_the_word_to_replace(catalog):
    grid = plot(catalog, "Prompt S/R", 'red,blue,"green, dark"', []).grid
    assert [(request.prompt, request.negative) for request in grid.requests] == [
        ("a red apple", "red"),
        ("a blue apple", "blue"),
        ("a green, dark apple", "green, dark"),
    ]
    raw = plot(catalog, "Prompt S/R", "red\nblue, light", [], flags=[*FLAGS[:-1], True]).grid
    assert raw.requests[1].prompt == "a blue, light apple"


def test_a_sampler_may_have_its_schedule_in_its_name(catalog):
    found = plot(catalog, "Sampler", "", ["dpmpp_2m_karras", "Euler a"])
    assert values_of(found) == [("sampler", "DPM++ 2M Karras", "Euler a")]
    hires = plot(catalog, "Hires sampler", "dpmpp_2m_k", [], request=Request(hires={}))
    assert hires.grid.requests[0].hires.sampler == "DPM++ 2M Karras"


def test_prompt_order_has_the_words_in_each_order_at_their_places(catalog):
    request = Request(prompt="photo of a cat, red: soft light, 8k", negative="soft light")
    grid = plot(catalog, "Prompt order", "soft light,cat,red", [], request=request).grid
    assert [cell.prompt for cell in grid.requests] == [
        "photo of a soft light, cat: red, 8k",
        "photo of a soft light, red: cat, 8k",
        "photo of a cat, soft light: red, 8k",
        "photo of a cat, red: soft light, 8k",
        "photo of a red, soft light: cat, 8k",
        "photo of a red, cat: soft light, 8k",
    ]
    assert {cell.negative for cell in grid.requests} == {"soft light"}


def test_flags_that_change_nothing_here_are_told(catalog):
    found = plot(catalog, "Steps", "1", [], "Nothing", "", [], "Seed", "1", [], flags=["False", "True", "True"])
    assert found.with_pictures and len(found.comments) == 2
    kept = plot(catalog, "Steps", "1,2", [], flags=[True, False, False, True], request=Request(prompt="x")).grid
    assert [request.seed for request in kept.requests] == [-1, -1]


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["Eta", "1", []], "x_type: Eta cannot be varied here"),
        (["Face restore", "GFPGAN", []], "x_type: Face restore cannot be varied here"),
        (["Step", "1", []], "did you mean Steps"),
        ([99, "1", []], "x_type must be from 0 to"),
        ([True, "1", []], "x_type must be the name of an axis or its number"),
        (["Nothing", "", []], "x_type, y_type or z_type must name"),
        (["Steps", "many", []], "x: steps must be a whole number, not 'many'"),
        (["Steps", "", []], "x: steps has no values"),
        (["Checkpoint name", "nothing", []], "x_values: the model “nothing” is not here"),
        (["Sampler", "Euler a Karras", []], "x_values: schedule: “Karras” does not go with Euler a"),
        (
            ["Sampler", "DPM++ 2M Karras", [], "Schedule type", "Karras", []],
            "“DPM++ 2M Karras” has its schedule in its",
        ),
        (["Prompt order", "red,pear", []], "x: Prompt order: 'pear' is not in the prompt"),
        (["Prompt order", "red,,apple", []], "x: Prompt order: '' is not in the prompt"),
        (["Prompt order", "apple,apple", []], "x: Prompt order: 'apple' is not in the prompt beside"),
        (["Prompt order", "a,r,e,d,p,l", []], "x: Prompt order: 6 words have 720 orders; 200 is the limit"),
        (["Sampler", "Euler b", []], "x_values: sampler: “Euler b” is not known here"),
        (["Schedule type", "curly", []], "x_values: there is no schedule 'curly'"),
        (["Prompt S/R", "", []], "x: prompt:Prompt S/R has no values"),
        (["Prompt S/R", "dog,cat", []], "the word is in neither"),
        (["Prompt S/R", ",cat", []], "the first value is the word to replace"),
        (["Denoising", "0.5", [], *["Nothing", "", []] * 2, *FLAGS, 1], "must be a list of up to 16 values"),
    ],
)
def test_what_cannot_be_varied_is_refused_by_name(catalog, args, reason):
    with pytest.raises(RequestError) as caught:
        plot(catalog, *args) if len(args) < 10 else read_plot({"script_args": args}, BASE, catalog, None, False)
    assert reason in str(caught.value) and str(caught.value).startswith("script_args")
