"""The embedded control: outlines that nobody trained on become pictures, from the command line and over HTTP."""

import base64
import io

from tests import outlines

from .server import run_here

PROMPT = "a star, flat style, on a blue background"
STEPS, ENOUGH = 8, 0.45


def test_it_is_always_listed(server):
    (entry,) = (one for one in server.client.get("/api/controls?model=demo").json() if one["name"] == "demo-edges")
    assert entry["about"] == "T2I-Adapter for SD 1.x" and not entry["problem"] and not entry["misfit"]


def test_the_command_line_draws_after_a_drawing(tmp_path):
    outlines.draw(outlines.STAR, 2).save(tmp_path / "star.png")
    control = f"model=demo-edges,image={tmp_path / 'star.png'}"
    flags = ["--steps", str(STEPS), "--seed", "3", "--control", control, "--data-dir", tmp_path]
    done = run_here("generate", "--prompt", PROMPT, *flags, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (drawn,) = (tmp_path / "out").rglob("*.png")
    assert outlines.f1(outlines.read(drawn.read_bytes()), outlines.draw(outlines.STAR)) > ENOUGH


def test_a_job_over_http_follows_and_without_it_does_not(server):
    data = io.BytesIO()
    outlines.draw(outlines.STAR, 2).save(data, "PNG")
    control = {"model": "demo-edges", "image": base64.b64encode(data.getvalue()).decode()}
    values = []
    for controls in ([control], []):
        request = {"prompt": PROMPT, "steps": STEPS, "seed": 4, "controls": controls}
        job = server.client.post("/api/jobs", json=request).json()["id"]
        server.client.get(f"/api/jobs/{job}/events").read()
        picture = outlines.read(server.client.get(f"/api/jobs/{job}/images/0").content)
        values.append(outlines.f1(picture, outlines.draw(outlines.STAR)))
    assert values[0] > max(ENOUGH, 2 * values[1])
