"""sd-webui-controlnet's words: units as controls, its lists, and what ``detect`` answers."""

import base64
import io

import numpy as np
import pytest
from PIL import Image as PilImages

from tests.annotator_models import write_depth
from tests.ip_adapter_models import adapter_shapes, write_header
from webui.core import images
from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.files import AnnotatorFile, ControlFile, ModelFile
from webui.core.maps import make_map
from webui.interop.a1111.requests import Options, read_request
from webui.interop.controlnet_lists import TYPES, control_types, models, modules, read_detection, usable_maps

PICTURE = PilImages.linear_gradient("L").resize((40, 32)).convert("RGB")
TEXT = images.encode_text(PICTURE)
# As cyanic-sd-krita and Auto-Photoshop-StableDiffusion-Plugin send a unit.
KRITA = {
    **{"module": "canny", "model": "control_v11p_sd15_canny", "weight": 0.75, "resize_mode": 1, "lowvram": False},
    **{"preprocessor_res": 256, "threshold_a": 80, "threshold_b": 160, "guidance_start": 0.1, "guidance_end": 0.9},
    **{"control_mode": 2, "pixel_perfect": False, "input_image": TEXT},
}
PHOTOSHOP = {
    **{"enabled": True, "input_image": TEXT, "mask": "", "module": "canny", "weight": 0.75, "lowvram": True},
    **{"model": "control_v11p_sd15_canny [d14c016b]", "resize_mode": "Scale to Fit (Inner Fit)"},
    **{"processor_res": 256, "threshold_a": 80, "threshold_b": 160, "guidance_start": 0.1, "guidance_end": 0.9},
    **{"guessmode": False, "control_mode": "ControlNet is more important", "pixel_perfect": False},
}
ALONE = usable_maps({})
OFF = {"enabled": False, "input_image": "", "module": "", "model": "", "weight": 1}


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    names = ("control_v11p_sd15_canny", "control_v11p_sd15_inpaint", "t2iadapter_color", "xl_union")
    controls = {name: ControlFile(name, tmp_path / f"{name}.safetensors") for name in names}
    return Catalog(
        {"demo": ModelFile("demo", tmp_path / "demo")}, {}, {}, {}, {"Euler": ("Default",)}, controls=controls
    )


@pytest.fixture
def asked(catalog):
    def ask(*units, script="ControlNet", **body):
        body = {"prompt": "a house", **body, "alwayson_scripts": {script: {"args": [*units]}}}
        return read_request(body, catalog, Options(), with_picture="init_images" in body)

    return ask


@pytest.fixture
def control(asked):
    def read(**unit):
        (found,) = asked({"model": "xl_union", "image": TEXT, **unit}).request.controls
        return found

    return read


def values(control):
    return control.said | {"picture": control.image and images.pixels_sha256(control.image)}


@pytest.mark.parametrize("script", ["ControlNet", "controlnet"])
@pytest.mark.parametrize("unit", [KRITA, PHOTOSHOP])
def test_units_as_programs_send_them_are_controls(asked, unit, script):
    found = asked(OFF, unit, {}, script=script)
    (control,) = found.request.controls
    assert values(control) == {
        **{"model": "control_v11p_sd15_canny", "weight": 0.75, "start": 0.1, "end": 0.9, "preprocessor": "canny"},
        **{"mode": "control", "options": {"low": 80, "high": 160, "resolution": 256}},
        "picture": images.pixels_sha256(PICTURE),
    }
    assert found.comments == () and found.shown == (True,)


def test_older_programs_send_units_beside_the_scripts_and_newer_ones_both(catalog):
    for scripts in ({}, {"alwayson_scripts": {"controlnet": {"args": [PHOTOSHOP, OFF]}}}):
        body = {"controlnet_units": [PHOTOSHOP, OFF], **scripts}
        assert len(read_request(body, catalog, Options(), with_picture=False).request.controls) == 1


