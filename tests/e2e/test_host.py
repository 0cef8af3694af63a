"""What the host of a server with guests sees and decides, over HTTP and on the page."""

import base64
import io
import json
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image as PilImages

from .server import SMALL, Server, wait_for
from .test_guard import call
from .test_guests import KEY, end, send

FILTER = """
def check_text(prompt):
    return "no shouting" if prompt.isupper() else ""


def check_picture(picture):
    return "it is 72 px wide" if picture.width == 72 else ""
"""
LONG = {"steps": 150, "repeat": 40}


@pytest.fixture(scope="module")
def hosted(tmp_path_factory) -> Iterator[Server]:
    """A server with guests; its ``client`` is the owner's."""
    folder = tmp_path_factory.mktemp("hosted")
    filters = folder / "data" / "filters"
    filters.mkdir(parents=True)
    (filters / "filters.py").write_text(FILTER)
    server = Server(folder, "--guests", "--owner-key", KEY)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def as_new(hosted) -> Iterator[None]:
    limits = hosted.client.get("/api/host").json()["limits"]
    yield
    decide(hosted, limits=limits, paused=False, closed=False, message="")
    hosted.client.post("/api/host/stop")


def decide(hosted: Server, **values) -> dict:
    answer = hosted.client.patch("/api/host", json=values)
    assert answer.status_code == 200, answer.text
    return answer.json()


def come(hosted: Server) -> httpx.Client:
    """A guest who has opened the page."""
    client = hosted.visitor()
    client.get("/")
    return client


def shown(hosted: Server, job_id: str) -> dict:
    """How the host sees the guest of this job."""
    guests = hosted.client.get("/api/host").json()["guests"]
    return next(guest for guest in guests if job_id in [job["id"] for job in guest["jobs"]])


def test_the_host_s_page_and_routes_are_not_there_for_guests(hosted):
    guest = come(hosted)
    routes = (
        *(("GET", "/host"), ("GET", "/api/host"), ("PATCH", "/api/host"), ("POST", "/api/host/stop")),
        *(("PUT", "/api/host/guests/x/ban"), ("DELETE", "/api/host/guests/x/ban"), ("GET", "/host/static/host.js")),
    )
    for method, path in routes:
        assert guest.request(method, path, json={}).status_code == 404, path
        assert hosted.client.request(method, path, json={}).status_code == 200, path
    assert hosted.client.get("/host/static/..%2fhost.py").status_code == 404


def test_a_guest_s_limits_are_said_with_when_to_come_back_and_can_be_changed(hosted):
    decide(hosted, limits={"waiting": 1, "pictures_an_hour": 20}, paused=True)
    guest = come(hosted)
    job_id = send(guest)
    refusal = guest.post("/api/jobs", json=SMALL)
    assert refusal.status_code == 429 and "1 of your jobs wait" in refusal.json()["detail"]
    assert int(refusal.headers["retry-after"]) > 0
    decide(hosted, limits={"waiting": 9})
    send(guest)
    refusal = guest.post("/api/jobs", json={"width": 1024, "height": 1024, "steps": 100, "repeat": 8})
    assert refusal.status_code == 429 and "20 an hour are the limit" in refusal.json()["detail"]
    sdapi = guest.post("/sdapi/v1/txt2img", json={"width": 1024, "height": 1024, "steps": 100, "n_iter": 8})
    assert sdapi.status_code == 429 and "20 an hour are the limit" in sdapi.json()["errors"]
    assert hosted.client.post("/api/jobs", json=SMALL).status_code == 202  # the owner has no limits
    decide(hosted, paused=False)
    assert end(guest, job_id) == "done"


def test_a_disk_that_is_full_of_one_guest_s_pictures_takes_no_more_of_theirs(hosted):
    decide(hosted, limits={"disk_mb": 0})
    refusal = come(hosted).post("/api/jobs", json=SMALL)
    assert refusal.status_code == 429 and "0 MB are the limit" in refusal.json()["detail"]


def test_uploads_of_a_day_are_bounded_by_what_the_host_says(hosted):
    decide(hosted, limits={"upload_mb": 1})
    refusal = come(hosted).post("/gradio_api/upload", files={"files": ("a.png", bytes(2 * 2**20))})
    assert refusal.status_code == 429 and "1 MB of uploads a day" in refusal.text


def test_paused_guests_wait_and_are_told_and_the_owner_goes_on(hosted):
    decide(hosted, paused=True, message="Back at noon")
    guest = come(hosted)
    job_id = send(guest, seed=5)
    health = guest.get("/api/health").json()
    assert health["message"].startswith("Back at noon") and "paused" in health["message"]
    assert "has_guests" not in health and hosted.client.get("/api/health").json()["has_guests"]
    owners = hosted.client.post("/api/jobs", json=SMALL).json()["id"]
    assert end(hosted.client, owners) == "done"
    assert guest.get(f"/api/jobs/{job_id}").json()["state"] == "queued"
    decide(hosted, paused=False)
    assert end(guest, job_id) == "done"


def test_the_host_sees_who_draws_what_and_stops_one_or_all(hosted):
    ann, bob = come(hosted), come(hosted)
    first, second = send(ann, prompt="a red apple", **LONG), send(bob, prompt="a blue fish", **LONG)
    seen = shown(hosted, first)
    assert [job["prompt"] for job in seen["jobs"]] == ["a red apple"] and not seen["banned"]
    assert seen["pictures_this_hour"] > 0 and seen["id"] != shown(hosted, second)["id"]
    assert hosted.client.post(f"/api/host/guests/{seen['id']}/stop").json() == {"stopped": 1}
    assert end(ann, first) == "cancelled"
    assert bob.get(f"/api/jobs/{second}").json()["state"] not in ("done", "failed", "cancelled")
    assert hosted.client.post("/api/host/stop").json() == {"stopped": 1}
    assert end(bob, second) == "cancelled"


