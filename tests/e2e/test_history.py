"""The History tab and its routes: find, look, mark, compare, delete, undo, reuse; nothing of it for strangers."""

import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image as PilImages

from webui.api.history import history_router
from webui.api.zips import Zips
from webui.core.events import Image
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.workspace.outputs import save_picture
from webui.workspace.workspace import Workspace

from .server import SMALL, Server, wait_for
from .tab import Tab

HOSTILE = '<img src=x onerror=alert(1)> & "quoted" </script>'
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


@pytest.fixture(scope="module")
def history_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of whose pictures the tests know the number."""
    server = Server(tmp_path_factory.mktemp("history"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def host(history_server: Server) -> Server:
    return history_server


@pytest.fixture
def outputs(history_server: Server) -> Path:
    """The folder of pictures, empty."""
    folder = history_server.data_dir / "outputs"
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return folder


def put(outputs: Path, prompt: str, colour: str = "red", **fields: Any) -> Path:
    request = Request(prompt=prompt, seed=7, **fields)
    picture = Image(0, PilImages.new("RGB", (64, 64), COLOURS[colour]), Recipe(request, {"model": {"demo": "0" * 64}}))
    return save_picture(picture, outputs / "txt2img" / "2026-11-25")


def open_history(tab: Tab) -> Any:
    tab.page.bring_to_front()
    tab.is_emptied = True  # the list has the pictures of the test before until it has asked
    tab.page.get_by_role("tab", name="History").click()
    history = tab.page.locator(".history")
    history.wait_for()
    history.locator("[data-view=all]").click()
    tab.let_fields_settle()
    return history


def card(history: Any, name: str) -> Any:
    return history.locator(".history-found").get_by_role("button", name=name)


def large(tab: Tab) -> Any:
    return tab.page.get_by_role("dialog", name="Large view")


def wait_for_count(history: Any, count: int) -> None:
    wait_for(lambda: history.locator(".history-found li").count() == count, f"{count} pictures in the grid")


def test_what_is_drawn_shows_is_marked_deleted_and_brought_back(tab, outputs: Path) -> None:
    history = open_history(tab)
    history.get_by_text("No pictures yet").wait_for()
    tab.page.get_by_role("tab", name="txt2img").click()
    tab.draw(prompt="a red apple", **SMALL, seed=3)
    tab.draw(prompt="a panda", **SMALL, seed=4)
    open_history(tab)
    wait_for_count(history, 2)
    card(history, "a red apple").click()
    view = large(tab)
    wait_for(lambda: "Seed: 3" in view.locator("pre").inner_text(), "the settings")
    assert tab.pixels(view.locator(".light-layer img"))
    tab.page.keyboard.press("s")
    view.locator("[data-act=favourite][aria-pressed=true]").wait_for()
    assert "a-red-apple.png" in (outputs / "favourites.txt").read_text()
    for key, seed in (("ArrowLeft", 4), ("ArrowRight", 3), ("ArrowLeft", 4)):
        tab.page.keyboard.press(key)
        wait_for(lambda seed=seed: f"Seed: {seed}" in view.locator("pre").inner_text(), f"the picture of seed {seed}")
    with tab.page.expect_download() as download:
        view.get_by_role("link", name="Download").click()
    assert Path(download.value.path()).read_bytes() == next(outputs.rglob("*panda.png")).read_bytes()
    tab.page.keyboard.press("Delete")
    wait_for(lambda: "Seed: 3" in view.locator("pre").inner_text(), "the picture after the deleted one")
    view.get_by_role("button", name="Undo").click()
    wait_for(lambda: "Seed: 4" in view.locator("pre").inner_text(), "the one that was brought back")
    wait_for_count(history, 2)  # the list behind the view has it again
    tab.page.keyboard.press("Escape")
    wait_for(lambda: tab.page.evaluate("document.activeElement.title") == "a panda", "the focus to be back")
    history.get_by_role("button", name="Favourites").click()
    wait_for_count(history, 1)
    card(history, "Favourite: a red apple").focus()
    tab.page.keyboard.press("Delete")
    wait_for_count(history, 0)
    assert not list(outputs.glob("txt2img/*/*apple.png")) and list(outputs.glob(".trash/**/*apple.png"))
    history.get_by_role("button", name="Undo").click()
    wait_for_count(history, 1)
    assert list(outputs.glob("txt2img/*/*apple.png")) and not list(outputs.glob(".trash/*"))


def test_the_list_is_windowed_searched_and_sorted(tab, outputs: Path) -> None:
    for number in range(400):
        put(outputs, f"apple number {number:03d}")
    put(outputs, "a blue sun", model="another", loras=("sepia:1",), steps=33)
    for path in outputs.glob("*/*/*-apple-number-0*.png"):
        os.utime(path, (1_700_000_000,) * 2)
    history = open_history(tab)
    history.get_by_text("401 pictures.").wait_for()
    found = history.locator(".history-found")
    assert 20 < found.locator("li").count() < 200
    # by keyboard to the oldest picture, which was not loaded before
    found.locator("button[data-id]").first.focus()
    tab.page.keyboard.press("End")
    wait_for(lambda: "apple number 0" in (tab.page.evaluate("document.activeElement.title") or ""), "the last card")
    assert found.locator("li").count() < 200
    top = tab.page.evaluate("document.querySelector('.history-day h2').getBoundingClientRect().top")
    history.get_by_role("heading", name=re.compile("November.* 2023")).wait_for()
    assert 0 <= top < 200, "the heading of the day sticks"
    for number in range(1, 4):  # what comes meanwhile moves nothing away
        put(outputs, f"a pear {number}")
    history.get_by_text("404 pictures.").wait_for()
    assert "apple number 0" in tab.page.evaluate("document.activeElement.title")
    query = history.get_by_label("Search prompts")
    for words, count in (("blue SUN", 1), ("steps:33", 1), ("pear steps<30 seed:7", 3)):
        query.fill(words)
        history.get_by_text(re.compile(f"^{count} pictures?\\.$")).wait_for()
        wait_for_count(history, count)
    query.fill("no such thing")
    history.get_by_text("No pictures match").wait_for()
    query.fill("")
    history.get_by_label("Model", exact=True).select_option("another")
    wait_for_count(history, 1)
    history.get_by_label("LoRA", exact=True).select_option("sepia")
    wait_for_count(history, 1)
    history.get_by_role("button", name="How to search").click()
    history.get_by_label("to", exact=True).fill("2020-01-01")
    wait_for_count(history, 0)
    history.get_by_label("to", exact=True).fill("")
    history.get_by_label("LoRA", exact=True).select_option("")
    history.get_by_label("Model", exact=True).select_option("")
    history.get_by_label("Order").select_option("oldest")
    wait_for(
        lambda: "apple number 0" in (found.locator("button[data-id]").first.get_attribute("title") or ""), "the oldest"
    )


def test_many_are_selected_marked_put_on_a_board_and_deleted(tab, outputs: Path) -> None:
    for number in range(6):
        put(outputs, f"number {number}", "red" if number % 2 else "blue", steps=10 + number)
    history = open_history(tab)
    wait_for_count(history, 6)
    bar = history.get_by_role("group", name="Selected pictures")
    card(history, "number 5").click(modifiers=["Control"])
    card(history, "number 3").click(modifiers=["Shift"])
    bar.get_by_text("3 selected").wait_for()
    card(history, "number 4").press("x")
    bar.get_by_text("2 selected").wait_for()
    bar.get_by_role("button", name="Compare").click()
    both = large(tab)
    rows = both.locator("tbody tr")
    wait_for(lambda: rows.all_inner_texts() == ["Prompt\tnumber 5\tnumber 3", "Steps\t15\t13"], "what differs")
    both.get_by_role("button", name="Close").click()
    bar.get_by_role("button", name="Add to board").click()
    history.locator(".history-menu").get_by_role("button", name="New board").click()
    naming = history.get_by_role("dialog", name="Name of the board")
    naming.get_by_role("textbox").fill("Night & day")
    naming.get_by_role("button", name="Keep").click()
    history.get_by_role("button", name="Night & day 2").click()
    wait_for_count(history, 2)
    assert "Night & day" in (outputs / "boards.json").read_text()
    history.get_by_role("button", name="All 6").click()
    wait_for_count(history, 6)
    history.get_by_role("button", name="Select all of Today").click()
    bar.get_by_text("6 selected").wait_for()
    with tab.page.expect_download() as download:
        bar.get_by_role("button", name="Zip").click()
    assert len(zipfile.ZipFile(download.value.path()).namelist()) == 6
    bar.get_by_role("button", name="Delete").click()
    wait_for_count(history, 0)
    history.get_by_role("button", name="Undo").click()
    wait_for_count(history, 6)
    history.get_by_role("button", name="Night & day 2").wait_for()
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_settings_are_reused(tab, outputs: Path) -> None:
    put(outputs, "a green hat", steps=11, guidance=3.5, width=96, height=72)
    history = open_history(tab)
    card(history, "a green hat").click()
    large(tab).get_by_label("With seed").check()
    large(tab).get_by_role("button", name="Reuse in txt2img").click()
    tab.find("generate").wait_for()
    tab.wait_for_value("prompt", "a green hat")
    expected = {"steps": "11", "guidance": "3.5", "width": "96", "height": "72", "seed": "7"}
    assert tab.values(*expected) == expected


@pytest.mark.parametrize("page", [pytest.param("img2img", marks=pytest.mark.slow), "inpaint"])
def test_pictures_are_sent_with_their_settings(tab, outputs: Path, page: str) -> None:
    put(outputs, "a blue hat", "blue", steps=11)
    PilImages.new("RGB", (64, 64), COLOURS["red"]).save(outputs / "txt2img" / "foreign.jpg", quality=100)
    for name, prompt, colour in (("a blue hat", "a blue hat", "blue"), ("foreign.jpg", "a blue hat", "red")):
        card(open_history(tab), name).click()
        tab.page.get_by_role("button", name=f"Send to {page}").click()
        prompt_field = tab.page.locator(f"#{page}-prompt textarea")
        prompt_field.wait_for()
        wait_for(lambda prompt=prompt, field=prompt_field: field.input_value() == prompt, "the prompt")
        start = tab.page.locator(f"#{page}-image img")
        wait_for(lambda colour=colour, start=start: _is_all(tab.pixels(start), COLOURS[colour]), "the start picture")


def _is_all(pixels: list[int], colour: tuple[int, ...]) -> bool:
    return all(abs(pixels[k] - (*colour, 255)[k % 4]) < 4 for k in range(len(pixels)))


def test_hostile_texts_are_text(tab, outputs: Path) -> None:
    put(outputs, HOSTILE, model=HOSTILE)
    history = open_history(tab)
    card(history, HOSTILE).click()
    settings = large(tab).locator("pre")
    wait_for(lambda: "<img src=x" in settings.inner_text(), "the settings")
    assert tab.page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("dark", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_narrow_screen_holds_it(open_tab, outputs: Path, dark: bool) -> None:
    put(outputs, "x" * 300)
    tab = open_tab("?__theme=dark" if dark else "")
    history = open_history(tab)  # on a narrow screen its tab is behind the dots at the end of the row
    tab.page.set_viewport_size({"width": 390, "height": 844})
    card(history, "x" * 300).click()
    view = large(tab)
    wait_for(lambda: "Steps" in view.locator("pre").inner_text(), "the settings")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = [button.bounding_box() for button in view.locator(".light-bar :is(button, a):visible").all()]
    assert len(boxes) > 6 and all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)


def test_routes(history_server: Server, outputs: Path) -> None:
    path = put(outputs, "a red apple")
    get = history_server.client.get
    listed = get("/api/history", params={"query": "APPLE"}).json()
    entry = listed["pictures"][0]
    assert listed["total"] == 1 and entry["name"] == path.name and str(outputs) not in str(listed)
    where = f"/api/history/{entry['id']}"
    assert "Steps: " in get(where).json()["infotext"]
    assert get(f"{where}/picture").content == path.read_bytes()
    thumbnail = get(f"{where}/thumbnail")
    assert (
        thumbnail.headers["content-type"] == "image/webp" and thumbnail.headers["x-content-type-options"] == "nosniff"
    )
    for query in ({"from": "yesterday"}, {"limit": 0}, {"limit": 10_000}, {"query": "x" * 2000}):
        answer = get("/api/history", params=query)
        assert answer.status_code == 422 and answer.json()["error"] == "bad input", answer.text
    for wrong in ("0" * 24, "..%2F..%2Fetc%2Fpasswd", "%00"):
        assert get(f"/api/history/{wrong}").status_code == 404
        assert get(f"/api/history/{wrong}/picture").status_code == 404
        assert history_server.client.post(f"/api/history/{wrong}/restore").status_code == 404
    gone = put(outputs, "a green apple")
    lost = f"/api/history/{get('/api/history', params={'query': 'green'}).json()['pictures'][0]['id']}"
    gone.unlink()
    assert history_server.client.delete(lost).status_code == get(f"{lost}/picture").status_code == 404
    assert get("/api/history", headers={"host": "evil.example"}).status_code == 403
    assert history_server.client.delete(where, headers={"host": "evil.example"}).status_code == 403
    assert path.exists()


def test_thumbnails_of_pictures_that_are_gone_go_too(tmp_path: Path) -> None:
    outputs, cache = tmp_path / "outputs", tmp_path / "cache"
    old, kept = put(outputs, "an old apple"), put(outputs, "a red apple")

    def look() -> int:
        workspace = Workspace(tmp_path)
        app = FastAPI()
        app.include_router(history_router(lambda: workspace, Zips()))
        client = TestClient(app)
        for entry in client.get("/api/history").json()["pictures"]:
            assert client.get(f"/api/history/{entry['id']}/thumbnail").status_code == 200
        return len(list((cache / "thumbnails").iterdir()))

    assert look() == 2
    old.unlink()
    assert look() == 1 and kept.exists()
