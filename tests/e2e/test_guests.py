"""A server with guests: two visitors, the owner, and what each has of the other."""

from collections.abc import Iterator

import httpx
import pytest

from .server import PATIENCE_S, SMALL, Server, wait_for

KEY = "the-owners-key"


@pytest.fixture(scope="module")
def guests(tmp_path_factory) -> Iterator[Server]:
    """A server with guests; its ``client`` is the owner's."""
    server = Server(tmp_path_factory.mktemp("guests"), "--guests", "--owner-key", KEY)
    yield server
    server.close()


@pytest.fixture
def ann(guests) -> Iterator[httpx.Client]:
    with guests.visitor() as client:
        client.get("/")
        yield client


@pytest.fixture
def bob(guests) -> Iterator[httpx.Client]:
    with guests.visitor() as client:
        client.get("/")
        yield client


def send(client: httpx.Client, **fields) -> str:
    answer = client.post("/api/jobs", json=SMALL | fields)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def end(client: httpx.Client, job_id: str) -> str:
    """The state in which the visitor's job ended."""

    def state() -> str | None:
        found = client.get(f"/api/jobs/{job_id}").json()["state"]
        return found if found in ("done", "failed", "cancelled") else None

    return wait_for(state, "the job to end")


def test_a_job_opens_for_who_sent_it_and_for_the_owner_alone(guests, ann, bob):
    job_id = send(ann, seed=3)
    assert end(ann, job_id) == "done"
    nobody = guests.visitor()
    forged = guests.visitor(Cookie="; ".join(f"{name}={value[:-1]}0" for name, value in ann.cookies.items()))
    for stranger in (bob, nobody, forged):
        for path in ("", "/events", "/images/0"):
            assert stranger.get(f"/api/jobs/{job_id}{path}").status_code == 404, path
        assert stranger.delete(f"/api/jobs/{job_id}").status_code == 404
        assert stranger.get("/api/jobs", params={"id": job_id}).json() == []
    for known in (ann, guests.client):
        assert known.get(f"/api/jobs/{job_id}").json()["state"] == "done"
        assert known.get(f"/api/jobs/{job_id}/images/0").status_code == 200


def test_a_strangers_cancel_does_nothing(guests, ann, bob):
    job_id = send(ann, steps=40, repeat=3)
    assert bob.delete(f"/api/jobs/{job_id}").status_code == 404
    assert ann.get(f"/api/jobs/{job_id}").json()["state"] in ("queued", "loading", "running")
    assert guests.client.delete(f"/api/jobs/{job_id}").status_code == 202
    assert end(ann, job_id) == "cancelled"


def test_the_first_answer_has_the_cookie_that_takes_the_job_over(guests):
    with guests.visitor() as program:
        job_id = send(program)
        assert len(program.cookies) == 1
        assert end(program, job_id) == "done"
    bare = guests.visitor()
    first = bare.post("/api/jobs", json=SMALL)
    bare.cookies.clear()
    assert bare.get(f"/api/jobs/{first.json()['id']}").status_code == 404


def test_the_owners_link_is_printed_and_works(guests):
    said = guests.log.read_text("utf-8")
    assert f"{guests.url}?owner={KEY}" in said
    browser = guests.visitor()
    answer = browser.get(f"/?owner={KEY}", follow_redirects=True)
    assert answer.status_code == 200 and str(answer.url) == guests.url
    job_id = send(browser)
    assert guests.client.get(f"/api/jobs/{job_id}").status_code == 200


def test_the_page_works_for_a_guest_and_its_pictures_are_theirs(guests, browser):
    context = browser.new_context()
    page = context.new_page()
    page.goto(guests.url)
    page.locator("#txt2img-status [data-state=idle]").wait_for(timeout=PATIENCE_S * 1000)
    page.locator("#txt2img-prompt textarea").fill("a red apple")
    page.locator("#txt2img-generate").click()
    done = page.locator("#txt2img-status [data-state=done]")
    done.wait_for(timeout=PATIENCE_S * 1000)
    job_id = done.get_attribute("data-job")
    assert guests.visitor().get(f"/api/jobs/{job_id}").status_code == 404
    assert guests.client.get(f"/api/jobs/{job_id}").json()["state"] == "done"
    page.locator("#txt2img-gallery img").first.wait_for()
    context.close()
