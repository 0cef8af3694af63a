"""What the server keeps from those who reach it: other files of this machine, and what is asked under false colours."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PilImages

from .server import Server


def call(server: Server, elem_id: str, image: Any) -> str:
    """What the page's function behind a button or picture answers where ``image`` is its picture, as JSON text."""
    config = server.client.get("/config").json()
    components = {component["id"]: component for component in config["components"]}
    place = next(key for key, entry in components.items() if entry["props"].get("elem_id") == elem_id)
    function = next(entry for entry in config["dependencies"] if any(place == target[0] for target in entry["targets"]))
    inputs = [components[key] for key in function["inputs"]]
    kinds = [entry["type"] for entry in inputs]
    data = [entry["props"].get("value") for entry in inputs]
    data[kinds.index("image")] = image
    body = {"data": data, "fn_index": function["id"], "session_hash": elem_id}
    assert server.client.post("/gradio_api/queue/join", json=body).status_code == 200
    with server.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": elem_id}) as stream:
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
