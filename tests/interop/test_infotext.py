"""A1111's text as many programs write it: what is quoted comes back, and no setting is taken from inside another."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.core.groups import nest
from webui.core.groups.hires import Hires
from webui.core.recipe import Recipe
from webui.core.request import LoraRef, Request
from webui.interop.checked import check
from webui.interop.found import Found
from webui.interop.infotext import read_infotext
from webui.interop.programs import parse

LINE = "Steps: 24, Sampler: Euler a, CFG scale: 6.5, Seed: 987, Size: 256x128"
BOAT = {"prompt": "a boat", "negative": "fog", "steps": "24", "sampler": "Euler a", "guidance": "6.5", "seed": "987"}
BOAT |= {"width": 256, "height": 128}
HEAD = "a boat\nNegative prompt: fog\n"
REST = LINE.removeprefix("Steps: 24, ")
ASIDE = '"a boat\nSteps: 3, Seed: 4"'
TEXTS = {
    "plain": HEAD + LINE,
    "line breaks of Windows": f"{HEAD}{LINE}\n".replace("\n", "\r\n"),
    "indented": f"a boat\n Negative prompt: fog\n {LINE}",
    "tight": "a boat\nNegative prompt:fog\nSteps:24,Sampler:Euler a,CFG scale:6.5,Seed:987,Size:256x128",
    "one line, with dots": f"a boat,.Negative prompt: fog.{LINE}",
    "breaks that are written": f"a boat\\nNegative prompt: fog\\n{LINE}",
    "the negative prompt on the prompt's line": f"a boat Negative prompt: fog\n{LINE}",
    "words behind JSON": f'{HEAD}Steps: 24, Note: {{"a": "Seed: 3, Steps: 4"}} x, {REST}',
    "one line, with blanks": f"a boat Negative prompt: fog {LINE}",
    "steps in the prompt of one line": f"a boat Negative prompt: fog, {LINE}",
    "settings in another order": f"{HEAD}Size: 256x128, Seed: 987, Steps: 24, Sampler: Euler a, CFG scale: 6.5",
    "one setting a line": HEAD + LINE.replace(", ", "\n"),
    "a template behind": f"{HEAD}{LINE}\nTemplate: a {{boat|ship}}\nSeed: 3\nNegative Template: rain",
    "a value over lines": f"{HEAD}{LINE}, Wildcard prompt: {ASIDE}, Version: v1.6.0",
    "JSON": f'{HEAD}{LINE}, Civitai metadata: {{"note": "x, Seed: 555, Steps: 9, y"}}',
    "JSON before": f'{HEAD}Steps: 24, Hashes: {{"a": "Seed: 1"}}, {REST}',
    "a list that is no JSON": f"{HEAD}{LINE}, Styles: ['a', 'Seed 3, b'], Version: v1",
    "a bracket that never ends": f"{HEAD}Steps: 24, Note: [x, {REST}",
    "a second mention": f"{HEAD}{LINE}, Seed: 1, Steps: 2",
    "blank lines": f"\n\na boat\n\nNegative prompt: fog\n\n{LINE}\n\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_of_many_shapes(name: str) -> None:
    found = parse({"parameters": TEXTS[name].replace("\r\n", "\n")})
    assert {field: found.values.get(field) for field in BOAT} == BOAT, found


@pytest.mark.parametrize(
    ("text", "prompt", "negative"),
    [
        ("a boat on a lake", "a boat on a lake", None),
        ("a boat\nNegative prompt: fog", "a boat", "fog"),
        (f"a boat\n{LINE}", "a boat", ""),
        (LINE, None, None),
        (f"Negative prompt: fog\n{LINE}", None, "fog"),
        (f"Steps: 3, 4 and 5 lead up\nto a house\n{LINE}", "Steps: 3, 4 and 5 lead up\nto a house", ""),
        (f"a sign: Steps: 9, Seed: 2\n{LINE}", "a sign: Steps: 9, Seed: 2", ""),
        (f"Steps: 9, Seed: 2, Size: 64x64\n{LINE}", "Steps: 9, Seed: 2, Size: 64x64", ""),
        (f"one\n\ntwo\nNegative prompt: three\nfour\nNegative prompt: five\n{LINE}", "one\n\ntwo", "three\nfour\nfive"),
        (f'it says "Negative prompt: none"\n{LINE}', 'it says "Negative prompt: none"', ""),
    ],
)
def test_prompts_are_what_stands_before_the_settings(text: str, prompt: str | None, negative: str | None) -> None:
    values = read_infotext(text).values
    assert (values.get("prompt"), values.get("negative")) == (prompt, negative)


def test_what_is_not_read_is_listed() -> None:
    found = parse({"parameters": TEXTS["a template behind"]})
    assert found.unmapped == []
    assert (found.values["template"], found.values["negative_template"]) == ("a {boat|ship}\nSeed: 3", "rain")
    lines = parse({"parameters": TEXTS["a second mention"]}).unmapped
    assert lines == ["Seed: 1 (said a second time)", "Steps: 2 (said a second time)"]


@pytest.mark.parametrize(
    ("more", "program"),
    [
        ("Version: v1.10.1", "AUTOMATIC1111"),
        ("Version: f2.0.1v1.10.1-previous-659", "Forge"),
        ("Version: neo", "Forge"),
        ("Version: Fooocus v2.5.5", "Fooocus"),
        ("Version: ComfyUI", "ComfyUI"),
        ("App: SD.Next, Version: 1234abc", "SD.Next"),
        ("Civitai resources: []", "Civitai"),
        ("Version: Darkroom 0.1", "Darkroom"),
    ],
)
def test_programs_name_themselves(more: str, program: str) -> None:
    assert read_infotext(f"a boat\n{LINE}, {more}").program == program


def test_fields_beyond_the_common_ones(catalog) -> None:
    text = (
        f"a boat\n{LINE}, Model: demo, VAE: sharp.safetensors, Refiner: demo [0123456789], Refiner switch at: 0.7, "
        "Clip skip: 2, Denoising strength: 0.6, Mask blur: 6, Inpaint area: Only masked, Masked area padding: 16, "
        "Masked content: latent noise, Mask mode: Inpaint not masked, Distilled CFG Scale: 3.5"
    )
    values, lines = check(read_infotext(text), catalog)
    expected = {"model": "demo", "vae": "sharp", "refiner": "demo", "refiner_at": 0.7, "clip_skip": 2, "strength": 0.6}
    expected |= {"mask_blur": 6, "only_masked": True, "padding": 16, "mask_fill": "noise", "invert_mask": True}
    assert {name: values.get(name) for name in expected} == expected
    assert lines == ["Distilled CFG Scale: 3.5"]


@pytest.mark.parametrize("nothing", ["Automatic", "None", "Default (model)"])
def test_no_file_is_no_file(catalog, nothing: str) -> None:
    values, lines = check(read_infotext(f"a boat\n{LINE}, VAE: {nothing}"), catalog)
    assert "vae" not in values and lines == []


def test_a_refiner_that_is_not_here_takes_its_share_along(catalog) -> None:
    values, lines = check(read_infotext(f"a boat\n{LINE}, Refiner: gone, Refiner switch at: 0.7"), catalog)
    assert "refiner_at" not in values and lines == ["refiner: “gone” is not here"]


def read_hires(catalog, text: str) -> tuple[dict[str, object], list[str]]:
    values, lines = check(read_infotext(f"a boat\n{LINE}, {text}"), catalog)
    assert "strength" not in values
    return {name: value for name, value in values.items() if name.startswith("hires")}, lines


def test_a_second_pass_is_read_and_the_strength_is_its_own(catalog) -> None:
    first = "Denoising strength: 0.4, Hires upscale: 1.5, Hires steps: 7, Hires upscaler: latent, Hires sampler: DDIM"
    told = f'{first}, Hires checkpoint: demo [0123456789], Hires prompt: "a dog, red", Hires CFG Scale: 3'
    found = {"hires": True, "hires.scale": 1.5, "hires.upscaler": "Latent", "hires.steps": 7, "hires.strength": 0.4}
    found |= {"hires.model": "demo", "hires.sampler": "DDIM", "hires.guidance": 3.0, "hires.prompt": "a dog, red"}
    assert read_hires(catalog, told) == (found, [])
    assert read_hires(catalog, "Hires resize: 640x0")[0] == {"hires": True, "hires.width": 640, "hires.height": None}


def test_what_of_a_second_pass_is_not_here_is_told(catalog) -> None:
    found, lines = read_hires(catalog, "Hires upscale: 2, Hires upscaler: 4x-UltraSharp, Hires checkpoint: gone")
    assert found == {"hires": True, "hires.scale": 2.0}
    assert lines == [
        "upscaler: “4x-UltraSharp” is not here; realesr-animevideov3 stands in for it",
        "hires checkpoint: “gone” is not here",
    ]
    assert read_hires(catalog, "Hires upscaler: Latent") == ({}, [])


def test_our_own_text_of_a_second_pass_comes_back(catalog) -> None:
    hires = Hires(
        scale=1.25, strength=0.3, steps=9, upscaler="Latent (bicubic)", prompt="[a:b:1.5], a dog", model="demo"
    )
    request = Request(prompt="a boat", width=64, height=64, seed=3, hires=hires)
    values, lines = check(read_infotext(Recipe(request).infotext()), catalog)
    assert Request.parse(nest(values)).hires == hires and lines == []


def test_a_size_is_taken_whole_or_not(catalog) -> None:
    values, lines = check(read_infotext("a\nSteps: 5, Sampler: Euler, Size: 1000x1500"), catalog)
    assert "width" not in values and "height" not in values
    assert any(line.startswith("size: 1000 x 1500 cannot be taken") for line in lines)


def test_loras_of_lists_are_taken_once(catalog) -> None:
    weights = '"blueprint: 0.5, night: 0.3"'
    text = f"a boat <lora:blueprint:0.8> <lora:gone:1>\n{LINE}, Lora weights: {weights}, Version: Fooocus"
    values, lines = check(read_infotext(text), catalog)
    assert values["loras"] == (LoraRef(name="blueprint", weight=0.5), LoraRef(name="night", weight=0.3))
    assert values["prompt"] == "a boat <lora:gone:1>" and lines == ["LoRA: “gone” is not here"]


def test_additional_networks_are_loras() -> None:
    more = "AddNet Enabled: True, AddNet Module 1: LoRA, AddNet Model 1: blueprint(0123abcd), AddNet Weight A 1: 0.8, "
    found = read_infotext(f"a boat\n{LINE}, {more}AddNet Weight B 1: 0.6")
    assert [(lora.name, lora.weight, lora.text_weight) for lora in found.loras] == [("blueprint", "0.8", "0.6")]


def test_resources_of_civitai_are_lines_and_the_model_by_its_name() -> None:
    resources = [
        {"type": "checkpoint", "modelVersionId": 290640, "modelName": "A, B: C", "modelVersionName": "v6"},
        {"type": "lora", "weight": 0.7, "modelVersionId": 349887},
    ]
    found = read_infotext(f"a boat\n{LINE}, Civitai resources: {json.dumps(resources)}, Civitai metadata: {{}}")
    assert found.values["model"] == "A, B: C" and found.values["seed"] == "987"
    assert found.unmapped[:2] == [
        "Civitai's checkpoint “A, B: C” (version 290640)",
        "Civitai's lora (version 349887, weight 0.7)",
    ]


def quote(text: str) -> str:
    """As A1111's ``modules/infotext_utils.py`` writes a value."""
    return json.dumps(text, ensure_ascii=False) if set(text) & set(",\n:") else text


