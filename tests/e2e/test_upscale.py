"""Enlarging as people do it: on the command line, and through A1111's API."""

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image as PilImages
from webuiapi import WebUIApi

from webui.library.library import DEMO_MODEL

from .server import Server, run_webui

SHOWN = DEMO_MODEL / "preview.png"
CPU = ("--device", "cpu", "--dtype", "float32")


def small(mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> PilImages.Image:
    return PilImages.open(SHOWN).convert(mode).resize(size)


def b64(picture: PilImages.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.slow
def test_a_folder_is_enlarged_upright_and_each_picture_is_drawn_again_from_its_file(tmp_path):
    folder, data = tmp_path / "in", tmp_path / "data"
    folder.mkdir()
    exif = PilImages.Exif()
    exif[0x0112] = 6  # turned by a quarter
    small().save(folder / "a.jpg", exif=exif)
    small("RGBA").save(folder / "b.png")
    (folder / "notes.txt").write_text("no picture")
    done = run_webui("upscale", folder, "--scale", "3", "--json", "--data-dir", data, *CPU)
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    pictures = [event for event in events if event["event"] == "image"]
    assert [Path(picture["source"]).name for picture in pictures] == ["a.jpg", "b.png"]
    made = [PilImages.open(picture["path"]) for picture in pictures]
    assert [picture.size for picture in made] == [(72, 120), (120, 72)]
    assert not [event for event in events if "demo" in str(event.get("what"))]  # no model is loaded
    paths = [picture["path"] for picture in pictures]
    assert all(Path(path).is_relative_to(data / "outputs" / "upscale") for path in paths)
    again = run_webui("verify", *paths, "--data-dir", data, "--json", *CPU)
    assert again.returncode == 0, again.stderr
    assert [json.loads(line)["outcome"] for line in again.stdout.splitlines()] == ["identical"] * 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("nothing.png",), "'nothing.png' does not exist"),
        ((SHOWN, "--upscaler", "realesr-animevideov4"), "did you mean realesr-animevideov3?"),
        ((SHOWN, "--width", "9000"), "upscale.width must be at most 8192"),
        ((SHOWN, "--scale", "0.5"), "upscale.scale must be at least 1"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, arguments, reason):
    done = run_webui("upscale", *arguments, "--data-dir", tmp_path / "data")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and reason in done.stderr
    assert not (tmp_path / "data" / "outputs").exists()


def test_a1111_s_extras_enlarge(server: Server):
    client = WebUIApi(baseurl=f"{server.url.rstrip('/')}/sdapi/v1")
    picture = small()
    by_factor = client.extra_single_image(picture, upscaler_1="realesr-animevideov3", upscaling_resize=4).image
    assert by_factor.size == (160, 96) and by_factor.text["parameters"].startswith("Postprocess upscale by: 4")
    cut = {"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 80, "upscaling_resize_h": 80}
    assert client.extra_single_image(picture, **cut).image.size == (80, 80)
    assert client.extra_single_image(picture, **cut, upscaling_crop=False).image.size == (133, 80)
    nothing = client.extra_single_image(picture, upscaler_1="None").image
    assert nothing.convert("RGB").tobytes() == picture.tobytes()
    several = client.extra_batch_images([picture, picture.rotate(180)], upscaler_1="realesr-animevideov3").images
    assert [one.size for one in several] == [(80, 48)] * 2
    assert several[0].tobytes() != several[1].tobytes()


def test_a1111_s_lists_and_refusals(server: Server):
    names = [entry["name"] for entry in server.client.get("/sdapi/v1/upscalers").json()]
    assert names == ["None", "Lanczos", "realesr-animevideov3"]
    for body, reason in (
        ({"upscaler_1": "R-ESRGAN 4x+"}, "There is no upscaler “R-ESRGAN 4x+”"),
        ({"upscaler_1": "Lanczos", "upscaling_resize": 99}, "upscaling_resize must be at most 16"),
        ({"upscaler_1": "Lanczos", "gfpgan_visibility": 1}, "gfpgan_visibility 1 is not supported here"),
    ):
        refused = server.client.post("/sdapi/v1/extra-single-image", json={"image": b64(small())} | body)
        assert refused.status_code == 422 and reason in refused.json()["detail"]
