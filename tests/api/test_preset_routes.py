"""Presets over HTTP: saved from a page, from a picture, as a style; renamed, passed on, deleted; each visitor's own."""

import hashlib
import io
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image as PilImages

from webui.api.errors import ERROR_ANSWERS
from webui.api.presets import presets_router
from webui.core.catalog import Catalog
from webui.core.events import Image
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.visitor import OWNER, Visitor, asked_by
from webui.library.library import find_loras, find_models
from webui.workspace.workspace import Workspaces

ANN, NEW = Visitor("a" * 32), Visitor("c" * 32, is_new=True)
HOSTILE = "<script>alert(1)</script> ../../x 🎨"
JOB = "0" * 32
DRAWN = Request(prompt="a red apple", seed=7, steps=2, width=64, height=64, model="demo")
Client = Callable[..., TestClient]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    settings = Settings(data_dir=tmp_path_factory.mktemp("nothing"))
    return Catalog(find_models(settings), find_loras(settings), {}, {}, {})


@pytest.fixture
def as_visitor(tmp_path: Path, catalog: Catalog) -> Client:
    """A client of who asks, over one server whose executor has drawn one picture."""
    workspaces = Workspaces(tmp_path)
    pixels = PilImages.new("RGB", (64, 64), "#c0392b")
    picture = Image(0, pixels, Recipe(DRAWN, hashes={"model": {"demo": "1" * 64}}))
    job = SimpleNamespace(images=(picture,), request=DRAWN)
    executor: Any = SimpleNamespace(
        catalog=lambda: catalog,
        job=lambda job_id: job if job_id == JOB else None,
        status=lambda: {"device": "cpu, float32"},
    )
    app = FastAPI(exception_handlers=dict(ERROR_ANSWERS))
    app.include_router(presets_router(executor, workspaces.here))

    def client(visitor: Visitor = OWNER) -> TestClient:
        async def asked(scope: Any, receive: Any, send: Any) -> None:
            scope["visitor"] = visitor
            with asked_by(visitor):
                await app(scope, receive, send)

        return TestClient(asked)

    return client


def listed(client: TestClient, **query: str) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in client.get("/api/presets", params=query).json()}


def save(client: TestClient, name: str, status: int = 200, **body: Any) -> str:
    answer = client.post("/api/presets", json={"name": name, **body})
    assert answer.status_code == status, answer.text
    return str(answer.json().get("name") or answer.json()["detail"])


def test_a_page_is_saved_with_its_variables_and_what_it_has_besides_is_left_out(as_visitor):
    client = as_visitor()
    values = {"prompt": "a {thing}", "steps": 8, "width": 64, "hires": True, "hires.scale": 1.5, "x_values": "1"}
    values |= {"strength": 0.35, "outpaint_left": 8, "outpaint_top": None, "negative": "", "vae": None}
    assert save(client, "Fox", values=values, variables="thing = fox\n", picture=f"{JOB}/0") == "Fox"
    entry = listed(client)["Fox"]
    assert entry["variables"] == {"thing": "fox"} and (entry["shipped"], entry["is_style"]) == (False, False)
    fields = {"prompt": "a {thing}", "steps": 8, "width": 64, "hires": True, "hires.scale": 1.5, "negative": ""}
    assert entry["fields"] == fields and entry["init"] == {"strength": 0.35, "outpaint": [8, 0, 0, 0]}
    assert entry["preview"]  # the chosen picture is its small one
    save(client, "Own size", values=values | {"keep_size": True})
    assert "width" not in listed(client)["Own size"]["fields"]
    assert "is there already" in save(client, "fox", 422, values=values)
    assert save(client, "fox", values={"steps": 9}, replace=True) == "fox"
    assert listed(client)["fox"]["fields"] == {"steps": 9}
    for body, reason in (
        ({"values": {"steps": "many"}}, "steps must be a whole number"),
        ({"values": {}, "variables": "thing"}, "variables: 'thing' must look like name = value"),
        ({"settings": "picture"}, "there is no picture yet"),
        ({"settings": "words"}, "needs words or a LoRA"),
        ({"styles": ["Nothing like it"]}, "There is no preset"),
        ({"unknown": 1}, "unknown"),
    ):
        assert reason in save(client, "Bad", 422, **body)
    assert "ships with the product" in save(client, "Flat sticker", 422, values={"steps": 3})


def test_a_picture_is_saved_so_that_it_is_made_again(as_visitor):
    client = as_visitor()
    assert save(client, HOSTILE, settings="picture", picture=f"{JOB}/0", note="<b>bold</b>") == HOSTILE
    entry = listed(client)[HOSTILE]
    assert entry["note"] == "<b>bold</b>" and entry["fields"]["seed"] == 7 and entry["fields"]["hires"] is False
    assert entry["pins"]["model"] == "1" * 64 and re.fullmatch("[0-9a-f]{64}", entry["expected"])
    shown = client.get(f"/{entry['preview']}")
    pixels = PilImages.open(io.BytesIO(shown.content)).tobytes()
    assert shown.headers["content-type"] == "image/png" and hashlib.sha256(pixels).hexdigest() == entry["expected"]
    told = client.get("/api/presets/warnings", params={"name": HOSTILE}).json()
    assert told == {"warnings": ["model 'demo' is not the file that the preset was made with"]}
    assert "there is no picture" in save(client, "x", 422, settings="picture", picture=f"{JOB}/9")


