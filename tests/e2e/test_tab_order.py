"""The Tab key goes from field to field as they are seen: from left to right in a line, and down (WCAG 2.4.3)."""

import pytest

from .tab import WINDOW, Tab

NOTE_PLACES = """(parts) => {
  document.querySelectorAll(".asking, .actions, .picture").forEach((part) => part.scrollTo(0, 0));
  scrollTo(0, 0);
  window.places = new Map();
  for (const element of document.querySelectorAll("a[href], button, input, textarea, select, summary, [tabindex]")) {
    const field = element.closest(".form > .block") ?? element; // a number and its slider are one thing
    const { left, right, top, bottom } = field.getBoundingClientRect();
    window.places.set(element, { left, right, top, bottom });
  }
}"""
"""Where everything is seen before anything scrolls."""
HERE = """(parts) => {
  const here = document.activeElement;
  const part = parts.findIndex((selector) => here.closest(selector));
  const name = here.id || `${here.closest("[id]")?.id} ${here.getAttribute("aria-label") ?? here.textContent.trim()}`;
  return part < 0 || !window.places.has(here) ? null : { part, name, ...window.places.get(here) };
}"""


def walk(tab: Tab, parts: list[str]) -> list[dict]:
    """What has the focus, one after another, from the page's first tab on, in these parts of it."""
    tab.page.evaluate(NOTE_PLACES, parts)
    tab.page.locator("#darkroom-tabs [role=tab]").first.focus()
    found: list[dict] = []
    for _ in range(120):
        tab.page.keyboard.press("Tab")
        here = tab.page.evaluate(HERE, parts)
        if here and here not in found:
            found.append(here)
        elif found:
            break
    return found


def backwards(found: list[dict]) -> list[str]:
    """Where the eye would have to go up, or back to the left."""
    steps = []
    for one, next_ in zip(found, found[1:], strict=False):
        is_above = next_["bottom"] <= one["top"] + 2
        is_left = next_["right"] <= one["left"] + 2 and next_["top"] < one["bottom"] - 2
        was_there = next_["right"] > next_["left"]  # what a job brings last may come meanwhile
        if was_there and one["part"] == next_["part"] and (is_above or is_left):
            steps.append(f"{one['name']} -> {next_['name']}")
    return steps


@pytest.mark.parametrize("width", [WINDOW["width"], 390])
def test_tab_goes_as_things_are_seen(tab: Tab, width: int) -> None:
    """At both widths the same things are met: the page is as usable on a phone, and on a screen enlarged to 400 %."""
    tab.draw(prompt="a red apple", steps=1, width=64, height=64)
    tab.picture.wait_for()
    tab.page.set_viewport_size({"width": width, "height": 844})
    for name in ("txt2img", "img2img", "inpaint", "upscale", "grid"):
        tab.page.evaluate(f"location.hash = '{name}'")
        tab.page.locator(f"#{name}-generate").wait_for()
        parts = [f"#tab-{name} .{part}" for part in ("asking", "actions", "picture")]
        if width == 390:  # one column, and Generate at the bottom edge
            parts = [f"#tab-{name} :is(.asking, .picture)", parts[1]]
            tab.page.locator(f"#tab-{name} .asking .picture").wait_for()  # it moves with the next frame
        found = walk(tab, parts)
        assert len(found) > 9, found
        assert not backwards(found), name
