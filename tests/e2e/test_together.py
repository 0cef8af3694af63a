"""Strangers who send a picture each to a server that draws jobs together: everybody gets their own, and no other's."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image as PilImages

from webui.core.images import open_image

from .server import Server, run_here, wait_for

WORDS = ("a red apple, flat style", "a blue fish", "a green cat")
SIZE = {"steps": 6, "width": 64, "height": 64}
LONG = {"prompt": "a boat", "seed": 3, **SIZE, "steps": 150}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("together"), "--together", "4", "--guests", "--no-auth")
    yield server
    server.close()


@pytest.fixture
def strangers(shared: Server) -> Iterator[list[httpx.Client]]:
    clients = [httpx.Client(base_url=shared.url, timeout=60, trust_env=False) for _ in WORDS]
    yield clients
    for client in clients:
        client.close()


def send(client: httpx.Client, **fields) -> str:
    return client.post("/api/jobs", json=fields).raise_for_status().json()["id"]


def state(client: httpx.Client, job: str) -> str:
    return client.get(f"/api/jobs/{job}").raise_for_status().json()["state"]


def picture(client: httpx.Client, job: str) -> PilImages.Image:
    wait_for(lambda: state(client, job) == "done", "a picture")
    return open_image(client.get(f"/api/jobs/{job}/images/0").raise_for_status().content)


def environment(image: PilImages.Image) -> dict:
    return json.loads(image.info["darkroom"])["environment"]


def test_each_has_the_picture_of_their_own_words_as_it_is_drawn_alone(shared, strangers, start_server):
    first = send(strangers[0], **LONG)
    wait_for(lambda: state(strangers[0], first) == "running", "a first step")
    jobs = [send(client, prompt=words, seed=7, **SIZE) for client, words in zip(strangers, WORDS, strict=True)]
    found = [picture(client, job) for client, job in zip(strangers, jobs, strict=True)]
    assert all(environment(image)["together"] >= 2 for image in found)
    assert strangers[1].get(f"/api/jobs/{jobs[0]}").status_code == 404, "another's job is nobody's business"
    strangers[0].post(f"/api/jobs/{first}/cancel")
    alone = start_server()
    for words, image in zip(WORDS, found, strict=True):
        other = picture(alone.client, send(alone.client, prompt=words, seed=7, **SIZE))
        assert "together" not in environment(other)
        assert np.abs(np.asarray(image, np.int16) - np.asarray(other, np.int16)).max() <= 1


def test_one_is_cancelled_in_mid_picture_and_the_other_goes_on(shared, strangers):
    gone, stays = send(strangers[0], **LONG), send(strangers[1], **LONG | {"steps": 60})
    wait_for(lambda: {state(strangers[0], gone), state(strangers[1], stays)} == {"running"}, "both at work")
    strangers[0].post(f"/api/jobs/{gone}/cancel").raise_for_status()
    wait_for(lambda: state(strangers[0], gone) == "cancelled", "its end")
    assert environment(picture(strangers[1], stays))["together"] == 2


def test_verify_draws_it_alone(shared, strangers, tmp_path):
    first = send(strangers[0], **LONG)
    wait_for(lambda: state(strangers[0], first) == "running", "a first step")
    job = send(strangers[1], prompt=WORDS[0], seed=7, **SIZE)
    file = Path(tmp_path, "picture.png")
    wait_for(lambda: state(strangers[1], job) == "done", "a picture")
    file.write_bytes(strangers[1].get(f"/api/jobs/{job}/images/0").content)
    strangers[0].post(f"/api/jobs/{first}/cancel")
    status, said, _ = run_here("verify", file)
    assert status == 0
    assert "identical" in said or "equal" in said and "environment: together 2, now 1" in said


@pytest.mark.parametrize("flags", [("--workers", "2"), ("--devices", "cpu,cpu"), ("--compile",), ("--ray", "local")])
def test_what_does_not_go_with_it_is_refused(flags, tmp_path):
    status, _, said = run_here("serve", "--no-browser", "--data-dir", tmp_path, "--together", "4", *flags)
    assert status != 0
    assert f"--together draws no jobs at once with {flags[0]}" in said
