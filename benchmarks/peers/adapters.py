"""Peers that are programs with an HTTP API of their own: ComfyUI, and what speaks ``/sdapi/v1`` (SD.Next, A1111).

Their figures are from the request to the picture's file, so the driver's side of HTTP is in them.
"""

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.peers import Answer, Drawing, Models, Ready, Unavailable
from benchmarks.peers.worker import peak_bytes

POLL_S = 0.01
START_S, DRAW_S = 120.0, 3600.0


class SdApi:
    """A server that somebody else has started, with the model that it has loaded."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=DRAW_S, trust_env=False)
        model = _call(self._client, "GET", "/sdapi/v1/options").get("sd_model_checkpoint", "?")
        note = f"draws with {model}, which its server has loaded; other noise; it may keep a prompt's encoding"
        self.ready = Ready(self._versions(), "its own", note)

    def draw(self, drawing: Drawing) -> Answer:
        if drawing.image or drawing.loras:  # LoRAs are files of its server's
            raise Unavailable("only txt2img without LoRAs is asked of it")
        body = {"prompt": drawing.prompt, "negative_prompt": drawing.negative, "seed": drawing.seed}
        body |= {"width": drawing.width, "height": drawing.height, "steps": drawing.steps}
        body |= {"cfg_scale": drawing.guidance, "sampler_name": "DPM++ 2M", "scheduler": "Automatic"}
        started = time.perf_counter()
        images = _call(self._client, "POST", "/sdapi/v1/txt2img", json=body)["images"]
        picture = base64.b64decode(images[0].rpartition(",")[2])
        seconds = time.perf_counter() - started
        if drawing.out:
            Path(drawing.out).write_bytes(picture)
        return Answer(seconds, None)

    def close(self) -> None:
        self._client.close()

    def _versions(self) -> dict[str, str]:
        """SD.Next's commit; A1111 has no such route."""
        try:
            found = _call(self._client, "GET", "/sdapi/v1/version")
        except Unavailable:
            return {}
        return {found.get("app", "?"): found.get("commit", "?")}


