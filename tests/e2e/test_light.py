"""The large view: near and far, from picture to picture, two beside each other, with mouse, fingers and keys alone."""

import shutil
from contextlib import contextmanager
from typing import Any

import pytest

from .conftest import tab_opener
from .server import SMALL, wait_for
from .tab import Tab

FACTS = """() => {
  const image = document.querySelector("#darkroom-light .light-layer:last-child img");
  const { left, top, width, height } = image.getBoundingClientRect();
  return { left, top, width, height, rendering: getComputedStyle(image).imageRendering };
}"""
FOCUS = "document.activeElement.getAttribute('aria-label')"


class Light:
    """The view over a tab's pictures."""

    def __init__(self, tab: Tab) -> None:
        self.tab, self.page, self.root = tab, tab.page, tab.page.locator("#darkroom-light")

    def open(self) -> "Light":
        self.page.bring_to_front()
        self.tab.picture.click()
        self.root.get_by_label("The picture", exact=True).locator("img").last.wait_for()
        return self

    def press(self, *keys: str) -> "Light":
        for key in keys:
            self.page.keyboard.press(key)
        return self

    def button(self, name: str) -> Any:
        return self.root.get_by_role("button", name=name, exact=True)

    @property
    def percent(self) -> str:
        return self.root.locator(".light-percent").inner_text()

    @property
    def place(self) -> str:
        return self.root.locator(".light-title span").inner_text()

    def wait_for_place(self, place: str) -> None:
        wait_for(lambda: self.place == place, place, 30)

    def wait_for_settings(self, text: str) -> None:
        wait_for(lambda: text in self.root.locator(".light-infotext").inner_text(), text)

    def facts(self) -> dict[str, Any]:
        return self.page.evaluate(FACTS)

    def rows(self) -> list[str]:
        return self.root.locator("tbody tr").all_inner_texts()


@pytest.fixture(scope="module")
def drawn(context, server):
    """A tab that has drawn three times: two pictures, the same two in three steps, and those again."""
    with contextmanager(tab_opener)(context, server) as open_tab:
        tab = open_tab()
        tab.draw(prompt="a red apple", **SMALL, count=2, seed=1)
        tab.draw(steps=3)
        tab.draw(prompt="A red apple")
        tab.page.wait_for_function("document.querySelectorAll('#txt2img-finished button').length === 3")
        yield tab


@pytest.fixture
def light(drawn):
    light = Light(drawn).open()
    wait_for(lambda: light.place.endswith("of 6"), "the pictures of the session")
    light.press("Home").wait_for_place("1 of 6")
    yield light
    if light.root.is_visible():
        light.press("Escape")
    light.root.wait_for(state="hidden")


def test_wheel_keys_and_buttons_enlarge_it(light):
    page, fit = light.page, light.facts()
    stage = light.root.locator(".light-stage").bounding_box()
    assert fit["height"] == pytest.approx(stage["height"]) and fit["rendering"] == "pixelated"
    x, y = fit["left"] + fit["width"] * 0.75, fit["top"] + fit["height"] * 0.25
    page.mouse.move(x, y)
    page.mouse.wheel(0, -500)
    near = light.facts()
    assert near["width"] > 1.5 * fit["width"]
    across, down = (x - near["left"]) / near["width"], (y - near["top"]) / near["height"]
    assert (across, down) == pytest.approx((0.75, 0.25), abs=0.01), "what is under the pointer stays there"
    page.mouse.down()
    page.mouse.move(x + 40, y + 30)
    page.mouse.up()
    moved = light.facts()
    assert (moved["left"] - near["left"], moved["top"] - near["top"]) == pytest.approx((40, 30), abs=1)
    light.press("Shift+ArrowLeft")
    assert light.facts()["left"] == pytest.approx(moved["left"] + 80, abs=1)
    light.press("0")
    assert light.facts() == fit and light.button("Fit").get_attribute("aria-pressed") == "true"
    page.mouse.dblclick(x, y)
    assert light.percent == "100 %" and light.facts()["width"] == 64 and light.facts()["rendering"] == "auto"
    light.press("+")
    assert light.percent == "150 %"
    light.press("-", "-")
    assert light.percent == "100 %", "no smaller than its own pixels, or the whole of it"
    light.button("Zoom in (+)").click()
    light.button("1:1").click()
    assert light.percent == "100 %"
    light.button("Fit").click()
    assert light.facts() == fit
    light.press("f")
    wait_for(lambda: page.evaluate("document.fullscreenElement?.className") == "light-frame", "the full screen")
    light.press("f")
    wait_for(lambda: page.evaluate("document.fullscreenElement === null"), "the window")


def test_from_picture_to_picture_the_enlargement_stays(light):
    light.press("i")
    light.wait_for_settings("Seed: 1,")
    light.press("1", "ArrowRight")
    light.wait_for_place("2 of 6")
    light.wait_for_settings("Seed: 2,")
    assert light.percent == "100 %"
    light.press("End")
    light.wait_for_place("6 of 6")
    light.wait_for_settings("Steps: 2,")
    light.press("ArrowRight")
    assert light.place == "6 of 6"
    light.root.locator(".light-strip button").nth(1).click()
    light.wait_for_place("2 of 6")
    light.button("The picture before").click()
    light.wait_for_place("1 of 6")
    light.press("i", "Escape")
    light.root.wait_for(state="hidden")
    assert light.page.evaluate(FOCUS) == "detailed view of selected image"
    light.press("f")  # and again, from where the focus is
    light.root.wait_for()


