"""``kill -9`` and SIGTERM at any moment of real work: what was accepted comes out once, as if nothing had happened."""

import base64
import contextlib
import io
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image as PilImages
from safetensors.torch import load_file, save_file

from webui.core.recipe import read_picture

from .conftest import tab_opener
from .server import SMALL, Server, free_port, wait_for, webui


def start_picture() -> str:
    file = io.BytesIO()
    PilImages.linear_gradient("L").resize((64, 64)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


KINDS: tuple[dict[str, Any], ...] = (
    {"prompt": "a red apple", "seed": 11, "steps": 6, "width": 64, "height": 64},
    {"prompt": "a cat", "seed": 12, "steps": 4, "repeat": 3, "width": 64, "height": 64, "sampler": "Euler a"},
    {"prompt": "a dog <lora:night:0.8>", "seed": 13, "steps": 5, "count": 2, "repeat": 2, "width": 64, "height": 64},
    {"prompt": "a hat", "seed": 14, "steps": 6, "init": {"image": start_picture(), "strength": 0.6}},
)
"""What is asked for: one picture, several in a row, batches with a LoRA, from a start picture."""


MOST_WAITING = 6


class Storm:
    """A server under load that is killed and started again; everything that was answered with 202 is remembered."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.port, self.chance = folder, free_port(), random.Random(seed)
        self.server = Server(folder, port=self.port)
        self.accepted: dict[str, int] = {}  # by id: which of KINDS
        self.stopped: set[str] = set()
        self.favourites: set[str] = set()
        self.unsure = 0  # pictures of jobs whose answer was lost
        begun = time.monotonic()
        self.hashes = [self.finish(self.server.submit(**kind)) for kind in KINDS]
        self.pace_s = (time.monotonic() - begun) / len(KINDS)
        self.before = len(self.server.pictures())
        self.presets = self.server.client.get("/api/presets").json()

    def finish(self, job_id: str) -> list[str]:
        assert self.server.finish(job_id)["event"] == "done"
        return [image["pixels_sha256"] for image in self.server.show(job_id)["images"]]

    def send(self) -> None:
        number = self.chance.randrange(len(KINDS))
        try:
            answer = self.server.client.post("/api/jobs", json=KINDS[number])
        except httpx.TransportError:
            self.unsure += len(self.hashes[number])
            return
        assert answer.status_code in (202, 503), answer.text  # 503: it is shutting down
        if answer.status_code == 202:
            self.accepted[answer.json()["id"]] = number

    def act(self) -> None:
        """One thing that people do."""
        action = self.chance.random()
        try:
            if action < 0.7:
                self.send()
            elif action < 0.8 and self.accepted:
                job_id = self.chance.choice(list(self.accepted))
                self.stopped.add(job_id)  # whether the answer comes or not, it may be stopped
                self.server.cancel(job_id)
            else:
                shown = self.server.client.get("/api/history").json()["pictures"]
                picture = self.chance.choice(shown)["id"]
                if self.server.client.put(f"/api/history/{picture}/favourite").is_success:
                    self.favourites.add(picture)
        except httpx.TransportError:
            pass

    def end(self, number: int = signal.SIGKILL) -> None:
        """Load, from the first answer of the server on, and the signal at a random point of it."""
        until = threading.Timer(self.chance.uniform(0.0, 3 * self.pace_s), os.kill, (self.server.process.pid, number))
        until.start()
        while until.is_alive():
            with contextlib.suppress(httpx.TransportError):
                if self.server.health()["waiting"] < MOST_WAITING:
                    self.act()
        self.server.process.wait(5)
        self.server.client.close()
        self.server = Server(self.folder, port=self.port)

    def stumble(self) -> None:
        """A server that is killed while it starts."""
        self.server.process.kill()
        self.server.process.wait()
        flags = ("--no-browser", "--device", "cpu", "--dtype", "float32", "--port", str(self.port))
        with (self.folder / "stumbled.log").open("w") as log:
            process = webui("serve", "--data-dir", self.server.data_dir, *flags, stdout=log, stderr=log)
        time.sleep(self.chance.uniform(0.0, 8.0))
        process.kill()
        process.wait()
        self.server.client.close()
        self.server = Server(self.folder, port=self.port)

    def history_is_whole(self) -> bool:
        return self.server.client.get("/api/history").json()["total"] == len(self.server.pictures())

    def judge(self) -> None:
        """Waits until all is done, and checks it."""
        wait_for(self.server.is_idle, "the last job to end", timeout_s=600)
        claimed: Counter[str] = Counter()
        given_up = 0
        for job_id, kind in self.accepted.items():
            shown = self.server.show(job_id)
            images = shown["images"]
            claimed.update(image["path"] for image in images)
            known = dict(enumerate(self.hashes[kind]))
            assert all(known[image["index"]] == image["pixels_sha256"] for image in images), "other pixels"
            if job_id in self.stopped and shown["state"] == "cancelled":
                continue
            if shown["state"] == "failed":  # three kills at one picture before its first step
                (said,) = [body for _, body in self.server.events(job_id) if body["event"] == "failed"]
                assert "ended three times" in said["message"]
                given_up += 1
                continue
            assert shown["state"] == "done", (job_id, shown["state"])
            assert [image["index"] for image in images] == list(known), "pictures are missing"
        assert set(claimed.values()) <= {1}, "a picture is two jobs' or came out twice"
        files = self.server.pictures()[self.before :]
        assert set(claimed) <= {str(path) for path in files}
        assert len(files) - len(claimed) <= self.unsure, "pictures that nobody asked for"
        for path in files:
            with PilImages.open(path) as image:
                image.load()
            assert read_picture(path)
        wait_for(self.history_is_whole, "the history to have read every picture")
        for picture in self.favourites:
            assert self.server.client.get(f"/api/history/{picture}").json()["favourite"]
        assert self.presets == self.server.client.get("/api/presets").json()
        assert not list(self.server.data_dir.rglob("*.damaged"))
        assert given_up <= len(self.accepted) * 0.02


@pytest.fixture
def make_storm(tmp_path: Path) -> Iterator[Callable[[int], Storm]]:
    made: list[Storm] = []

    def make(seed: int) -> Storm:
        made.append(Storm(tmp_path, seed))
        return made[-1]

    yield make
    for storm in made:
        storm.server.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_that_is_killed_and_one_that_is_ended_lose_nothing_and_draw_nothing_twice(make_storm):
    storm = make_storm(1)
    storm.end()
    storm.end(signal.SIGTERM)
    storm.judge()


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_server_that_is_killed_200_times_loses_nothing_and_draws_nothing_twice(make_storm):
    storm = make_storm(int(os.environ.get("STORM_SEED", "2")))
    for number in range(200):
        storm.end()
        if number % 20 == 0:
            storm.end(signal.SIGTERM)
            storm.stumble()
    storm.judge()


@pytest.mark.slow
def test_sigterm_ends_within_5_s_in_mid_step_and_the_job_is_drawn_again(tmp_path):
    port = free_port()
    server = Server(tmp_path, port=port)
    fields = {"prompt": "a cat", "seed": 3, "steps": 4, "repeat": 2, "width": 512, "height": 512}
    job_id = server.submit(**fields)
    for _, body in server.events(job_id):
        if body["event"] == "step" and body["index"] == 5:
            break
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(5) == 0
    server.client.close()
    server = Server(tmp_path, port=port)
    try:
        assert server.finish(job_id)["event"] == "done"
        images = server.show(job_id)["images"]
        again = server.submit(**fields)
        assert server.finish(again)["event"] == "done"
        hashes = [[image["pixels_sha256"] for image in shown] for shown in (images, server.show(again)["images"])]
        assert hashes[0] == hashes[1] and len(server.pictures()) == 4
    finally:
        server.close()


@pytest.mark.slow
def test_a_job_that_failed_is_listed_and_tried_again(context, tmp_path):
    """By a LoRA's file that changes while its job waits for the next server."""
    port = free_port()
    server = Server(tmp_path, port=port)
    folder = server.data_dir / "models/Lora"
    folder.mkdir(parents=True, exist_ok=True)
    night = Path(__file__).resolve().parents[2] / "webui/demo/loras/night.safetensors"
    (folder / "mine.safetensors").write_bytes(night.read_bytes())
    opener = tab_opener(context, server)
    tab = next(opener)()
    long = server.submit(steps=150, repeat=100, width=64, height=64)
    tab.set(prompt="a cat <lora:mine:1>", seed=4, **SMALL)
    job = tab.generate()
    tab.leaving = True
    server.process.kill()
    server.process.wait()
    save_file(load_file(night), folder / "mine.safetensors", {"note": "changed"})
    server = tab.server = Server(tmp_path, port=port)
    try:
        tab.wait_for_message("mine.safetensors has changed since this job was sent")
        assert server.show(job)["state"] == "failed"
        tab.leaving = False
        listed = server.client.get("/api/jobs").json()
        assert [entry["state"] for entry in listed if entry["id"] == job] == ["failed"]
        server.cancel(long)
        tab.find("status").get_by_role("button", name="Try again").click()
        tab.wait_for_state("done")
        tab.wait_for_infotext("Seed: 4,")
        assert tab.job != job and server.show(tab.job)["state"] == "done"
        assert server.client.post(f"/api/jobs/{job}/again").status_code == 202
        assert server.client.post(f"/api/jobs/{'0' * 32}/again").status_code == 404
        assert next(opener, None) is None  # runs the fixture's own checks
    finally:
        server.close()
