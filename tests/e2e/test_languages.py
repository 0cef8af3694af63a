"""The page in another language than English: the browser's, or one that was chosen."""

import json
import re

import pytest

from webui import languages

from .tab import WINDOW

FOLDS = "document.querySelectorAll('#tab-txt2img button.label-wrap:not(.open)').forEach((fold) => fold.click())"
SHOWN = """() => {
  const shown = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.nodeType === Node.TEXT_NODE) {
      if (!node.parentElement.closest("script, style, textarea, [translate=no]")) shown.push(node.data);
    } else for (const name of ["title", "aria-label", "placeholder", "alt"]) shown.push(node.getAttribute(name) ?? "");
  }
  return shown.map((text) => text.trim().replace(/\\s+/g, " "));
}"""
ONE = "(options) => [...document.querySelectorAll(options)].filter((option) => option.offsetParent).length === 1"
ENGLISH = re.compile(r"\b(the|of|with|and|is|are|this|your)\b")
THEIRS = re.compile(r"tags|by moonlight|[Pp]hotograph|Pale lines|Draws in|a red apple|detailed view|Thumbnail")
"""What files say of themselves, a prompt, and names that Gradio gives."""


@pytest.fixture(scope="module")
def german(browser, host):
    context = browser.new_context(locale="de-DE", viewport=WINDOW)
    context.set_default_timeout(90_000)
    page = context.new_page()
    page.goto(host.url)
    page.locator("#darkroom-engine[data-status=ok]").wait_for()
    yield page
    context.close()


def test_a_german_browser_finds_no_english_text(german):
    german.evaluate(FOLDS)
    german.locator("#txt2img-lora-panel .panel-found button").first.wait_for()
    german.locator("#txt2img-prompt textarea").fill("a red apple")
    german.locator("#txt2img-generate").click()
    german.locator("#txt2img-status [data-state=done]").wait_for()
    for name in ("keys", "settings"):
        german.locator(f"#darkroom-{name}-open").click()
        german.keyboard.press("Escape")
    assert german.evaluate("document.documentElement.lang") == "de"
    assert german.locator("#txt2img-generate").inner_text().startswith("Generieren")
    assert german.locator("#txt2img-status .status-text").inner_text().startswith("Fertig in")
    words = languages.language("de")
    shown = set(german.evaluate(SHOWN))
    left = {text for text in shown if words.get(text, text) != text and text not in words.values()}
    left |= {text for text in shown if ENGLISH.search(text) and not THEIRS.search(text)}
    assert not left


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
