"""What the server keeps from those who reach it: other files of this machine, and what is asked under false colours."""

import json
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image as PilImages

from .server import Server


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def call(server: Server, elem_id: str, value: Any, client: httpx.Client | None = None, into: str = "") -> str:
    """What the page's function behind a button or picture answers, as JSON text; ``value`` is its picture, or what the
    control ``into`` holds."""
    client = client or server.client
    config = client.get("/config").json()
    components = {component["id"]: component for component in config["components"]}
    place = next(key for key, entry in components.items() if entry["props"].get("elem_id") == elem_id)
    function = next(entry for entry in config["dependencies"] if any(place == target[0] for target in entry["targets"]))
    inputs = [components[key] for key in function["inputs"]]
    data = [entry["props"].get("value", "" if entry["type"] == "textbox" else None) for entry in inputs]
    held = [entry["props"].get("elem_id") if into else entry["type"] for entry in inputs]
    data[held.index(into or "image")] = value
    session = f"{elem_id}-{secrets.token_hex(4)}"
    body = {"data": data, "fn_index": function["id"], "session_hash": session}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 200
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            if '"process_completed"' in line:
                return json.dumps(json.loads(line.removeprefix("data: "))["output"])
    raise AssertionError("the stream ended before the call")


@pytest.mark.parametrize("elem_id", ["img2img-generate", "inpaint-generate", "png-info-image", "png-info-verify"])
def test_a_picture_of_the_disk_is_not_read_and_not_told_of(server: Server, tmp_path: Path, elem_id: str) -> None:
    secret = tmp_path / "secret.png"
    PilImages.new("RGB", (64, 64), (1, 2, 3)).save(secret)
    answers = {call(server, elem_id, {"path": str(path)}) for path in (secret, tmp_path / "none.png", tmp_path)}
    (answer,) = answers
    assert "only an uploaded file is taken" in answer and str(tmp_path) not in answer


def test_the_guard_stands_before_every_route_of_the_server(server: Server, tmp_path: Path) -> None:
    """The rules themselves are in ``tests/api/test_guard.py``."""
    ask = server.client.request
    for method, path in (("GET", "/"), ("GET", "/config"), ("POST", "/api/jobs"), ("GET", "/sdapi/v1/options")):
        assert ask(method, path, headers={"Host": "evil.example"}).status_code == 403, path
    evil = {"Origin": "https://evil.example"}
    preflight = evil | {"Access-Control-Request-Method": "POST"}
    for method, path, headers in (
        ("OPTIONS", "/gradio_api/queue/join", preflight),
        ("POST", "/gradio_api/queue/join", evil),
        ("POST", "/gradio_api/upload", evil),
        ("POST", "/sdapi/v1/interrupt", evil),
        ("GET", "/config", evil),
    ):
        answer = ask(method, path, headers=headers)
        assert answer.status_code == 403 and not [name for name in answer.headers if "access-control" in name]
    page = ask("GET", "/", headers={"Origin": server.url.rstrip("/")})
    assert page.status_code == 200 and "access-control-allow-origin" not in page.headers
    assert "frame-ancestors 'self'" in page.headers["content-security-policy"]
    assert ask("GET", "/gradio_api/file=https://example.com/x").status_code == 403
    assert ask("GET", f"/gradio_api/file={tmp_path}").status_code == 403


@pytest.mark.parametrize("path", ["/api/tokens", "/api/jobs", "/sdapi/v1/txt2img", "/gradio_api/queue/join"])
def test_a_body_without_a_length_is_counted(server: Server, path: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(50):
            yield b"x" * 2**20

    answer = server.client.post(path, content=pieces(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413, answer.text
    assert server.is_idle()


def test_uploads_are_kept_to_the_size_of_a_file(server: Server) -> None:
    small, large = server.client.post("/gradio_api/upload", files={"files": b"x" * 10}), b"x" * (20 * 2**20 + 1)
    assert small.status_code == 200
    assert server.client.post("/gradio_api/upload", files={"files": large}).status_code == 413


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 address of its own")
def test_an_ipv6_address_is_listened_on_and_answered_under(start_server) -> None:
    server = start_server("--host", "::1")
    assert server.url.startswith("http://[::1]:")
    assert server.client.get("/").status_code == 200
    assert server.client.get("/", headers={"Host": "[2001:db8::1]"}).status_code == 403


def test_the_login_page_needs_nothing_that_a_login_guards(context, start_server) -> None:
    server = start_server("--auth", "ann:s3cret")
    page = context.new_page()
    troubles: list[str] = []
    page.on("response", lambda answer: troubles.append(answer.url) if answer.status >= 400 else None)
    page.on("console", lambda line: troubles.append(line.text) if line.type == "error" else None)
    page.goto(server.url)
    for label, text in (("username", "ann"), ("password", "s3cret")):
        page.get_by_label(label).fill(text)
    page.get_by_role("button", name="Login").click()
    page.locator("#txt2img-generate").wait_for()
    page.locator("#txt2img-status [data-state=idle]").wait_for()
    page.close()
    context.clear_cookies()
    assert not troubles
