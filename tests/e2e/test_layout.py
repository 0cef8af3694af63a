"""What is in sight: the state that decides a picture, what can be done with it, and Generate at every size."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image as PilImages

from .server import SMALL, wait_for

PROMPT = "a red apple, flat style, on a blue background"
DESKTOP, SMALL_DESKTOP, PHONE = (1440, 900), (1280, 720), (390, 844)


def state_of(tab, fold: str) -> str:
    return tab.find(fold).locator(".fold-state").first.inner_text()


def is_in_sight(tab, selector: str) -> bool:
    """Whether all of it is inside the window, and nothing lies over its middle."""
    return tab.page.locator(selector).first.evaluate(
        """(element) => {
          const { left, top, right, bottom } = element.getBoundingClientRect();
          const above = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
          const inside = left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
          return inside && (element.contains(above) || above.contains(element));
        }"""
    )


def resize(tab, size: tuple[int, int]) -> None:
    tab.page.set_viewport_size({"width": size[0], "height": size[1]})
    tab.let_fields_settle()


def test_what_decides_a_picture_is_said_where_it_is_shut(tab):
    chips = tab.page.locator(".chips[data-page=txt2img]")
    folds = ("model-panel", "lora-panel", "hires", "settings")
    assert [state_of(tab, fold) for fold in folds] == ["demo", "none", "off", "as usual"]
    chips.get_by_role("button", name="+ LoRA").click()
    panel = tab.find("lora-panel")
    panel.locator(".loras-found button").first.wait_for()
    search = panel.get_by_label("Search LoRAs")
    wait_for(lambda: search.evaluate("(box) => box === document.activeElement"), "the focus to be in the search box")
    for name in ("night", "sepia"):
        panel.locator(f'.loras-found button[data-name="{name}"]').click()
        chips.get_by_role("button", name=f"{name} 1").wait_for()
    wait_for(lambda: state_of(tab, "lora-panel") == "2 on", "the fold to say so")
    tab.set(prompt="a fox <lora:blueprint:0.5>", repeat=2)
    chips.get_by_role("button", name="blueprint 0.5").wait_for()
    chips.get_by_role("button", name="Take blueprint off").click()
    wait_for(lambda: tab.values("prompt")["prompt"] == "a fox", "the prompt without it")
    chips.get_by_role("button", name="Take night off").click()
    wait_for(lambda: state_of(tab, "lora-panel") == "1 on", "the fold to say so")
    wait_for(lambda: "2 batches" in state_of(tab, "settings"), "the changed setting")
    tab.find("hires").get_by_role("button", name="Hires fix").click()
    tab.find("hires-on").locator("input").check()
    wait_for(lambda: state_of(tab, "hires") == "2×, strength 0.5", "what it does")
    tab.reload()
    wait_for(lambda: [state_of(tab, fold) for fold in folds[1:3]] == ["1 on", "2×, strength 0.5"], "the same again")
    chips.get_by_role("button", name="sepia 1").wait_for()


def test_the_picture_s_bar(tab, server):
    tab.draw(prompt=PROMPT, **SMALL)
    tab.picture.wait_for()
    bar = tab.page.locator("#tab-txt2img .sending")
    found = lambda: server.client.get("/api/history").json()["pictures"]  # noqa: E731
    newest = found()[0]
    favourite = bar.get_by_role("button", name="Favourite")
    favourite.click()
    bar.get_by_role("button", name="Favourite", pressed=True).wait_for()
    assert found()[0]["favourite"] and found()[0]["id"] == newest["id"]
    assert not tab.find("infotext").is_visible()
    bar.get_by_role("button", name="Info").click()
    tab.find("infotext").wait_for()
    tab.reload()
    tab.find("infotext").wait_for()  # once opened, it stays
    bar.get_by_role("button", name="Info").click()
    bar.get_by_role("button", name="Delete").click()
    bar.get_by_text("Deleted.").wait_for()
    assert newest["id"] not in [picture["id"] for picture in found()]
    bar.get_by_role("button", name="Undo").click()
    bar.get_by_text("Deleted.").wait_for(state="hidden")
    assert newest["id"] in [picture["id"] for picture in found()]


def test_prompt_picture_and_generate_are_in_sight(tab):
    tab.draw(prompt=PROMPT, **SMALL)  # leaves the settings open
    tab.picture.wait_for()
    for size in (DESKTOP, SMALL_DESKTOP):
        resize(tab, size)
        tab.find("clip_skip").scroll_into_view_if_needed()
        for part in (
            "#txt2img-prompt textarea",
            "#txt2img-generate",
            "#txt2img-clip_skip input[type=number]",
            "#txt2img-reuse-settings",
            "#txt2img-send-upscale",
        ):
            assert is_in_sight(tab, part), (size, part)
        picture = tab.find("gallery").bounding_box()
        assert picture["height"] > 0.75 * size[1] - 52, size
    resize(tab, PHONE)
    prompt, picture = (tab.find(name).bounding_box() for name in ("prompt", "gallery"))
    assert 0 <= picture["y"] - (prompt["y"] + prompt["height"]) < 60
    tab.find("clip_skip").scroll_into_view_if_needed()
    assert is_in_sight(tab, "#txt2img-generate")
    bounds = tab.find("generate").bounding_box()
    assert bounds["y"] > PHONE[1] - 200
    for name in ("History", "PNG info", "txt2img"):  # a row that a finger scrolls
        tab.page.get_by_role("tab", name=name, exact=True).click()
        assert is_in_sight(tab, f"[role=tab]:has-text('{name}')")


def _violations(tab) -> list[str]:
    found = Axe().run(tab.page).response["violations"]
    return [f"{rule['id']}: {node['target']} {node['html'][:120]}" for rule in found for node in rule["nodes"]]


def test_no_rule_for_everybody_is_broken(open_tab):
    tab = open_tab("?__theme=light")
    tab.draw(prompt=f"{PROMPT} <lora:night:0.5>", **SMALL)
    tab.picture.wait_for()
    assert not _violations(tab)


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_rule_for_everybody_is_broken_at_any_width(open_tab, theme, tmp_path):
    tab = open_tab(f"?__theme={theme}")
    path = tmp_path / "start.png"
    PilImages.effect_noise((64, 64), 60).save(path)
    tab.draw(prompt=PROMPT, **SMALL)
    tab.draw(steps=3)
    for page in ("txt2img", "img2img", "inpaint", "upscale", "grid", "PNG info", "History"):
        tab.page.get_by_role("tab", name=page, exact=True).click()
        if page in ("img2img", "inpaint", "upscale"):
            tab.page.locator(f"#{page}-image input[type=file]").first.set_input_files(path)
            tab.page.locator(f"#{page}-image img").wait_for()
        for size in (DESKTOP, (1024, 768), PHONE):
            resize(tab, size)
            assert not _violations(tab), (page, size)
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= size[0], (page, size)
    tab.page.get_by_role("tab", name="txt2img", exact=True).click()
    tab.page.get_by_role("button", name="Compare", exact=True).locator("visible=true").click()
    tab.page.locator("#darkroom-light img").last.wait_for()
    tab.page.keyboard.press("i")
    for size in (DESKTOP, (1024, 768), PHONE):
        resize(tab, size)
        assert not _violations(tab), ("the large view", size)
    tab.page.keyboard.press("Escape")
    tab.page.get_by_role("tab", name="txt2img", exact=True).press("?")
    assert not _violations(tab), "the sheet of keys"
    tab.page.keyboard.press("Escape")
    tab.find("more").click()
    assert not _violations(tab)
    tab.page.keyboard.press("Escape")
    tab.add_job(steps=150, width=256, height=256)
    tab.add_job(prompt="waits")
    tab.queue.get_by_role("listitem").nth(1).wait_for()
    assert not _violations(tab)


def test_scroll_bars_and_the_like_are_as_dark_as_the_page(tab):
    scheme = "getComputedStyle(document.documentElement).colorScheme"
    is_dark = "document.body.classList.contains('dark')"
    for _ in range(2):
        dark = tab.page.evaluate(is_dark)
        assert tab.page.evaluate(scheme) == ("dark" if dark else "normal")
        tab.page.locator("#darkroom-theme").click()
        tab.page.wait_for_function(f"(dark) => {is_dark} !== dark", arg=dark)


def test_a_picture_to_paint_on_is_in_sight_as_a_whole_without_scrolling(tab, tmp_path):
    path = tmp_path / "start.png"
    PilImages.effect_noise((64, 64), 60).save(path)
    resize(tab, DESKTOP)
    tab.page.get_by_role("tab", name="inpaint", exact=True).click()
    tab.page.locator("#inpaint-image input[type=file]").first.set_input_files(path)
    tab.page.locator("#tab-inpaint .painter-sheet img").wait_for()
    stage = "document.querySelector('#tab-inpaint .painter-stage')"
    tab.page.wait_for_function(f"{stage}.querySelector('.painter-sheet').offsetHeight > 200")
    assert tab.page.evaluate(f"{stage}.scrollHeight <= {stage}.clientHeight")
