"""A server with guests: two visitors, the owner, and what each has of the other."""

import base64
import io
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image as PilImages

from webui.core.groups.upscale import DEFAULT_UPSCALER
from webui.core.names import LANCZOS

from .server import PATIENCE_S, REPOSITORY, SMALL, Server, wait_for
from .test_guard import call

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


def flipped(token: str) -> str:
    """Another signature: its last hexadecimal digit is another one."""
    return token[:-1] + f"{int(token[-1], 16) ^ 1:x}"


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
    forged = guests.visitor(Cookie="; ".join(f"{name}={flipped(value)}" for name, value in ann.cookies.items()))
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


def test_each_has_a_history_and_start_pictures_of_their_own(guests, ann, bob):
    job_id = send(ann, seed=11, prompt="a red apple")
    assert end(ann, job_id) == "done"
    (entry,) = ann.get("/api/history").json()["pictures"]
    assert entry["prompt"] == "a red apple" and "/" not in entry["name"]
    where = f"/api/history/{entry['id']}"
    picture = ann.get(f"{where}/picture")
    assert picture.status_code == ann.get(f"{where}/thumbnail").status_code == 200
    assert ann.put(f"{where}/favourite").json() == {"favourite": True}
    for other in (bob, guests.client, guests.visitor()):
        assert other.get("/api/history", params={"query": "red apple"}).json()["pictures"] == []
        for path in (where, f"{where}/picture", f"{where}/thumbnail"):
            assert other.get(path).status_code == 404
        assert other.delete(where).status_code == 404
    assert bob.get("/api/history").json()["total"] == 0
    owners = send(guests.client, prompt="the owner's own")
    assert end(guests.client, owners) == "done"
    assert guests.client.get("/api/history").json()["pictures"][0]["prompt"] == "the owner's own"
    assert ann.get("/api/history").json()["total"] == 1
    kept = [path.relative_to(guests.data_dir).parts[:2] for path in guests.pictures()]
    assert kept[-1] == ("outputs", "txt2img")
    (folder,) = {
        path.relative_to(guests.data_dir).parts[1]
        for path in (guests.data_dir / "visitors").rglob("*.png")
        if "cache" not in path.parts and "red-apple" in path.name
    }
    assert all(folder not in value for value in ann.cookies.values()), "the folder's name is no key"


def test_a_guest_takes_all_of_it_away_and_deletes_it(guests, ann, bob):
    assert end(ann, send(ann, prompt="a blue whale")) == "done"
    assert ann.get("/api/workspace").json() | {"size_bytes": 0} == {
        "is_owner": False,
        "files": 1,
        "size_bytes": 0,
        "dropped_after_days": 7,
    }
    archive = zipfile.ZipFile(io.BytesIO(ann.get("/api/workspace/export").content))
    (name,) = archive.namelist()
    assert name.startswith("outputs/txt2img/") and archive.testzip() is None
    (entry,) = ann.get("/api/history").json()["pictures"]
    assert archive.read(name) == ann.get(f"/api/history/{entry['id']}/picture").content
    assert zipfile.ZipFile(io.BytesIO(bob.get("/api/workspace/export").content)).namelist() == []
    assert guests.visitor().delete("/api/workspace").status_code == 404
    assert guests.client.delete("/api/workspace").status_code == 403
    assert bob.delete("/api/workspace").status_code == 200
    assert ann.get("/api/history").json()["total"] == 1
    assert ann.delete("/api/workspace").json() == {"deleted": True}
    assert ann.get("/api/history").json()["total"] == 0
    assert not [path for path in (guests.data_dir / "visitors").rglob("*.png") if "blue-whale" in path.name]
    assert end(ann, send(ann, prompt="a blue whale")) == "done"
    assert ann.get("/api/history").json()["total"] == 1, "and begins anew"


def test_an_upload_is_its_senders_alone(guests, ann, bob):
    picture = io.BytesIO()
    PilImages.new("RGB", (64, 64), (1, 2, 3)).save(picture, "PNG")
    (path,) = ann.post("/gradio_api/upload", files={"files": ("a.png", picture.getvalue())}).json()
    assert ann.get(f"/gradio_api/file={path}").content == picture.getvalue()
    assert guests.client.get(f"/gradio_api/file={path}").status_code == 200
    for other in (bob, guests.visitor()):
        assert other.get(f"/gradio_api/file={path}").status_code == 403
        assert "only an uploaded file is taken" in call(guests, "png-info-image", {"path": path}, other)
    told = call(guests, "png-info-image", {"path": path, "meta": {"_type": "gradio.FileData"}}, ann)
    assert "only an uploaded file is taken" not in told and "No settings were found" in told


def test_presets_of_a_guest_are_theirs_and_the_hosts_are_lent(guests, ann, bob):
    assert save_preset(ann, "Mine") == "Mine"
    names = {entry["name"] for entry in ann.get("/api/presets").json()}
    assert "Mine" in names and "Flat sticker" in names
    for other in (bob, guests.client, guests.visitor()):
        assert "Mine" not in {entry["name"] for entry in other.get("/api/presets").json()}
        assert other.get("/api/presets/file", params={"name": "Mine"}).status_code == 404
    assert bob.post("/api/jobs", json=SMALL | {"preset": "Mine"}).status_code == 422
    assert "ships with the product" in save_preset(ann, "Flat sticker")


