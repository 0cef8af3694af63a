"""Programs that write JSON or a text for each setting, as they write it in each of their versions."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.core.prompt import parse_weights
from webui.core.request import LoraRef
from webui.interop.picture_info import read_text
from webui.interop.programs import parse
from webui.interop.weights import from_compel, from_novelai

FOX: dict[str, Any] = {"prompt": "a fox", "negative": "ugly", "seed": 77, "steps": 12, "width": 384, "height": 512}
FOX |= {"guidance": 4.5, "sampler": "Euler a", "schedule": "Karras"}
BLUEPRINT = (LoraRef(name="blueprint", weight=0.8),)
INVOKE: dict[str, Any] = {
    "app_version": "6.0.2",
    "generation_mode": "txt2img",
    "positive_prompt": "a fox",
    "negative_prompt": "ugly",
    "width": 384,
    "height": 512,
    "seed": 77,
    "cfg_scale": 4.5,
    "steps": 12,
    "scheduler": "euler_k",
    "model": {"key": "x", "name": "demo", "hash": "blake3:0", "base": "sd-1"},
}
OLD_INVOKE: dict[str, Any] = {
    "model": "stable diffusion",
    "model_weights": "demo",
    "model_hash": "0123456789abcdef",
    "app_id": "invoke-ai/InvokeAI",
    "app_version": "2.3.5",
    "image": {
        "prompt": "a fox [ugly]",
        "steps": 12,
        "cfg_scale": 4.5,
        "width": 384,
        "height": 512,
        "seed": 77,
        "type": "txt2img",
        "sampler": "k_euler_a",
    },
}
FOOOCUS: dict[str, Any] = {
    "prompt": "a fox",
    "negative_prompt": "ugly",
    "full_prompt": ["a fox, cinematic"],
    "full_negative_prompt": ["ugly"],
    "styles": "['Fooocus V2']",
    "steps": 12,
    "resolution": "(384, 512)",
    "guidance_scale": 4.5,
    "sampler": "euler_ancestral",
    "scheduler": "karras",
    "seed": "77",
    "base_model": "other",
    "vae": "Default (model)",
    "metadata_scheme": "fooocus",
    "version": "Fooocus v2.5.0",
}
SWARM: dict[str, Any] = {
    "prompt": "a fox",
    "negativeprompt": "ugly",
    "model": "other",
    "seed": 77,
    "steps": 12,
    "cfgscale": 4.5,
    "width": 384,
    "height": 512,
    "sampler": "euler_ancestral",
    "scheduler": "karras",
    "swarm_version": "0.9",
}
NOVEL: dict[str, Any] = {
    "prompt": "a fox",
    "uc": "ugly",
    "steps": 12,
    "width": 384,
    "height": 512,
    "scale": 4.5,
    "seed": 77,
    "sampler": "k_euler_ancestral",
    "noise_schedule": "karras",
    "request_type": "PromptGenerateRequest",
}
CAPTIONS = {"caption": {"base_caption": "a fox", "char_captions": [{"char_caption": "a cat", "centers": []}]}}
EASY = {
    "prompt": "a fox",
    "negative_prompt": "ugly",
    "seed": "77",
    "num_inference_steps": "12",
    "guidance_scale": "4.5",
    "width": "384",
    "height": "512",
    "sampler_name": "euler_a",
    "use_stable_diffusion_model": "other",
    "use_lora_model": "None",
    "clip_skip": "True",
}
SPOKEN = {
    "Prompt": "a fox",
    "Negative Prompt": "ugly",
    "Seed": "77",
    "Steps": "12",
    "Guidance Scale": "4.5",
    "Width": "384",
    "Height": "512",
    "Sampler": "euler_a",
    "Stable Diffusion model": "other",
    "LoRA model": "['blueprint']",
    "LoRA strength": "[0.8]",
}
DRAW_THINGS = {"c": "a fox", "uc": "ugly", "scale": 4.5, "seed": 77, "size": "384x512", "steps": 12, "strength": 1}
PLAIN = {name: value for name, value in FOX.items() if name != "schedule"}
WRITTEN: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "InvokeAI 6": ("InvokeAI", {"invokeai_metadata": INVOKE}, FOX | {"sampler": "Euler", "model": "demo"}),
    "InvokeAI without a negative prompt": (
        "InvokeAI",
        {"invokeai_metadata": INVOKE | {"negative_prompt": None}},
        {"prompt": "a fox", "negative": ""},
    ),
    "InvokeAI with LoRAs": (
        "InvokeAI",
        {
            "invokeai_metadata": INVOKE
            | {"loras": [{"model": {"name": "blueprint"}, "weight": 0.8}], "clip_skip": 1, "vae": {"name": "sharp"}}
        },
        {"loras": BLUEPRINT, "clip_skip": 2, "vae": "sharp"},
    ),
    "InvokeAI 3": (
        "InvokeAI",
        {
            "invokeai_metadata": INVOKE
            | {"model": {"model_name": "demo"}, "loras": [{"lora": {"model_name": "blueprint"}, "weight": 0.8}]}
        },
        {"model": "demo", "loras": BLUEPRINT},
    ),
    "InvokeAI 2": ("InvokeAI", {"sd-metadata": OLD_INVOKE}, PLAIN | {"model": "demo"}),
    "InvokeAI 2 with a list": (
        "InvokeAI",
        {
            "sd-metadata": OLD_INVOKE
            | {"image": {**OLD_INVOKE["image"], "prompt": [{"prompt": "a fox", "weight": 1.0}]}}
        },
        {"prompt": "a fox", "negative": "", "seed": 77},
    ),
    "Dream": ("InvokeAI", {"Dream": '"a fox [ugly]" -s 12 -S 77 -W 384 -H 512 -C 4.5 -A k_euler_a'}, PLAIN),
    "Dream with two values": (
        "InvokeAI",
        {"Dream": '"a fox [ugly]" -s 12 -S 77 -W 384 -H 512 -U 2 0.75 -C 4.5 -A k_euler_a'},
        PLAIN,
    ),
    "Dream without blanks": ("InvokeAI", {"Dream": '"a fox [ugly]" -s12 -S77 -W384 -H512 -C4.5 -Ak_euler_a'}, PLAIN),
    "Fooocus": ("Fooocus", {"parameters": FOOOCUS | {"loras": [["blueprint.safetensors", 0.8, "0123"]]}}, FOX),
    "Fooocus' LoRAs": (
        "Fooocus",
        {"parameters": FOOOCUS | {"loras": [["blueprint.safetensors", 0.8, "0123"]]}},
        {"loras": BLUEPRINT},
    ),
    "Fooocus' older LoRAs": (
        "Fooocus",
        {
            "UserComment": FOOOCUS
            | {"lora_combined_1": "blueprint.safetensors : 0.8", "lora_combined_2": "False : night : 1"}
        },
        FOX | {"loras": BLUEPRINT},
    ),
    "Fooocus' first log": (
        "Fooocus",
        {
            "Comment": {
                "Prompt": "a fox",
                "Negative Prompt": "ugly",
                "Resolution": "(384, 512)",
                "Seed": 77,
                "Steps": 12,
                "Guidance Scale": 4.5,
                "Sampler": "euler_ancestral",
                "Scheduler": "karras",
                "Base Model": "other.safetensors",
                "LoRA 1": "blueprint.safetensors : 0.8",
            }
        },
        FOX | {"loras": BLUEPRINT},
    ),
    "RuinedFooocus": (
        "RuinedFooocus",
        {
            "parameters": {
                "Prompt": "a fox",
                "Negative": "ugly",
                "steps": 12,
                "cfg": 4.5,
                "width": 384,
                "height": 512,
                "seed": 77,
                "sampler_name": "euler_ancestral",
                "scheduler": "karras",
                "base_model_name": "other.safetensors",
                "loras": [["0123", "0.8 - blueprint"]],
                "software": "RuinedFooocus",
            }
        },
        FOX | {"loras": BLUEPRINT},
    ),
    "SwarmUI": ("SwarmUI", {"parameters": {"sui_image_params": SWARM}}, FOX),
    "SwarmUI in EXIF": (
        "SwarmUI",
        {"Model": {"sui_image_params": SWARM | {"clipstopatlayer": -2}}},
        FOX | {"clip_skip": 2},
    ),
    "SwarmUI's numbers as text": (
        "SwarmUI",
        {
            "parameters": {
                "sui_image_params": {name: str(value) for name, value in SWARM.items()}
                | {"clipstopatlayer": "-2"}
                | {"refinermodel": "demo", "refinermethod": "StepSwap", "refinercontrolpercentage": "0.25"}
            }
        },
        FOX | {"clip_skip": 2, "refiner": "demo", "refiner_at": 0.75},
    ),
    "SwarmUI's LoRAs": (
        "SwarmUI",
        {
            "UserComment": {
                "sui_image_params": SWARM
                | {"prompt": "a fox <lora:blueprint:0.8>", "loras": ["blueprint"], "loraweights": ["0.8"]}
            }
        },
        FOX | {"loras": BLUEPRINT},
    ),
    "SwarmUI's refiner": (
        "SwarmUI",
        {
            "parameters": {
                "sui_image_params": SWARM
                | {"refinermodel": "demo", "refinermethod": "StepSwap", "refinercontrolpercentage": 0.25}
            }
        },
        {"refiner": "demo", "refiner_at": 0.75},
    ),
    "NovelAI": ("NovelAI", {"Software": "NovelAI", "Description": "a fox", "Comment": NOVEL}, FOX),
    "NovelAI, its first version": (
        "NovelAI",
        {
            "Software": "NovelAI",
            "Description": "a fox",
            "Comment": {"steps": 12, "sampler": "k_euler_ancestral", "seed": 77, "strength": 0.69, "noise": 0.667}
            | {"scale": 4.5, "uc": "ugly"},
        },
        {"prompt": "a fox", "negative": "ugly", "seed": 77, "guidance": 4.5, "strength": None},
    ),
    "NovelAI 4": (
        "NovelAI",
        {"Comment": {**NOVEL, "prompt": "", "v4_prompt": CAPTIONS}, "Source": "NovelAI Diffusion V4"},
        FOX,
    ),
    "Easy Diffusion": ("Easy Diffusion", EASY, PLAIN | {"clip_skip": 2}),
    "Easy Diffusion in words": ("Easy Diffusion", SPOKEN, PLAIN | {"loras": BLUEPRINT}),
    "Easy Diffusion's task": ("Easy Diffusion", {"parameters": {"seed": 1, "reqBody": EASY}}, PLAIN),
    "Easy Diffusion in EXIF": ("Easy Diffusion", {"UserComment": EASY}, PLAIN),
    "Draw Things": (
        "Draw Things",
        {"XMP CreatorTool": "Draw Things", "XMP UserComment": DRAW_THINGS | {"sampler": "Euler A"}},
        PLAIN | {"strength": None},
    ),
    "Draw Things' schedules": (
        "Draw Things",
        {"XMP UserComment": DRAW_THINGS | {"sampler": "Euler Ancestral Karras"}},
        {"sampler": "Euler a", "schedule": "Karras"},
    ),
    "somebody's JSON": (
        "another program",
        {"UserComment": {"prompt": "a fox", "negative_prompt": "ugly", "seed": 77, "steps": 12, "cfg": 4.5}},
        {"prompt": "a fox", "negative": "ugly", "seed": 77, "steps": 12, "guidance": 4.5},
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_programs_are_read(read, name: str) -> None:
    program, texts, expected = WRITTEN[name]
    info = read(**{key: text if isinstance(text, str) else json.dumps(text) for key, text in texts.items()})
    assert info.program == program
    assert {field: info.values.get(field) for field in expected} == expected, info.unmapped


def test_what_they_say_beyond_is_listed(read) -> None:
    lines = read(Comment=json.dumps({**NOVEL, "v4_prompt": CAPTIONS, "cfg_rescale": 0.2})).unmapped
    assert "character in v4_prompt: a cat" in lines and "cfg_rescale: 0.2" in lines
    lines = read(parameters=json.dumps(FOOOCUS)).unmapped
    assert "styles: ['Fooocus V2']" in lines and "full_prompt: a fox, cinematic" in lines
    info = read(invokeai_metadata=json.dumps(INVOKE | {"positive_prompt": '("a fox", "a cat").blend(0.5, 0.5)'}))
    assert any("InvokeAI's ).blend(...) is not supported here" in line for line in info.unmapped)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("a fox", [("a fox", 1.0)]),
        ("{a} fox", [("a", 1.05), (" fox", 1.0)]),
        ("{{a}} fox", [("a", 1.1025), (" fox", 1.0)]),
        ("[a] (fox)", [("a", 0.9524), (" (fox)", 1.0)]),
        ("1.5::a :: fox", [("a ", 1.5), (" fox", 1.0)]),
        ("-1::a:: fox", [("a", -1.0), (" fox", 1.0)]),
        ("{a fox", [("a fox", 1.05)]),
        ("a} fox", [("a fox", 1.0)]),
        ("0.5::a, 2::b::", [("a, ", 0.5), ("b", 2.0)]),
    ],
)
def test_novelais_weights_become_ours(text: str, weights: list[tuple[str, float]]) -> None:
    assert [(words.text, round(words.weight, 4)) for words in parse_weights(from_novelai(text))] == weights


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("a fox", [("a fox", 1.0)]),
        ("a fox++", [("a ", 1.0), ("fox", 1.21)]),
        ("a red-, fox", [("a ", 1.0), ("red", 0.9), (", fox", 1.0)]),
        ("a (red fox)1.3 here", [("a ", 1.0), ("red fox", 1.3), (" here", 1.0)]),
        ("a (red (old)+ fox)+", [("a ", 1.0), ("red ", 1.1), ("old", 1.21), (" fox", 1.1)]),
        ("a (red) [old] fox", [("a red [old] fox", 1.0)]),
        (r"a \(red\) sci-fi fox", [("a (red) sci-fi fox", 1.0)]),
        ("a) fox (b", [("a) fox (b", 1.0)]),
        ("C++ or a-b", [("C", 1.21), (" or a-b", 1.0)]),
    ],
)
def test_invokeais_weights_become_ours(text: str, weights: list[tuple[str, float]]) -> None:
    assert [(words.text, round(words.weight, 4)) for words in parse_weights(from_compel(text))] == weights


@given(text=st.text(st.sampled_from("ab (){}[]+-:.,0123\\"), max_size=40))
def test_no_marks_make_them_fail(text: str) -> None:
    assert parse_weights(from_compel(text)) and parse_weights(from_novelai(text))


@pytest.mark.parametrize("body", [[], 3, None, "x", {"a": 1}, {"prompt": 3}, {"nodes": 3, "links": 3}, {"image": []}])
@pytest.mark.parametrize("name", ["parameters", "prompt", "workflow", "invokeai_metadata", "sd-metadata", "Comment"])
def test_json_of_no_program_is_said(name: str, body: Any) -> None:
    found = parse({name: json.dumps(body)})
    assert found.unmapped and not found.is_complete


def test_a_graph_of_invokeais_without_settings_is_named(read) -> None:
    info = read(invokeai_graph=json.dumps({"id": "x", "nodes": {}}))
    assert info.program == "InvokeAI" and info.unmapped == (
        "invokeai_graph: InvokeAI's graph has no settings beside it",
    )
    assert read(invokeai_graph="{}", invokeai_metadata=json.dumps(INVOKE)).unmapped == ()


def test_more_loras_than_can_be_looked_for_are_counted(read) -> None:
    body = {"sui_image_params": SWARM | {"loras": [f"x{k}" for k in range(5_000)], "prompt": "<lora:y:1>" * 700}}
    info = read(parameters=json.dumps(body))
    assert "LoRA: 5,000 are named; the first 64 are looked for" in info.unmapped and info.values["seed"] == 77


@pytest.mark.parametrize(
    "text",
    [
        "Prompt: a fox\nnegative prompt: ugly\nSteps: 12, Sampler: Euler a, Seed: 7",
        "**Positive prompt:** a fox\n**Negative prompt:** ugly\nSteps: 12, Sampler: Euler a, Seed: 7",
        "positive_prompt：a fox\nnegative_prompt：ugly\nSteps: 12, Sampler: Euler a, Seed: 7",
    ],
)
def test_headings_that_people_write_are_no_part_of_the_prompts(catalog, text: str) -> None:
    values = read_text(text, catalog).values
    assert (values["prompt"], values["negative"], values["steps"]) == ("a fox", "ugly", 12)


@pytest.mark.parametrize("prompt", ["{{masterpiece}}, a fox", "{red|blue} fox", '{"subject": "fox"}'])
def test_a_prompt_may_begin_like_json(read, catalog, prompt: str) -> None:
    text = f"{prompt}\nNegative prompt: ugly\nSteps: 12, Sampler: Euler a, Seed: 7"
    for info in (read(parameters=text), read_text(text, catalog)):
        assert {name: info.values[name] for name in ("prompt", "negative", "steps", "seed")} == {
            "prompt": prompt,
            "negative": "ugly",
            "steps": 12,
            "seed": 7,
        }
    assert read_text("{{masterpiece}}, a fox", catalog).values["prompt"] == "{{masterpiece}}, a fox"
    assert not read_text('{"prompt": "a fox', catalog).values


@pytest.mark.parametrize("head", ["a fox\nin snow\n", "prompt: a fox in snow\n", "prompt: a fox\nin snow\n"])
def test_settings_with_a_line_each_are_read(catalog, head: str) -> None:
    lines = "Width: 384\nHeight: 512\nSeed: 77\nSteps: 12\nGuidance Scale: 4.5\nUse Upscaling: None\nSampler: euler_a\n"
    info = read_text(f"{head}{lines}Negative Prompt: ugly\nStable Diffusion model: other", catalog)
    expected = FOX | {"prompt": head.strip().removeprefix("prompt: ")}
    del expected["schedule"]
    assert {name: info.values.get(name) for name in expected} == expected
    assert info.program == "Easy Diffusion"


def test_a_prompt_of_labels_is_no_list_of_settings(catalog) -> None:
    prompt = "Model: tall\nScale: one\nSeed: flower"
    values = read_text(f"{prompt}\nNegative prompt: ugly\nSteps: 12, Sampler: Euler a, Seed: 7", catalog).values
    assert (values["prompt"], values["negative"], values["steps"], values["seed"]) == (prompt, "ugly", 12, 7)


def test_a_request_in_json_brings_its_loras(catalog) -> None:
    body = {"prompt": "a fox", "steps": 12, "seed": 7, "loras": ["blueprint:0.5:0.8"]}
    found = read_text(json.dumps(body), catalog).values["loras"]
    assert found == (LoraRef(name="blueprint", weight=0.8, text_weight=0.5),)


def test_civitai_s_json_brings_clip_skip_and_loras(catalog) -> None:
    body = {"prompt": "a fox", "cfgScale": 4, "steps": 12, "seed": 7, "clipSkip": 2, "schedule": "Karras"}
    resources = [{"type": "model", "name": "demo"}, {"type": "lora", "name": "blueprint", "weight": 0.8}]
    values = read_text(json.dumps(body | {"sampler": "Euler a", "resources": resources}), catalog).values
    assert (values["clip_skip"], values["schedule"]) == (2, "Karras")
    assert values["loras"] == (LoraRef(name="blueprint", weight=0.8),)


def test_settings_as_text_are_read_like_those_in_pictures(catalog) -> None:
    text = "a red apple\r\nNegative prompt: blurry\r\nSteps: 3, Sampler: Euler a, CFG scale: 4.5, Seed: 12, Size: 64x96"
    info = read_text(text, catalog)
    assert info.values["negative"] == "blurry" and (info.values["seed"], info.values["height"]) == (12, 96)
    assert info.raw == text.replace("\r\n", "\n")
    assert read_text("Parameters: " + " ".join(text.splitlines()), catalog).values["prompt"] == "a red apple"
    assert read_text(json.dumps(FOOOCUS), catalog).program == "Fooocus"
    words = read_text("a red apple", catalog)
    assert (words.program, words.values) == ("", {"prompt": "a red apple"})
    assert read_text(" \n", catalog).unmapped == ("No settings were found in this text.",)
    assert "characters" in read_text("x" * 3_000_000, catalog).unmapped[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
BODIES = [INVOKE, OLD_INVOKE, FOOOCUS, {"sui_image_params": SWARM}, NOVEL | {"v4_prompt": CAPTIONS}, EASY, SPOKEN]
BODIES += [DRAW_THINGS, {"prompt": "a", "steps": 1, "seed": 2, "loras": [], "lora": []}]


def change(body: Any, draw: Any) -> Any:
    """The same with something else in one place, at any depth."""
    if isinstance(body, dict) and body and draw(st.integers(0, 4)):
        key = draw(st.sampled_from([*body, "loras", "image", "caption", "definitions"]))
        return {**body, key: change(body.get(key), draw)}
    if isinstance(body, list) and body and draw(st.integers(0, 4)):
        place = draw(st.integers(0, len(body) - 1))
        return [*body[:place], change(body[place], draw), *body[place + 1 :]]
    return draw(JSON)


@given(body=st.sampled_from(BODIES), data=st.data(), name=st.sampled_from(["parameters", "UserComment", "Comment"]))
def test_whatever_stands_in_their_places_no_reader_fails(catalog, body: dict[str, Any], data: Any, name: str) -> None:
    for _ in range(data.draw(st.integers(1, 4))):
        body = change(body, data.draw)
    info = read_text(json.dumps(body), catalog)
    assert all("\n" not in line for line in info.unmapped)
    assert parse({name: json.dumps(body)}) is not None
