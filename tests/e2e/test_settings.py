"""What becomes of a page's settings when something else fills them: nothing is frozen, lost, or drawn too early."""

import re
from collections.abc import Callable
from contextlib import contextmanager

import pytest
from PIL import Image as PilImages

from .server import SMALL, Server, wait_for
from .tab import Tab

PROMPT = "a red apple, flat style, on a blue background"
SENT = re.compile(r"/gradio_api/(queue/join|run/)")


@contextmanager
def held(tab: Tab):
    """The first thing that the page asks of the server stays on its way until the block ends."""
    kept = []

    def hold(route) -> None:
        kept.append(route) if not kept else route.fallback()

    tab.page.route(SENT, hold)
    yield lambda: kept
    kept[0].continue_()
    tab.page.unroute(SENT, hold)


def box(tab: Tab, page: str, field: str = "prompt"):
    return tab.page.locator(f"#{page}-{field} textarea")


def remembered(tab: Tab, page: str = "txt2img") -> dict:
    return tab.page.evaluate("(page) => JSON.parse(darkroom.recall(page) || '{}')", page)


def drawn_seed(tab: Tab) -> int:
    return tab.server.show(tab.job)["request"]["seed"]


def test_settings_are_reused_without_the_seed_and_each_picture_is_a_new_one(tab):
    tab.draw(prompt=PROMPT, **SMALL)
    first = drawn_seed(tab)
    tab.set(prompt="something else", steps=3)
    tab.find("reuse-settings").click()
    tab.wait_for_value("prompt", PROMPT)
    assert tab.values("seed", "steps") == {"seed": "-1", "steps": "2"}
    assert tab.page.get_by_role("button", name="Random seed").get_attribute("aria-pressed") == "true"
    tab.draw()
    assert drawn_seed(tab) != first


def test_a_fixed_seed_is_in_sight_and_the_same_picture_is_said_to_be_the_same(tab):
    tab.draw(prompt=PROMPT, **SMALL)
    seed = drawn_seed(tab)
    tab.reload()  # all folds are shut
    tab.find("reuse-seed").click()
    kept = tab.page.get_by_role("button", name="Keep this seed", pressed=True)
    kept.wait_for()
    assert tab.find("seed").locator("input").input_value() == str(seed)
    same = "Same seed and settings, so the same picture."
    tab.draw()
    assert drawn_seed(tab) == seed
    tab.wait_for_message(same)
    tab.reload()
    kept.wait_for()
    assert same not in tab.message  # it is the very picture, not another that is the same
    tab.draw()
    tab.wait_for_message(same)
    tab.find("status").get_by_role("button", name="New seed").click()
    kept.wait_for(state="hidden")
    tab.draw()
    assert drawn_seed(tab) != seed
    assert same not in tab.message


def test_the_prediction_stays_the_models_own(tab):
    tab.draw(prompt=PROMPT, **SMALL)
    tab.set(steps=3)
    tab.find("reuse-settings").click()
    tab.wait_for_value("steps", "2")
    assert remembered(tab)["prediction"] == "auto"
    tab.choose("prediction", "epsilon")  # what is not the model's own is a setting like any other
    tab.draw()
    tab.choose("prediction", "auto")
    tab.set(steps=4)
    tab.find("reuse-settings").click()
    tab.wait_for_value("steps", "2")
    wait_for(lambda: remembered(tab)["prediction"] == "epsilon", "the browser to remember it")


def test_sending_a_picture_takes_its_settings_along_but_not_its_seed(tab):
    tab.draw(prompt=PROMPT, negative="dull", seed=5, guidance=3.5, **SMALL)
    tab.find("send-inpaint").click()
    tab.page.locator("#inpaint-generate").wait_for()
    wait_for(lambda: box(tab, "inpaint").input_value() == PROMPT, "the prompt")
    wait_for(lambda: remembered(tab, "inpaint").get("negative") == "dull", "the settings")
    sent = remembered(tab, "inpaint")
    expected = {"steps": 2, "width": 64, "guidance": 3.5, "seed": -1, "model": "demo", "prediction": "auto"}
    assert {field: sent[field] for field in expected} == expected
    tab.page.get_by_role("tab", name="txt2img").click()
    tab.draw(prompt="", negative="", guidance=4)
    tab.find("send-inpaint").click()
    tab.page.locator("#inpaint-generate").wait_for()
    wait_for(lambda: remembered(tab, "inpaint")["guidance"] == 4, "the settings")
    assert box(tab, "inpaint").input_value() == PROMPT  # nothing takes no words away
    assert remembered(tab, "inpaint")["negative"] == "dull"


def press_generate(tab: Tab) -> None:
    tab.find("generate").click()


