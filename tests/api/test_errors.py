"""What a client is told when something goes wrong."""

import errno
import os

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

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
