"""``/api/controls``: files with why they cannot be used, pictures kept for whoever handed them in, and maps."""

import base64
import io

import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image as PilImages
from safetensors.torch import save_file

from tests.segmenter_models import write_segmenter
from webui.api.controls import controls_router
from webui.api.errors import ERROR_ANSWERS
from webui.core.catalog import Catalog
from webui.core.images import ORIENTATION, pixels_sha256
from webui.core.settings import Settings
from webui.library.library import Library
from webui.workspace.workspace import Workspace


def png(picture) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def client(tmp_path) -> TestClient:
    shapes = {
        "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
        "controlnet_down_blocks.0.weight": (64, 64, 1, 1),
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (64, 192),
    }
    folder = tmp_path / "models" / "ControlNet"
    folder.mkdir(parents=True)
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, folder / "fits.safetensors")
    wide = shapes | {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (64, 2048)}
    save_file({key: torch.zeros(shape) for key, shape in wide.items()}, folder / "xl.safetensors")
    (folder / "old.pth").write_bytes(b"PK")
    library = Library(Settings(device="cpu", data_dir=tmp_path))

    class Executor:
        def catalog(self) -> Catalog:
            return Catalog.of(library.snapshot())

        def reload(self) -> None:
            library.reload()

    app = FastAPI(exception_handlers=dict(ERROR_ANSWERS))
    app.include_router(controls_router(Executor(), lambda: Workspace(tmp_path)))
    return TestClient(app, raise_server_exceptions=False)


def test_files_are_listed_with_what_they_are_for(client):
    told = {entry["name"]: entry for entry in client.get("/api/controls", params={"model": "demo"}).json()}
    assert told["fits"] | {"name": ""} == {
        **{"name": "", "form": "ControlNet", "family": "SD 1.x", "about": "ControlNet for SD 1.x"},
        **{"problem": "", "misfit": ""},
    }
    assert told["xl"]["misfit"] == "xl is a ControlNet for SDXL; the model demo is SD 1.x"
    assert told["old"]["problem"].startswith("is a pickle")
    assert {entry["misfit"] for entry in client.get("/api/controls").json()} == {""}


def test_pictures_are_kept_and_maps_made_of_them(client):
    picture = PilImages.new("RGB", (64, 64), "black")
    picture.paste("white", (16, 16, 48, 48))
    kept = client.post("/api/controls/pictures", content=png(picture)).json()
    assert kept == {"sha256": pixels_sha256(picture), "width": 64, "height": 64}
    again = client.get(f"/api/controls/pictures/{kept['sha256']}")
    assert PilImages.open(io.BytesIO(again.content)).tobytes() == picture.tobytes()
    assert client.get(f"/api/controls/pictures/{'0' * 64}").status_code == 404
    large = client.post("/api/controls/pictures", content=png(PilImages.new("L", (4096, 64)))).json()
    assert (large["width"], large["height"]) == (2048, 32)
    turned, photo = PilImages.Exif(), io.BytesIO()
    turned[ORIENTATION] = 6
    PilImages.new("CMYK", (64, 32)).save(photo, "JPEG", exif=turned)
    upright = client.post("/api/controls/pictures", content=photo.getvalue()).json()
    assert (upright["width"], upright["height"]) == (32, 64)
    asked = {"width": 128, "height": 64, "preprocessor": "canny", "resize": "just resize", "options": {"low": 50}}
    for image in ({"sha256": kept["sha256"]}, base64.b64encode(png(picture)).decode()):
        answer = client.post("/api/controls/map", json=asked | {"image": image})
        found = PilImages.open(io.BytesIO(answer.content)).convert("L")
        assert answer.status_code == 200 and found.size == (128, 64) and found.getextrema() == (0, 255)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"image": {"sha256": "0" * 64}}, "image is no longer here"),
        ({"image": "!"}, "image"),
        ({"preprocessor": "cany"}, "There is no preprocessor “cany”; did you mean canny?"),
        ({"options": {"lo": 1}, "preprocessor": "canny"}, "There is no option of the preprocessor canny “lo”"),
        ({"preprocessor": "inpaint"}, "the preprocessor inpaint needs a mask"),
        ({"width": 32}, "at least 64"),
    ],
)
def test_what_cannot_be_shown_says_why(client, body, said):
    asked = {"image": base64.b64encode(png(PilImages.new("RGB", (64, 64)))).decode(), "width": 64, "height": 64} | body
    answer = client.post("/api/controls/map", json=asked)
    assert answer.status_code == 422 and said in answer.json()["detail"]
    assert client.post("/api/controls/pictures", content=b"no picture").status_code == 422


def test_a_thing_is_found_by_clicks_once_a_segmenter_is_there(client, tmp_path):
    picture = PilImages.new("RGB", (96, 64), "grey")
    picture.paste("red", (16, 16, 48, 48))
    kept = client.post("/api/controls/pictures", content=png(picture)).json()
    asked = {"image": {"sha256": kept["sha256"]}, "points": [[32, 32]]}
    none = client.get("/api/controls/segmenters").json()
    assert none["names"] == [] and none["problem"].startswith(
        "The segmenter needs Segment Anything as two ONNX files in"
    )
    refused = client.post("/api/controls/segment", json=asked)
    assert refused.status_code == 422 and "the segmenter needs Segment Anything" in refused.json()["detail"]
    write_segmenter(tmp_path / "models" / "annotators")
    assert client.get("/api/controls", params={"reload": True}).status_code == 200
    assert client.get("/api/controls/segmenters").json() == {"names": ["tiny_sam"], "problem": ""}
    for image in (asked["image"], base64.b64encode(png(picture)).decode()):
        answer = client.post("/api/controls/segment", json=asked | {"image": image})
        mask = PilImages.open(io.BytesIO(answer.content))
        assert answer.status_code == 200 and (mask.mode, mask.size) == ("L", (96, 64))
        assert (mask.getpixel((32, 32)), mask.getpixel((80, 32))) == (255, 0)
    beside = {"points": [[32, 32], [80, 32]], "labels": [1, 1], "segmenter": "tiny_sam"}
    both = PilImages.open(io.BytesIO(client.post("/api/controls/segment", json=asked | beside).content))
    assert (both.getpixel((32, 32)), both.getpixel((80, 32))) == (255, 255)
    for more, said in (
        ({"points": []}, "at least 1 item"),
        ({"points": [[96.5, 2]]}, "is not on the picture of 96 x 64 px"),
        ({"labels": [0]}, "at least one must be 1"),
        ({"labels": [2]}, "labels"),
        ({"segmenter": "tiny_sam2"}, "There is no segmenter “tiny_sam2”; did you mean tiny_sam?"),
        ({"image": {"sha256": "0" * 64}}, "image is no longer here"),
        ({"image": None}, "there is no picture"),
    ):
        answer = client.post("/api/controls/segment", json=asked | more)
        assert answer.status_code == 422 and said in answer.json()["detail"], (more, answer.json())
