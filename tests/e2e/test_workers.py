"""Two processes draw for one server: the pictures of one, in order, whatever becomes of a worker."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image as PilImages

from .server import SMALL, Server, run_here, wait_for

ASKED = {"prompt": "a red apple, flat style", "seed": 7, **SMALL, "steps": 12, "repeat": 6}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("workers"), "--workers", "2")
    yield server
    server.close()


def workers_of(server: Server) -> list[psutil.Process]:
    """The processes that draw."""
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def draw(server: Server, kill: bool = False) -> list[dict]:
    job = server.client.post("/api/jobs", json=ASKED).raise_for_status().json()["id"]
    if kill:
        wait_for(lambda: server.client.get(f"/api/jobs/{job}").json()["images"], "a first picture")
        os.kill(workers_of(server)[0].pid, signal.SIGKILL)
    return wait_for(lambda: _done(server.client.get(f"/api/jobs/{job}").json()), "the end of the job")["images"]


def _done(job: dict) -> dict | None:
    assert job["state"] not in ("failed", "cancelled"), job
    return job if job["state"] == "done" else None


def test_a_job_is_spread_and_a_worker_that_is_killed_loses_nothing(two):
    assert [worker["name"] for worker in two.client.get("/api/health").json()["workers"]] == ["cpu 1", "cpu 2"]
    before = draw(two)
    assert [image["seed"] for image in before] == list(range(7, 13))
    assert len(workers_of(two)) == 2
    after = draw(two, kill=True)
    assert [image["pixels_sha256"] for image in after] == [image["pixels_sha256"] for image in before]
    assert "killed by SIGKILL" in two.log.read_text("utf-8")
    assert draw(two) and len(workers_of(two)) == 2, "the worker is back"
    metrics = two.client.get("/api/metrics").text
    assert metrics.count("darkroom_worker_running{") == 2


def test_the_pictures_say_who_drew_them_and_verify_does_not_mind(two):
    draw(two)
    pictures = sorted(Path(two.data_dir, "outputs").rglob("*.png"))[:2]
    for picture in pictures:
        with PilImages.open(picture) as image:
            assert '"worker": "cpu ' in " ".join(image.text.values())
    checked = run_here("verify", *pictures, "--device", "cpu", "--dtype", "float32", "--data-dir", two.data_dir)
    assert checked.returncode == 0 and checked.stdout.count("identical") == 2, checked.stdout + checked.stderr
