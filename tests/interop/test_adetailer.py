"""ADetailer's words: its arguments as details, and details in pictures, read back, whichever program wrote them."""

import json

import pytest

from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.files import FinderFile, ModelFile
from webui.core.groups.detail import Detail
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.interop.a1111.requests import Options, read_request
from webui.interop.picture_info import read_text

FACE = {"ad_model": "face_yolov8n.pt"}
# What version 24.11 of the extension writes.
THEIRS = (
    "a man\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 3, Size: 512x512, ADetailer model: face_yolov8n.pt, "
    'ADetailer prompt: "a face, sharp", ADetailer confidence: 0.35, ADetailer method to decide top k masks: Area, '
    "ADetailer mask only top k: 2, ADetailer dilate erode: 4, ADetailer mask blur: 8, ADetailer denoising strength: "
    "0.3, ADetailer inpaint only masked: True, ADetailer inpaint padding: 24, ADetailer model 2nd: hand_yolov8n.pt, "
    "ADetailer confidence 2nd: 0.3, ADetailer denoising strength 2nd: 0.4, ADetailer model 3rd: mediapipe_face_full, "
    "ADetailer use separate steps 2nd: True, ADetailer steps 2nd: 40, ADetailer version: 24.11.1, Version: v1.10.1"
)


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    finders = {name: FinderFile(name, tmp_path / f"{name}.onnx") for name in ("face_yolov8n", "hand_yolov8n")}
    models = {"demo": ModelFile("demo", tmp_path / "demo")}
    return Catalog(models, {}, {}, {}, {"Euler": ("Default",)}, finders=finders)


def asked(catalog, *args, script="ADetailer"):
    body = {"prompt": "a man", "alwayson_scripts": {script: {"args": list(args)}}}
    found = read_request(body, catalog, Options(), with_picture=False)
    return found.request.detail, found.comments


def refused(catalog, *args) -> str:
    with pytest.raises(RequestError) as error:
        asked(catalog, *args)
    assert error.value.field == "alwayson_scripts"
    return str(error.value).removeprefix("alwayson_scripts: ADetailer: ")


def test_its_arguments_are_details_one_after_another(catalog):
    face = FACE | {"ad_prompt": "eyes, sharp", "ad_negative_prompt": "blur", "ad_confidence": 0.5, "ad_mask_blur": 4}
    face |= {"ad_denoising_strength": "0.35", "ad_inpaint_only_masked_padding": 16, "ad_mask_k_largest": 0}
    hand = {
        "ad_model": "hand_yolov8n.pt",
        "ad_mask_k": 2,
        "ad_mask_filter_method": "Confidence",
        "ad_dilate_erode": -12,
    }
    hand |= {"is_api": []}
    details, comments = asked(catalog, True, False, face, hand, {"ad_model": "None"}, script="adetailer")
    first, second = details
    assert first == Detail(
        finder="face_yolov8n.pt",
        prompt="eyes, sharp",
        negative="blur",
        threshold=0.5,
        strength=0.35,
        padding=16,
        dilate=4,
        at_most=16,
    )
    assert second == Detail(finder="hand_yolov8n.pt", dilate=-12, at_most=2) and comments == ()


def test_what_is_off_asks_for_nothing_and_the_largest_are_told_of(catalog):
    assert (
        asked(catalog, False, False, FACE)[0]
        == asked(catalog)[0]
        == asked(catalog, True, {"ad_model": "None"})[0]
        == ()
    )
    assert asked(catalog, True, FACE | {"ad_tab_enable": False})[0] == ()
    (detail,), comments = asked(catalog, FACE | {"ad_mask_k": 1})
    assert detail.at_most == 1 and comments == ("ADetailer: ad_mask_k takes the surest parts here, not the largest",)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ad_mask_blur": 8}, "ad_mask_blur 8 is not supported here"),
        ({"ad_use_steps": True, "ad_steps": 40}, "ad_use_steps True is not supported here"),
        ({"ad_inpaint_only_masked": False}, "ad_inpaint_only_masked False is not supported here"),
        ({"ad_mask_merge_invert": "Merge"}, "ad_mask_merge_invert 'Merge' is not supported here"),
        ({"ad_controlnet_model": "openpose"}, "ad_controlnet_model 'openpose' is not supported here"),
        ({"ad_prompt": "a [SEP] b"}, "ad_prompt: [SEP] is not supported here"),
        ({"ad_dilate_erode": 129}, "ad_dilate_erode must be at most 128, not 129"),
        ({"ad_confidence": 3}, "ad_confidence must be at most 1, not 3"),
        ({"ad_mask_k": "many"}, "ad_mask_k must be a whole number, not 'many'"),
        ({"ad_model": "mediapipe_face_full"}, "ad_model “mediapipe_face_full” is not supported here; finders are ONNX"),
        ({"ad_modle": "x"}, "there is no argument “ad_modle”"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(catalog, changed, said):
    assert refused(catalog, FACE | changed).startswith(said)


def test_other_scripts_and_shapes_are_refused(catalog):
    assert "args must be a list" in refused_script(catalog, {"ADetailer": {"args": 3}})
    assert "there is no script 'other' here" in refused_script(catalog, {"ADetailer": {"args": []}, "other": {}})


def refused_script(catalog, scripts) -> str:
    with pytest.raises(RequestError) as error:
        read_request({"prompt": "a", "alwayson_scripts": scripts}, catalog, Options(), with_picture=False)
    return str(error.value)


def test_a_picture_of_the_extension_s_is_read_and_what_is_not_done_is_told(catalog):
    info = read_text(THEIRS, catalog)
    face, hand = info.values["detail"]
    assert face == Detail(
        finder="face_yolov8n", prompt="a face, sharp", threshold=0.35, at_most=2, strength=0.3, padding=24, dilate=4
    )
    assert hand == Detail(finder="hand_yolov8n", at_most=16)
    lines = "\n".join(info.unmapped)
    assert "ADetailer mask blur: 8" in lines and "the finder “mediapipe_face_full” is not here" in lines
    assert "ADetailer use separate steps 2nd: True" in lines and "version" not in lines and "dilate" not in lines
    assert json.dumps(info.to_json())


def test_our_pictures_say_it_in_the_same_words(catalog):
    details = (
        Detail(finder="face_yolov8n", prompt='say "hi", now: Steps', negative="no", strength=0.25),
        Detail(finder="demo-subject", at_most=16, threshold=0.5, padding=0, dilate=-8),
    )
    text = Recipe(Request(prompt="a", seed=1, detail=details)).infotext()
    assert ", ADetailer dilate erode: 0, " in text and ", ADetailer dilate erode 2nd: -8, " in text
    assert ", ADetailer model: face_yolov8n, " in text and ", ADetailer model 2nd: demo-subject, " in text
    assert read_text(text, catalog).values["detail"] == details
    tagged = Detail(finder="hand_yolov8n", loras=({"name": "night", "weight": 0.5},))
    assert 'ADetailer prompt: "<lora:night:0.5>"' in Recipe(Request(seed=1, detail=(tagged,))).infotext()