def save_preset(client: httpx.Client, name: str) -> str:
    told = client.post("/api/presets", json={"name": name, "values": {"steps": 3}}).json()
    return told.get("name") or told["detail"]


OWNERS_ALONE = ["/api/metrics", "/openapi.json", "/sdapi/v1/memory", "/api/models/hash?name=demo", "/monitoring"]


def test_guests_see_nothing_of_the_host(guests, ann):
    for path in OWNERS_ALONE:
        assert ann.get(path).status_code == guests.visitor().get(path).status_code == 404, path
    assert guests.client.get("/api/metrics").status_code == 200
    assert set(ann.get("/api/health").json()) == {"status", "model", "waiting", "running"}
    assert "device" in guests.client.get("/api/health").json()
    job_id = send(ann)
    assert end(ann, job_id) == "done"
    events = ann.get(f"/api/jobs/{job_id}/events").text
    shown = ann.get(f"/api/jobs/{job_id}").text
    told = [
        *(events, shown, ann.get("/config").text, ann.get("/api/models").text, ann.get("/api/loras").text),
        *(ann.get(f"/sdapi/v1/{what}").text for what in ("sd-models", "loras", "options", "sd-vae", "embeddings")),
        ann.get("/api/history").text,
    ]
    for text in told:
        assert str(guests.data_dir.parent) not in text and str(REPOSITORY) not in text
    assert '"path"' in events and ".png" in events
    assert str(guests.data_dir) in guests.client.get(f"/api/jobs/{job_id}").text


def test_sdapi_keeps_what_is_a_visitors(guests, ann, bob):
    changed = {"CLIP_stop_at_last_layers": 2}
    assert ann.post("/sdapi/v1/options", json=changed).status_code == 200
    assert ann.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 2
    for other in (bob, guests.client):
        assert other.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 1
    assert guests.visitor().post("/sdapi/v1/options", json=changed).status_code == 403
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(ann.post, "/sdapi/v1/txt2img", json=SMALL | {"steps": 40, "n_iter": 3})
        progress = ann.get
        wait_for(lambda: progress("/sdapi/v1/progress").json()["state"]["job_count"], "the call to run")
        for other in (bob, guests.visitor(), guests.client):
            assert other.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0
            other.post("/sdapi/v1/interrupt")
        assert ann.get("/sdapi/v1/progress").json()["state"]["interrupted"] is False
        ann.post("/sdapi/v1/interrupt")
        assert waiting.result().status_code in (200, 409)


def test_what_guests_may_use_is_the_hosts_choice(start_server):
    server = start_server(
        "--guests",
        "--owner-key",
        KEY,
        "--guest-models",
        "demo",
        "--guest-loras",
        "blueprint",
        "--guest-presets",
        "Flat sticker",
    )
    guest, owner = server.visitor(), server.client
    guest.get("/")
    assert [entry["name"] for entry in guest.get("/api/loras").json()] == ["blueprint"]
    assert [entry["name"] for entry in guest.get("/sdapi/v1/loras").json()] == ["blueprint"]
    assert [entry["name"] for entry in guest.get("/api/presets").json()] == ["Flat sticker"]
    others = {entry["name"] for entry in owner.get("/api/loras").json()} - {"blueprint"}
    assert len(others) > 1 and len(owner.get("/api/presets").json()) > 1
    hidden = sorted(others)[0]
    text = guest.get("/config").text
    assert not [name for name in others if f'"{name}"' in text]
    gone = {}
    for name in (hidden, "never-there"):
        answers = [
            guest.post("/api/jobs", json=SMALL | {"prompt": f"a <lora:{name}:1> cat"}),
            guest.post("/api/jobs", json=SMALL | {"loras": [name]}),
            guest.post("/api/jobs", json=SMALL | {"prompt": f"[a:<lora:{name}:1>:0.5]"}),
            guest.post("/sdapi/v1/txt2img", json=SMALL | {"prompt": f"<lora:{name}:1>"}),
            guest.get("/api/loras/preview", params={"name": name}),
        ]
        assert all(answer.status_code in (404, 422) for answer in answers), answers
        gone[name] = [answer.text.replace(name, "NAME") for answer in answers]
    assert gone[hidden] == gone["never-there"]
    upscalers = [[entry["name"] for entry in who.get("/sdapi/v1/upscalers").json()] for who in (guest, owner)]
    assert upscalers == [["None", LANCZOS], ["None", LANCZOS, DEFAULT_UPSCALER]]
    assert f'"{DEFAULT_UPSCALER}"' not in text
    start = io.BytesIO()
    PilImages.new("RGB", (64, 64)).save(start, "PNG")
    picture = {"image": base64.b64encode(start.getvalue()).decode(), "upscaler_1": DEFAULT_UPSCALER}
    asked = (
        ("/api/jobs", SMALL | {"upscale": {"upscaler": DEFAULT_UPSCALER}}),
        ("/sdapi/v1/extra-single-image", picture),
    )
    for route, body in asked:
        refused = guest.post(route, json=body)
        assert refused.status_code == 422 and LANCZOS in refused.text, refused.text
    assert end(guest, send(guest, upscale={"scale": 2})) == "done"
    assert guest.post("/api/jobs", json=SMALL | {"preset": "Chalk"}).status_code == 422
    assert owner.post("/api/jobs", json=SMALL | {"prompt": f"<lora:{hidden}:1>"}).status_code == 202
    assert end(guest, send(guest, prompt="<lora:blueprint:1> a cat")) == "done"


