"""sd-webui-controlnet's API, asked by webuiapi's own classes and with bodies as other programs send them."""

import base64
import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImages
from PIL import ImageDraw
from safetensors.numpy import load_file, save_file
from webuiapi import ControlNetUnit, WebUIApi, raw_b64_img

from tests.annotator_models import write_depth
from webui.core.maps import make_map

from .server import REPOSITORY, SMALL, Server

NAME = "control_demo_canny"
SKIPS = (64, 64, 64, 160, 160, 224)
"""Channels of what the embedded model's encoder hands on."""


def write_control(folder: Path) -> None:
    """A ControlNet for the embedded model in diffusers' layout: its own encoder, and random weights for the rest."""
    demo, random = REPOSITORY / "webui" / "demo" / "unet", np.random.default_rng(3)
    kept = ("conv_in.", "time_embedding.", "down_blocks.", "mid_block.")
    whole = load_file(demo / "diffusion_pytorch_model.safetensors")
    tensors = {key: value.astype(np.float32) for key, value in whole.items() if key.startswith(kept)}
    sides = {f"controlnet_down_blocks.{number}": (side, side, 1) for number, side in enumerate(SKIPS)}
    sides |= {"controlnet_mid_block": (SKIPS[-1], SKIPS[-1], 1), "controlnet_cond_embedding.conv_in": (16, 3, 3)}
    steps = zip((16, 32, 32, 96, 96, 256), (16, 16, 32, 32, 96, 96), strict=True)
    sides |= {f"controlnet_cond_embedding.blocks.{number}": (*step, 3) for number, step in enumerate(steps)}
    sides["controlnet_cond_embedding.conv_out"] = (SKIPS[0], 256, 3)
    for name, (out, into, side) in sides.items():
        weight = random.normal(scale=(into * side * side) ** -0.5, size=(out, into, side, side))
        tensors |= {f"{name}.weight": weight.astype(np.float32), f"{name}.bias": np.zeros(out, np.float32)}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    config = json.loads((demo / "config.json").read_text("utf-8"))
    config |= {"_class_name": "ControlNetModel", "conditioning_embedding_out_channels": [16, 32, 96, 256]}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


@pytest.fixture(scope="module")
def control(server: Server) -> Iterator[str]:
    """Its name in the server's folder."""
    folder = server.data_dir / "models" / "ControlNet" / NAME
    write_control(folder)
    server.client.post("/sdapi/v1/refresh-checkpoints")
    yield NAME
    shutil.rmtree(folder)
    server.client.post("/sdapi/v1/refresh-checkpoints")


@pytest.fixture(scope="module")
def picture() -> PilImages.Image:
    drawn = PilImages.new("RGB", (96, 64), (240, 240, 230))
    ImageDraw.Draw(drawn).ellipse((30, 10, 70, 50), fill=(200, 30, 20))
    return drawn


@pytest.fixture
def client(server: Server) -> WebUIApi:
    server.settle()
    return WebUIApi(baseurl=f"{server.url.rstrip('/')}/sdapi/v1", steps=2)


def ask(server: Server, path: str, body: Any) -> dict[str, Any]:
    answer = server.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def opened(text: str) -> PilImages.Image:
    return PilImages.open(io.BytesIO(base64.b64decode(text, validate=True)))


def test_what_there_is_and_what_is_detected(client, server, control, picture):
    assert client.controlnet_version() == 3
    assert client.controlnet_model_list()[0] == "None" and control in client.controlnet_model_list()
    assert {"canny", "none", "scribble_xdog"} <= {*client.controlnet_module_list()}
    settings = server.client.get("/controlnet/settings").json()
    assert settings["control_net_unit_count"] == settings["control_net_max_models_num"] == 8
    types = server.client.get("/controlnet/control_types").json()["control_types"]
    assert types["Canny"]["default_option"] == "canny" and control in types["Canny"]["model_list"]
    shown = server.client.get("/controlnet/module_list?alias_names=true").json()
    assert shown["module_detail"]["canny"]["sliders"][1]["value"] == 100
    found = client.controlnet_detect([picture], module="canny", processor_res=128, threshold_a=50, threshold_b=90)
    expected = make_map("canny", picture, (192, 128), options={"low": 50, "high": 90})
    assert found.image.tobytes() == expected.tobytes() and found.info == "Success"


