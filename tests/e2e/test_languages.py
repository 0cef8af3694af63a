"""The page in another language than English: the browser's, or one that was chosen."""

import functools
import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from webui import languages
from webui.core.samplers import SAMPLERS, SCHEDULES
from webui.languages import catalogue

from .server import Server
from .tab import NOT_ENLARGED, WINDOW

FOLDS = "document.querySelectorAll('[id^=tab-] button.label-wrap:not(.open)').forEach((fold) => fold.click())"
SHOWN = """() => {
  const shown = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const element = node.nodeType === Node.TEXT_NODE ? node.parentElement : node;
    if (element.closest("script, style, [translate=no]")) continue;
    if (node !== element) {
      if (!element.closest("textarea, .light-facts, .gallery-item")) shown.push(node.data);
    } else for (const name of ["title", "aria-label", "placeholder", "alt"]) shown.push(node.getAttribute(name) ?? "");
  }
  return shown.map((text) => text.trim().replace(/\\s+/g, " "));
}"""
RULES = (
    "html-has-lang",
    "html-lang-valid",
    "aria-valid-attr-value",
    "button-name",
    "label",
    "link-name",
    "select-name",
)
NAMED = {"resultTypes": ["violations"], "runOnly": {"type": "rule", "values": [*RULES, "select-name", "image-alt"]}}
"""Of axe's rules those that other words can break; all of them are held in English (`test_layout.py`)."""
ONE = "(options) => [...document.querySelectorAll(options)].filter((option) => option.offsetParent).length === 1"
ENGLISH = re.compile(r"\b(the|of|with|and|is|are|this|your|not)\b")
THEIRS = re.compile(
    r"a red apple|Up in the sky|Out of nothing|Like this picture|Apple and whale|detailed view|Thumbnail|Steps: 4"
)
"""Prompts, presets, and names that Gradio gives."""
NAMES = {*SAMPLERS, *SCHEDULES, "auto", "epsilon", "v zero-SNR", "demo", "Darkroom", "English", "Latent"}
NAMES |= {"txt2img", "img2img", "inpaint", "LoRA", "LoRAs", "Zip", "Esc", "Int8"}
"""What is the same in German."""
TYPED = re.compile(r".|\w+[:<>]\S.*")
"""A key, or what History is searched for."""


known_texts = functools.cache(catalogue.texts)  # they are read out of the source, for seconds


def left_in_english(page, server: Server) -> set[str]:
    """What the page shows in English: a text of ours, or a word that only English has. Prompts of the tests before
    are in the history."""
    prompts = {picture["prompt"] for picture in server.client.get("/api/history").json()["pictures"]}
    words, known = languages.language("de"), known_texts()
    shown = set(page.evaluate(SHOWN))
    own = {text for text in shown if text in known and text not in words.values() and text not in NAMES}
    own |= {text for text in shown if ENGLISH.search(text)}
    told = {text for text in own if any(prompt and prompt in text for prompt in prompts)}
    return {text for text in own - told if not THEIRS.search(text) and not TYPED.fullmatch(text)}


@pytest.fixture(scope="module")
def german(browser, host):
    context = browser.new_context(locale="de-DE", viewport=WINDOW)
    context.set_default_timeout(90_000)
    page = context.new_page()
    page.add_init_script(NOT_ENLARGED)
    page.goto(host.url)
    page.locator("#darkroom-engine[data-status=ok]").wait_for()
    yield page
    context.close()


