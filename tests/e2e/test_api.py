"""The HTTP API and ``gradio_client`` against a real server."""

import base64
import io
import re
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image as PilImages
from prometheus_client.parser import text_string_to_metric_families
from webuiapi import WebUIApi

from .server import ENDLESS, SMALL, Server, wait_for

BIG = {"width": 256, "height": 256}  # slow steps: a request takes less time than one


@pytest.fixture(autouse=True)
def _quiet_server(server: Server):
    yield
    server.settle()


# /api/jobs


def test_a_job_from_submission_to_the_file(server):
    answer = server.client.post("/api/jobs", json={"prompt": "a cat", "seed": 5, "count": 2, **SMALL})
    assert answer.status_code == 202
    assert re.fullmatch("[0-9a-f]{32}", answer.json()["id"])
    job_id = answer.json()["id"]
    assert server.show(job_id)["request"]["prompt"] == "a cat"
    done = server.finish(job_id)
    assert done["event"] == "done" and done["seconds"] > 0
    assert sum(done["parts_s"].values()) == pytest.approx(done["seconds"], abs=0.001)
    shown = server.show(job_id)
    assert shown["state"] == "done"
    assert [image["seed"] for image in shown["images"]] == [5, 6]
    for index, told in enumerate(shown["images"]):
        answer = server.client.get(f"/api/jobs/{job_id}/images/{index}")
        assert answer.headers["content-type"] == "image/png"
        picture = PilImages.open(io.BytesIO(answer.content))
        assert picture.text["parameters"] == told["infotext"]
        assert f"Seed: {told['seed']}," in told["infotext"]
        saved = Path(told["path"])
        assert answer.content == saved.read_bytes()
        saved.write_bytes(answer.content + b"the file itself")
        assert server.client.get(f"/api/jobs/{job_id}/images/{index}").content == saved.read_bytes()
        saved.write_bytes(b"another file")
        assert server.client.get(f"/api/jobs/{job_id}/images/{index}").content == answer.content
    answer = server.client.get(f"/api/jobs/{job_id}/images/2")
    assert answer.status_code == 404 and "2 pictures" in answer.json()["detail"]


def test_events_are_numbered_previewed_and_resumable(server):
    job_id = server.submit(steps=12, repeat=100)  # it is stopped below
    stream = server.events(job_id)
    seen = []
    for number, body in stream:
        seen.append((number, body))
        if body["event"] == "step" and body["index"] >= 3:
            break
    stream.close()  # a lost connection
    preview = PilImages.open(io.BytesIO(base64.b64decode(body["preview"])))
    assert preview.format == "JPEG"
    resumed, has_gone_on = [], False
    for number, body in server.events(job_id, after=seen[-1][0]):
        resumed.append((number, body))
        if not has_gone_on and {"step", "image"} <= {body["event"] for _, body in resumed}:
            has_gone_on = True
            server.cancel(job_id)
    numbers = [number for number, _ in seen + resumed]
    assert numbers == sorted(set(numbers))
    kinds = [body["event"] for _, body in resumed]
    assert kinds[-1] == "cancelled" and kinds.count("cancelled") == 1, resumed[-1]
    assert has_gone_on
    assert not {"queued", "loading"} & set(kinds)
    last = [body for _, body in resumed if body["event"] == "step"][-1]
    assert last["index"] <= last["total"]
    assert list(server.events(job_id, after=numbers[-1])) == []


def test_a_start_picture_travels_as_base64(server):
    start = io.BytesIO()
    PilImages.new("RGB", (64, 64), (20, 160, 60)).save(start, "PNG")
    encoded = base64.b64encode(start.getvalue()).decode()
    job_id = server.submit(seed=1, steps=4, init={"image": encoded, "strength": 0.3})
    assert server.finish(job_id)["event"] == "done"
    shown = server.show(job_id)
    assert shown["request"]["init"]["strength"] == 0.3
    png = server.client.get(f"/api/jobs/{job_id}/images/0").content
    red, green, blue = PilImages.open(io.BytesIO(png)).convert("RGB").resize((1, 1)).getpixel((0, 0))
    assert green > red and green > blue


def test_cancel_ends_a_running_job_within_a_step(server):
    job_id = server.submit(steps=150, **BIG)
    for _, body in server.events(job_id):
        if body["event"] == "step" and body["index"] >= 2:
            assert server.client.delete(f"/api/jobs/{job_id}").status_code == 202
            break
    last = server.finish(job_id)
    assert last["event"] == "cancelled"
    assert last["total"] == 150
    assert last["index"] <= body["index"] + 2  # one under way, and one that began while the request travelled
    assert server.show(job_id)["images"] == []


