"""From ``python launch.py`` to the page, to the first preview, to the first picture; ``generate`` beside diffusers.

The demo model draws 20 steps at its own size; at SD 1.5's size, where loading and drawing take the time, it is 4 steps
at 256 px.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import of_size

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 300.0
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
QUIET = subprocess.DEVNULL
DATA = str(Path(tempfile.gettempdir()) / "darkroom-coldstart")  # kept, so that the number format is probed once


def run(options: Options) -> list[Row]:
    """Seconds since the process was started; a bare ``import gradio`` alternates as the yardstick for the page."""
    folder, side, steps = of_size(options.size).folder, *((128, 20) if options.size == "demo" else (256, 4))
    steps = options.steps or steps
    request = REQUEST | {"model": options.size, "steps": steps, "width": side, "height": side}
    has_model = ["--model", options.size] + ([] if options.size == "demo" else ["--models-dir", str(folder)])
    marks: dict[str, list[float]] = {"page": [], "preview": [], "picture": []}
    bare: list[float] = []
    generate: list[float] = []
    script: list[float] = []
    for k in range(options.rounds + 1):
        bare_s, measured = _import_gradio(), _first_picture(request, has_model)
        script_s, generate_s = _draw_with_diffusers(folder, steps, side), _generate(request, has_model)
        if k:  # the first round fills the disk cache
            bare.append(bare_s)
            script.append(script_s)
            generate.append(generate_s)
            for name, seconds in measured.items():
                marks[name].append(seconds)
    yardstick, minimal = Row("import gradio", "s", bare), Row("a minimal diffusers script", "s", script)
    return [
        yardstick,
        compared("page answers", "s", marks["page"], yardstick),
        Row("first preview", "s", marks["preview"]),
        Row("first picture", "s", marks["picture"]),
        minimal,
        compared("generate", "s", generate, minimal),
    ]


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


def _generate(request: dict[str, Any], has_model: list[str]) -> float:
    """The same picture with ``python launch.py generate``."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--{name}={value}" for name, value in request.items() if name != "model"] + has_model
        command = [sys.executable, "launch.py", "generate", *flags, "--data-dir", DATA, "--out", folder]
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=QUIET, stderr=QUIET)
        return time.perf_counter() - started


def _first_picture(request: dict[str, Any], has_model: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as data_dir, server(data_dir, *has_model) as (url, started):
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
    return {"page": page_s, "preview": preview_s, "picture": picture_s}


@contextmanager
def server(data_dir: str, *flags: str) -> Iterator[tuple[str, float]]:
    """A server of its own: its address, and when it was started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "launch.py",
        "serve",
        "--no-browser",
        "--port",
        str(port),
        "--data-dir",
        data_dir,
        *flags,
    ]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
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
