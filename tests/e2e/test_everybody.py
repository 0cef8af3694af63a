"""The page for everybody: its keys on one sheet, installed as an application, in colours that somebody has forced."""

import io
import json
from contextlib import contextmanager

import pytest
from PIL import Image as PilImages

from .conftest import tab_opener
from .server import wait_for

# By area: the keys that have a row without anything that they run, or the other way round.
HALF_BOUND = """[...darkroomKeys.areas].flatMap(([area, rows]) =>
  rows.filter(([, does, keys, run]) => (keys && !run) || (run && !keys) || (!keys && !does))
    .map(([told]) => [area, told]))"""
TWICE = """[...darkroomKeys.areas].flatMap(([area, rows]) => {
  const keys = rows.filter(([, , , , holds]) => !holds).flatMap(([, , keys]) => keys ?? []);
  return keys.filter((key, k) => keys.indexOf(key) !== k).map((key) => [area, key]);
})"""
MOVING = """[...document.querySelectorAll("*")].filter((element) => ["", "::before", "::after"].some((part) =>
  /[1-9]/.test(getComputedStyle(element, part).transitionDuration))).length"""
STYLE = "(element, [name, part]) => getComputedStyle(element, part)[name]"


@pytest.fixture(scope="module")
def tab(context, server):
    with contextmanager(tab_opener)(context, server) as open_tab:
        yield open_tab()


def test_keys_are_told_on_one_sheet(tab):
    page = tab.page
    page.locator("body").press("?")  # in the prompt it is a sign
    sheet = page.get_by_role("dialog", name="Keys")
    assert not sheet.is_visible() and tab.find("prompt").locator("textarea").input_value() == "?"
    page.get_by_role("button", name="Keys (?)").click()
    told = sheet.locator("h3").all_inner_texts()
    assert {"Everywhere", "Large view", "In a prompt", "History, on a picture", "Painting a mask"} <= {*told}
    assert sheet.get_by_role("row").count() > 40
    assert page.evaluate(HALF_BOUND) == [] and page.evaluate(TWICE) == []
    page.keyboard.press("Escape")
    sheet.wait_for(state="hidden")
    page.get_by_role("button", name="Keys (?)").press("7")
    page.locator(".history").wait_for()
    assert page.evaluate("document.activeElement.dataset.tabId") == "history"
    page.keyboard.press("q")
    page.get_by_role("dialog", name="Queue").wait_for()
    page.keyboard.press("1")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.closest('#txt2img-prompt') !== null")
    page.get_by_role("tab", name="txt2img").focus()
    page.keyboard.press("?")
    sheet.get_by_label("Single-letter keys").uncheck()
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="txt2img").press("2")
    assert page.evaluate("location.hash") in ("", "#txt2img") and tab.find("generate").is_visible()


def test_it_is_an_application_that_can_be_installed(tab, server):
    session = tab.page.context.new_cdp_session(tab.page)
    found = session.send("Page.getAppManifest")
    assert found["url"].endswith("/manifest.webmanifest") and found["errors"] == []
    trouble = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert [error["errorId"] for error in trouble] in ([], ["in-incognito"])  # as tests' browsers are
    for icon in json.loads(found["data"])["icons"]:
        answer = server.client.get(f"/{icon['src']}")
        assert answer.headers["content-type"] == icon["type"]
        if icon["type"] == "image/png":
            image = PilImages.open(io.BytesIO(answer.content))
            assert "{}x{}".format(*image.size) == icon["sizes"]
    assert server.client.get("/icons/..%2Fhost.html").status_code == 404
    colour = "document.querySelector('meta[name=theme-color]').content"
    for frame in ("#151312", "#f6f4f1"):
        tab.page.locator("#darkroom-theme").click()
        wait_for(lambda frame=frame: tab.page.evaluate(colour) == frame, "the frame in the page's colour", 30)
    tab.page.emulate_media(forced_colors="active", reduced_motion="reduce")
    pressed = tab.page.locator(".shapes [aria-pressed=true]").first
    assert pressed.evaluate(STYLE, ["outlineStyle", None]) == "solid"
    icon = tab.page.locator(".sending [data-act=favourite]")
    assert icon.evaluate(STYLE, ["backgroundColor", "::before"]) != icon.evaluate(STYLE, ["backgroundColor", None])
    assert tab.page.evaluate(MOVING) == 0
    tab.page.emulate_media(forced_colors="none", reduced_motion="no-preference")