def test_cancel_takes_a_waiting_job_out_and_leaves_the_running_one(server):
    running, waiting, last = server.submit(**ENDLESS), server.submit(**SMALL), server.submit(**SMALL)
    assert next(server.events(last))[1] == {"event": "queued", "position": 2}
    asked = server.client.get("/api/jobs", params={"id": [last, "0" * 32, waiting]}).json()  # of those it knows
    assert asked == [{"id": last, "state": "queued", "position": 2}, {"id": waiting, "state": "queued", "position": 1}]
    server.cancel(waiting)
    assert server.finish(waiting)["event"] == "cancelled"
    assert server.show(running)["state"] in ("loading", "running", "queued")
    server.cancel(running)
    assert server.finish(last)["event"] == "done"
    asked = server.client.get("/api/jobs", params={"id": [running, waiting, last]}).json()
    assert [one["state"] for one in asked] == ["cancelled", "cancelled", "done"]


UNKNOWN = "0" * 32
REFUSED = [
    ("POST", "/api/jobs", {"json": {"steps": 0}}, 422, "steps must be at least 1, not 0"),
    ("POST", "/api/jobs", {"json": {"guidance": -1}}, 422, "guidance must be at least 0"),
    ("POST", "/api/jobs", {"json": {"width": 63}}, 422, "such as 64"),
    ("POST", "/api/jobs", {"json": {"seed": "abc"}}, 422, "seed must be a whole number, not 'abc'"),
    ("POST", "/api/jobs", {"json": {"prompt": "a" * 100_000}}, 422, "prompt must be at most 8000 characters"),
    ("POST", "/api/jobs", {"json": {"prompt": ["a"]}}, 422, "prompt must be text"),
    ("POST", "/api/jobs", {"json": {"prompt": "7" * 4_801}}, 422, "prompt: it comes to more than 64 chunks"),
    ("POST", "/api/jobs", {"json": {"steps": True}}, 422, "steps must be a"),
    ("POST", "/api/jobs", {"json": {"sampler": "Oiler"}}, 422, "did you mean Euler"),
    ("POST", "/api/jobs", {"json": {"model": "nothing"}}, 422, "no model “nothing”"),
    ("POST", "/api/jobs", {"json": {"model": "../../etc/passwd"}}, 422, "There is no "),
    ("POST", "/api/jobs", {"json": {"stepz": 3}}, 422, "stepz is not a known setting"),
    ("POST", "/api/jobs", {"json": {"init": {"image": "%%%"}}}, 422, "image"),
    ("POST", "/api/jobs", {"json": [1, 2]}, 422, "body"),
    ("POST", "/api/jobs", {"json": None}, 422, "body"),
    ("POST", "/api/jobs", {"content": b'{"guidance": NaN}'}, 422, "guidance must be a finite number"),
    ("POST", "/api/jobs", {"content": b'{"seed": 1e999}'}, 422, "seed"),
    ("POST", "/api/jobs", {"content": b'{"seed": ' + b"9" * 5000 + b"}"}, 400, "parsing the body"),
    ("POST", "/api/jobs", {"content": b'{"prompt": "\\ud800"}'}, 422, "prompt"),
    ("POST", "/api/jobs", {"content": b'{"steps": '}, 422, "JSON"),
    ("POST", "/api/jobs", {"content": b"\xff\xfe"}, 422, ""),
    ("POST", "/api/jobs", {"content": b"[" * 100_000}, 400, "parsing the body"),
    ("GET", f"/api/jobs/{UNKNOWN}", {}, 404, "no job has this id"),
    ("GET", f"/api/jobs/{UNKNOWN}/events", {}, 404, "no job has this id"),
    ("GET", f"/api/jobs/{UNKNOWN}/images/0", {}, 404, "no job has this id"),
    ("DELETE", f"/api/jobs/{UNKNOWN}", {}, 404, "no job has this id"),
    ("GET", "/api/nothing/here", {}, 404, "Not Found"),
    ("PUT", "/api/jobs", {"json": {}}, 405, "Method Not Allowed"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "reason"), REFUSED)
