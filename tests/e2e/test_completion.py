"""Completion in the prompt boxes: what is offered while somebody types, and the keys that choose, take and close."""

from collections.abc import Iterator
from typing import Any

import pytest

from .server import ENDLESS, Server
from .tab import Tab

TAGS = """blue_eyes,0,1762765,blueeyes
long_hair,0,4350743,"/lh,longhair"
fate_(series),3,324179,
lonely_road,0,12,
"""


@pytest.fixture(scope="module")
def lists(server: Server) -> Iterator[None]:
    files = {"tags/site.csv": TAGS, "tags/broken.csv": "\0", "wildcards/longing.txt": "sea\nhome\n"}
    paths = [server.data_dir / name for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    yield
    for path in paths:
        path.unlink()


def offered(tab: Tab) -> Any:
    return tab.page.locator(".complete [role=option]")


def chosen(tab: Tab) -> str:
    """The option that the box names as the active one."""
    name = tab.page.evaluate("document.activeElement.getAttribute('aria-activedescendant')")
    return tab.page.locator(f"#{name}[aria-selected=true]").inner_text()


def wait_for_offer(tab: Tab, text: str) -> None:
    offered(tab).filter(has_text=text).first.wait_for()


def wait_until_closed(tab: Tab) -> None:
    tab.page.wait_for_function("!document.querySelector('.complete')")
    assert not tab.page.locator("[aria-activedescendant]").count()


def test_prompts_are_completed_while_they_are_typed(tab, lists):
    take_by_keyboard_and_pointer(tab)
    write_a_lora(tab)
    close_by_esc(tab)


def take_by_keyboard_and_pointer(tab: Tab) -> None:
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url) if "/api/words" in request.url else None)
    box = tab.find("prompt").locator("textarea")
    box.focus()
    assert not asked  # before anybody types
    box.press_sequentially("a fox, lon")
    wait_for_offer(tab, "long hair")
    assert box.get_attribute("aria-controls") == tab.page.get_by_role("listbox").get_attribute("id")
    shown = offered(tab).all_inner_texts()
    assert [text.split("\n")[0] for text in shown if "tag" in text] and "4.4M" in " ".join(shown)
    assert "longing" in chosen(tab) and "sea, home" in chosen(tab)
    box.press("ArrowDown")
    assert chosen(tab).startswith("long hair")
    box.press("ArrowUp")
    box.press("ArrowUp")
    assert "lonely road" in chosen(tab)  # round and round
    box.press("Tab")
    assert box.input_value() == "a fox, lonely road, "
    wait_until_closed(tab)
    box.press_sequentially("kemblueey")
    assert not offered(tab).count()
    box.press("Control+Backspace")
    box.press_sequentially("blueey")
    wait_for_offer(tab, "blue eyes")
    box.press("Enter")
    box.press_sequentially("fate_(s")
    wait_for_offer(tab, "fate (series)")
    offered(tab).first.click()
    assert box.input_value() == "a fox, lonely road, blue eyes, fate \\(series\\), "
    box.press("Control+z")
    assert "series" not in box.input_value()
    assert len([url for url in asked if "tags" in url]) == 1  # the broken one is not asked for
    tab.wait_for_value("prompt", box.input_value())


def write_a_lora(tab: Tab) -> None:
    """With its trigger words; in the negative prompt there are none."""
    box = tab.find("prompt").locator("textarea")
    box.fill("")
    box.press_sequentially("a fox <se")
    wait_for_offer(tab, "sepia")
    box.press("Tab")
    assert box.input_value() == "a fox <lora:sepia:1> "
    wait_for_offer(tab, "trigger word")
    box.press("Enter")
    assert box.input_value() == "a fox <lora:sepia:1> sepia, "
    wait_until_closed(tab)
    tab.open_settings()
    negative = tab.find("negative").locator("textarea")
    negative.press_sequentially("__lon")
    wait_for_offer(tab, "__longing__")
    negative.press("Tab")
    negative.press_sequentially(" <se")
    assert negative.input_value() == "__longing__ <se" and not offered(tab).count()  # no LoRA acts from there