def test_a_german_browser_finds_no_english_text(german, host):
    german.evaluate(FOLDS)
    german.locator("#txt2img-lora-panel .panel-found button").first.wait_for()
    assert not Axe().run(german, options=NAMED).response["violations"]
    german.locator("#txt2img-prompt textarea").fill("a red apple")
    german.locator("#txt2img-steps input[type=number]").fill("4")
    german.locator("#txt2img-generate").click()
    german.locator("#txt2img-status [data-state=done]").wait_for()
    assert german.evaluate("document.documentElement.lang") == "de"
    assert german.locator("#txt2img-generate").inner_text().startswith("Generieren")
    assert german.locator("#txt2img-status .status-text").inner_text().startswith("Fertig in")
    german.locator("#txt2img-verify").click()
    german.locator("#txt2img-verdict", has_text="Identisch: Neu erzeugt").wait_for()
    for page in ("img2img", "inpaint", "upscale", "grid", "png-info", "history"):
        german.evaluate(f"location.hash = '{page}'")
        german.locator(f"#tab-{page}").wait_for()
    german.locator(".history-found li").first.wait_for()
    german.evaluate("location.hash = 'txt2img'")
    for name in ("keys", "settings"):
        german.locator(f"#darkroom-{name}-open").click()
        german.keyboard.press("Escape")
    for name in ("model", "sampler", "vae", "prediction"):  # what a list shows is made as it opens
        german.locator(f"#txt2img-{name} input").click()
        german.locator("[role=listbox] [role=option]").first.wait_for()
        assert not left_in_english(german, host)
        german.keyboard.press("Escape")
    german.locator("#txt2img-presets").click()
    german.locator(".presets-found li").first.wait_for()
    assert not left_in_english(german, host)
    german.keyboard.press("Escape")


def test_a_refusal_and_what_mends_it_are_german(german):
    prompt = german.locator("#txt2img-prompt textarea")
    prompt.fill("ein Apfel <lora:nihgt:1>")
    german.locator("#txt2img-generate").click()
    refusal = german.locator("#txt2img-refused")
    refusal.get_by_text("LoRA „nihgt“ gibt es nicht; meintest du night?").wait_for()
    refusal.get_by_role("button", name="night verwenden").click()
    assert prompt.input_value() == "ein Apfel <lora:night:1>"
    prompt.fill("ein Apfel <lora:nobody:1>")
    german.locator("#txt2img-generate").click()
    refusal.get_by_text(re.compile("LoRA „nobody“ gibt es nicht. Es gibt 4: .* und sepia")).wait_for()
    refusal.get_by_role("button", name="Entfernen").click()
    assert prompt.input_value().strip() == "ein Apfel"
    prompt.fill("")


def test_what_goes_with_a_model_is_offered_in_the_page_s_words(german):
    def answer(route):
        response = route.fetch()
        route.fulfill(response=response, json=[info | {"samplers": ["Euler"]} for info in response.json()])

    german.route("**/api/models", answer)
    german.reload()
    german.locator("#darkroom-engine[data-status=ok]").wait_for()
    german.evaluate(FOLDS)
    for field, name in (("sampler", "Euler"), ("schedule", "Standard")):
        german.locator(f"#txt2img-{field}").get_by_role("combobox").click()
        options = german.locator(f"#txt2img-{field}").get_by_role("option")
        options.filter(has_text=re.compile(f"{name}$")).first.wait_for()
        german.wait_for_function(ONE, arg=f"#txt2img-{field} [role=option]")
        german.keyboard.press("Escape")
    german.unroute("**/api/models")


@pytest.mark.parametrize("width", [1280, 390])
def test_longer_words_have_room(german, width):
    german.set_viewport_size({"width": width, "height": 900})
    for page in ("txt2img", "inpaint", "history"):
        german.evaluate(f"location.hash = '{page}'")
        german.locator(f"#tab-{page}").wait_for()
        assert german.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_language_is_chosen_and_kept(german):
    german.set_viewport_size({"width": 1280, "height": 900})
    german.locator("#darkroom-settings-open").click()
    choice = german.locator("#settings-language")
    assert choice.locator("option").all_inner_texts() == ["Wie im Browser", "English", "Deutsch"]
    with german.expect_navigation():
        choice.select_option("en")
    german.locator("#darkroom-engine[data-status=ok]").wait_for()
    assert german.locator("#txt2img-generate").inner_text().strip().startswith("Generate")
    told = german.evaluate("[document.documentElement.lang, navigator.language, typeof darkroomWords]")
    assert told == ["en", "en", "undefined"], json.dumps(told)