def press_keys(tab: Tab) -> None:
    tab.page.keyboard.press("Control+Enter")


@pytest.mark.parametrize("generate", [press_generate, pytest.param(press_keys, marks=pytest.mark.slow)])
def test_generate_waits_for_settings_that_are_on_their_way(tab, generate: Callable[[Tab], None]):
    tab.draw(prompt=PROMPT, **SMALL)
    tab.set(prompt="something else")
    with held(tab) as on_its_way:
        tab.find("reuse-settings").click()
        wait_for(lambda: tab.page.evaluate("1") and on_its_way(), "the settings to be asked for")
        before = tab.job
        generate(tab)
        wait_for(lambda: tab.find("generate").get_attribute("aria-busy") == "true", "Generate to wait")
        assert tab.job == before
    tab.wait_for_infotext(PROMPT)
    wait_for(lambda: tab.job != before and tab.state == "done", "the picture")
    assert tab.infotext.startswith(PROMPT)
    assert tab.find("generate").get_attribute("aria-busy") is None


def test_what_is_typed_while_the_page_still_opens_stays(tab):
    tab.set(prompt="something else")
    tab.leaving = True
    tab.page.goto("about:blank")
    tab.leaving = False
    kept, opened = [], []
    tab.page.route(SENT, lambda route: route.continue_() if opened else kept.append(route))
    tab.page.goto(tab.server.url)
    box(tab, "txt2img").fill("")
    box(tab, "txt2img").press_sequentially(PROMPT)
    wait_for(lambda: tab.page.evaluate("1") and kept, "the page to ask for what it remembers")
    opened.append(True)
    for route in kept:
        route.continue_()
    tab.page.wait_for_function(
        "darkroom.restored.length === darkroom.PAGES.length && !darkroomFills.isWaiting('txt2img')"
    )
    assert box(tab, "txt2img").input_value() == PROMPT
    wait_for(lambda: remembered(tab)["prompt"] == PROMPT, "the text to be remembered")


def test_an_example_is_in_the_box_at_once(tab):
    tab.set(prompt="something else", **SMALL)
    tab.page.route(SENT, lambda route: route.abort())  # the server is not needed
    tab.find("examples").get_by_text("a panda, 3d style").click()
    tab.page.unroute(SENT)
    tab.draw()
    assert tab.infotext.startswith("a panda, 3d style, on a yellow background")


def test_a_picture_read_by_png_info_or_found_in_history_gives_its_seed_only_when_asked(tab, server: Server, tmp_path):
    job = server.submit(prompt="a green hat", seed=61, **SMALL)
    server.finish(job)
    path = tmp_path / "hat.png"
    path.write_bytes(server.client.get(f"/api/jobs/{job}/images/0").content)
    assert PilImages.open(path).size == (64, 64)
    tab.page.get_by_role("tab", name="PNG info").click()
    tab.page.locator("#png-info-image input[type=file]").set_input_files(path)
    send = tab.page.locator("#png-info-send-txt2img")
    with_seed = tab.page.locator("#png-info-with-seed input")
    for ticked, seed in ((False, -1), (True, 61)):
        tab.page.get_by_role("tab", name="PNG info").click()
        with_seed.set_checked(ticked)
        send.click()
        tab.find("generate").wait_for()
        wait_for(lambda: remembered(tab).get("prompt") == "a green hat", "the prompt")
        wait_for(lambda seed=seed: remembered(tab)["seed"] == seed, "the seed")
        assert remembered(tab)["prediction"] == "auto"
    tab.page.get_by_role("tab", name="History").click()
    tab.page.locator(".history").get_by_label("Search prompts").fill("a green hat")
    for ticked, seed in ((False, -1), (True, 61)):
        tab.page.get_by_role("tab", name="History").click()
        tab.page.get_by_role("button", name="a green hat").first.click()
        dialog = tab.page.get_by_role("dialog", name="Large view")
        dialog.get_by_label("With seed").set_checked(ticked)
        dialog.get_by_role("button", name="Reuse in txt2img").click()
        tab.find("generate").wait_for()
        wait_for(lambda seed=seed: remembered(tab)["seed"] == seed, "the seed")


PASTED = """a red apple
Negative prompt: blurry
Steps: 3, Sampler: Euler a, CFG scale: 4.5, Seed: 12, Size: 64x96, Model: elsewhere"""
SAYS = {
    "prompt": "a red apple",
    "negative": "blurry",
    "steps": 3,
    "guidance": 4.5,
    "seed": 12,
    "width": 64,
    "height": 96,
}


