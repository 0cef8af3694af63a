"""A preset: what it holds, what its text says, and the request that it makes."""

import pytest
from PIL import Image as PilImages

from webui.core.axes import read_axis
from webui.core.errors import RequestError
from webui.core.grid import make_grid
from webui.core.groups.control import Control
from webui.core.groups.upscale import Upscale
from webui.core.groups.variation import Variation
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.weight_files import content_hash
from webui.library.library import find_loras, find_models
from webui.workspace.preset import compare_pins, make_preset, read_preset

CAT = {"fields": {"prompt": "a {animal}, {style} style", "steps": 8}, "variables": {"animal": "cat", "style": "flat"}}
EVERY_FIELD = {
    "prompt": 'a {animal}\nwith "quotes" \\ and é 🎨',
    "negative": "blurry",
    "seed": 2**53 - 1,
    "steps": 8,
    "guidance": 4.25,
    "width": 64,
    "loras": [{"name": "a: b", "weight": 0.123456789, "text_weight": 0.5}],
    "refiner_at": 0.5,
}


def test_a_preset_comes_back_from_its_text_as_it_was():
    preset = make_preset(
        name="Ünïcode 🎨",
        note="two\nlines",
        fields=EVERY_FIELD,
        variables={"animal": "cat"},
        init={"strength": 0.3, "mask_blur": 8, "outpaint": [8, 0, 0, 0]},
        pins={"model": "ab" * 32, "loras": {"a: b": "0123456789"}},
        expected="cd" * 32,
    )
    assert read_preset(preset.text.encode(), "unused") == preset
    assert preset.request().loras[0].weight == 0.123456789


def test_it_holds_no_more_than_it_was_given():
    preset = make_preset(name="x", fields={"steps": "8"})
    assert preset.fields == {"steps": 8}
    assert preset.request().model_fields_set == {"steps"}  # what suits the model is used for the rest


def test_variables_fill_the_prompts_once_and_only_they_do():
    preset = make_preset(name="x", **CAT)
    assert preset.request().prompt == "a cat, flat style"
    assert preset.request({"animal": "{style} dog"}).prompt == "a {style} dog, flat style"
    assert make_preset(name="x", fields={"prompt": "{a} {b}"}, variables={"a": "1"}).request().prompt == "1 {b}"
    with pytest.raises(RequestError, match="preset 'x' has no variable 'colour'; it has animal, style"):
        preset.request({"colour": "red"})
    with pytest.raises(RequestError, match="prompt must be at most 8000 characters long; it has 9,"):
        preset.request({"animal": "x" * 9_000})


def test_given_fields_count_more_and_a_prompt_fills_the_variable_of_that_name():
    preset = make_preset(name="x", **CAT)
    assert preset.request(overrides={"steps": 3}).steps == 3
    assert preset.request(overrides={"prompt": "a dog"}).prompt == "a dog"
    style = make_preset(name="s", fields={"prompt": "{prompt}, oil"}, variables={"prompt": ""})
    assert (style.request().prompt, style.request(overrides={"prompt": "a dog"}).prompt) == ("oil", "a dog, oil")


def test_what_goes_with_a_start_picture_waits_for_one():
    preset = make_preset(name="x", init={"strength": 0.3, "resize": "crop and resize"})
    assert preset.request().init is None
    init = preset.request(overrides={"init": {"image": PilImages.new("RGB", (64, 64)), "strength": 0.9}}).init
    assert init and (init.strength, init.resize) == (0.9, "crop and resize")


