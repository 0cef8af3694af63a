"""What a client is told when something goes wrong."""

import errno
import os

import pytest
from fastapi import FastAPI, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from webui.api.errors import ERROR_ANSWERS


@pytest.fixture
def client() -> TestClient:
    """Of an application that fails as its route's last part says."""
    app = FastAPI(exception_handlers=dict(ERROR_ANSWERS))

    @app.post("/{place}/{name}")
    def fail(place: str, name: str) -> None:
        number = getattr(errno, name)
        raise OSError(number, os.strerror(number), "/a/secret/folder")

    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize(("name", "words"), [("ENOSPC", "disk is full"), ("EROFS", "disk is read-only")])
def test_a_disk_that_takes_nothing_is_said(client, name, words):
    ours, gradios = client.post(f"/api/{name}"), client.post(f"/gradio_api/{name}")
    assert (ours.status_code, gradios.status_code) == (507, 507)
    assert words in ours.json()["detail"] and words in gradios.text
    assert "secret" not in ours.text + gradios.text


def test_another_trouble_with_a_file_is_a_fault_of_ours(client):
    answer = client.post("/api/EIO")
    assert (answer.status_code, answer.json()["error"]) == (500, "internal error") and "secret" not in answer.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", "body must be an object, not []"),
        (b"null", "body must be an object, not nothing"),
        (b"", "body is missing"),
        (b'{"data": 1', "body is not JSON: Expecting ',' delimiter (at character 10)"),
        (b"{}", "data is missing"),
        (b'{"data": 5}', "data must be a list, not 5"),
    ],
)
def test_what_is_wrong_with_a_body_is_said_in_our_words(body, words):
    app = FastAPI(exception_handlers=dict(ERROR_ANSWERS))

    @app.post("/api/jobs")
    def submit(body: dict[str, object]) -> None:
        raise AssertionError("it was refused")

    @app.post("/api/lists")
    def lists(body: Join, limit: int = Query(5, ge=1)) -> None:
        raise AssertionError("it was refused")

    client = TestClient(app, raise_server_exceptions=False)
    path = "/api/lists" if words.startswith("data") else "/api/jobs"
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (422, "bad input")
    assert answer.json()["detail"].startswith(words)
    plain = client.post(path, content=b'{"prompt": "a"}', headers={"Content-Type": "text/plain"})
    assert plain.json()["detail"] == "body must be JSON, with Content-Type: application/json"
    assert (
        client.post("/api/lists?limit=-5", json={"data": []}).json()["detail"] == "limit must be at least 1, not '-5'"
    )


@pytest.mark.parametrize("body", [b'{"steps": 1e999}', b'{"prompt": "\\ud800"}', b'{"prompt": "\\u0000"}'])
def test_a_body_that_gradio_refuses_is_not_sent_back(body):
    app = FastAPI(exception_handlers=dict(ERROR_ANSWERS))

    @app.post("/gradio_api/queue/join")
    def join(_body: Join) -> None:
        raise AssertionError("it was refused")

    answer = TestClient(app, raise_server_exceptions=False).post(
        "/gradio_api/queue/join", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.json()["detail"] == [{"type": "missing", "loc": ["body", "data"], "msg": "Field required"}]


class Join(BaseModel):
    """What Gradio takes."""

    data: list[object]


def test_a_client_that_hangs_up_in_its_own_body_is_no_news_for_the_log():
    app = FastAPI(exception_handlers=dict(ERROR_ANSWERS))

    @app.post("/gradio_api/upload")
    def upload() -> None:
        raise ClientDisconnect

    TestClient(app, raise_server_exceptions=True).post("/gradio_api/upload")
