"""Models that the owner adds over HTTP: streamed, checked by their first bytes, there at once. For nobody else."""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.annotator_models import write_depth
from tests.segmenter_models import write_segmenter
from webui.api import additions as routes
from webui.api.additions import additions_router
from webui.api.bodies import limit_of
from webui.api.errors import ERROR_ANSWERS
from webui.core.settings import Settings
from webui.core.visitor import OWNER, Visitor, asked_by
from webui.jobs.executor import LocalExecutor
from webui.library.adding import incoming
from webui.library.adding.additions import Additions
from webui.library.library import DEMO_MODEL, UPSCALERS, find_annotators

LORA = (DEMO_MODEL / "loras" / "blueprint.safetensors").read_bytes()
UNET = DEMO_MODEL / "unet" / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(device="cpu", data_dir=tmp_path, offline=True)


@pytest.fixture
def app(settings: Settings) -> Iterator[FastAPI]:
    executor = LocalExecutor(settings)
    app = FastAPI(exception_handlers=dict(ERROR_ANSWERS))
    app.include_router(additions_router(executor, Additions(settings)))
    yield app
    executor.close()


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    """The owner's."""
    return TestClient(as_visitor(app, OWNER))


def as_visitor(app: Any, visitor: Visitor) -> Any:
    async def asked(scope: Any, receive: Any, send: Any) -> None:
        scope["visitor"] = visitor
        with asked_by(visitor):
            await app(scope, receive, send)

    return asked


def put(client: TestClient, name: str, data: bytes) -> Any:
    return client.put("/api/models/files", params={"name": name}, content=data)


