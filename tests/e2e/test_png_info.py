"""The PNG info tab and its route: any picture's settings, shown as text and sent to a page."""

import io
from pathlib import Path

from PIL import Image as PilImages
from PIL.PngImagePlugin import PngInfo

from .server import SMALL, wait_for

TEXT = """<img src=x onerror=alert(1)> fox
Negative prompt: blurry
Steps: 3, Sampler: DPM++ 2M Karras, CFG scale: 4.5, Seed: 12, Size: 64x96, Model: elsewhere, Version: v1.10.1"""


def write(path: Path, colour: str = "red") -> Path:
    texts = PngInfo()
    texts.add_text("parameters", TEXT)
    PilImages.new("RGB", (64, 96), colour).save(path, pnginfo=texts)
    return path


def test_a_picture_of_another_program_is_read_and_sent_with_its_settings(tab, tmp_path):
    page = tab.page
    page.get_by_role("tab", name="PNG info").click()
    assert page.locator("#png-info-send-txt2img").is_disabled()
    page.locator("#png-info-image input[type=file]").set_input_files(write(tmp_path / "a1111.png"))
    settings = page.locator("#png-info-settings")
    settings.get_by_text("AUTOMATIC1111").wait_for()
    assert "<img src=x onerror=alert(1)> fox" in settings.inner_text()
    assert "model: “elsewhere” is not here" in settings.inner_text()
    assert page.locator("#png-info-verify").is_disabled()
    page.locator("#png-info-send-img2img").click()
    prompt = page.locator("#img2img-prompt textarea")
    wait_for(lambda: prompt.input_value() == "<img src=x onerror=alert(1)> fox", "the prompt")
    red = tab.pixels(page.locator("#img2img-image img"))
    assert red[0] > 240 and red[1] < 15
    assert page.locator("img[src=x]").count() == 0
    page.get_by_role("tab", name="PNG info").click()
    page.get_by_role("checkbox", name="With seed").check()
    page.locator("#png-info-send-txt2img").click()
    tab.wait_for_value("seed", "12")
    shown = tab.values("negative", "steps", "guidance", "sampler", "schedule", "width", "height")
    assert [*shown.values()] == ["blurry", "3", "4.5", "DPM++ 2M", "Karras", "64", "96"]


def test_one_of_ours_is_verified_and_what_is_none_says_so(server, tab, tmp_path):
    job = server.submit(prompt="a fox", seed=3, **SMALL)
    server.finish(job)
    ours, none = tmp_path / "ours.png", tmp_path / "none.png"
    ours.write_bytes(server.client.get(f"/api/jobs/{job}/images/0").content)
    PilImages.new("RGB", (64, 64)).save(none)
    page = tab.page
    page.get_by_role("tab", name="PNG info").click()
    page.set_viewport_size({"width": 390, "height": 844})  # where the tab itself is in Gradio's menu
    page.locator("#png-info-image input[type=file]").set_input_files(ours)
    page.locator("#png-info-settings").get_by_text("Darkroom").first.wait_for()
    page.locator("#png-info-verify").click()
    page.locator('#png-info-verdict [data-outcome="identical"]').wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#png-info-image").get_by_role("button", name="Remove Image").click()
    page.locator("#png-info-settings").get_by_text("Drop a picture here").wait_for()
    page.locator("#png-info-image input[type=file]").set_input_files(none)
    page.locator("#png-info-settings").get_by_text("No settings were found").wait_for()


def test_over_http(server, tmp_path):
    content = write(tmp_path / "a1111.png").read_bytes()
    found = server.client.post("/api/info", content=content, headers={"Content-Type": "image/png"}).json()
    assert (found["program"], found["values"]["steps"], found["raw"]) == ("AUTOMATIC1111", 3, TEXT)
    assert found["unmapped"] == ["model: “elsewhere” is not here"]
    pasted = server.client.post("/api/info", content=TEXT, headers={"Content-Type": "text/plain; charset=utf-8"}).json()
    assert pasted == found
    buffer = io.BytesIO(b"no picture")
    refused = server.client.post("/api/info", content=buffer.getvalue(), headers={"Content-Type": "image/png"})
    assert refused.status_code == 422 and "not a picture" in refused.json()["detail"]
    assert server.client.post("/api/info", content=b"x" * 21_000_000).status_code == 413