def test_a_picture_comes_in_each_form(asked, control):
    url = f"data:image/png;base64,{TEXT}"
    for form in (TEXT, url, {"image": TEXT}, {"image": url, "mask": None}, [TEXT], [{"image": TEXT}]):
        assert images.pixels_sha256(control(image=form).image) == images.pixels_sha256(PICTURE)
    (start,) = asked({"model": "xl_union"}, init_images=[TEXT]).request.controls
    assert start.image is None
    mask = PilImages.new("L", (20, 16))
    mask.paste(255, (0, 0, 10, 16))
    for form in ({"image": {"image": TEXT, "mask": images.encode_text(mask)}}, {"mask": images.encode_text(mask)}):
        known = control(module="inpaint_only", **form).image
        assert known.mode == "RGBA" and np.asarray(known)[16, [2, 35], 3].tolist() == [0, 255]
        painted = control(module="scribble_xdog", **form).image
        assert np.asarray(painted)[8, [2, 17]].tolist() == [[255] * 3, [0] * 3]
    large = images.encode_text(PilImages.new("RGB", (4000, 1000)))
    assert control(image=large).image.size == (2048, 512)
    empty = images.encode_text(PilImages.new("L", (40, 32)))
    assert images.pixels_sha256(control(mask=empty).image) == images.pixels_sha256(PICTURE)


def test_modes_and_numbers_in_words_and_as_numbers(control):
    for value in (1, "1", "My prompt is more important", "Prompt is more important"):
        assert control(control_mode=value).mode == "prompt"
    assert control(guessmode=True).mode == "control" and control(guessmode=True, control_mode=0).mode == "balanced"
    for value in (
        2,
        "Resize and Fill",
        "ResizeMode.RESIZE AND FILL",
        "Envelope (Outer Fit)",
        "Outer Fit (Shrink to Fit)",
    ):
        assert control(resize_mode=value).resize == "resize and fill"
    assert control(resize_mode=0).resize == control(resize_mode=3).resize == "just resize"
    assert control().resize == "crop and resize"
    assert control(weight="0.5", guidance="0.25").end == 0.25 and control(weight="0.5").weight == 0.5


def test_sliders_mean_the_options_of_each_module(asked, control):
    assert control(module="canny", processor_res=512, pixel_perfect=True, threshold_a=64, threshold_b=64).options == {
        "low": 64,
        "high": 64,
    }
    assert control(module="tile_resample", processor_res=512, threshold_a=2).options == {"rate": 2}
    assert control(module="invert (from white bg & black line)", threshold_a=64).preprocessor == "invert"
    assert control(module="canny", processor_res=-1, threshold_a=-1, threshold_b=-1).options == {}
    found = asked({"model": "xl_union", "image": TEXT, "module": "tile_resample", "threshold_a": 64})
    assert found.request.controls[0].options == {}
    assert found.comments == ("ControlNet unit 0: threshold_a 64 is out of bounds; tile has its default, 1",)


