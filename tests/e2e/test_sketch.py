"""An outline drawn on the page: it is the control's picture at once, and the picture that is drawn follows it."""

import json
import math

from axe_playwright_python.sync_playwright import Axe

from tests import outlines

CONTROLS = "#txt2img-controls textarea"
STEPS = 8


def entry(tab) -> dict:
    (held,) = json.loads(tab.page.locator(CONTROLS).input_value() or "[]")
    return held


def add_control(tab):
    """Opens the fold, adds a row and presses its Draw; gives the canvas."""
    tab.page.get_by_role("button", name="Controls").locator("visible=true").first.click()
    panel = tab.find("controls-panel")
    panel.get_by_role("button", name="Add", exact=True).click()
    tab.find("controls-model").select_option("demo-edges")
    panel.get_by_role("button", name="Draw", exact=True).click()
    canvas = tab.page.locator(".sketch canvas")
    canvas.wait_for()
    return canvas


def stroke(tab, canvas, points) -> None:
    """Draws a line by the mouse; the points are shares of the canvas."""
    box = canvas.bounding_box()
    (x, y), *others = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    for x, y in others:
        tab.page.mouse.move(x, y)
    tab.page.mouse.up()


def wait_for_picture(tab, other_than: str = "") -> str:
    """Waits until the control has a picture, another than before; gives its hash."""
    held = f"JSON.parse(document.querySelector('{CONTROLS}').value || '[]')[0]?.image?.sha256"
    tab.page.wait_for_function(f"(before) => {held} && {held} !== before", arg=other_than)
    return entry(tab)["image"]["sha256"]


def kept(tab, sha256: str):
    """The picture of that hash, as the server has it."""
    return outlines.read(tab.server.client.get(f"/api/controls/pictures/{sha256}").content)


def test_a_drawn_outline_becomes_a_picture(tab):
    canvas = add_control(tab)
    circle = [(0.5 + 0.36 * math.cos(turn / 5), 0.52 + 0.36 * math.sin(turn / 5)) for turn in range(33)]
    stroke(tab, canvas, circle)
    sha256 = wait_for_picture(tab)
    assert entry(tab) == {"model": "demo-edges", "image": {"sha256": sha256}}
    drawn = kept(tab, sha256)
    assert drawn.size == (512, 512) and drawn.getpixel((5, 5)) == (0, 0, 0) and drawn.getextrema()[0] == (0, 255)
    tab.draw(prompt="a red apple, 3d style, on a white background", steps=STEPS, seed=1)
    picture = outlines.read(tab.picture_bytes())
    assert picture.size == (128, 128)
    assert outlines.f1(picture, outlines.draw(circle)) > 0.6
    tab.page.locator(".sketch").get_by_role("button", name="Done").click()
    assert not tab.page.locator(".sketch").count()


def test_it_is_undone_erased_gone_on_with_and_cleared(tab):
    canvas = add_control(tab)
    tools = tab.page.get_by_role("toolbar", name="Drawing tools")
    stroke(tab, canvas, [(0.2, 0.5), (0.8, 0.5)])
    first = wait_for_picture(tab)
    stroke(tab, canvas, [(0.5, 0.2), (0.5, 0.8)])
    second = wait_for_picture(tab, first)
    tools.get_by_role("button", name="Undo").click()
    assert wait_for_picture(tab, second) == first
    tools.get_by_role("button", name="Redo").click()
    assert wait_for_picture(tab, first) == second
    tools.get_by_role("button", name="Eraser").click()
    stroke(tab, canvas, [(0.1, 0.5), (0.45, 0.5)])
    third = wait_for_picture(tab, second)
    assert kept(tab, third).getpixel((150, 256)) == (0, 0, 0) and kept(tab, third).getpixel((350, 256))[0] == 255
    tools.get_by_role("button", name="Done").click()
    tab.find("controls-panel").get_by_role("button", name="Draw", exact=True).click()
    tools.get_by_role("button", name="Undo").click()  # the lines are still there, each by itself
    assert wait_for_picture(tab, third) == second
    tools.get_by_role("button", name="Clear").click()
    tab.page.wait_for_function(f"() => !document.querySelector('{CONTROLS}').value.includes('sha256')")


def test_it_is_drawn_by_keys_on_a_phone_and_is_for_everybody(tab):
    tab.page.set_viewport_size({"width": 390, "height": 844})
    canvas = add_control(tab)
    canvas.focus()
    for _ in range(6):
        tab.page.keyboard.press("Shift+ArrowRight")
    sha256 = wait_for_picture(tab)
    assert kept(tab, sha256).getpixel((262, 256))[0] == 255
    box = canvas.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["width"] > 300
    tab.page.locator(".sketch").get_by_role("button", name="White paper").click()
    for dark in (False, True):
        tab.page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)
        found = Axe().run(tab.page, context=".sketching").response["violations"]
        assert not found, [(each["id"], each["nodes"][0]["html"]) for each in found]
    assert kept(tab, wait_for_picture(tab)).getpixel((5, 5)) == (0, 0, 0)  # the paper is only how it looks
    canvas.focus()
    tab.page.keyboard.press("Escape")
    assert not tab.page.locator(".sketch").count()