def test_a_unit_of_webuiapi_s_draws_and_its_map_comes_behind_the_picture(client, control, picture):
    unit = ControlNetUnit(picture, module="canny", model=f"{control} [0123abcd]", weight=1.5, pixel_perfect=True)
    fields = {"prompt": "a red apple", "seed": 7, "width": 64, "height": 64}  # and scripts: its own are of all calls
    found = client.txt2img(**fields, controlnet_units=[unit], alwayson_scripts={})
    whole, edges = found.images
    expected = make_map("canny", picture, (64, 64), "resize and fill", {"low": 64, "high": 64})
    assert edges.convert("RGB").tobytes() == expected.tobytes() and 0.02 < np.asarray(expected).mean() / 255 < 0.3
    assert whole.size == (64, 64) and len(found.info["infotexts"]) == 1
    unit.enabled = False
    plain = client.txt2img(**fields, controlnet_units=[unit], alwayson_scripts={})
    assert len(plain.images) == 1 and plain.image.tobytes() != whole.tobytes()
    unit.enabled, unit.image, unit.module = True, None, "inpaint_only"
    mask = PilImages.new("L", picture.size)
    mask.paste(255, (0, 0, 48, 64))
    painted = client.img2img(
        [picture], mask_image=mask, **fields, controlnet_units=[unit], inpaint_full_res=False, alwayson_scripts={}
    )
    known = np.asarray(painted.images[1])[..., 3]
    assert (known[:, :30] == 0).all() and (known[:, 34:] == 255).all()


def test_bodies_as_krita_and_photoshop_send_them(server, control, picture):
    text, drawn = raw_b64_img(picture), {**SMALL, "prompt": "a red apple", "seed": 7}
    krita = {"input_image": text, "module": "canny", "model": control, "weight": 0.75, "resize_mode": 1}
    krita |= {"lowvram": False, "preprocessor_res": 64, "threshold_a": -1, "threshold_b": -1, "control_mode": 0}
    krita |= {"guidance_start": 0.0, "guidance_end": 1.0, "pixel_perfect": True}
    first = ask(server, "/sdapi/v1/txt2img", drawn | {"alwayson_scripts": {"controlnet": {"args": [krita]}}})
    off = {"enabled": False, "input_image": "", "mask": "", "module": "", "model": "", "processor_res": 512}
    photoshop = krita | {"enabled": True, "mask": "", "resize_mode": "Scale to Fit (Inner Fit)", "guessmode": False}
    photoshop |= {"control_mode": "Balanced", "processor_res": 64, "threshold_a": 100, "threshold_b": 200}
    units = [photoshop, off, off]
    both = {"controlnet_units": units, "alwayson_scripts": {"controlnet": {"args": units}}}
    second = ask(server, "/sdapi/v1/txt2img", drawn | both)
    assert len(first["images"]) == 2
    assert [opened(image).tobytes() for image in first["images"]] == [
        opened(image).tobytes() for image in second["images"]
    ]
    alone = ask(server, "/sdapi/v1/txt2img", drawn | both | {"override_settings": {"control_net_no_detectmap": True}})
    assert alone["images"] == second["images"][:1]
    enlarged = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Lanczos", "denoising_strength": 0.5}
    third = ask(server, "/sdapi/v1/txt2img", drawn | enlarged | {"alwayson_scripts": {"controlnet": {"args": [krita]}}})
    assert [opened(image).size for image in third["images"]] == [(96, 96), (96, 96), (64, 64)]
    assert json.loads(third["info"])["comments"] == []


def test_a_network_in_its_folder_makes_the_map_and_is_in_the_recipe(server, control, picture):
    path = write_depth(server.data_dir / "models" / "annotators" / "depth_anything_v2_tiny.onnx")
    server.client.post("/sdapi/v1/refresh-checkpoints")
    try:
        unit = {"image": raw_b64_img(picture), "module": "depth_anything_v2", "model": control, "pixel_perfect": True}
        body = SMALL | {"seed": 7, "alwayson_scripts": {"controlnet": {"args": [unit]}}}
        whole, near = map(opened, ask(server, "/sdapi/v1/txt2img", body)["images"])
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert json.loads(whole.text["darkroom"])["hashes"]["annotator"] == {path.stem: digest}
        assert near.getpixel((2, 2))[0] > 200 and near.getpixel((32, 30))[0] < 60  # the ellipse is the darkest
    finally:
        path.unlink()
        server.client.post("/sdapi/v1/refresh-checkpoints")


REFUSED = [
    ("/controlnet/detect", {"controlnet_module": "canny"}, "controlnet_input_images: no picture was given"),
    ("/controlnet/detect", {"controlnet_input_images": ["http://127.0.0.1/x.png"]}, "addresses are not fetched"),
    ("/controlnet/detect", {"controlnet_module": "depth_midas"}, "depth needs Depth Anything or MiDaS as an ONNX file"),
    ("/sdapi/v1/txt2img", {"model": NAME}, "control 1: there is no picture, and no start picture either"),
    ("/sdapi/v1/txt2img", {"model": "gone"}, "alwayson_scripts: ControlNet unit 0: There is no control “gone”"),
]


@pytest.mark.parametrize(("path", "body", "reason"), REFUSED)
def test_what_cannot_be_done_is_refused_with_a1111_s_four_keys(server, control, path, body, reason):
    body = body if "detect" in path else {"alwayson_scripts": {"ControlNet": {"args": [body]}}}
    answer = server.client.post(path, json=body)
    assert answer.status_code == 422 and set(answer.json()) == {"error", "detail", "body", "errors"}
    assert reason in answer.json()["detail"] and server.is_idle()
