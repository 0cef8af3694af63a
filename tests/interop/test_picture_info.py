"""What is read from pictures of each program, as it writes its texts, and from pictures that mean harm."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PilImages
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

from webui.core.catalog import Catalog
from webui.core.events import Image
from webui.core.images import ImageError
from webui.core.recipe import Recipe
from webui.core.request import LoraRef, Request
from webui.interop.picture_info import MAX_REASONS, as_text, read_info, read_text
from webui.workspace.outputs import save_picture

A1111 = """a (red:1.2) apple, Steps: 9 in the prompt, <lora:blueprint:0.8>
Negative prompt: blurry, worst quality
Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 123, Size: 512x640, Model hash: 0123456789, \
Model: demo, Denoising strength: 0.4, Clip skip: 2, Version: {version}"""
COMFY = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 77,
            "steps": 12,
            "cfg": 4.5,
            "sampler_name": "euler_ancestral",
            "scheduler": "karras",
            "denoise": 1.0,
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd/other.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 384, "height": 512, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["4", 1]}},
}
INVOKE = {
    "app_version": "5.0.0",
    "generation_mode": "txt2img",
    "positive_prompt": "a fox",
    "negative_prompt": "ugly",
    "width": 384,
    "height": 512,
    "seed": 77,
    "cfg_scale": 4.5,
    "steps": 12,
    "scheduler": "euler_a",
    "model": {"key": "x", "name": "other", "hash": "blake3:0", "base": "sd-1"},
}
FOOOCUS = {
    "prompt": "a fox",
    "negative_prompt": "ugly",
    "full_prompt": ["a fox"],
    "full_negative_prompt": ["ugly"],
    "styles": "['Fooocus V2']",
    "performance": "Speed",
    "steps": 12,
    "resolution": "(384, 512)",
    "guidance_scale": 4.5,
    "sampler": "euler_ancestral",
    "scheduler": "karras",
    "seed": "77",
    "base_model": "other",
    "base_model_hash": "0123456789",
    "metadata_scheme": "fooocus",
    "version": "Fooocus v2.5.0",
}
SWARM = {
    "sui_image_params": {
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
        "refinerupscale": 2,
        "swarm_version": "0.9",
    }
}
FOX = {"prompt": "a fox", "negative": "ugly", "seed": 77, "steps": 12, "width": 384, "height": 512}


@pytest.mark.parametrize(
    ("version", "program"), [("v1.10.1", "AUTOMATIC1111"), ("f2.0.1v1.10.1-previous-659", "Forge")]
)
def test_a1111_and_forge(read, version: str, program: str) -> None:
    info = read(parameters=A1111.format(version=version))
    assert info.program == program
    assert info.values["prompt"].startswith("a (red:1.2) apple, Steps: 9 in the prompt")
    expected = {"negative": "blurry, worst quality", "steps": 25, "sampler": "DPM++ 2M", "schedule": "Karras"}
    expected |= {"guidance": 6.5, "seed": 123, "width": 512, "height": 640, "model": "demo", "strength": 0.4}
    assert {name: info.values[name] for name in expected} == expected
    assert info.raw == A1111.format(version=version)


@pytest.mark.parametrize(
    ("program", "texts"),
    [
        ("ComfyUI", {"prompt": json.dumps(COMFY)}),
        ("InvokeAI", {"invokeai_metadata": json.dumps(INVOKE)}),
        ("Fooocus", {"parameters": json.dumps(FOOOCUS)}),
        ("SwarmUI", {"parameters": json.dumps(SWARM)}),
    ],
)
def test_the_others(read, program: str, texts: dict[str, str]) -> None:
    info = read(**texts)
    assert info.program == program
    assert {name: info.values.get(name) for name in FOX} == FOX, info.unmapped
    assert info.values["guidance"] == 4.5
    assert info.values["sampler"] == "Euler a"
    assert any("other" in line and "is not here" in line for line in info.unmapped)


def test_what_means_nothing_here_is_listed(read) -> None:
    info = read(
        parameters="a\nSteps: 5, Sampler: Restart, CFG scale: 900, Seed: 1, Size: 100x64, ADetailer model: face"
    )
    text = "\n".join(info.unmapped)
    for part in ("sampler: “Restart”", "guidance must be", "width must be a multiple of 8", "finder “face”"):
        assert part in text
    assert info.values["steps"] == 5 and "guidance" not in info.values and "width" not in info.values


def test_ours_is_exact(tmp_path: Path, catalog: Catalog) -> None:
    request = Request(prompt="a fox", seed=5, steps=7, loras=[LoraRef(name="gone", weight=0.5)])
    picture = Image(0, PilImages.new("RGB", (64, 64)), Recipe(request, {"model": {"demo": "0" * 64}}))
    path = save_picture(picture, tmp_path)
    for source in (path, path.read_bytes()):
        info = read_info(source, catalog)
        assert (info.program, info.values["loras"], info.values["steps"]) == ("Darkroom", request.loras, 7)
        assert info.unmapped == ("LoRA: “gone” is not here",)
        assert json.loads(json.dumps(info.to_json()))["values"]["loras"] == [{"name": "gone", "weight": 0.5}]


def test_a_variation_is_read_from_both_texts(read, tmp_path: Path, catalog: Catalog) -> None:
    request = Request(prompt="a fox", seed=5, variation={"seed": 9, "strength": 0.25})
    picture = Image(0, PilImages.new("RGB", (64, 64)), Recipe(request))
    for info in (read_info(save_picture(picture, tmp_path), catalog), read(parameters=picture.recipe.infotext())):
        assert (info.values["variation.seed"], info.values["variation.strength"]) == (9, 0.25)
        assert info.to_json()["values"]["variation"] == {"seed": 9, "strength": 0.25}
    wrong = read(parameters="a fox\nSteps: 5, Seed: 1, Size: 64x64, Variation seed: 9, Variation seed strength: 7")
    assert wrong.values["variation.seed"] == 9 and "variation.strength must be at most 1, not '7'" in wrong.unmapped


@pytest.mark.parametrize(
    ("program", "prompt"), [("ComfyUI", r"a \AND b, \[c|d\]"), ("A1111", "a AND b, [c|d]")], ids=lambda text: text[:7]
)
def test_marks_that_another_program_does_not_know_stay_words(read, program, prompt) -> None:
    words = "a AND b, [c|d]"
    graph = COMFY | {"6": {"class_type": "CLIPTextEncode", "inputs": {"text": words, "clip": ["4", 1]}}}
    texts = {"ComfyUI": {"prompt": json.dumps(graph)}, "A1111": {"parameters": f"{words}\nSteps: 5, Sampler: Euler"}}
    assert read(**texts[program]).values["prompt"] == prompt


def test_what_was_drawn_as_words_is_written_so_that_it_stays_words(tmp_path: Path, catalog: Catalog) -> None:
    request = Request(prompt="a [cat:dog:0.5] AND b", width=64, height=64, syntax=1)
    path = save_picture(Image(0, PilImages.new("RGB", (64, 64)), Recipe(request)), tmp_path)
    values = read_info(path, catalog).values
    assert values["prompt"] == r"a [cat\:dog\:0.5] \AND b" and "syntax" not in values


def test_a_template_is_told_beside_what_was_drawn(tmp_path: Path, catalog: Catalog) -> None:
    templates = {"template": "a {red|green} apple", "negative_template": "__x__"}
    request = Request(prompt="a {x|y} red apple", width=64, height=64, syntax=2, **templates)
    picture = Image(0, PilImages.new("RGB", (64, 64)), Recipe(request))
    for values in (
        read_info(save_picture(picture, tmp_path), catalog).values,
        read_text(picture.recipe.infotext(), catalog).values,
    ):
        assert values["prompt"] == r"a {x\|y} red apple" and {name: values[name] for name in templates} == templates


@pytest.mark.parametrize("ending", ["jpg", "webp", "avif"])
def test_exif_of_other_kinds_of_file(tmp_path: Path, catalog: Catalog, ending: str) -> None:
    picture = PilImages.new("RGB", (64, 64))
    exif = picture.getexif()
    text = "a 🦊\nSteps: 5, Sampler: Euler, CFG scale: 5, Seed: 1, Size: 64x64"
    exif.get_ifd(IFD.Exif)[Base.UserComment] = b"UNICODE\0" + text.encode("utf-16-be")
    picture.save(tmp_path / f"x.{ending}", exif=exif.tobytes())
    info = read_info(tmp_path / f"x.{ending}", catalog)
    assert (info.values["prompt"], info.values["sampler"]) == ("a 🦊", "Euler")


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"parameters": "x" * 60_000}, "characters are too many"),
    ({"parameters": "no settings at all"}, "no line of settings"),
    ({"parameters": "{" * 5_000}, "cannot be read as JSON"),
    ({"prompt": "[" * 100_000}, "characters are too many"),
    ({"prompt": '{"1": ' + "[" * 100_000}, "cannot be read as JSON"),
    ({"prompt": json.dumps({"1": {"inputs": {"steps": []}}})}, "no sampler node"),
    ({"prompt": json.dumps({str(k): {} for k in range(2_001)})}, "2,001 nodes"),
    ({"parameters": json.dumps({"sui_image_params": 3})}, "not a JSON object"),
    ({"parameters": json.dumps({"sui_image_params": {"steps": {"a": 1}, "seed": True}})}, "steps must be"),
    ({"invokeai_metadata": "[]"}, ""),
    ({"Dream": " " * 40_000 + "-s"}, ""),
    ({"darkroom": '{"schema": 99}'}, "schema"),
    ({"darkroom": "{" * 3_000}, ""),
]


@pytest.mark.parametrize(("texts", "reason"), HOSTILE)
@pytest.mark.timeout(20)
def test_what_means_harm_is_answered_in_lines(read, texts: dict[str, str], reason: str) -> None:
    info = read(**texts)
    assert info.unmapped and any(reason in line for line in info.unmapped), info
    assert len(info.unmapped) <= MAX_REASONS + 1 and all(
        len(line) <= 300 and "\n" not in line for line in info.unmapped
    )


def test_steering_characters_are_gone_and_a_second_negative_prompt_stays_text(read) -> None:
    text = "<script>alert(1)</script> \u202eמ 🎨 \x1b[31m\nNegative prompt: one\nNegative prompt: two\n"
    info = read(parameters=text + "Steps: 5, Sampler: Euler, CFG scale: 5, Seed: 1, Size: 64x64")
    assert "\x1b" not in info.raw and "<script>alert(1)</script>" in info.values["prompt"]
    assert info.values["negative"] == "one\ntwo"


def test_a_graph_that_runs_in_circles_ends(read) -> None:
    circle = {name: dict(node, inputs={**node["inputs"], "text": ["6", 0]}) for name, node in COMFY.items()}
    assert read(prompt=json.dumps(circle)).values["steps"] == 12


def test_a_text_of_50_mb_and_a_file_that_is_none(tmp_path: Path, catalog: Catalog) -> None:
    chunks = PngInfo()
    chunks.add_text("parameters", "a" * 50_000_000, zip=True)
    PilImages.new("RGB", (64, 64)).save(tmp_path / "x.png", pnginfo=chunks)
    with pytest.raises(ImageError):
        read_info(tmp_path / "x.png", catalog)
    with pytest.raises(ImageError, match="not a picture"):
        read_info(b"<svg onload=alert(1)>", catalog)


def test_lists_are_said_for_people():
    control = {"model": "edges", "image": {"sha256": "1234" * 16}, "options": {"low": 5}}
    assert as_text((control, "box=0:0:1:1")) == "model=edges,image=123412341234,options=low=5, box=0:0:1:1"