def test_a_union_is_told_what_its_map_shows_and_others_take_no_notice(asked, control, catalog):
    told = {"union_control_type": "Hard Edge"}
    assert control(**told).kind == "auto", "no union's file"
    shapes = {"task_embedding": (8, 320), "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)}
    shapes |= {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (64, 2048)}
    shapes |= {"controlnet_down_blocks.0.weight": (320, 320, 1, 1)}
    write_header(catalog.controls["xl_union"].path, shapes.items())
    for word, kind in (
        ("Hard Edge", "hard edge"),
        ("Normal Map", "normals"),
        ("OpenPose", "pose"),
        ("Unknown", "auto"),
    ):
        assert control(union_control_type=word).kind == kind
    with pytest.raises(RequestError, match="unit 0: union_control_type must be one of openpose, depth"):
        control(union_control_type="Sideways")


def test_a_map_stays_away_where_a_unit_says_so(asked):
    unit = {"model": "xl_union", "image": TEXT}
    assert asked(unit, unit | {"save_detected_map": False}).shown == (True, False)


REFUSED = [
    ({"model": "nothing"}, r"There is no control “nothing”"),
    ({"model": "None"}, "model: no control model is named"),
    ({"module": "lineart_anime"}, "There is no preprocessor “lineart_anime”"),
    ({"image": "http://127.0.0.1/x.png"}, "image must be a picture as base64; addresses are not fetched"),
    ({"image": "/etc/passwd"}, "image is not base64"),
    ({"image": [TEXT, TEXT, TEXT]}, "image: 3 pictures were given; one is taken"),
    ({"weight": 3}, "weight must be at most 2"),
    ({"guidance_end": -1}, "guidance_end must be at least 0"),
    ({"control_mode": 7}, "control_mode must be one of balanced"),
    ({"control_mode": True}, "control_mode must be one of balanced"),
    ({"resize_mode": "Sideways"}, "resize_mode must be one of just resize"),
    ({"module": "canny", "threshold_a": "low"}, "threshold_a must be a number"),
    ({"guidance_start": 0.8, "guidance_end": 0.2}, "guidance_start 0.8 is behind guidance_end 0.2"),
    ({"advanced_weighting": [1.0] * 13}, "advanced_weighting is not supported here"),
    ({"effective_region_mask": TEXT}, "effective_region_mask is not supported here"),
]


@pytest.mark.parametrize(("unit", "reason"), REFUSED)
def test_what_cannot_be_done_is_named_with_its_unit(asked, unit, reason):
    with pytest.raises(RequestError) as error:
        asked(OFF, {"model": "xl_union", "image": TEXT} | unit)
    assert str(error.value).startswith(f"alwayson_scripts: ControlNet unit 1: {reason}"), str(error.value)
    assert error.value.field == "alwayson_scripts"


def test_more_of_a_request_that_cannot_be_done(asked, catalog):
    unit = {"model": "xl_union", "image": TEXT}
    with pytest.raises(RequestError, match="more than 8 units are on"):
        asked(*[unit] * 9)
    with pytest.raises(RequestError, match="hr_option 'High res only' is not supported here"):
        asked(unit | {"hr_option": "High res only"}, enable_hr=True)
    assert asked(unit | {"hr_option": "High res only"}).request.controls
    for both in ("Both", "HiResFixOption.BOTH", 0):
        assert asked(unit | {"hr_option": both}, enable_hr=True).request.controls
    for args in ("canny", [True, unit]):
        with pytest.raises(RequestError, match="args must be a list of units"):
            read_request({"alwayson_scripts": {"controlnet": {"args": args}}}, catalog, Options(), with_picture=False)


def test_what_an_ip_adapter_is_shown_needs_no_map(asked, catalog):
    for module in ("ip-adapter-auto", "ip-adapter_clip_sd15", "ip-adapter_clip_sdxl_plus_vith"):
        (control,) = asked({"model": "xl_union", "image": TEXT, "module": module}).request.controls
        assert control.preprocessor == "none"
    write_header(catalog.controls["t2iadapter_color"].path, adapter_shapes("plain", (320,), context=768, sees=1024))
    found = asked({"model": "t2iadapter_color", "image": TEXT, "control_mode": 2}, {"model": "xl_union", "image": TEXT})
    assert found.request.controls[0].mode == "balanced"
    assert found.comments == (
        "ControlNet unit 0: control_mode: an IP-Adapter has no other mode than balanced, which is taken",
    )
    types = control_types(ALONE, ["ip-adapter_sd15"])["control_types"]
    assert types["IP-Adapter"]["default_option"] == "ip-adapter-auto"
    assert types["IP-Adapter"]["default_model"] == "ip-adapter_sd15"


def test_the_lists(catalog):
    plain, shown = modules(ALONE, False), modules(ALONE, True)
    assert {"none", "canny", "lineart_standard", "invert", "inpaint", "inpaint_only"} <= {*plain["module_list"]}
    assert {"invert (from white bg & black line)", "t2ia_color_grid"} <= {*shown["module_list"]}
    names = [slider["name"] for slider in shown["module_detail"]["canny"]["sliders"]]
    assert names == ["Preprocessor Resolution", "Low threshold", "High threshold"]
    assert shown["module_detail"]["none"] == {"model_free": False, "sliders": []}
    for listed in (plain, shown):
        assert list(listed["module_detail"]) == listed["module_list"] and len(listed["module_list"]) == len(ALONE) + 2
    assert models(catalog.controls)[:2] == ["None", "control_v11p_sd15_canny"]
    types = control_types(ALONE, [*catalog.controls])["control_types"]
    assert list(types) == ["All", *TYPES]
    assert types["All"]["model_list"] == models(catalog.controls)
    canny = {"module_list": ["none", "canny", "invert (from white bg & black line)"], "default_option": "canny"}
    canny |= {"model_list": ["None", "control_v11p_sd15_canny", "xl_union"], "default_model": "control_v11p_sd15_canny"}
    assert types["Canny"] == canny and types["T2I-Adapter"]["model_list"] == ["None", "t2iadapter_color"]


@pytest.mark.parametrize("module", modules(ALONE, True)["module_list"])
def test_each_module_that_is_listed_is_detected(module):
    body = {"controlnet_module": module, "controlnet_input_images": [TEXT, TEXT], "controlnet_masks": [TEXT, TEXT]}
    made = list(read_detection(body | {"controlnet_processor_res": 64}, {}).maps())
    assert {drawn.size for drawn in made} <= {(80, 64), (40, 32)} and len(made) == 2


def test_a_module_with_a_network_is_listed_and_detected_where_its_file_is(tmp_path):
    path = write_depth(tmp_path / "depth_anything_v2_vits.onnx")
    files = {path.stem: AnnotatorFile(path.stem, path)}
    rows = usable_maps(files)
    assert "depth_midas" in modules(rows, True)["module_list"] and "openpose" not in modules(rows, True)["module_list"]
    assert control_types(rows, ["xl_depth"])["control_types"]["Depth"]["default_option"] == "depth_midas"
    body = {"controlnet_module": "depth_anything_v2", "controlnet_input_images": [TEXT], "controlnet_processor_res": 64}
    (made,) = read_detection(body, files).maps()
    levels = np.asarray(made)[..., 0]
    assert made.size == (80, 64) and levels[0].max() < 8 and levels[-1].min() > 247


def test_a_detection_is_the_map_at_its_resolution():
    body = {"controlnet_module": "canny", "controlnet_images": [f"data:image/png;base64,{TEXT}"]}
    sliders = {"controlnet_processor_res": 64, "controlnet_threshold_a": 20, "controlnet_threshold_b": 40}
    (made,) = read_detection(body | sliders, {}).maps()
    assert made.tobytes() == make_map("canny", PICTURE, (80, 64), options={"low": 20, "high": 40}).tobytes()
    (usual,) = read_detection(body | {"controlnet_processor_res": -1, "controlnet_threshold_a": None}, {}).maps()
    assert usual.size == (640, 512)


LONG = io.BytesIO()
PilImages.new("L", (4000, 8)).save(LONG, "PNG")
BAD_DETECTIONS = [
    ({"controlnet_module": "openpose"}, "preprocessor", "the preprocessor body needs YOLOX as an ONNX file in models/"),
    ({"controlnet_module": "INVALID"}, "controlnet_module", "There is no preprocessor “INVALID”"),
    ({"controlnet_input_images": []}, "controlnet_input_images", "no picture was given"),
    ({"controlnet_input_images": {}}, "controlnet_input_images", "no picture was given"),
    ({"controlnet_input_images": 3}, "controlnet_input_images", "must be a list of pictures"),
    ({"controlnet_input_images": [3]}, "controlnet_input_images", "must be a picture as base64"),
    ({"controlnet_input_images": ["https://x.y/z.png"]}, "controlnet_input_images", "addresses are not fetched"),
    ({"controlnet_input_images": [TEXT] * 17}, "controlnet_input_images", "16 is the limit"),
    ({"controlnet_module": "inpaint_only"}, "controlnet_masks", "inpaint_only needs a mask for each picture"),
    ({"controlnet_threshold_a": "x"}, "controlnet_threshold_a", "controlnet_threshold_a must be a number"),
    (
        {"controlnet_input_images": [base64.b64encode(LONG.getvalue()).decode()], "controlnet_processor_res": 512},
        "controlnet_processor_res",
        "the map would be 256000 x 512 px; the limit is 8 megapixels",
    ),
]


@pytest.mark.parametrize(("body", "field", "reason"), BAD_DETECTIONS)
def test_a_detection_that_cannot_be_made_is_named(body, field, reason):
    with pytest.raises(RequestError, match=reason) as error:
        list(read_detection({"controlnet_module": "canny", "controlnet_input_images": [TEXT]} | body, {}).maps())
    assert error.value.field == field
