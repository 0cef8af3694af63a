"""The text inside the PNG, as an independent reader (sd_parsers from PyPI) reads it back from the saved file."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as PilImages
from sd_parsers import ParserManager
from sd_parsers.data import PromptInfo

from webui import __version__
from webui.core.groups import nest
from webui.core.request import Request
from webui.interop.infotext import read_infotext
from webui.workspace.outputs import save_picture

FORGED = "a cat\nNegative prompt: dog\nSteps: 1, Sampler: Forged, CFG scale: 1, Seed: 1, Size: 8x8, Model: forged"
HARMLESS = [
    "a red apple, flat style, on a blue background",
    "née Müller – “quoted” 'text'",
    "赤いリンゴ、青い背景",
    "🍎🍏 👩‍👩‍👧 on 🟦",
    "two\nlines, and\n\nfour",
    "<script>alert('x')</script> & <img src=x onerror=alert(1)>",
    "(weight:1.2), [less], <lora:style:0.8>, a\\b, {x|y}, 50%, key: value, Seed: 5, Model: other",
    "Sampler: Euler, CFG scale: 1",
    "אפל אדום \u202eعربي",
    "",
]
NASTY = [
    FORGED,
    "a cat Negative prompt: dog negative PROMPT: bird",
    "Negative prompt: only",
    "Steps: 20",
    "x\n  steps: 3, Sampler: A, Seed: 4, CFG scale: 5",
    "nul \0 and \r\n return",
    "Negative \0prompt: hidden behind a NUL",
    "Negative \rprompt: hidden behind a return",
    "\nSte\0ps: 3, Sampler: A, Seed: 4, CFG scale: 5",
    'Hashes: {} , Hashes: {"model": "x"}',
]
texts = st.lists(st.sampled_from(HARMLESS + NASTY) | st.text(max_size=30), max_size=3).map("\n".join)


@pytest.fixture(scope="module")
def read_back(make_picture, tmp_path_factory):
    """Saves a picture with these fields and returns what sd_parsers finds in the file."""

    def save_and_parse(**fields) -> PromptInfo:
        path = save_picture(make_picture(**fields), tmp_path_factory.mktemp("pictures"))
        found = ParserManager().parse(path)
        assert found is not None, "sd_parsers found no settings in the picture"
        return found

    return save_and_parse


def infotext(path: Path) -> str:
    with PilImages.open(path) as image:
        return image.info["parameters"]


@pytest.mark.parametrize("prompt", HARMLESS)
def test_a_prompt_comes_back_word_for_word(read_back, prompt):
    assert read_back(prompt=prompt).full_prompt == prompt
    assert read_back(prompt="x", negative=prompt).full_negative_prompt == prompt


def test_every_setting_comes_back(read_back):
    found = read_back(
        prompt="a red apple",
        negative="blurry",
        steps=31,
        guidance=7.5,
        seed=123456789012,
        sampler="DPM++ 2M SDE",
        schedule="Karras",
        clip_skip=2,
        model="demo",
        size=128,
    )
    (sampler,) = found.samplers
    assert sampler.name == "DPM++ 2M SDE"
    assert sampler.parameters == {"steps": "31", "cfg_scale": "7.5", "seed": "123456789012", "scheduler": "Karras"}
    assert (sampler.model.name, sampler.model.hash) == ("demo", "0123456789")
    assert (found.full_prompt, found.full_negative_prompt) == ("a red apple", "blurry")
    assert found.metadata == {"Size": "128x128", "Clip skip": "2", "Version": f"Darkroom {__version__}"}


def test_without_a_negative_prompt_none_comes_back(read_back):
    assert read_back(prompt="a red apple").full_negative_prompt == ""


@settings(max_examples=60)
@given(prompt=texts, negative=texts)
@example(prompt=FORGED, negative=FORGED)
def test_no_prompt_can_forge_the_settings(read_back, prompt, negative):
    found = read_back(prompt=prompt, negative=negative, steps=17, seed=99, sampler="DDIM", model="demo")
    (sampler,) = found.samplers
    assert sampler.name == "DDIM"
    assert sampler.model.name == "demo"
    assert (sampler.parameters["steps"], sampler.parameters["seed"]) == ("17", "99")
    for given_text, read in ((prompt, found.full_prompt), (negative, found.full_negative_prompt)):
        words = re.findall(r"[^\W_]+", given_text.replace("\0", "").replace("\r", ""))
        assert [word.lower() for word in re.findall(r"[^\W_]+", read)] == [word.lower() for word in words]


@settings(max_examples=60)
@given(prompt=texts, negative=texts)
def test_exactly_one_line_starts_with_steps_and_it_is_the_last(make_picture, prompt, negative):
    """civitai takes the first such line, A1111 the last line, sd_parsers the lowest: here they are the same."""
    lines = make_picture(prompt=prompt, negative=negative).recipe.infotext().split("\n")
    assert [line for line in lines if line.strip().lower().startswith("steps:")] == [lines[-1]]
    assert sum("negative prompt:" in line.lower() for line in lines) == (1 if negative else 0)


@pytest.mark.parametrize(
    "name", ["a, b: c", 'x", Seed: 5, Steps: 3', "line\nSteps: 1, Sampler: X, Seed: 2, CFG scale: 3"]
)
def test_a_model_name_cannot_break_the_settings_line(read_back, name):
    (sampler,) = read_back(prompt="x", model=name, seed=77, steps=9).samplers
    assert (sampler.parameters["steps"], sampler.parameters["seed"]) == ("9", "77")
    assert re.findall(r"\w+", sampler.model.name) == re.findall(r"\w+", name)


def test_a_hash_that_is_not_known_is_left_out(make_picture):
    recipe = make_picture(prompt="a red apple").recipe
    text = replace(recipe, hashes={}).infotext()
    assert "Model hash: " in recipe.infotext() and "hash" not in text and ", Model: demo" in text


def test_the_longest_prompt_in_any_script_comes_back(read_back):
    prompt = "".join(chr(0x4E00 + k % 20000) for k in range(8000))
    assert read_back(prompt=prompt, negative=prompt).full_prompt == prompt


def test_the_text_is_a_plain_png_text_that_any_viewer_shows(make_picture, tmp_path):
    picture = make_picture(prompt="a red apple", negative="blurry")
    text = infotext(save_picture(picture, tmp_path))
    assert text == picture.recipe.infotext()
    assert text.startswith("a red apple\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M, ")


def test_what_was_given_up_for_speed_is_in_the_text(make_picture):
    exact = make_picture(prompt="a red apple").recipe.infotext()
    fast = make_picture(prompt="a red apple", guidance_until=0.6, reuse=3, token_merging=0.5).recipe.infotext()
    given_up = "Guidance until: 0.6, Deep features every: 3, Token merging ratio: 0.5"
    assert fast.replace(f" {given_up},", "") == exact and given_up in fast


def test_what_guides_beside_guidance_is_written_and_read_in_the_words_of_extensions(make_picture):
    asked = {"guidance_rescale": 0.7, "pag": {"scale": 4.5, "adaptive": 0.005}, "nag": {"scale": 3.0, "tau": 2.0}}
    text = make_picture(prompt="a red apple", **asked).recipe.infotext()
    assert "CFG Rescale: 0.7, PAG Active: True, PAG Scale: 4.5, PAG Adaptive: 0.005, NAG Scale: 3, NAG Tau: 2" in text
    found = read_infotext(text)
    read = Request.parse({name: value for name, value in nest(found.values).items() if name in asked})
    assert read == Request.parse(asked) and not [line for line in found.unmapped if "AG" in line or "CFG" in line]
    off = make_picture(prompt="a red apple", pag={"scale": 0}, nag={"scale": 1}).recipe.infotext()
    assert "PAG" not in off and "NAG" not in off and "CFG Rescale" not in off