def file_with(key: str) -> bytes:
    """A safetensors file of one tensor."""
    header = json.dumps({key: {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(400)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_file_is_there_once_it_is_sent(client, settings, monkeypatch):
    monkeypatch.setattr(routes, "WRITE_BYTES", 50_000)  # so that it comes in pieces
    query = {"name": "mine.safetensors", "size_bytes": len(LORA)}
    told = client.post("/api/models/files/check", params=query, content=LORA[:200]).json()
    told = client.post("/api/models/files/check", params=query, content=LORA[: told["needed_bytes"]]).json()
    path = settings.data_dir / "models/Lora/mine.safetensors"
    assert told == {"kind": "LoRA", "about": "a LoRA", "path": str(path)} and not path.exists()
    answer = put(client, "mine.safetensors", LORA)
    sha256 = hashlib.sha256(LORA).hexdigest()
    assert answer.status_code == 201
    assert answer.json() == told | {"size_bytes": len(LORA), "sha256": sha256, "as": "mine"}
    assert path.read_bytes() == LORA and files(settings.data_dir / "models") == ["Lora/mine.safetensors"]
    again = put(client, "mine.safetensors", LORA)
    assert again.status_code == 409 and str(path) in again.json()["detail"]
    assert client.post("/api/models/files/check", params=query, content=LORA).status_code == 409
    model = put(client, "small.safetensors", UNET.read_bytes()).json()
    assert (model["kind"], model["about"], model["as"]) == ("model", "an SD 1.x model", "small")
    folders = client.get("/api/models/files").json()
    assert folders["folders"]["LoRA"] == str(path.parent) and folders["offline"] and folders["free_bytes"] > 0
    assert [one["as"] for one in client.get("/api/models/additions").json()] == []


def test_a_network_of_a_preprocessor_goes_where_these_are(client, settings, tmp_path):
    data = write_depth(tmp_path / "made" / "network.onnx").read_bytes()
    told = put(client, "depth_anything_v2_vits.onnx", data).json()
    path = settings.data_dir / "models/annotators/depth_anything_v2_vits.onnx"
    assert (told["kind"], told["about"], told["path"]) == ("preprocessor", "a preprocessor's network", str(path))
    assert [file.path for file in find_annotators(settings).values()] == [path]
    assert "is not an ONNX file" in put(client, "midas.onnx", b"words" * 99).json()["detail"]
    for name, half in write_segmenter(tmp_path / "made").items():
        assert put(client, f"{name}.onnx", half.read_bytes()).json()["path"] == str(path.parent / f"{name}.onnx")
    assert "neither the encoder nor the decoder" in put(client, "edge_sam.onnx", data).json()["detail"]


@pytest.mark.parametrize(
    ("name", "data", "status", "reason"),
    [
        ("a.ckpt", b"x", 422, "opening a pickle can run any program"),
        ("a.txt", b"x", 422, "are .safetensors files"),
        ("../a.safetensors", LORA, 422, "the name of a file alone, without '/'"),
        ("a\\b.safetensors", LORA, 422, "the name of a file alone"),
        ("con.safetensors", LORA, 422, "Windows keeps for itself"),
        (".a.safetensors", LORA, 422, "must not begin or end with a dot"),
        ("a\u202e.safetensors", LORA, 422, "cannot be seen"),
        (f"{'a' * 300}.safetensors", LORA, 422, "longer than 200 bytes"),
        ("a.safetensors", b"", 422, "is empty"),
        ("a.safetensors", b"<html>" + bytes(500), 422, "it is a web page"),
        ("a.safetensors", LORA[:-1], 422, "is cut short"),
        ("a.safetensors", file_with("control_model.x"), 422, "seems to be a ControlNet, but lacks what one has"),
        ("a.safetensors", file_with("double_blocks.0.img_mlp.net.0.weight"), 422, "holds no model of"),
        ("a.pth", b"no pickle" * 99, 422, "is not a file of weights that torch saved"),
        ("a.onnx", b"no network" * 99, 422, "is not an ONNX file"),
    ],
)
def test_what_cannot_be_used_leaves_nothing(client, settings, name, data, status, reason):
    answer = put(client, name, data)
    assert answer.status_code == status and reason in answer.json()["detail"], answer.text
    assert files(settings.data_dir / "models") == []


def test_it_is_refused_before_the_rest_has_come(client, settings):
    sent = []

    def chunks() -> Iterator[bytes]:
        for chunk in (b"\x02\0\0\0\0\0\0\0{}" + bytes(routes.WRITE_BYTES), *[bytes(1000)] * 50):
            sent.append(len(chunk))
            yield chunk

    length = {"content-length": str(2**40)}
    answer = client.put("/api/models/files?name=a.safetensors", content=chunks(), headers=length)
    assert answer.status_code == 422 and "holds no weights" in answer.json()["detail"]
    assert client.put("/api/models/files?name=a.safetensors", content=chunks()).status_code == 411


def test_a_full_disk_is_told_before_anything_is_written(client, settings, monkeypatch):
    monkeypatch.setattr(incoming, "free_bytes", lambda _: 2**30)
    answer = put(client, "a.safetensors", LORA)
    assert answer.status_code == 507 and "There is no room" in answer.json()["detail"]
    assert files(settings.data_dir) == []


def test_upscalers_may_be_pickles_where_there_are_no_guests(client, tmp_path):
    embedded = next(UPSCALERS.glob("*.safetensors"))
    assert put(client, "mine.safetensors", embedded.read_bytes()).json()["kind"] == "upscaler"
    shelves = incoming.Shelves(Settings(data_dir=tmp_path, guests=True))
    with pytest.raises(ValueError, match="a pickle, which is not opened where others get in"):
        shelves.check_name("4x.pth")


def test_a_path_is_followed_until_it_is_there(client, tmp_path):
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(LORA)
    one = client.post("/api/models/additions", json={"source": str(mine)}).json()
    while (told := client.get("/api/models/additions").json()[0])["state"] == "running":
        pass
    assert told["id"] == one["id"] and told["as"] == "mine" and told["about"] == "a LoRA"
    address = {"source": "https://x.org/a.safetensors"}
    answer = client.post("/api/models/additions", json=address)
    assert answer.status_code == 422 and "started with --offline" in answer.json()["detail"]
    assert client.delete(f"/api/models/additions/{one['id']}").json() == {"removed": True}
    assert client.delete(f"/api/models/additions/{one['id']}").status_code == 404
    assert client.post(f"/api/models/additions/{one['id']}/again").status_code == 404


def test_the_routes_themselves_refuse_guests(app):
    guest = TestClient(as_visitor(app, Visitor("a" * 32)))
    for method, way in (
        *(("GET", "files"), ("PUT", "files?name=a.safetensors"), ("POST", "files/check?name=a&size_bytes=1")),
        *(("GET", "additions"), ("DELETE", "additions/x"), ("POST", "additions/x/again")),
    ):
        assert guest.request(method, f"/api/models/{way}").status_code == 404, way
    assert guest.post("/api/models/additions", json={"source": "/x"}).status_code == 404


def test_the_guard_lets_large_bodies_through_to_these_routes_alone():
    assert limit_of("/api/models/files").max_bytes > 2**40 > limit_of("/api/models/additions").max_bytes
