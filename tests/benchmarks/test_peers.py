"""The peers' line protocol, their environments' failures, and the HTTP adapters against servers that mimic theirs."""

import base64
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.peers import HERE, PEERS, Answer, Drawing, Models, Unavailable, Worker, environments
from benchmarks.peers.adapters import ComfyUi, SdApi, workflow

PEER = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from PIL import Image
from worker import serve

class Model:
    packages, dtype, note = ("pillow",), "uint8", "fake"
    def __init__(self, options):
        print("what a library prints")
        if options.variant == "none":
            raise ValueError("no such file\\nand more")
        if options.variant == "dead":
            sys.exit("out of memory")
        self.threads = options.threads
    def draw(self, request):
        if request["loras"]:
            raise KeyError("lora")
        assert request["image"].size == (16, 8) and request["mask"].mode == "L" and request["latents"].shape == (1, 4)
        return Image.new("RGB", (request["width"], request["height"]), (request["seed"], self.threads, 0))

sys.exit(serve(Model))
"""


def _worker(folder: Path, variant: str) -> Worker:
    command = [sys.executable, "-c", PEER, "--model", "m", "--variant", variant, "--threads", "3"]
    return Worker(command, folder / "log", 3)


def test_a_worker_draws_and_goes_on_after_an_error(tmp_path: Path) -> None:
    Image.new("RGBA", (16, 8)).save(tmp_path / "start.png")
    np.save(tmp_path / "noise.npy", np.zeros((1, 4)))
    files = {"image": str(tmp_path / "start.png"), "mask": str(tmp_path / "start.png")}
    files |= {"latents": str(tmp_path / "noise.npy"), "out": str(tmp_path / "out.png")}
    worker = _worker(tmp_path, "plain")
    try:
        assert worker.ready.dtype == "uint8" and worker.ready.note == "fake" and "pillow" in worker.ready.versions
        with pytest.raises(Unavailable, match="KeyError: 'lora'"):
            worker.draw(Drawing(loras=[("a.safetensors", 1.0)], **files))
        answer = worker.draw(Drawing(seed=7, width=24, height=32, **files))
    finally:
        worker.close()
    assert answer.seconds >= 0
    assert answer.peak_bytes is None or answer.peak_bytes > 2**20
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (24, 32) and image.getpixel((0, 0)) == (7, 3, 0)


@pytest.mark.parametrize(
    ("variant", "reason"),
    [("none", "^ValueError: no such file$"), ("dead", "ended with code 1, saying: out of memory")],
)
def test_a_worker_that_cannot_load_says_why(tmp_path: Path, variant: str, reason: str) -> None:
    with pytest.raises(Unavailable, match=reason):
        _worker(tmp_path, variant)


def test_an_environment_is_made_once_and_again_for_other_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        commands.append(command)
        (tmp_path / "cache/fake").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(environments.subprocess, "run", run)
    said: list[str] = []
    for content in ("a==1", "a==1", "a==2"):
        (tmp_path / "fake.txt").write_text(content)
        python = environments.ensure("fake", tmp_path / "cache", tmp_path, said.append)
    assert [command[2] for command in commands] == ["venv", "pip", "venv", "pip"] and len(said) == 2
    assert python.is_relative_to(tmp_path / "cache/fake")
    assert (tmp_path / "cache/.gitignore").read_text() == "*\n"


def test_an_environment_that_cannot_be_made_gives_pips_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Collecting a==1\nERROR: No matching distribution found for a==1\n\nnote: an update is there\n"

    def run(command: list[str], stdout: Any, **_: Any) -> Any:
        print(said, file=stdout, flush=True)
        return subprocess.CompletedProcess(command, int("pip" in command))

    monkeypatch.setattr(environments.subprocess, "run", run)
    (tmp_path / "fake.txt").write_text("a==1")
    for _ in range(2):  # a failed one is tried again
        with pytest.raises(Unavailable, match="could not be made: ERROR: No matching distribution found for a==1$"):
            environments.ensure("fake", tmp_path / "cache", tmp_path, print)


def test_every_peer_has_its_files() -> None:
    for name, peer in PEERS.items():
        assert (HERE / f"{name}_worker.py").is_file() and peer.model in Models.__dataclass_fields__
        lines = (HERE / "requirements" / f"{name}.txt").read_text("utf-8").splitlines()
        assert all("==" in line for line in lines if not line.startswith(("#", "--")))


# --- HTTP ----------------------------------------------------------------------------------------------------------


def _png(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "png")
    return buffer.getvalue()


@contextmanager
def _sdapi(asked: list[Any], **more: Any) -> Iterator[str]:
    """What A1111 answers, as its /docs say."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(({"options": {"sd_model_checkpoint": "sd15.safetensors"}} | more).get(Path(self.path).name))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body))
            picture = base64.b64encode(_png((body["width"], body["height"]))).decode()
            self._say({"images": [picture], "info": "{}"} if body["steps"] < 100 else None)

        def _say(self, answer: Any) -> None:
            self.send_response(200 if answer else 422)
            self.end_headers()
            self.wfile.write(json.dumps(answer or {"detail": "too many steps"}).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_sdapi_draws_and_says_what_it_is_refused(tmp_path: Path) -> None:
    asked: list[Any] = []
    with _sdapi(asked) as url:
        session = SdApi(url)
        assert "sd15.safetensors" in session.ready.note
        drawing = Drawing(prompt="a cat", width=24, height=16)
        answer = session.draw(replace(drawing, out=str(tmp_path / "out.png")))
        with pytest.raises(Unavailable, match="answers 422: .*too many steps"):
            session.draw(replace(drawing, steps=100))
        for more in ({"image": "a.png"}, {"loras": [("x/sepia.safetensors", 0.5)]}):
            with pytest.raises(Unavailable, match="only txt2img without LoRAs"):
                session.draw(replace(drawing, **more))
        session.close()
    path, body = asked[0]
    assert path == "/sdapi/v1/txt2img" and body["prompt"] == "a cat" and body["cfg_scale"] == 5.0
    assert answer.seconds > 0 and answer.peak_bytes is None
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (24, 16)


def test_sdapi_s_version_is_told_where_the_server_knows_it() -> None:
    with _sdapi([]) as url:
        assert SdApi(url).ready.versions == {}
    with _sdapi([], version={"app": "sd.next", "commit": "058a7f0cf"}) as url:
        assert SdApi(url).ready.versions == {"sd.next": "058a7f0cf"}


def test_an_sdapi_that_is_not_there_is_said() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        SdApi("http://127.0.0.1:9")


COMFY = """
import argparse, json, pathlib, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

parser = argparse.ArgumentParser()
for flag in ("--cpu", "--disable-auto-launch", "--disable-all-custom-nodes", "--disable-api-nodes"):
    parser.add_argument(flag, action="store_true", required=True)
parser.add_argument("--port", type=int)
parser.add_argument("--base-directory", type=pathlib.Path)
options = parser.parse_args()
if not (options.base_directory / "models/checkpoints/model.safetensors").exists():
    sys.exit("ModuleNotFoundError: No module named 'torch'")
asked = 0

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        global asked
        if self.path == "/system_stats":
            return self.say({"system": {"comfyui_version": "0.3.64", "pytorch_version": "2.13.0"}})
        asked += 1
        if asked % 3:  # not drawn yet
            return self.say({})
        if steps == 100:
            messages = [["execution_start", {}], ["execution_error", {"exception_message": "no such model\\nmore"}]]
            return self.say({"7": {"status": {"status_str": "error", "messages": messages}, "outputs": {}}})
        (options.base_directory / "output/darkroom_1_.png").write_bytes(b"picture")
        images = [{"filename": "darkroom_1_.png", "subfolder": "", "type": "output"}]
        self.say({"7": {"status": {"status_str": "success", "messages": []}, "outputs": {"save": {"images": images}}}})

    def do_POST(self):
        global steps
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
        steps = prompt["sample"]["inputs"]["steps"]
        self.say({"prompt_id": "7", "number": 1, "node_errors": {}})

    def say(self, answer):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

HTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
"""


def test_comfyui_is_started_draws_and_says_why_it_does_not(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(COMFY)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    session = ComfyUi(tmp_path, Models(tmp_path, tmp_path / "model.safetensors"), tmp_path / "work")
    try:
        assert session.ready.versions == {"comfyui": "0.3.64", "torch": "2.13.0"}
        answer = session.draw(Drawing(out=str(tmp_path / "out.png")))
        with pytest.raises(Unavailable, match="^no such model$"):
            session.draw(Drawing(steps=100))
    finally:
        session.close()
    assert isinstance(answer, Answer) and (tmp_path / "out.png").read_bytes() == b"picture"


def test_a_comfyui_that_does_not_start_says_why(tmp_path: Path) -> None:
    models = Models(tmp_path, tmp_path / "other.safetensors")
    with pytest.raises(Unavailable, match="has no main.py"):
        ComfyUi(tmp_path, models, tmp_path / "work")
    (tmp_path / "main.py").write_text(COMFY)
    models.file.write_bytes(b"weights")
    with pytest.raises(Unavailable, match="did not start: ModuleNotFoundError: No module named 'torch'"):
        ComfyUi(tmp_path, models, tmp_path / "work")


def test_a_workflow_joins_its_nodes() -> None:
    loras = [("a/one.safetensors", 0.5), ("b/two.safetensors", 1.0)]
    nodes = workflow(Drawing(task="inpaint", image="x/start.png", mask="x/mask.png", loras=loras), "m.safetensors")
    for node in nodes.values():
        for value in node["inputs"].values():
            assert not isinstance(value, list) or value[0] in nodes
    assert nodes["lora1"]["inputs"]["model"] == ["lora0", 0] and nodes["positive"]["inputs"]["clip"] == ["lora1", 1]
    assert nodes["sample"]["inputs"]["latent_image"] == ["masked", 0] and nodes["sample"]["inputs"]["denoise"] == 0.6
    plain = workflow(Drawing(), "m.safetensors")
    assert plain["sample"]["inputs"]["latent_image"] == ["latent", 0] and plain["sample"]["inputs"]["denoise"] == 1.0