def test_a_group_is_a_table_of_its_own():
    preset = read_preset(b"[fields]\nsteps = 3\n[variation]\nstrength = '0.25'\nink = 1", "x")
    assert preset.fields == {"steps": 3, "variation.strength": 0.25}
    assert [notice.partition(" ")[0] for notice in preset.notices] == ["fields.variation.ink"]
    assert "[variation]\nstrength = 0.25\n" in preset.text
    assert read_preset(preset.text.encode(), "x").fields == preset.fields
    assert preset.request().variation == Variation(strength=0.25)
    assert preset.request(overrides={"variation": {"seed": 9}}).variation == Variation(seed=9, strength=0.25)
    assert preset.request(overrides={"variation": None}).variation is None
    with pytest.raises(RequestError, match="^variation must be a table"):
        read_preset(b"variation = 3", "x")
    with pytest.raises(RequestError, match="variation.strength must be at most 1, not 2"):
        read_preset(b"[variation]\nstrength = 2", "x")


def test_unknown_settings_are_ignored_with_a_notice():
    preset = read_preset(
        b"colour = 'red'\n[fields]\nsteps = 3\nimage = 'x'\n[init]\nmask = 'y'\n[pins]\nvae = 'z'", "x"
    )
    assert preset.fields == {"steps": 3} and preset.init == {}
    assert [notice.partition(" ")[0] for notice in preset.notices] == [
        "colour",
        "fields.image",
        "init.mask",
        "pins.vae",
    ]


@pytest.mark.parametrize("name", ["", "  ", "a\0b", "a\nb", "n" * 81])
def test_other_names_are_refused(name):
    with pytest.raises(RequestError, match="name must"):
        make_preset(name=name, **CAT)


def test_a_pinned_file_that_is_another_one_is_told(settings: Settings):
    models, loras = find_models(settings), find_loras(settings)
    right = content_hash(models["demo"])

    def compare(**pins: object) -> tuple[str, ...]:
        preset = make_preset(name="x", pins=pins)
        return compare_pins(preset.pins, preset.request(), models, loras)

    assert compare(model=right) == compare(model=right[:10].upper()) == compare(loras={"gone": "0" * 64}) == ()
    assert compare(model="0" * 64, loras={"sepia": "0" * 64}) == (
        "model 'demo' is not the file that the preset was made with",
        "LoRA 'sepia' is not the file that the preset was made with",
    )


def test_a_group_with_a_switch_is_on_with_its_table_and_off_in_the_fields():
    on = read_preset(b"name = 'large'\n[upscale]\nscale = 4\n", "x")
    assert on.request().upscale == Upscale(scale=4) and on.fields == {"upscale": True, "upscale.scale": 4.0}
    assert read_preset(on.text.encode(), "x") == on
    assert read_preset(b"[upscale]\n", "x").request().upscale == Upscale()
    off = make_preset(name="small", fields={"upscale": False, "upscale.scale": 4})
    assert off.fields == {"upscale": False} and off.request(overrides={"upscale": None}).upscale is None
    assert read_preset(off.text.encode(), "x") == off and off.request().upscale is None
    with pytest.raises(RequestError, match=r"upscale.scale must be at most 16"):
        read_preset(b"[upscale]\nscale = 99\n", "x")


def test_laid_over_a_request_it_draws_after_the_request_s_pictures():
    """A preset has none of its own; so a grid's presets, too, are different controls after one picture."""
    red = PilImages.new("RGB", (64, 64), "red")
    presets = {
        name: read_preset(f"[[controls]]\nmodel = '{name}'\nweight = 0.5\n[[controls]]\nmodel = 'b'\n".encode(), name)
        for name in ("edges", "depth")
    }
    request = Request(controls=[{"model": "mine", "image": red, "end": 0.5}])
    grid = make_grid(
        request, {"x": read_axis("x", "preset", "edges,depth")}, lambda name, cell: presets[name].over(cell)
    )
    for name, cell in zip(presets, grid.requests, strict=True):
        first, second = cell.controls
        assert first == Control(model=name, weight=0.5, image=red) and second == Control(model="b")
    assert presets["edges"].over(Request()).controls[0].image is None
    assert presets["edges"].request(overrides={"controls": [{"image": red}]}).controls == (
        Control(model="edges", weight=0.5, image=red),
    )