@pytest.mark.parametrize("width", [1280, 390])
def test_a_guest_chooses_the_language_that_their_browser_keeps(guests, browser, width):
    context = browser.new_context(locale="de-DE", viewport={"width": width, "height": 844})
    page, refused = context.new_page(), []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(guests.url)
    page.locator("#txt2img-generate", has_text="Generieren").wait_for()
    page.get_by_role("button", name="Einstellungen", exact=True).click()
    sheet = page.locator("#darkroom-settings")
    assert sheet.get_by_label("Sprache").is_visible() and not sheet.locator("#settings-format").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with page.expect_navigation():
        sheet.get_by_label("Sprache").select_option("en")
    page.locator("#txt2img-generate", has_text="Generate").wait_for()
    page.reload()
    page.locator("#txt2img-generate", has_text="Generate").wait_for()
    assert not refused, refused
    context.close()


def test_two_browsers_have_pages_pictures_and_histories_of_their_own(guests, browser):
    first, second = browser.new_context(), browser.new_context()
    pages = [context.new_page() for context in (first, second)]
    for page in pages:
        page.set_default_timeout(PATIENCE_S * 1000)
        page.goto(guests.url)
        page.locator("#txt2img-status [data-state=idle]").wait_for()
    ann, bob = pages
    ann.locator("#txt2img-prompt textarea").fill("a red apple")
    ann.locator("#txt2img-generate").click()
    done = ann.locator("#txt2img-status [data-state=done]")
    done.wait_for()
    job_id = done.get_attribute("data-job")
    ann.locator("#txt2img-gallery img").first.wait_for()
    assert bob.evaluate("(id) => fetch(`./api/jobs/${id}`).then(({ status }) => status)", job_id) == 404
    source = ann.locator("#txt2img-gallery img").first.get_attribute("src")
    assert bob.evaluate("(url) => fetch(url).then(({ status }) => status)", source) == 403
    of_history = "(id) => fetch(`./api/jobs/${id}?history=true`).then((answer) => answer.json())"
    known = ann.evaluate(of_history, job_id)["images"][0]["history"]
    status = "(id) => fetch(`./api/history/${id}`).then(({ status }) => status)"
    assert (ann.evaluate(status, known), bob.evaluate(status, known)) == (200, 404)
    for page in pages:
        page.get_by_role("tab", name="History").click()
        page.get_by_text("is yours alone, and is deleted 7 days after your last visit").wait_for()
    ann.locator(".history-found li").first.wait_for()
    assert bob.locator(".history-found li").count() == 0
    ann.get_by_role("button", name="Delete all", exact=True).click()
    ann.get_by_role("button", name="Yes, delete all that is mine here").click()
    ann.get_by_text("(0 files so far)").wait_for()
    assert ann.locator(".history-found li").count() == 0
    for context in (first, second):
        context.close()


@pytest.mark.slow
def test_a_link_that_cannot_be_made_is_told_and_the_page_goes_on(start_server, monkeypatch):
    """The tunnel's program has no place to be in, so that nothing is asked of the network."""
    monkeypatch.setenv("GRADIO_SHARE_SERVER_ADDRESS", "127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", "/dev/null")
    server = start_server("--share", "--no-auth", "--owner-key", KEY)
    said = server.log.read_text("utf-8")
    assert "There is no public link: [Errno 20] Not a directory" in said and "The page here goes on." in said
    assert "no public link" in server.health()["notice"]
    assert "notice" not in server.visitor().get("/api/health").json()
    assert server.visitor().get("/").status_code == 200


def test_others_log_in_with_a_passphrase_that_is_printed(start_server):
    server = start_server("--host", "0.0.0.0")
    passphrase = re.search(r"Guests log in as guest with the passphrase (\S+)", server.log.read_text("utf-8"))[1]
    guest = server.visitor()
    assert guest.get("/config").status_code == guest.post("/api/jobs", json=SMALL).status_code == 401
    assert guest.post("/login", data={"username": "guest", "password": "guess"}).status_code == 400
    assert guest.post("/login", data={"username": "guest", "password": passphrase}).status_code == 200
    assert end(guest, send(guest)) == "done"
    other = server.visitor()
    other.post("/login", data={"username": "guest", "password": passphrase})
    other.get("/")
    assert other.get("/api/history").json()["total"] == 0, "who shares a passphrase shares nothing else"
    assert server.client.get("/config").status_code == 200, "the owner's key is enough for Gradio too"
