"""From ``python launch.py`` to the page, to the first preview, to the first picture; ``generate`` beside diffusers.

A start is a second one: files are in the disk's cache, bytecode is compiled, the number format is chosen. ``generate``
and the script are measured to the end of their processes. The demo model draws 20 steps at its own size; at SD 1.5's
size, where loading and drawing take the time, it is 4 steps at 256 px.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import of_size

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 300.0
QUIET = subprocess.DEVNULL
PAST_IT = ("-m", "webui")
REQUEST = {"prompt": "a red apple, flat style, on a blue background", "guidance": 5, "seed": 7}

SCRIPT = """
import sys
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], dtype=torch.float32, local_files_only=True)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(7)
prompt = "a red apple, flat style, on a blue background"
steps, side = int(sys.argv[3]), int(sys.argv[4])
options = {"num_inference_steps": steps, "width": side, "height": side, "guidance_scale": 5.0, "generator": generator}
pipe(prompt, **options).images[0].save(sys.argv[2])
"""
DATA = str(Path(tempfile.gettempdir()) / "darkroom-coldstart")  # kept, so that the number format is probed once


@dataclass(frozen=True)
class Checkout:
    """What is started, and how: through its launch.py, or past it where another environment than its own is used."""

    folder: Path = ROOT
    way: tuple[str, ...] = ("launch.py",)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Its process; warnings go where ours go for ``serve`` alone."""
        command = [sys.executable, *self.way, *arguments]
        errors = None if arguments[0] == "serve" else QUIET
        variables = os.environ | {"PYTHONPATH": str(self.folder)}
        variables.pop("PYTHONDONTWRITEBYTECODE", None)  # `launch.py` compiles what it installs; other checkouts do here
        return subprocess.Popen(command, cwd=self.folder, env=variables, stdout=QUIET, stderr=errors)


OURS = Checkout()


def run(options: Options) -> list[Row]:
    """Seconds since the process was started; a bare ``import gradio`` alternates as the yardstick for the page."""
    folder, side, steps = of_size(options.size).folder, *((128, 20) if options.size == "demo" else (256, 4))
    steps = options.steps or steps
    request = REQUEST | {"model": options.size, "steps": steps, "width": side, "height": side}
    has_model = ["--model", options.size] + ([] if options.size == "demo" else ["--models-dir", str(folder)])
    if options.against:
        return _against(Checkout(options.against, PAST_IT), request, has_model, options.rounds)
    marks: dict[str, list[float]] = {"page answers": [], "first preview": [], "first picture": [], "generate": []}
    bare: list[float] = []
    script: list[float] = []
    for k in range(options.rounds + 1):
        bare_s, script_s = _import_gradio(), _draw_with_diffusers(folder, steps, side)
        measured = _start(OURS, request, has_model)
        if k:  # the first round fills the disk cache
            bare.append(bare_s)
            script.append(script_s)
            for name in marks:
                marks[name].append(measured[name])
    yardstick, minimal = Row("import gradio", "s", bare), Row("a minimal diffusers script", "s", script)
    return [
        yardstick,
        compared("page answers", "s", marks["page answers"], yardstick),
        Row("first preview", "s", marks["first preview"]),
        Row("first picture", "s", marks["first picture"]),
        minimal,
        compared("generate", "s", marks["generate"], minimal),
    ]


def _against(other: Checkout, request: dict[str, Any], has_model: list[str], rounds: int) -> list[Row]:
    """Two rows for each mark, of the other checkout and of this one, which take turns."""
    checkouts = {"before": other, "now": Checkout(ROOT, other.way)}
    marks: dict[str, dict[str, list[float]]] = {}
    for k in range(rounds + 1):
        for when in checkouts if k % 2 else reversed(checkouts):
            for name, seconds in _start(checkouts[when], request, has_model).items():
                if k:
                    marks.setdefault(name, {}).setdefault(when, []).append(seconds)
    rows: list[Row] = []
    for name, samples in marks.items():
        before = Row(f"{name}, before", "s", samples["before"])
        rows += [before, compared(f"{name}, now", "s", samples["now"], before)]
    return rows


def _start(checkout: Checkout, request: dict[str, Any], has_model: list[str]) -> dict[str, float]:
    """The marks of one start of the server, and of one ``generate``, which has also what it took of the processors."""
    marks = _first_picture(checkout, request, has_model)
    before = os.times()
    marks["generate"] = _generate(checkout, request, has_model)
    now = os.times()
    spent_s = now.children_user - before.children_user + now.children_system - before.children_system
    return marks | {"generate, processor time": spent_s}


def _import_gradio() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import gradio"], check=True)
    return time.perf_counter() - started


def _draw_with_diffusers(model: Path, steps: int, side: int) -> float:
    """From the start of Python to the picture's file."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(model), f"{folder}/picture.png", str(steps), str(side)]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", SCRIPT, *arguments], check=True, stderr=QUIET)
        return time.perf_counter() - started


def _generate(checkout: Checkout, request: dict[str, Any], has_model: list[str]) -> float:
    """The same picture with ``python launch.py generate``."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--{name}={value}" for name, value in request.items() if name != "model"] + has_model
        started = time.perf_counter()
        if status := checkout.start("generate", *flags, "--data-dir", DATA, "--out", folder).wait():
            raise RuntimeError(f"generate in {checkout.folder} ended with status {status}")
        return time.perf_counter() - started


def _first_picture(checkout: Checkout, request: dict[str, Any], has_model: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as data_dir, server(data_dir, *has_model, checkout=checkout) as (url, started):
        wait_for_page(url)
        page_s = time.perf_counter() - started
        with httpx.Client(base_url=url, timeout=LIMIT_S, trust_env=False) as client:
            job = client.post("/api/jobs", json=request).raise_for_status().json()["id"]
            preview_s = picture_s = 0.0
            for event in events(client, job):
                if event["event"] == "step" and "preview" in event and not preview_s:
                    preview_s = time.perf_counter() - started
                if event["event"] == "image":
                    picture_s = time.perf_counter() - started
                if event["event"] in ("failed", "cancelled"):
                    raise RuntimeError(f"the job ended with {event}")
    return {"page answers": page_s, "first preview": preview_s, "first picture": picture_s}


@contextmanager
def server(data_dir: str, *flags: str, checkout: Checkout = OURS) -> Iterator[tuple[str, float]]:
    """A server of its own: its address, and when it was started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    wanted = ("serve", "--no-browser", "--port", str(port), "--data-dir", data_dir, *flags)
    started = time.perf_counter()
    process = checkout.start(*wanted)
    try:
        yield f"http://127.0.0.1:{port}", started
    finally:
        process.terminate()
        process.wait(30)


def wait_for_page(url: str) -> None:
    """Until page and health answer."""
    deadline = time.perf_counter() + LIMIT_S
    with httpx.Client(trust_env=False) as client:
        while time.perf_counter() < deadline:
            try:
                if client.get(url).status_code == 200 and client.get(f"{url}/api/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
    raise TimeoutError(f"no page within {LIMIT_S:.0f} s")


def events(client: httpx.Client, job: str) -> Iterator[dict[str, Any]]:
    """What the server sends of a job, until it ends."""
    with client.stream("GET", f"/api/jobs/{job}/events") as response:
        for line in response.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line.removeprefix("data:"))