def close_by_esc(tab: Tab) -> None:
    """The list, and not the job; and nothing pops up by itself."""
    tab.set(prompt="a fox", steps=ENDLESS["steps"], repeat=ENDLESS["repeat"], width=64, height=64)
    assert not offered(tab).count()  # nobody typed
    tab.generate()
    tab.wait_for_state("running")
    box = tab.find("prompt").locator("textarea")
    box.press("End")
    box.press_sequentially(", lon")
    wait_for_offer(tab, "long hair")
    box.press("Escape")
    wait_until_closed(tab)
    assert tab.state in ("running", "queued")  # between two pictures it waits for its turn
    box.press_sequentially("g")
    wait_for_offer(tab, "long hair")
    box.blur()
    wait_until_closed(tab)
    box.focus()
    box.press("End")
    session = tab.page.context.new_cdp_session(tab.page)
    session.send("Input.imeSetComposition", {"text": " hai", "selectionStart": 4, "selectionEnd": 4})
    assert box.input_value().endswith("long hai") and not offered(tab).count()
    session.send("Input.insertText", {"text": " hai"})
    wait_for_offer(tab, "long hair")
    box.press("Escape")
    box.press("Escape")
    tab.wait_for_state("cancelled")


def test_the_embedded_model_says_what_it_draws_and_which_words_it_does_not_know(tab):
    box = tab.find("prompt").locator("textarea")
    words = tab.page.locator('.prompt-words[data-page="txt2img"]')
    said = words.locator("summary")
    assert said.inner_text() == "The demo model is built in and small: 214 things, 3 styles, 14 colours."
    said.click()
    words.get_by_role("searchbox").fill("pupp")
    words.get_by_role("group", name="Thing").get_by_role("button").filter(visible=True).click()
    words.get_by_role("button", name="flat style").click()
    words.get_by_role("button", name="orange", exact=True).click()
    words.get_by_role("button", name="3d style").click()
    words.get_by_role("button", name="small", exact=True).click()
    assert box.input_value() == "a small dog, 3d style, on an orange background"
    assert not words.locator(".prompt-empty").is_visible()
    unknown = tab.page.locator('.prompt-unknown[data-page="txt2img"][data-field="prompt"]')
    unknown.wait_for(state="hidden")
    box.press("End")
    box.press_sequentially(", (a sunset:1.2) <lora:night:1> on a hill")
    box.press("Escape")
    box.blur()
    unknown.get_by_text("The demo model does not know sunset and hill, so it will ignore or misread them.").wait_for()
    layer = tab.page.locator("#txt2img-prompt .prompt-layer")
    marks = layer.locator("mark")
    kinds = marks.evaluate_all("(marks) => marks.map((mark) => [mark.dataset.kind, mark.textContent])")
    assert kinds == [
        *(["stronger", "(a sunset:1.2)"], ["unknown", "sunset"], ["number", ":1.2"]),
        *(["lora", "<lora:night:1>"], ["unknown", "hill"]),
    ]
    places = "(at) => [at.scrollHeight, at.clientWidth, getComputedStyle(at).font, at.getBoundingClientRect().top]"
    assert layer.evaluate(places)[:3] == box.evaluate(places)[:3]
    box.press("End")
    box.press("Control+a")
    box.press_sequentially("blue")
    wait_for_offer(tab, "blue background")
    box.press("Escape")
    tab.set(prompt="", steps=1, width=64, height=64)
    words.get_by_role("button", name="draw something at random").click()
    tab.wait_for_state("done")
    drawn = tab.infotext.split("\n")[0]
    assert drawn == box.input_value() and drawn.endswith(" background")
    walk_last_prompts(tab)


def walk_last_prompts(tab: Tab) -> None:
    """Those that were drawn, the newest first, and back to what was being typed."""
    for prompt in ("a red apple", "a cat", "a red apple"):
        tab.draw(prompt=prompt)
    box = tab.find("prompt").locator("textarea")
    box.fill("a draft")
    said = []
    for key in ("Up", "Up", "Down", "Down", "Down"):
        box.press(f"Alt+Arrow{key}")
        said.append(box.input_value())
    assert said == ["a red apple", "a cat", "a red apple", "a draft", "a draft"]
    assert not offered(tab).count()
    box.press("Control+a")
    box.press("Backspace")
    wait_for_offer(tab, "a red apple")
    box.press("Escape")
    box.press("ArrowDown")
    wait_for_offer(tab, "a cat")
    box.press("ArrowDown")
    box.press("Tab")
    assert box.input_value() == "a cat"
    tab.wait_for_value("prompt", "a cat")
