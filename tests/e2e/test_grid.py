"""Grids as people draw them: over HTTP, and from the command line in processes of their own."""

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image as PilImages
from PIL.PngImagePlugin import PngInfo

from .server import SMALL, run_here, run_webui

REQUEST = {"prompt": "a red apple, flat style", "seed": 5, **SMALL}
X, Y = {"field": "steps", "values": [1, 2]}, {"field": "prompt:red", "values": "red,blue"}


def test_a_grid_over_http_is_a_job_whose_sheet_is_a_picture_too(server):
    job_id = server.submit(request=REQUEST, x=X, y=Y)
    told = [body for _, body in server.events(job_id)]
    images = [body for body in told if body["event"] == "image"]
    assert told[-1]["event"] == "done" and [body["index"] for body in images] == [0, 1, 2, 3, 4]
    assert [body.get("sheet", False) for body in images] == [False] * 4 + [True]
    steps = [body for body in told if body["event"] == "step"]
    assert {body["total"] for body in steps} == {6}
    shown = server.show(job_id)
    assert shown["grid"] == {"x": {"field": "steps", "values": ["1", "2"]}, "y": {**Y, "values": ["red", "blue"]}}
    answer = server.client.get(f"/api/jobs/{job_id}/images/4")
    assert answer.content == Path(images[-1]["path"]).read_bytes()
    blue = images[3]["infotext"]
    alone = server.submit(**REQUEST | {"prompt": "a blue apple, flat style", "steps": 2})
    assert server.finish(alone)["event"] == "done"
    assert server.show(alone)["images"][0]["pixels_sha256"] == images[3]["pixels_sha256"] and "a blue apple" in blue


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"request": REQUEST}, "x is missing"),
        ({"request": REQUEST, "x": {"field": "stepps", "values": [1]}}, "did you mean steps?"),
        ({"request": REQUEST, "x": {"field": "steps", "values": [1, 500]}}, "steps must be at most 150, not '500'"),
        ({"request": REQUEST, "x": {"field": "sampler", "values": ["Euler b"]}}, "There is no sampler “Euler b”"),
        ({"request": REQUEST, "x": {"field": "preset", "values": ["nothing"]}}, "There is no preset “nothing”"),
        ({"request": REQUEST | {"stepps": 1}, "x": X}, "stepps is not a known setting"),
        ({"request": [], "x": X}, "request must be an object"),
        ({"request": REQUEST, "x": X, "seed": 5}, "seed is not a known setting of a grid"),
    ],
)
def test_a_bad_grid_is_refused_over_http(server, body, detail):
    answer = server.client.post("/api/jobs", json=body)
    assert answer.status_code == 422 and detail in answer.json()["detail"]


def test_a_grid_of_very_many_pictures_needs_a_yes_over_http(server):
    body = {"request": REQUEST, "x": {"field": "seed", "values": "1-101"}, "y": {"field": "steps", "values": "1-5"}}
    answer = server.client.post("/api/jobs", json=body)
    assert answer.status_code == 422
    assert "this grid is 505 pictures" in answer.json()["detail"] and 'send "yes": true' in answer.json()["detail"]


def test_a1111s_plot_is_answered_with_its_sheet_and_where_asked_its_pictures(server):
    body = {"prompt": REQUEST["prompt"], "seed": 5, **SMALL, "script_name": "X/Y/Z plot"}
    nothing = ["Nothing", "", []]
    asked = ["Steps", "1,2", [], "Prompt S/R", "red,blue", [], *nothing, True, True, False, False, 0, False, False]
    answer = server.client.post("/sdapi/v1/txt2img", json=body | {"script_args": asked})
    assert answer.status_code == 200, answer.text
    told, info = answer.json(), json.loads(answer.json()["info"])
    sheet, *cells = [PilImages.open(io.BytesIO(base64.b64decode(text))) for text in told["images"]]
    assert len(cells) == 4 and sheet.width > 2 * cells[0].width and info["index_of_first_image"] == 1
    assert "Script: X/Y/Z plot" in sheet.text["parameters"] and info["all_prompts"][-1] == "a blue apple, flat style"
    refused = server.client.post("/sdapi/v1/txt2img", json=body | {"script_args": ["Eta", "1", []]})
    assert refused.status_code == 422 and "Eta cannot be varied here" in refused.json()["detail"]
    other = server.client.post("/sdapi/v1/txt2img", json=body | {"script_name": "prompt matrix"})
    assert other.status_code == 422 and "script_name" in other.json()["detail"]


