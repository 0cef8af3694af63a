"""The wheel in an environment of its own, away from the checkout. What it depends on is lent from the one here."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.e2e.server import PATIENCE_S, free_port, wait_for

PARTS = ("webui", "presets", "pyproject.toml", "LICENSE")
NOT_SHIPPED = ("__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Made from what the checkout has, and nothing that lies about there from earlier builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    repository = Path(__file__).resolve().parents[1]
    for part in PARTS:
        if (repository / part).is_dir():
            shutil.copytree(repository / part, source / part, ignore=shutil.ignore_patterns(*NOT_SHIPPED))
        else:
            shutil.copy(repository / part, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", out, source]
    subprocess.run(build, check=True, capture_output=True)
    (file,) = out.glob("darkroom-*.whl")
    return source, file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs ``webui`` there, in a folder where nothing else is; with its environment."""
    root, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
    python = root / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.check_output(ask, text=True).strip())
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel[1]]
    subprocess.run(pip, check=True, capture_output=True)
    (site / "lent.pth").write_text(
        sysconfig.get_path("purelib"), "utf-8"
    )  # a lent folder's own .pth files are not read
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "WEBUI"))}
    where = subprocess.check_output([python, "-c", "import webui; print(webui.__file__)"], cwd=folder, env=variables)
    assert Path(where.decode().strip()).is_relative_to(site)
    return python.with_name("webui"), folder, variables


def test_all_of_the_package_is_in_it(wheel):
    source, file = wheel
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    there = {path.relative_to(source).as_posix() for path in (source / "webui").rglob("*") if path.is_file()}
    assert len(there) > 300 and there - names == set()
    assert {"webui/py.typed", "webui/upscalers/NOTICE", "webui/demo/NOTICE"} <= names
    inside = {name.partition("/")[2] for name in names if ".dist-info/" in name}
    assert {"licenses/LICENSE", "licenses/webui/demo/NOTICE", "licenses/webui/upscalers/NOTICE"} <= inside
    shared = {name.partition("/share/darkroom/")[2] for name in names if "/share/darkroom/" in name}
    assert shared == {f"presets/{path.name}" for path in (source / "presets").iterdir()}
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Python: >=3.11" in metadata


@pytest.mark.slow
def test_it_draws_what_the_checkout_draws_and_enlarges_it(installed):
    webui, folder, variables = installed

    def run(*arguments):
        return subprocess.run([webui, *arguments], cwd=folder, env=variables, capture_output=True, encoding="utf-8")

    verified = run("verify", "--preset", "Flat sticker")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    drawn = run("generate", "--prompt", "a panda", "--lora", "blueprint:0.8", "--steps", "2", "--json")
    assert drawn.returncode == 0, drawn.stderr
    (picture,) = [event for event in map(json.loads, drawn.stdout.splitlines()) if event["event"] == "image"]
    assert Path(picture["path"]).is_relative_to(folder / "data" / "outputs")
    enlarged = run("upscale", picture["path"], "--scale", "2", "--out", "large")
    assert enlarged.returncode == 0 and [*(folder / "large").iterdir()], enlarged.stderr
    assert "Models: demo" in run("doctor").stdout


@pytest.mark.slow
def test_it_serves_the_page_and_jobs(installed):
    webui, folder, variables = installed
    url = f"http://127.0.0.1:{free_port()}"
    serve = [webui, "serve", "--no-browser", "--port", url.rpartition(":")[2]]
    with (
        subprocess.Popen(serve, cwd=folder, env=variables, stdout=-3, stderr=-3) as process,
        httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as client,
    ):

        def state():
            try:
                return client.get("/api/health").json()["status"]
            except httpx.TransportError:
                return "silent"

        try:
            assert wait_for(lambda: state() == "ok", "the model to be loaded")
            assert "Darkroom" in client.get("/").text
            assert len(client.get("/api/presets").json()) > 5
            job = client.post("/api/jobs", json={"prompt": "a red apple", "steps": 2}).json()["id"]
            assert '"event": "done"' in client.get(f"/api/jobs/{job}/events").text.replace('":"', '": "')
            assert client.get(f"/api/jobs/{job}/images/0").content.startswith(b"\x89PNG")
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