def test_words_become_a_style_and_styles_that_are_on_become_words(as_visitor):
    client = as_visitor()
    save(client, "Oil", settings="words", values={"prompt": "oil painting", "negative": "", "steps": 9})
    save(client, "Of", settings="words", values={"prompt": "painting of {prompt}", "loras": '[{"name": "night"}]'})
    oil, of = (listed(client)[name] for name in ("Oil", "Of"))
    assert oil["is_style"] and oil["fields"] == {"prompt": "{prompt}, oil painting"}
    assert of["is_style"] and [ref["name"] for ref in of["fields"]["loras"]] == ["night"]
    values = {"prompt": "a {thing}", "loras": "sepia:0.5", "steps": 4}
    save(client, "Whole", values=values, variables="thing = fox", styles=["Oil", "Of"])
    whole = listed(client)["Whole"]["fields"]
    assert whole["prompt"] == "painting of a {thing}, oil painting" and whole["steps"] == 4
    assert [ref["name"] for ref in whole["loras"]] == ["sepia", "night"]


def test_one_is_renamed_exported_deleted_and_imported(as_visitor):
    client = as_visitor()
    save(client, "Apple", settings="picture", picture=f"{JOB}/0")
    assert client.patch("/api/presets", json={"name": "Apple", "to": "Pear"}).json() == {"name": "Pear"}
    assert client.patch("/api/presets", json={"name": "Pear", "to": "Flat sticker"}).status_code == 422
    file = client.get("/api/presets/file", params={"name": "Pear"})
    assert "Pear.toml" in file.headers["content-disposition"] and tomllib.loads(file.text)["fields"]["seed"] == 7
    before = listed(client)["Pear"]
    assert client.delete("/api/presets", params={"name": "Pear"}).json() == {"deleted": "Pear"}
    assert "Pear" not in listed(client) and client.delete("/api/presets", params={"name": "Pear"}).status_code == 422
    assert "ships" in client.delete("/api/presets", params={"name": "Flat sticker"}).json()["detail"]

    def take(name: str, data: bytes) -> Any:
        return client.post("/api/presets/import", params={"name": name}, content=data)

    assert take("x.toml", file.content).json() == {"names": ["Pear"], "notices": []}
    assert listed(client)["Pear"] == before | {"preview": None}
    assert take("x.toml", file.content + b"\n[init]\nink = 1\n").json() == {
        "names": ["Pear 2"],
        "notices": ["init.ink is not a known setting and is ignored"],
    }
    rows = "name,prompt,negative_prompt\n" + "".join(f"style {k},{'word ' * 160}{k},\n" for k in range(90))
    assert len(take("styles.csv", rows.encode()).json()["names"]) == 90
    assert listed(client)["style 89"]["is_style"]
    assert "is not TOML" in take("x.toml", b"][").json()["detail"]


def test_what_is_for_another_model_is_told(as_visitor):
    client = as_visitor()
    found = listed(client, model="demo")
    assert found["SDXL, quality"]["family"] == "SDXL" and not found["SDXL, quality"]["fits"]
    assert (found["Flat sticker"]["family"], found["Flat sticker"]["fits"]) == ("demo", True)
    assert all(entry["fits"] for entry in listed(client).values())  # of no model there is nothing to say


def test_each_visitor_has_their_own_and_who_keeps_no_cookie_has_none(as_visitor):
    ann, owner, new = as_visitor(ANN), as_visitor(), as_visitor(NEW)
    save(ann, "Mine", values={"steps": 3})
    save(owner, "The host's", values={"steps": 3})
    assert "Mine" not in listed(owner) and "Mine" not in listed(new)
    assert listed(ann)["The host's"]["lent"] and not listed(owner)["The host's"]["lent"]
    assert "is the host's" in ann.delete("/api/presets", params={"name": "The host's"}).json()["detail"]
    for path in ("file", "warnings", "preview"):
        assert owner.get(f"/api/presets/{path}", params={"name": "Mine"}).status_code == 404
    assert "keep their cookie" in save(new, "Mine", 422, values={"steps": 3})
    assert new.post("/api/presets/import", params={"name": "a.toml"}, content=b"").status_code == 422


def test_a_broken_file_is_listed_with_what_is_wrong(as_visitor, tmp_path):
    client = as_visitor()
    save(client, "Good", values={"steps": 3})
    (tmp_path / "presets" / "broken.toml").write_text("[fields]\nsteps = 'many'\n")
    entry = listed(client)["broken"]
    assert entry["problem"] == "broken.toml steps must be a whole number, not 'many'"
    assert client.get("/api/presets/file", params={"name": "broken"}).status_code == 404
    assert client.delete("/api/presets", params={"name": "broken"}).status_code == 200
