"""Our pictures and events as A1111's answers, without a server."""

import io
import json

import pytest
from PIL import Image as PilImages

from webui.core.events import Image, Loading, Step
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.interop.a1111 import answers


def test_info_has_an_entry_a_picture():
    request = Request(prompt="a fox", seed=5, count=2, width=64, height=64)
    pictures = [
        Image(k, PilImages.new("RGB", (64, 64)), Recipe(request.model_copy(update={"seed": 5 + k, "count": 1})))
        for k in range(2)
    ]
    found = json.loads(answers.info(request, pictures))
    assert (found["seed"], found["all_seeds"], found["all_prompts"]) == (5, [5, 6], ["a fox"] * 2)
    assert [text.splitlines()[0] for text in found["infotexts"]] == ["a fox"] * 2
    assert json.loads(answers.info(request, []))["all_seeds"] == []


def test_info_names_the_variation_of_each():
    request = Request(seed=5, count=2, width=64, height=64, variation={"seed": 9, "strength": 0.25})
    pictures = [Image(k, PilImages.new("RGB", (64, 64)), Recipe(request.picture(k))) for k in range(2)]
    found = json.loads(answers.info(request, pictures))
    assert (found["all_seeds"], found["subseed"], found["all_subseeds"]) == ([5, 5], 9, [9, 10])
    assert found["subseed_strength"] == 0.25


def test_the_echo_leaves_pictures_out_unless_they_are_wanted():
    body = {"prompt": "a", "init_images": ["x"], "mask": "y"}
    assert answers.echo(body) == {"prompt": "a"}
    assert answers.echo(body | {"include_init_images": True}) == body | {"include_init_images": True}


def test_progress_counts_batches_and_their_steps():
    request = Request(repeat=3, steps=10)
    found = answers.progress(request, Step(14, 30, 7.0), "20260101000000", waiting=2, stopped=True)
    assert (found["progress"], found["eta_relative"]) == (pytest.approx(14 / 30), pytest.approx(8.0))
    state = found["state"]
    assert (state["job_no"], state["sampling_step"], state["sampling_steps"]) == (1, 4, 10)
    assert (state["job_count"], state["interrupted"], state["job"]) == (5, True, "txt2img")
    last = answers.progress(request, Step(30, 30, 7.0), "", 0, False)
    assert (last["progress"], last["state"]["job_no"], last["state"]["sampling_step"]) == (1.0, 2, 10)


def test_progress_before_the_first_step_and_where_nothing_runs():
    loading = answers.progress(Request(), Loading("Loading v1-5", 0.2), "", 0, False)
    assert (loading["progress"], loading["state"]["job_count"], loading["textinfo"]) == (0.0, 1, "Loading v1-5")
    idle = answers.progress(None, None, "0", 0, False)
    assert (idle["progress"], idle["eta_relative"], idle["state"]["job_count"]) == (0.0, 0.0, 0)


def test_what_a_stop_interrupts_comes_out_of_the_preview_s_sheet():
    request = Request(seed=5, count=3, repeat=2, width=64, height=128)
    sheet = PilImages.new("RGB", (16, 32), "white")  # two columns and two rows of 8 x 16
    for k, colour in enumerate(("red", "lime", "blue")):
        sheet.paste(colour, (k % 2 * 8, k // 2 * 16, k % 2 * 8 + 8, k // 2 * 16 + 16))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    pictures = answers.half_drawn(request, 3, buffer.getvalue())
    assert [picture.image.size for picture in pictures] == [(64, 128)] * 3
    assert [picture.image.getpixel((32, 64)) for picture in pictures] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert [(picture.index, picture.seed) for picture in pictures] == [(3, 8), (4, 9), (5, 10)]
    assert json.loads(answers.info(request, pictures, ["interrupted"]))["comments"] == ["interrupted"]
    png = PilImages.open(io.BytesIO(answers.encode_bare(pictures[0].image)))
    assert png.size == (64, 128) and not png.info


def test_a_preview_keeps_its_own_shape_which_a_hires_pass_may_have_changed():
    buffer = io.BytesIO()
    PilImages.new("RGB", (24, 8)).save(buffer, "PNG")
    request = Request(seed=5, width=64, height=64, hires={"width": 192, "height": 64})
    (picture,) = answers.half_drawn(request, 0, buffer.getvalue())
    assert picture.image.size == (192, 64)