VALUES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"], include_characters=" \n")
)


@given(
    value=VALUES.map(str.strip).filter(lambda text: text and text[0] not in '"[{'),
    name=st.sampled_from(["Styles", "ADetailer prompt 2nd"]),
)
def test_what_the_writer_quotes_comes_back(value: str, name: str) -> None:
    found = read_infotext(
        f"a boat\nNegative prompt: fog\nSteps: 24, {name}: {quote(value)}, {LINE.removeprefix('Steps: 24, ')}"
    )
    assert {field: found.values.get(field) for field in BOAT} == BOAT
    assert found.unmapped in ([f"{name}: {value}"], [f"{name}: {value[:160]}..."], [])
    assert found.unmapped or value in ("None",)


@given(prompt=VALUES.map(str.strip), negative=VALUES.map(str.strip))
def test_prompts_come_back(prompt: str, negative: str) -> None:
    lines = [line.strip() for text in (prompt, negative) for line in text.split("\n")]
    if any(line.startswith(("Negative prompt:", "Steps:")) for line in lines):
        return
    found = read_infotext(f"{prompt}\nNegative prompt: {negative}\n{LINE}")
    expected = ["\n".join(line.strip() for line in text.split("\n")).strip() for text in (prompt, negative)]
    assert [found.values.get("prompt", ""), found.values.get("negative", "")] == expected


def test_an_unreadable_text_is_no_prompt_where_it_may_be_about_anything() -> None:
    found = parse({"comment": "CREATOR: gd-jpeg v1.0, quality = 90"})
    assert found == Found(unmapped=["comment: its text has no line of settings (Steps, Sampler, Seed ...)"])
