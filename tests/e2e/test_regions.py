"""Regions in a real browser: drawn, moved and resized by mouse and keys, painted, drawn with, remembered, refused."""

import base64
import io
import json

from axe_playwright_python.sync_playwright import Axe
from PIL import Image as PilImages

from .server import wait_for

QUICK = {"steps": 2, "width": 128, "height": 64}


def held(tab) -> list[dict]:
    return json.loads(tab.page.locator("#txt2img-regions textarea").input_value() or "[]")


def open_fold(tab):
    tab.find("regions-panel").locator(".label-wrap").click()
    panel = tab.page.locator(".regions[data-page=txt2img]")
    panel.get_by_role("button", name="Add a box").wait_for()
    return panel


def drag(tab, canvas, begin, end):
    canvas.evaluate("(canvas) => canvas.scrollIntoView({ block: 'center' })")
    box = canvas.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (begin, end)]
    tab.page.mouse.move(*places[0])
    tab.page.mouse.down()
    tab.page.mouse.move(*places[1], steps=3)
    tab.page.mouse.up()


def test_boxes_are_drawn_moved_and_resized_and_said_in_rows(tab):
    tab.set(prompt="a red apple, flat style, on a blue background", **QUICK)
    panel = open_fold(tab)
    canvas = panel.locator(".regions-canvas")
    size = canvas.bounding_box()
    assert abs(size["width"] / size["height"] - 2) < 0.05
    drag(tab, canvas, (0.02, 0.1), (0.4, 0.9))
    assert held(tab)[0]["box"] == [0.02, 0.1, 0.4, 0.9]
    tab.find("regions-prompt").fill("a panda, 3d style")
    wait_for(lambda: "other 70 %" in panel.locator(".regions-rest").inner_text(), "what is left")
    drag(tab, canvas, (0.2, 0.5), (0.4, 0.5))
    assert held(tab)[0]["box"] == [0.22, 0.1, 0.6, 0.9]
    drag(tab, canvas, (0.57, 0.84), (0.99, 1.2))
    assert held(tab)[0]["box"] == [0.22, 0.1, 1, 1]
    first = panel.get_by_role("button", name="Region 1: left 22 %")
    first.focus()
    tab.page.keyboard.press("Shift+ArrowLeft")
    tab.page.keyboard.press("ArrowLeft")
    tab.page.keyboard.press("ArrowUp")
    assert (
        held(tab)[0]["box"] == [0.2, 0.08, 0.96, 0.98] and tab.find("regions-box").input_value() == "0.2:0.08:0.96:0.98"
    )
    tab.find("regions-box").fill("0:0:0.5:1")
    assert panel.get_by_role("button", name="Region 1: left 0 %, top 0 %, right 50 %").is_visible()
    panel.get_by_role("button", name="Add a box").click()
    tab.find("regions-2-prompt").fill("a rocket")
    tab.find("regions-2-weight").fill("0.9")
    second = {"box": [0.5, 0, 1, 1], "prompt": "a rocket", "weight": 0.9}
    assert held(tab) == [{"box": [0, 0, 0.5, 1], "prompt": "a panda, 3d style"}, second]
    state = tab.find("regions-panel").locator(".fold-state")
    wait_for(lambda: state.inner_text() == "2 on", "the fold to say so")
    tab.draw()
    tab.wait_for_infotext("Region 2 prompt: a rocket")
    job = tab.server.client.get(f"/api/jobs/{tab.job}").json()
    assert [region["box"] for region in job["request"]["regions"]] == [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]
    panel.get_by_role("button", name="Region 2: left 50 %").focus()
    tab.page.keyboard.press("Delete")
    assert len(held(tab)) == 1
    tab.find("reuse-settings").click()
    tab.find("regions-2-prompt").wait_for()
    assert held(tab)[1] == second
    tab.page.set_viewport_size({"width": 390, "height": 844})
    found = Axe().run(tab.page, context=".regions[data-page=txt2img]")
    assert found.violations_count == 0, found.generate_report()
    assert canvas.bounding_box()["width"] <= 390


def test_masks_are_painted_and_what_is_wrong_is_said_at_its_field(tab):
    tab.set(prompt="a red apple, flat style, on a blue background", **QUICK)
    panel = open_fold(tab)
    panel.get_by_role("button", name="Paint a mask", exact=True).click()
    sheet = panel.locator(".painter canvas")
    wait_for(lambda: sheet.get_attribute("width") == "512", "the sheet")
    panel.get_by_role("button", name="Use this mask").click()
    assert panel.locator(".painter-note").inner_text() == "Nothing is painted yet."
    drag(tab, sheet, (0.1, 0.5), (0.4, 0.5))
    panel.get_by_role("button", name="Use this mask").click()
    tab.find("regions-prompt").fill("a panda, 3d style")
    with PilImages.open(io.BytesIO(base64.b64decode(held(tab)[0]["mask"]))) as mask:
        levels = mask.convert("L")
        assert levels.size == (256, 128) and levels.getpixel((60, 64)) == 255 and levels.getpixel((250, 10)) == 0
    panel.locator(".regions-mask canvas").wait_for()
    tab.draw()
    tab.find("regions-mask").click()
    wait_for(lambda: sheet.get_attribute("width") == "512", "the sheet again")
    assert sheet.evaluate("(canvas) => canvas.getContext('2d').getImageData(120, 128, 1, 1).data[3]") == 255
    panel.get_by_role("button", name="Cancel").click()
    tab.set(height=128)
    tab.find("generate").click()
    tab.wait_for_message("has the shape of 256 x 128 px, and the picture has 128 x 128 px")
    panel.get_by_role("button", name="Remove Region 1").click()
    panel.get_by_role("button", name="Add a box").click()
    tab.find("generate").click()
    tab.wait_for_message("Region 1 needs a prompt")
    wait_for(lambda: tab.find("regions-prompt").get_attribute("aria-invalid") == "true", "the mark at its field")