def test_what_the_host_filters_is_not_drawn_for_guests_and_says_why(hosted):
    guest = come(hosted)
    words = hosted.data_dir / "filters" / "words.txt"
    words.write_text(f"{words.read_text('utf-8')}\nzeppelin\n")
    refusals = [guest.post("/api/jobs", json=SMALL | {"prompt": prompt}) for prompt in ("a ZEPPELIN_2", "A CAT")]
    refusals.append(guest.post("/sdapi/v1/txt2img", json=SMALL | {"prompt": "(zeppe\u200blin:1.2)"}))
    for refusal, why in zip(refusals, ("“zeppelin”", "no shouting", "“zeppelin”"), strict=True):
        assert refusal.status_code == 422 and why in refusal.json()["detail"]
    assert end(hosted.client, send(hosted.client, prompt="A ZEPPELIN", width=72)) == "done"
    wide = SMALL | {"width": 72}
    job_id = send(guest, **wide)
    assert end(guest, job_id) == "done" and guest.get(f"/api/jobs/{job_id}").json()["images"] == []
    assert "refused by this server's filter: it is 72 px wide." in guest.get(f"/api/jobs/{job_id}/events").text
    calls = (("txt2img", wide), ("extra-single-image", {"image": as_text(36), "upscaler_1": "Lanczos"}))
    for name, body in calls:
        refusal = guest.post(f"/sdapi/v1/{name}", json=body)
        assert refusal.status_code == 403 and "it is 72 px wide" in refusal.json()["detail"], refusal.text
    assert guest.get("/api/history").json()["total"] == 0


def as_text(side_px: int) -> str:
    file = io.BytesIO()
    PilImages.new("RGB", (side_px, side_px), "green").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_a_closed_tab_ends_what_its_page_has_sent_and_no_other_jobs(hosted):
    decide(hosted, limits={"closed_tab_s": 0}, paused=True)
    guest = come(hosted)
    over_http = send(guest)
    told = json.loads(call(hosted, "txt2img-generate", "a red apple", guest, "txt2img-prompt"))
    assert "data" in told, told
    (by_page,) = json.loads(told["data"][0])["ids"]
    assert end(hosted.client, by_page) == "cancelled"
    assert hosted.client.get(f"/api/jobs/{over_http}").json()["state"] == "queued"


def test_who_is_shut_out_is_told_so_loses_their_jobs_and_may_come_back(hosted):
    guest = come(hosted)
    job_id = send(guest, **LONG)
    theirs = shown(hosted, job_id)["id"]
    assert hosted.client.put(f"/api/host/guests/{theirs}/ban").status_code == 200
    for path in ("/api/health", f"/api/jobs/{job_id}", "/api/jobs"):
        refusal = guest.get(path)
        assert refusal.status_code == 403 and "closed this server to you" in refusal.json()["detail"]
    assert end(hosted.client, job_id) == "cancelled"
    assert come(hosted).get("/api/health").status_code == 200
    hosted.client.delete(f"/api/host/guests/{theirs}/ban")
    assert guest.get("/api/health").status_code == 200
    assert hosted.client.put("/api/host/guests/nobody/ban").status_code == 422


def test_a_closed_server_takes_no_new_guests(hosted):
    known = come(hosted)
    decide(hosted, closed=True)
    refusal = hosted.visitor().get("/")
    assert refusal.status_code == 403 and "no new guests" in refusal.text
    assert known.get("/api/health").status_code == 200 and hosted.client.get("/api/health").status_code == 200


@pytest.mark.parametrize(
    ("values", "words"), [({"limits": {"waiting": -1}}, "limits.waiting"), ({"banned": ["x"]}, "banned"), ([1], "")]
)
def test_what_makes_no_sense_is_refused_by_name(hosted, values, words):
    refusal = hosted.client.patch("/api/host", json=values)
    assert refusal.status_code == 422 and words in refusal.json()["detail"]


def test_the_page_shows_who_is_here_and_does_what_the_host_clicks(hosted, open_tab):
    guest = come(hosted)
    job_id = send(guest, prompt="a green hat", **LONG)
    tab = open_tab(f"?owner={KEY}", hosted)
    tab.leaving, page = True, tab.page
    page.get_by_role("link", name="Guests").click()
    row = page.locator(f"tr[data-guest='{shown(hosted, job_id)['id']}']")
    row.get_by_text("a green hat").wait_for()
    row.get_by_role("button", name="Stop").click()
    page.get_by_text("1 job was stopped.").wait_for()
    assert end(guest, job_id) == "cancelled"
    page.get_by_label("Message on every page").fill("Back at <b>noon</b>")
    page.get_by_role("button", name="Show it").click()
    page.get_by_text("All pages show it within seconds.").wait_for()
    page.get_by_label("Guests' jobs wait").check()
    page.get_by_text("Guests' jobs wait until you let them go on.").wait_for()
    limit = page.get_by_label("Jobs that wait, one guest")
    limit.fill("3")
    page.get_by_role("button", name="Set limits").click()
    page.get_by_text("The limits are set.").wait_for()
    decided = hosted.client.get("/api/host").json()
    assert decided["paused"] and decided["limits"]["waiting"] == 3
    wait_for(lambda: guest.get("/api/health").json().get("message"), "the message")
    page.get_by_role("link", name="Back to Darkroom").click()
    page.locator("#darkroom-message").get_by_text("Back at <b>noon</b>").wait_for()