class ComfyUi:
    """A checkout that is started for this, on the processor, with models and pictures in ``work`` instead of its own.

    It keeps what a node gave while nothing that goes into it has changed, prompts among it.
    """

    def __init__(
        self, checkout: Path, models: Models, work: Path, python: str = sys.executable, threads: int = 2
    ) -> None:
        if not (checkout / "main.py").is_file():
            raise Unavailable(f"{checkout} is no checkout of ComfyUI: it has no main.py")
        self._work, self._model = work, models.file.name
        _link(models.file, work / "models/checkpoints")
        for folder in ("custom_nodes", "input", "models/loras", "output", "temp", "user"):
            (work / folder).mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        command = [python, "main.py", "--cpu", "--port", port, "--disable-auto-launch", "--disable-all-custom-nodes"]
        with (work / "comfyui.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--disable-api-nodes", "--base-directory", str(work)],
                cwd=checkout,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DRAW_S, trust_env=False)
        try:
            system = self._wait()["system"]
        except BaseException:
            self.close()
            raise
        versions = {"comfyui": system.get("comfyui_version", "?"), "torch": system.get("pytorch_version", "?")}
        self.ready = Ready(versions, "float32", "other noise; a prompt that it has seen is not encoded again")

    def draw(self, drawing: Drawing) -> Answer:
        for path, folder in ((drawing.image, "input"), (drawing.mask, "input")):
            if path:
                shutil.copy(path, self._work / folder)
        for path, _ in drawing.loras:
            _link(Path(path), self._work / "models/loras")
        started = time.perf_counter()
        number = _call(self._client, "POST", "/prompt", json={"prompt": workflow(drawing, self._model)})["prompt_id"]
        while not (found := _call(self._client, "GET", f"/history/{number}").get(number)):
            if self._process.poll() is not None:
                raise Unavailable(f"it ended with code {self._process.returncode}")
            time.sleep(POLL_S)
        seconds = time.perf_counter() - started
        if found["status"]["status_str"] != "success":
            failed = [what for kind, what in found["status"]["messages"] if kind == "execution_error"]
            raise Unavailable(failed[0]["exception_message"].strip().split("\n")[0] if failed else "it drew nothing")
        (file,) = found["outputs"]["save"]["images"]
        if drawing.out:
            shutil.copy(self._work / "output" / file["subfolder"] / file["filename"], drawing.out)
        return Answer(seconds, peak_bytes(self._process.pid))

    def close(self) -> None:
        self._client.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self) -> Any:
        """What it says of itself once it answers."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                lines = (self._work / "comfyui.log").read_text("utf-8", "replace").strip().splitlines()
                raise Unavailable(f"it did not start: {(lines or ['it said nothing'])[-1]}")
            with contextlib.suppress(httpx.TransportError):
                return _answer(self._client.get("/system_stats"))
            time.sleep(0.2)
        raise Unavailable(f"it did not answer within {START_S:.0f} s")


def workflow(drawing: Drawing, model: str) -> dict[str, Any]:
    """The graph in ComfyUI's API format: a node's inputs are values, or another node and the number of its output."""
    nodes: dict[str, Any] = {}

    def node(name: str, kind: str, **inputs: Any) -> str:
        nodes[name] = {"class_type": kind, "inputs": inputs}
        return name

    source = node("model", "CheckpointLoaderSimple", ckpt_name=model)
    vae = [source, 2]
    for k, (path, weight) in enumerate(drawing.loras):
        both = {"strength_model": weight, "strength_clip": weight, "model": [source, 0], "clip": [source, 1]}
        source = node(f"lora{k}", "LoraLoader", lora_name=Path(path).name, **both)
    node("positive", "CLIPTextEncode", text=drawing.prompt, clip=[source, 1])
    node("negative", "CLIPTextEncode", text=drawing.negative, clip=[source, 1])
    if drawing.image:
        node("image", "LoadImage", image=Path(drawing.image).name)
        latent = node("latent", "VAEEncode", pixels=["image", 0], vae=vae)
    else:
        latent = node("latent", "EmptyLatentImage", width=drawing.width, height=drawing.height, batch_size=1)
    if drawing.mask:
        node("mask", "LoadImageMask", image=Path(drawing.mask).name, channel="red")
        latent = node("masked", "SetLatentNoiseMask", samples=[latent, 0], mask=["mask", 0])
    node(
        "sample",
        "KSampler",
        model=[source, 0],
        positive=["positive", 0],
        negative=["negative", 0],
        latent_image=[latent, 0],
        seed=drawing.seed,
        steps=drawing.steps,
        cfg=drawing.guidance,
        sampler_name="dpmpp_2m",
        scheduler="normal",
        denoise=drawing.strength if drawing.image else 1.0,
    )
    node("decode", "VAEDecode", samples=["sample", 0], vae=vae)
    node("save", "SaveImage", images=["decode", 0], filename_prefix="darkroom")
    return nodes


def _call(client: httpx.Client, method: str, path: str, **content: Any) -> Any:
    try:
        return _answer(client.request(method, path, **content))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(f"{client.base_url} does not answer: {error}") from error


def _answer(response: httpx.Response) -> Any:
    if response.is_error:
        raise Unavailable(f"{response.request.url} answers {response.status_code}: {response.text.strip()[:200]}")
    try:
        return response.json()
    except ValueError as error:
        raise Unavailable(f"{response.request.url} answers with something else than JSON") from error


def _link(file: Path, folder: Path) -> None:
    """The file in that folder too, without its bytes where the system can do that."""
    folder.mkdir(parents=True, exist_ok=True)
    name = folder / file.name
    name.unlink(missing_ok=True)
    try:
        name.symlink_to(file.resolve())
    except OSError:
        shutil.copy(file, name)