def test_settings_in_a_prompt_s_box_are_noticed_and_applied(tab):
    for text, field in ((PASTED, "prompt"), (PASTED.replace("\n", " "), "prompt"), (PASTED, "negative")):
        notice = tab.page.locator(f".pasted[data-page=txt2img][data-field={field}]")
        tab.set(**{field: "a prompt. Steps: many"}, steps=5)
        assert not notice.is_visible()
        tab.set(**{field: text})
        notice.get_by_text("This looks like settings.").wait_for()
        notice.get_by_role("button", name="Apply them").click()
        tab.wait_until_told("model: “elsewhere” is not here")
        wait_for(lambda: {name: remembered(tab)[name] for name in SAYS} == SAYS, "the fields")
        assert remembered(tab)["sampler"] == "Euler a" and remembered(tab)["model"] == "demo"
        notice.wait_for(state="hidden")


def test_png_info_reads_text_too(tab, tmp_path):
    tab.page.get_by_role("tab", name="PNG info").click()
    PilImages.new("RGB", (64, 64)).save(tmp_path / "plain.png")
    tab.page.locator("#png-info-image input[type=file]").set_input_files(tmp_path / "plain.png")
    shown = tab.page.locator("#png-info-settings")
    shown.get_by_text("No settings were found").wait_for()
    tab.page.get_by_label("Or paste settings here").fill(PASTED)
    shown.get_by_text("blurry").wait_for()
    tab.page.locator("#png-info-image input[type=file]").wait_for(state="attached")  # the picture made way
    tab.page.locator("#png-info-send-txt2img").click()
    tab.find("generate").wait_for()
    wait_for(lambda: remembered(tab).get("prompt") == "a red apple", "the prompt")
    wait_for(lambda: {name: remembered(tab)[name] for name in SAYS} == SAYS | {"seed": -1}, "the fields")


def test_a_variation_is_drawn_remembered_reused_and_left_off_with_plain_settings(tab):

    def open_fold() -> None:
        tab.find("variation").get_by_role("button", name="Variation").click()
        tab.find("variation-seed").locator("input").wait_for()
        tab.let_fields_settle()

    open_fold()
    tab.draw(prompt=PROMPT, **SMALL, seed=5)
    assert "Variation" not in tab.infotext
    plain = tab.infotext
    tab.set(**{"variation-seed": 9, "variation-strength": 0.25})
    tab.draw(count=2)
    tab.find("gallery").get_by_text("Seed 5, variation seed 9").first.wait_for()
    assert ", Variation seed: 9, Variation seed strength: 0.25, " in tab.infotext and "Seed: 5, " in tab.infotext
    tab.reload()
    open_fold()
    assert tab.values("variation-seed", "variation-strength") == {"variation-seed": "9", "variation-strength": "0.25"}
    tab.set(**{"variation-strength": 0})
    tab.find("reuse-seed").click()
    tab.wait_for_value("variation-strength", "0.25")
    tab.find("reuse-settings").click()
    tab.wait_for_value("variation-seed", "-1")
    assert tab.values("seed", "variation-strength") == {"seed": "-1", "variation-strength": "0.25"}
    tab.set(prompt=plain)
    tab.page.locator(".pasted[data-page=txt2img][data-field=prompt]").get_by_role("button", name="Apply them").click()
    tab.wait_for_value("variation-strength", "0")


def test_vary_draws_pictures_near_one(tab):
    tab.draw(prompt=PROMPT, seed=5, **SMALL)
    first = tab.pixels(tab.picture)
    tab.set(prompt="something else", seed=-1, count=2)
    tab.find("vary").click()
    tab.find("variation-strength").locator("input[type=number]").wait_for()  # its fold is open
    tab.wait_for_value("variation-strength", "0.1")
    tab.page.locator(".undo-note").get_by_role("button", name="Undo").click()
    tab.wait_for_value("prompt", "something else")
    assert tab.values("seed", "variation-strength") == {"seed": "-1", "variation-strength": "0"}
    assert not tab.page.locator(".undo-note").is_visible()
    tab.find("vary").click()
    tab.wait_for_value("variation-strength", "0.1")
    expected = {"prompt": PROMPT, "seed": "5", "variation-seed": "-1", "count": "2"}
    assert tab.values(*expected) == expected
    tab.draw()
    assert "Seed: 5, " in tab.infotext and "Variation seed strength: 0.1, " in tab.infotext
    assert tab.pixels(tab.picture) != first
    tab.draw(**{"variation-seed": 9, "variation-strength": 0.25})
    tab.set(**{"variation-strength": 0})
    tab.find("vary").click()
    tab.wait_for_value("variation-strength", "0.25")  # what the picture says is kept
    assert tab.values("variation-seed") == {"variation-seed": "-1"}