def test_a_grid_on_the_page_is_a_table_and_each_of_its_cells_fills_the_page(open_tab):
    page = open_tab().page
    page.evaluate("location.hash = '#grid'")
    page.locator("#grid-generate").wait_for()
    page.locator("#grid-prompt textarea").fill(REQUEST["prompt"])
    for field, values in (("x", "2,3"), ("y", "red,blue")):
        page.locator(f"#grid-{field}-values textarea").fill(values)
    page.locator("#grid-y input").fill("prompt:red")
    page.keyboard.press("Enter")
    page.locator("#grid-generate").click()
    cells = page.locator("#grid-sheet td button img")
    page.locator("#grid-status [data-state=done]").wait_for()
    cells.nth(3).wait_for()
    assert page.locator("#grid-sheet tbody th").all_inner_texts() == ["red", "blue"]
    page.get_by_role("button", name="Thumbnail 5 of 5").first.wait_for()  # the sheet and its pictures
    assert "Script: X/Y/Z plot" in page.locator("#grid-infotext textarea").input_value()
    page.locator("#grid-gallery .media-button").click()
    page.locator("#darkroom-light .light-title", has_text="1 of 5").wait_for()
    page.keyboard.press("End")  # the last cell, not the sheet
    page.locator("#darkroom-light .light-infotext", has_text="a blue apple").wait_for(state="attached")
    page.keyboard.press("Escape")
    page.locator("#grid-sheet td button").nth(2).click()
    page.wait_for_function("document.querySelector('#grid-prompt textarea').value === 'a blue apple, flat style'")
    page.wait_for_function("JSON.parse(darkroom.recall('grid')).steps === 2")
    seed = page.evaluate("JSON.parse(darkroom.recall('grid')).seed")
    page.locator(".undo-note", has_text=f"seed {seed}.").wait_for()
    page.locator("#grid-verify").click()
    page.locator("#grid-verdict [data-outcome=identical]").wait_for()
    page.locator("#grid-y input").fill("seed")
    page.keyboard.press("Enter")
    page.locator("#grid-x-values textarea").fill("1-3")
    page.locator("#grid-y-values textarea").fill("1-200")
    page.locator("#grid-generate").click()
    page.locator("#grid-status", has_text="This grid is 600 pictures, and they take about").wait_for()
    page.locator("#grid-status [data-yes]").click()
    page.locator("#grid-status [data-state=running]").wait_for()
    page.locator("#grid-generate").click()  # asked again while it is drawn: beside the line of that one, which goes on
    question = page.locator("#grid-answer", has_text="This grid is 600 pictures")
    question.get_by_role("button", name="Yes, draw them").wait_for()
    page.locator("#grid-status [data-state=running]").wait_for()
    page.locator("#grid-stop").click()
    page.locator("#grid-status [data-state=cancelled]").wait_for()
    assert question.is_visible()


@pytest.mark.slow
def test_grid_and_verify_on_the_command_line(tmp_path):
    flags = ["--prompt", REQUEST["prompt"], "--seed=5", "--width=64", "--height=64", "--data-dir", tmp_path]
    axes = ["--x", "steps=2-3", "--y", "lora:night=0,1", "--z", "upscale.scale=1,2"]
    done = run_here("grid", *axes, *flags)
    assert done.returncode == 0, done.stderr
    *pictures, sheet = map(Path, done.stdout.splitlines())
    assert len(pictures) == 8 and sheet.parent.parent.name == "grid" and "-grid-a-red-apple" in sheet.name
    checked = run_webui("verify", sheet, "--json", "--data-dir", tmp_path)
    assert json.loads(checked.stdout)["outcome"] == "identical", checked.stderr
    with PilImages.open(sheet) as picture:
        texts = PngInfo()
        texts.add_itxt("darkroom", picture.info["darkroom"])
        picture.paste((255, 255, 255), (picture.width - 20, picture.height - 20, picture.width - 8, picture.height - 8))
        picture.save(edited := tmp_path / "edited.png", pnginfo=texts)
    checked = run_webui("verify", edited, "--json", "--data-dir", tmp_path)
    line = json.loads(checked.stdout)
    assert checked.returncode == 1 and line["outcome"] == "different"
    assert line["reasons"][0].startswith("Steps: 3, night: 1, Upscale: Scale: 2: different")


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        ([], "x is missing"),
        (["--x", "steps"], "--x 'steps' must look like FIELD=VALUE,VALUE"),
        (["--x", "stepps=1"], "did you mean steps?"),
        (["--x", "seed=1-101", "--y", "steps=1-5"], "this grid is 505 pictures"),
    ],
)
def test_a_bad_grid_is_told_in_one_line(tmp_path, axes, reason):
    done = run_here("grid", *axes, "--prompt=red", "--width=64", "--height=64", "--data-dir", tmp_path)
    assert done.returncode == 2 and reason in done.stderr and len(done.stderr.strip().splitlines()) == 1
