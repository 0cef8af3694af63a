"""A hires pass as a value: the stages it becomes, how large pictures get, what recipes and other programs are told."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image as PilImages

from webui.core.errors import Mend, RequestError
from webui.core.files import LoraFile, ModelFile, UpscalerFile
from webui.core.groups.hires import Hires
from webui.core.groups.init import Init
from webui.core.lora_ref import LoraRef
from webui.core.order import Order
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.spans import spans
from webui.core.stages import Pass, Upscale

SHARP = UpscalerFile("sharp", Path("ESRGAN/sharp.safetensors"))
MODELS = {name: ModelFile(name, Path(f"{name}.safetensors")) for name in ("demo", "other")}
LORAS = {name: LoraFile(name, Path(f"{name}.safetensors")) for name in ("line", "ink")}
FILES = SimpleNamespace(
    upscalers={"sharp": SHARP}, models=MODELS, loras=LORAS, embeddings={}, embeddings_in=lambda _: {}
)
FIRST = Pass(MODELS["demo"], (512, 384), 20, "Euler", "Karras", "a cat", "blurry", 5.0)


def stages(first=FIRST, **fields):
    return Hires(**{"upscaler": "sharp"} | fields).stages((first,), FILES)


def test_it_enlarges_and_draws_again_as_the_first_pass_did():
    first, enlarge, again = stages()
    assert first == FIRST and enlarge == Upscale(SHARP, (1024, 768), name="hires")
    assert (again.begin, again.size, again.strength, again.steps_taken, again.name) == (
        *("drawn", (1024, 768), 0.5, 10),
        "hires",
    )
    same = ("model", "steps", "sampler", "schedule", "prompt", "negative", "guidance")
    assert [getattr(again, name) for name in same] == [getattr(FIRST, name) for name in same]
    assert pickle.loads(pickle.dumps(again)) == again
    assert stages(upscaler="Lanczos")[1].files == ()


def test_what_is_given_is_the_second_pass_s_own():
    own = {"steps": 8, "sampler": "DDIM", "schedule": "Default", "guidance": 1.5, "prompt": "a dog", "negative": "red"}
    *_, again = stages(**own, model="other", strength=0.25)
    assert {name: getattr(again, name) for name in own} == own
    assert (again.model, again.steps_taken) == (MODELS["other"], 2)


def test_latents_are_enlarged_by_the_pass_that_begins_from_them():
    _, again = stages(upscaler="Latent (nearest)", width=640)
    assert (again.begin, again.enlarged_by, again.size) == ("latents", "Latent (nearest)", (640, 480))
    masked = Init(image=PilImages.new("RGB", (64, 64)), mask=PilImages.new("L", (64, 64), 255), only_masked=True)
    with pytest.raises(RequestError, match=r"hires: Latent enlarges all .* choose another upscaler"):
        stages(Pass(None, (512, 512), 2, "Euler", "Default", "", "", 5.0, init=masked), upscaler="Latent")


def test_sides_are_brought_down_to_steps_of_8_and_that_is_told():
    hires = Hires(scale=1.3)
    assert hires.sizes(FIRST) == ((664, 496), (664, 496))
    (line,) = hires.notices(FIRST, FIRST)
    assert line == "Hires: 666 x 499 px was asked for; sides are drawn in steps of 8 px, so it is 664 x 496 px."
    assert [*Hires(scale=1.5).notices(FIRST, FIRST)] == []
    assert [*Hires(strength=0).notices(FIRST, FIRST)] == [
        "At hires strength 0 the picture is only enlarged, not drawn again."
    ]


def test_of_a_part_alone_both_the_part_and_the_whole_become_larger():
    mask = PilImages.new("L", (1000, 600), 255)
    init = Init(image=PilImages.new("RGB", mask.size), mask=mask, only_masked=True)
    started = Pass(None, (512, 512), 2, "Euler", "Default", "", "", 5.0, init=init)
    assert Hires(scale=1.5).sizes(started) == ((768, 768), (1500, 900))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"scale": 16}, "512 x 384 px would become 8192 x 6144 px"),
        ({"scale": 5}, "512 x 384 px would become 2560 x 1920 px.* 64 to 2048 px; the largest scale .* is 4,"),
        ({"width": 2048, "height": 64}, None),
        ({"height": 2048}, "2728 x 2048 px"),
    ],
)
def test_what_would_be_too_large_is_told_with_the_scale_that_would_not(fields, reason):
    if reason is None:
        assert stages(**fields)[2].size == (2048, 64)
        return
    with pytest.raises(RequestError, match=f"^hires: .*{reason}") as error:
        stages(**fields)
    (asked,) = fields
    assert error.value.field == f"hires.{asked}"
    assert error.value.mend == (Mend("use", 4.0) if asked == "scale" else None)


def test_loras_are_the_first_pass_s_with_their_weights_for_this_one_or_its_own():
    refs = (
        LoraRef(name="line", weight=0.8, hires_weight=0.3),
        LoraRef(name="ink", weight=0, hires_weight=[[0, 1], [1, 0]]),
    )
    first = Pass(MODELS["demo"], (64, 64), 20, "Euler", "Karras", "", "", 5.0, refs=refs)
    again = stages(first)[2]
    assert [(use.file.name, use.unet, use.text) for use in again.loras] == [("line", 0.3, 0.3)]
    assert [(use.file.name, use.unet) for use in again.lora_schedules] == [("ink", ((0.0, 1.0), (1.0, 0.0)))]
    own = stages(first, loras="ink:0.5")[2]
    assert [str(use) for use in own.loras] == ["ink:0.5"] and own.lora_schedules == ()
    assert stages(first, loras="ink:0")[2].loras == ()  # none of the first pass's either


def test_words_for_it_stand_in_prompts_behind_those_of_the_first_pass():
    told = "[early:late:0.5] [first:second:1.5] [a:b:22]"
    first = Pass(MODELS["demo"], (64, 64), 20, "Euler", "Karras", told, "", 5.0)
    again = stages(first, steps=8, strength=1.0)[2]
    assert [(span.stop, span.terms[0].text) for span in spans(first)] == [
        (10, "early first a"),
        (20, "late first a"),
    ]
    assert [(span.stop, span.terms[0].text) for span in spans(again)] == [
        (2, "late first a"),
        (4, "late first b"),
        (8, "late second b"),
    ]


def test_the_share_of_the_work_goes_by_what_steps_cost():
    order = Order(Request(repeat=2, hires={}), stages())
    assert order.steps == 2 * (20 + 12 + 10)
    assert [order.share(index) for index in (0, 42, 84)] == [0, 0.5, 1]
    assert order.share(20) == pytest.approx(20 / (20 + 2 + 40) / 2)  # Upscale: 4 of one, for nothing is guided
    assert order.cost == pytest.approx((20 * 2 * 512 * 384 + 21 * 1024 * 768) * 2 / 1e6)


def test_a_recipe_says_it_and_reads_it_again():
    hires = Hires(scale=1.5, strength=0.4, loras="line:0.5", prompt="a dog", template="a {dog|cat}")
    recipe = Recipe(Request(prompt="a cat", width=64, height=64, seed=3, hires=hires))
    body = json.loads(recipe.to_json())
    assert body["schema"] == 3 and body["request"]["hires"].items() >= {"scale": 1.5, "prompt": "a dog"}.items()
    assert Recipe.from_json(recipe.to_json()).request.hires == hires
    assert "hires" not in json.loads(Recipe(Request()).to_json())["request"]


def test_other_programs_read_it_in_a1111_s_words():
    def infotext(**fields):
        return Recipe(Request(prompt="a cat", loras="line:0.8", **fields)).infotext()

    assert ", Denoising strength: 0.4, Hires upscale: 1.5, Hires steps: 7, Hires upscaler: sharp, " in infotext(
        hires={"scale": 1.5, "strength": 0.4, "steps": 7, "upscaler": "sharp"}
    )
    words = (
        'Hires prompt: "a dog <lora:line:0.8>", Hires negative prompt: red, Hires resize: 640x0,'
        " Hires upscaler: Latent, Hires checkpoint: other, Hires sampler: DDIM, Hires schedule type: Default,"
        " Hires CFG Scale: 1.5, "
    )
    assert words in infotext(
        hires={
            "prompt": "a dog",
            "negative": "red",
            "width": 640,
            "upscaler": "Latent",
            "model": "other",
            "sampler": "DDIM",
            "schedule": "Default",
            "guidance": 1.5,
        }
    )
    both = infotext(init={"image": PilImages.new("RGB", (64, 64)), "strength": 0.7}, hires={"strength": 0.3})
    assert ", Denoising strength: 0.7, " in both and ", Hires denoising strength: 0.3, " in both


def test_its_prompts_count_where_the_request_s_do():
    request = Request(prompt="a cat", hires={"prompt": "a {dog|cat}", "negative": "[a|b]"})
    assert request.texts == {
        "prompt": "a cat",
        "negative": "",
        "hires.prompt": "a {dog|cat}",
        "hires.negative": "[a|b]",
    }
    assert request.has_marks and request.syntax_of_drawn == 2
    drawn = request.with_texts({"hires.prompt": "a dog", "hires.template": "a {dog|cat}"})
    assert (drawn.hires.prompt, drawn.templates) == ("a dog", {"hires.template": "a {dog|cat}"})
    assert request.model_copy(update={"syntax": 1}).in_newest_syntax().hires.negative == r"[a\|b]"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"scale": 0.5}, "hires.scale"),
        ({"width": 2056}, "hires.width"),
        ({"strength": 1.5}, "hires.strength"),
        ({"steps": True}, "hires.steps"),
        ({"guidance": True}, "hires.guidance"),
        ({"loras": "line:much"}, "hires.loras"),
        ({"prompt": "a" * 8001}, "hires.prompt"),
    ],
)
def test_bad_values_are_named(fields, reason):
    with pytest.raises(RequestError, match=reason):
        Request.parse({"hires": fields})
    for empty in ("", 0, 0.0, "0", None):
        group = Hires(width=empty, height=empty, guidance=empty, loras="")
        assert (group.width, group.height, group.guidance) == (None, None, None)
