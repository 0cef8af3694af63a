"""Strangers who send a picture each to a server that draws jobs together: everybody gets their own, and no other's."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from webui.core.images import open_image

from .server import ENDLESS, Server, run_here, wait_for

WORDS = ("a red apple, flat style", "a blue fish", "a green cat")
ASKED = {"seed": 7, "width": 64, "height": 64, "steps": 6}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of an owner with guests; its ``client`` is the owner's."""
    server = Server(tmp_path_factory.mktemp("together"), "--together", "4", "--guests", "--owner-key", "the-owners-key")
    yield server
    server.close()


@pytest.fixture
def guests(shared: Server) -> Iterator[list[httpx.Client]]:
    clients = [shared.visitor() for _ in WORDS]
    for client in clients:
        client.get("/")
    yield clients
    for client in clients:
        client.close()


@pytest.fixture
def under_way(shared: Server) -> Iterator[str]:
    """A job of the owner's that ends only when it is told to."""
    job = shared.submit(**ASKED | ENDLESS, prompt="a boat")
    wait_for(lambda: state(shared.client, job) == "running", "a first step")
    yield job
    shared.cancel(job)
    wait_for(lambda: state(shared.client, job) == "cancelled", "its end")


def send(client: httpx.Client, **fields) -> str:
    return client.post("/api/jobs", json=ASKED | fields).raise_for_status().json()["id"]


def state(client: httpx.Client, job: str) -> str:
    return client.get(f"/api/jobs/{job}").raise_for_status().json()["state"]


def file_of(client: httpx.Client, job: str) -> bytes:
    wait_for(lambda: state(client, job) == "done", "a picture")
    return client.get(f"/api/jobs/{job}/images/0").raise_for_status().content


def environment(file: bytes) -> dict:
    return json.loads(open_image(file).info["darkroom"])["environment"]


def test_each_has_the_picture_of_their_own_words_as_it_is_drawn_alone(shared, guests, under_way, start_server):
    jobs = [send(client, prompt=words) for client, words in zip(guests, WORDS, strict=True)]
    found = [file_of(client, job) for client, job in zip(guests, jobs, strict=True)]
    assert all(environment(file)["together"] in (2, 3, 4) for file in found)
    assert guests[1].get(f"/api/jobs/{jobs[0]}").status_code == 404, "another's job is nobody's business"
    assert state(shared.client, under_way) == "running"
    alone = start_server()
    for words, file in zip(WORDS, found, strict=True):
        other = file_of(alone.client, alone.submit(**ASKED, prompt=words))
        assert "together" not in environment(other)
        pixels = (np.asarray(open_image(each), np.int16) for each in (file, other))
        assert np.abs(np.subtract(*pixels)).max() <= 1


def test_one_is_cancelled_in_mid_picture_and_the_other_goes_on(guests, under_way):
    gone, stays = send(guests[0], prompt="a dog", repeat=20), send(guests[1], prompt="a cat", steps=30)
    wait_for(lambda: {state(guests[0], gone), state(guests[1], stays)} == {"running"}, "both at work")
    guests[0].delete(f"/api/jobs/{gone}").raise_for_status()
    wait_for(lambda: state(guests[0], gone) == "cancelled", "its end")
    assert environment(file_of(guests[1], stays))["together"] == 3


def test_one_that_is_larger_waits_until_what_is_drawn_is_over(shared, guests, under_way):
    large = send(guests[0], prompt="a cat", width=128)
    file = file_of(guests[1], send(guests[1], prompt="a cat"))
    assert environment(file)["together"] == 2, "it has passed the larger one, which waits no longer for it"
    assert state(guests[0], large) == "queued"
    shared.cancel(under_way)
    assert "together" not in environment(file_of(guests[0], large))


def test_verify_draws_it_alone(guests, under_way, tmp_path):
    file = Path(tmp_path, "picture.png")
    file.write_bytes(file_of(guests[0], send(guests[0], prompt=WORDS[0])))
    checked = run_here("verify", file, "--device", "cpu", "--dtype", "float32", "--data-dir", tmp_path)
    assert checked.returncode == 0, checked.stderr
    same = "identical" in checked.stdout
    assert same or "equal: by up to 1 of 255" in checked.stdout and "environment: together 2, now 1" in checked.stdout


@pytest.mark.parametrize("flags", [("--workers", "2"), ("--devices", "cpu,cpu"), ("--compile",), ("--ray", "local")])
def test_what_does_not_go_with_it_is_refused(flags, tmp_path):
    refused = run_here("serve", "--no-browser", "--data-dir", tmp_path, "--together", "4", *flags)
    assert refused.returncode == 2
    assert f"--together does not go with {flags[0]}: " in refused.stderr