def test_fingers_enlarge_it_and_wipe_to_the_next(light):
    session = light.page.context.new_cdp_session(light.page)

    def touch(*steps: list[tuple[float, float]]) -> None:
        for kind, points in zip(("touchStart", *["touchMove"] * (len(steps) - 1)), steps, strict=True):
            told = [{"x": x, "y": y, "id": k} for k, (x, y) in enumerate(points)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": told})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    fit = light.facts()
    x, y = fit["left"] + fit["width"] / 2, fit["top"] + fit["height"] / 2
    touch([(x, y)], [(x - 60, y)], [(x - 120, y)])
    light.wait_for_place("2 of 6")
    touch([(x, y)], [(x + 120, y + 4)])
    light.wait_for_place("1 of 6")
    touch([(x - 50, y), (x + 50, y)], [(x - 75, y), (x + 75, y)], [(x - 100, y), (x + 100, y)])
    assert light.facts()["width"] == pytest.approx(2 * fit["width"], rel=0.02)
    assert light.place == "1 of 6"


def test_two_are_compared(light):
    page, root = light.page, light.root
    stage = root.locator(".light-stage")
    light.press("ArrowRight", "c")
    root.get_by_text("These are the same, pixel by pixel.").wait_for()
    assert light.rows() == ["Prompt\ta red apple\tA red apple"]
    assert root.locator("[data-side=B]").get_attribute("data-index") == "1"
    light.press("ArrowDown", "ArrowDown")  # the second picture of the first run
    wait_for(lambda: light.rows()[1:] == ["Steps\t2\t3"], "what differs")
    assert root.locator("[data-side=A]").get_attribute("data-index") == "5"
    assert root.get_by_text("pixel by pixel").is_hidden()
    light.press("x")
    wait_for(lambda: light.rows()[1:] == ["Steps\t3\t2"], "the other way round")
    light.press("x")
    line = root.get_by_label("Wipe")
    light.press("ArrowLeft")
    assert line.input_value() == "48"
    box = stage.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 50)
    page.mouse.up()
    assert line.input_value() == "75"
    page.emulate_media(reduced_motion="reduce")
    root.get_by_role("button", name="Blink").click()
    assert stage.get_attribute("data-turned") == "1" and root.locator(".light-turn").inner_text() == "B"
    stage.focus()
    light.press("Space")
    assert stage.get_attribute("data-turned") == "0" and root.locator(".light-turn").inner_text() == "A"
    page.emulate_media(reduced_motion="no-preference")
    light.press("d", "b")
    page.wait_for_function("document.querySelector('.light-stage').dataset.turned === '0'")  # by itself
    light.press("d", "1")
    both = stage.locator("img").evaluate_all("(images) => images.map((image) => image.getBoundingClientRect().width)")
    assert both == [64, 64]
    root.locator(".light-strip button").nth(0).click()
    wait_for(lambda: root.locator("[data-side=A]").get_attribute("data-index") == "0", "another to compare with")
    light.press("c")
    wait_for(lambda: stage.get_attribute("data-way") == "one", "one picture again")


def test_marked_deleted_and_brought_back_though_files_share_a_name(light, server):
    newest = max(server.pictures(), key=lambda path: path.stat().st_mtime_ns)
    twin = newest.parent.parent / "2000-01-01" / newest.name
    twin.parent.mkdir()
    shutil.copyfile(newest, twin)
    light.press("End", "ArrowLeft", "Home", "ArrowRight")
    light.wait_for_place("2 of 6")
    wait_for(lambda: light.root.locator("a[download]").get_attribute("download") == newest.name, "the newest picture")
    light.press("s")
    light.root.get_by_role("button", name="Favourite", pressed=True).wait_for()
    marked = server.client.get("/api/history", params={"query": newest.name, "favourites": True}).json()["pictures"]
    assert len(marked) == 1
    light.press("Delete")
    light.root.get_by_text("Deleted").wait_for()
    assert not newest.exists() and twin.exists()
    light.press("Control+z")
    light.root.locator(".light-stage:not([data-deleted])").wait_for()
    assert newest.exists()
    light.press("s")
    light.root.get_by_role("button", name="Favourite", pressed=False).wait_for()
    light.press("Escape")
    bar = light.page.locator("#tab-txt2img .sending")
    light.tab.find("gallery").get_by_role("button", name="Thumbnail 2 of 2").click()
    bar.get_by_role("button", name="Favourite").click()
    bar.get_by_role("button", name="Favourite", pressed=True).wait_for()
    bar.get_by_role("button", name="Favourite").click()
    bar.get_by_role("button", name="Favourite", pressed=False).wait_for()
    bar.get_by_role("button", name="Delete").click()
    bar.get_by_role("button", name="Undo").click()
    bar.get_by_text("Deleted.").wait_for(state="hidden")
    assert newest.exists() and twin.exists()
    twin.unlink()


def test_its_settings_are_reused(light):
    light.press("End")
    light.wait_for_place("6 of 6")
    light.press("Shift+r")
    light.root.wait_for(state="hidden")
    light.tab.wait_for_value("steps", "2")
    assert light.tab.values("seed") == {"seed": "2"}
