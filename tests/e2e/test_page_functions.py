"""The page's functions, called by somebody who is no page: whatever they are sent, nothing is the server's fault."""

import json
import random
import re
import secrets
from typing import Any

import httpx
import pytest

from .server import Server

HOSTILE: tuple[Any, ...] = (
    *(None, "", "x" * 1000, "\x00", -1, 3.5, 1e308, True, [], [[1]], ["a"], {}, {"a": 1}, {"value": 3}),
    *({"path": "/etc/passwd"}, {"path": 5}, {"url": "http://127.0.0.1/"}, {"__type__": "update"}),
)
EVENTS: tuple[Any, ...] = (None, [], {}, {"index": [1], "value": {}})


def functions(client: httpx.Client) -> list[dict[str, Any]]:
    """Those with something behind them on the server."""
    return [entry for entry in client.get("/config").json()["dependencies"] if entry["backend_fn"]]


def body_of(function: dict[str, Any], value: Any, event: Any = None) -> dict[str, Any]:
    data = value if isinstance(value, tuple) else [value] * len(function["inputs"])
    target = function["targets"][0][0] if function["targets"] else None
    told = {"data": data, "fn_index": function["id"], "event_data": event, "trigger_id": target}
    return told | {"session_hash": f"hostile-{secrets.token_hex(4)}"}


def run(client: httpx.Client, function: dict[str, Any], value: Any, event: Any = None) -> str:
    """What one that is called at once, or in its turn, answers."""
    body = body_of(function, value, event)
    if function["queue"] is False:
        answer = client.post("/gradio_api/run/predict", json=body)
        assert answer.status_code in (200, 422), (function["id"], value, answer.text)
        return answer.text
    answer = client.post("/gradio_api/queue/join", json=body)
    if answer.status_code != 200:
        assert 400 <= answer.status_code < 500, (function["id"], value, answer.text)
        return answer.text
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": body["session_hash"]}) as stream:
        for line in stream.iter_lines():
            if '"process_completed"' in line:
                return line
    raise AssertionError(f"function {function['id']} gave no answer to {value!r}")


def test_what_cannot_be_a_value_is_the_senders_fault(server: Server) -> None:
    client = server.client
    at_once = [entry for entry in functions(client) if entry["queue"] is False]
    told = next(entry for entry in at_once if any(event == "select" for _, event in entry["targets"]))
    assert '"error"' in run(client, told, "no job", event=None)
    assert '"error"' not in run(client, told, "no job", event={"index": 0, "value": {}})
    texts = next(entry for entry in functions(client) if (entry["api_name"] or "").startswith("check_picture"))
    assert '"success":true' in run(client, texts, None).replace(" ", ""), "a text that is missing is an empty one"
    for entry in random.Random(1).sample(at_once, 6):
        for value in (None, [[1]], {"a": 1}, "\x00"):
            run(client, entry, value)
    fine = next(entry for entry in at_once if len(entry["inputs"]) == 2)
    for changes, status in (
        *(({"fn_index": 99_999}, 404), ({"fn_index": -1}, 404), ({"data": []}, 422), ({"data": {}}, 422)),
        *(({"batched": True}, 422), ({"session_hash": "é" * 5000}, 422), ({"trigger_id": 10**9}, 422)),
    ):
        answer = client.post("/gradio_api/run/predict", json=body_of(fine, [[1]]) | changes)
        assert answer.status_code == status, (changes, answer.text)
    for path in ("run/nothing", "call/nothing", "call/v2/nothing", "call/v2/txt2img"):
        assert client.post(f"/gradio_api/{path}", json={"data": []}).status_code == 404, path
    for path in ("/gradio_api/queue/data?session_hash=nobody", "/gradio_api/call/txt2img/nothing"):
        assert "rror" in client.get(path).text, path
    assert client.get("/?page=nothing").status_code == client.get("/?deep_link=../x").status_code == 200
    assert "Traceback" not in server.log.read_text("utf-8")


@pytest.mark.slow
def test_no_page_function_fails_for_what_it_is_sent(server: Server) -> None:
    for function in functions(server.client):
        for value in HOSTILE:
            run(server.client, function, value)
        for event in EVENTS:
            run(server.client, function, "", event)
        run(server.client, function, tuple(random.Random(2).choices(HOSTILE, k=len(function["inputs"]))))
        run(server.client, function, tuple(HOSTILE))
    server.settle()
    assert "Traceback" not in server.log.read_text("utf-8")


def test_the_page_is_made_once_and_its_scripts_have_another_nonce_each_time(server: Server) -> None:
    first, second = (server.client.get("/") for _ in range(2))
    nonces = [answer.text.partition('nonce="')[2].partition('"')[0] for answer in (first, second)]
    assert len({*nonces}) == 2 and all(len(nonce) >= 16 for nonce in nonces)
    for answer, nonce in zip((first, second), nonces, strict=True):
        assert f"'nonce-{nonce}'" in answer.headers["content-security-policy"]
        scripts = re.findall(r"<script[^>]*>", answer.text)
        assert scripts and all(f'nonce="{nonce}"' in script or 'src="assets/' in script for script in scripts)
    assert first.text.replace(nonces[0], "") == second.text.replace(nonces[1], "")
    elsewhere = server.client.get("/", headers={"Host": "localhost"})
    assert json.dumps("http://localhost") in elsewhere.text and json.dumps("http://localhost") not in first.text