def test_refusals_are_json_with_an_error_and_its_reason(server, method, path, body, status, reason):
    headers = {"content-type": "application/json"} if "content" in body else {}
    answer = server.client.request(method, path, headers=headers, **body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    told = answer.json()
    assert set(told) == {"error", "detail"}
    assert told["error"] and reason in told["detail"]
    assert not re.search(r"Traceback|\.py\b", answer.text)
    assert server.is_idle()


def test_a_known_job_refuses_bad_indexes_and_resume_points(server):
    job_id = server.submit(**SMALL)
    server.finish(job_id)
    for path, headers in (
        (f"/api/jobs/{job_id}/images/-1", {}),
        (f"/api/jobs/{job_id}/images/first", {}),
        (f"/api/jobs/{job_id}/events", {"Last-Event-ID": "first"}),
    ):
        answer = server.client.get(path, headers=headers)
        assert answer.status_code in (404, 422)
        assert set(answer.json()) == {"error", "detail"}


def test_health_answers_while_a_picture_is_made(server):
    job_id = server.submit(**ENDLESS)
    wait_for(lambda: server.show(job_id)["state"] == "running", "the job to run")
    for _ in range(20):
        health = server.health()
        assert health["status"] == "ok" and health["running"]
    server.cancel(job_id)


def test_metrics_count_what_was_done_and_hold_nothing_of_it(server):
    server.settle()
    before = _metrics(server)
    server.finish(server.submit(prompt="a zebra <lora:night:0.5>", negative="stripes", count=2, **SMALL))
    server.settle()
    after = _metrics(server)
    grown = {sample: value - before[sample] for sample, value in after.items() if sample in before}
    assert grown['darkroom_jobs_total{outcome="done"}'] == grown['darkroom_job_seconds_bucket{le="+Inf"}'] == 1
    assert grown['darkroom_jobs_total{outcome="failed"}'] == grown['darkroom_jobs_total{outcome="cancelled"}'] == 0
    assert (grown["darkroom_pictures_total"], grown["darkroom_steps_total"]) == (2, SMALL["steps"])
    parts_s = [value for sample, value in grown.items() if sample.startswith("darkroom_part_seconds_total")]
    assert sum(parts_s) == pytest.approx(grown["darkroom_job_seconds_sum"], abs=1e-6) and min(parts_s) >= 0
    assert after["darkroom_queue_length"] == after["darkroom_jobs_running"] == 0
    assert after['darkroom_model_info{device="cpu, float32",model="demo"}'] == 1
    assert after["process_resident_memory_bytes"] > 2**26
    assert not re.search("zebra|stripes|night", server.client.get("/api/metrics").text)


def test_metrics_come_in_the_format_that_is_asked_for(server):
    for accept, kind in (("*/*", "text/plain"), ("application/openmetrics-text", "application/openmetrics-text")):
        answer = server.client.get("/api/metrics", headers={"Accept": accept})
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(f"{kind}; version=")


def _metrics(server: Server) -> dict[str, float]:
    """Each sample's value by its name and labels."""
    families = text_string_to_metric_families(server.client.get("/api/metrics").text)
    return {
        sample.name + (f"{{{','.join(labels)}}}" if labels else ""): sample.value
        for family in families
        for sample in family.samples
        for labels in [[f'{name}="{value}"' for name, value in sorted(sample.labels.items())]]
    }


def test_the_queue_cannot_be_gone_round(server):
    answer = server.client.post("/gradio_api/run/txt2img", json={"data": ["a"]})
    assert answer.status_code == 404


# --auth


def test_auth_covers_our_routes_too(start_server, tmp_path):
    server = start_server("--auth", "ann:s3cret:with colon")
    stranger = httpx.Client(base_url=server.url, trust_env=False)
    for method, path, body in (
        ("GET", "/api/health", None),
        ("GET", "/api/metrics", None),
        ("POST", "/api/jobs", {"steps": 1}),
        ("GET", f"/api/jobs/{UNKNOWN}", None),
        ("GET", f"/api/jobs/{UNKNOWN}/events", None),
        ("DELETE", f"/api/jobs/{UNKNOWN}", None),
        ("POST", "/sdapi/v1/txt2img", {"steps": 1}),
        ("GET", "/sdapi/v1/options", None),
    ):
        guesses = (b"ann:wrong", b"bob:") if path in ("/api/health", "/sdapi/v1/txt2img") else ()  # not too many
        for headers in (
            {},
            *({"Authorization": f"Basic {base64.b64encode(guess).decode()}"} for guess in guesses),
            {"Authorization": "Basic %%%"},
            {"Authorization": "Bearer s3cret"},
        ):
            answer = stranger.request(method, path, json=body, headers=headers)
            assert answer.status_code == 401, (method, path, headers)
            assert {"error", "detail"} <= set(answer.json())
    assert server.is_idle()
    # HTTP Basic (this client's way), and the cookie of the page's login.
    job_id = server.submit(**SMALL)
    assert server.finish(job_id)["event"] == "done"
    a1111 = WebUIApi(baseurl=f"{server.url.rstrip('/')}/sdapi/v1", username="ann", password="s3cret:with colon")
    assert len(a1111.txt2img(prompt="a cat", **SMALL).images) == 1
    login = stranger.post("/login", data={"username": "ann", "password": "s3cret:with colon"})
    assert login.status_code == 200
    assert stranger.get(f"/api/jobs/{job_id}").json()["state"] == "done"
    for site in ("cross-site", "same-site"):  # another site's page, in the browser of who is logged in
        assert stranger.get(f"/api/jobs/{job_id}", headers={"Sec-Fetch-Site": site}).status_code == 403
    stranger.cookies.clear()
    assert stranger.get(f"/api/jobs/{job_id}").status_code == 401
    client = Client(server.url, auth=("ann", "s3cret:with colon"), verbose=False, download_files=tmp_path)
    gallery, *_ = client.predict(prompt="a cat", **SMALL, api_name="/txt2img")
    assert len(gallery) == 1 and PilImages.open(gallery[0]["image"]).size == (64, 64)  # as it was asked for


# gradio_client


@pytest.fixture(scope="module")
def client(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(server.url, verbose=False, download_files=tmp_path_factory.mktemp("client"))


def test_the_gradio_endpoints_are_the_pages_with_named_parameters(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/txt2img", "/img2img", "/inpaint", "/grid", "/upscale"}
    parameters = {entry["parameter_name"]: entry for entry in endpoints["/txt2img"]["parameters"]}
    assert {"prompt", "negative", "steps", "guidance", "seed", "sampler", "width", "height"} <= set(parameters)
    assert all(entry["parameter_has_default"] for entry in parameters.values())
    assert parameters["steps"]["parameter_default"] == 20


def test_gradio_client_gets_the_original_files(client):
    gallery, status, _, infotext = client.predict(
        prompt="a cat", seed=40, count=2, sampler="Euler a", **SMALL, api_name="/txt2img"
    )
    assert 'data-state="done"' in status
    assert [item["caption"] for item in gallery] == ["Seed 40", "Seed 41"]
    texts = [PilImages.open(item["image"]).text["parameters"] for item in gallery]
    assert texts[0] == infotext
    assert "Sampler: Euler a," in infotext and "Seed: 40," in infotext
    assert "Seed: 41," in texts[1]
    # Whatever is not named has its default.
    gallery, _, _, infotext = client.predict(steps=1, api_name="/txt2img")
    assert "Sampler: DPM++ 2M," in infotext and "CFG scale: 5," in infotext
    assert len(gallery) == 1


def test_gradio_client_watches_the_picture_grow(client, server):
    previews = set()
    for _, status, preview, _ in client.submit(prompt="a cat", **server.lasting(4), api_name="/txt2img"):
        if 'data-state="running"' in status and isinstance(preview, str):  # one that stays comes as an empty update
            previews.update(re.findall(r'src="data:image/jpeg;base64,([^"]+)"', preview))
    assert len(previews) >= 3
    assert 'data-state="done"' in status


def test_what_gradio_client_cancels_is_stopped(client, server):
    call = client.submit(prompt="a cat", **ENDLESS, api_name="/txt2img")
    shown = next(status for _, status, *_ in call if 'data-state="running"' in status)
    job = re.search(r'data-job="([^"]+)"', shown)[1]
    call.cancel()
    wait_for(server.is_idle, "the job to stop")
    assert server.client.get(f"/api/jobs/{job}").json()["state"] == "cancelled"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"guidance": -1}, "guidance must be at least 0, not -1"),
        ({"width": 63}, "such as 64"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"sampler": "Oiler"}, "no sampler “Oiler”; did you mean Euler"),
        ({"model": "nothing"}, "no model “nothing”"),
        ({"prompt": "a" * 100_000}, "prompt must be at most 8000 characters"),
    ],
)
def test_gradio_client_hears_what_was_wrong(client, server, bad, message):
    with pytest.raises(AppError, match=re.escape(message)):
        client.predict(**bad, api_name="/txt2img")
    assert server.is_idle()
