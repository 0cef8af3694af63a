"""What people do most on the page: clicks, keys, drags, texts and scrolls that it takes, and the time until it shows.

Needs Chromium on the PATH. A click counts as one wherever it is; what was out of sight before it counts as a scroll; a
text is one, whatever its length. Time runs from the first of them until the page shows what was wanted, drawing
included, with the embedded model at its own size; hands take none.
"""

import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from playwright.sync_api import Locator, Page, ViewportSize, sync_playwright

from benchmarks.coldstart import server, wait_for_page
from benchmarks.measure import Options, Row

LIMIT_MS = 60_000
WINDOW = ViewportSize(width=1440, height=900)
IN_SIGHT = """(element) => {
  const { top, bottom, width } = element.getBoundingClientRect();
  return width > 0 && (bottom - top > innerHeight || (top >= 0 && bottom <= innerHeight));
}"""
ENDED = """([page, before, state]) => {
  const status = document.querySelector(`#${page}-status [data-state]`);
  return status.dataset.job !== before && status.dataset.state === state;
}"""


@dataclass
class Hand:
    """A person at the page, and what was counted of it since ``begin``."""

    page: Page
    counted: Counter[str] = field(default_factory=Counter)
    began: float = 0.0

    def begin(self) -> None:
        """From here on."""
        self.counted.clear()
        self.began = time.perf_counter()

    def click(self, target: str | Locator) -> None:
        self.see(target).click()
        self.counted["click"] += 1

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.counted["key"] += 1

    def type(self, target: str | Locator, text: str) -> None:
        """Into a box; where the focus is elsewhere, the click into it counts."""
        box = self.see(target)
        if not box.evaluate("(box) => box === document.activeElement"):
            box.click()
            self.counted["click"] += 1
        box.fill(text)
        self.counted["text"] += 1

    def paint(self, canvas: str) -> None:
        """A stroke over its middle."""
        area = self.see(canvas).bounding_box()
        assert area
        x, y = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2
        self.page.mouse.move(x - area["width"] / 8, y)
        self.page.mouse.down()
        self.page.mouse.move(x + area["width"] / 8, y, steps=5)
        self.page.mouse.up()
        self.counted["drag"] += 1

    def see(self, target: str | Locator) -> Locator:
        """Where it is; scrolls to it where it is out of sight."""
        found = (self.page.locator(target) if isinstance(target, str) else target).first
        found.wait_for(timeout=LIMIT_MS)
        if not found.evaluate(IN_SIGHT):
            found.scroll_into_view_if_needed()
            self.counted["scroll"] += 1
        return found

    def draw(self, page: str = "txt2img", state: str = "done") -> None:
        """Presses Generate and waits until the job is there, and so far."""
        before = self.page.locator(f"#{page}-status [data-state]").get_attribute("data-job")
        self.click(f"#{page}-generate")
        self.page.wait_for_function(ENDED, arg=[page, before, state], timeout=LIMIT_MS)
        if state == "done":
            self.see(f"#{page}-gallery img")

    def chips(self, name: str) -> Locator:
        """A button of the row of chips."""
        return self.page.locator(".chips[data-page=txt2img]").get_by_role("button", name=name)

    def said(self) -> str:
        """Such as "2 clicks, 1 text"."""
        return ", ".join(f"{n} {what}{'s' * (n > 1)}" for what, n in self.counted.items() if n) or "nothing"


def first_picture(hand: Hand) -> None:
    hand.click("#txt2img-examples button")
    hand.draw()


def another_picture(hand: Hand) -> None:
    hand.draw()


def another_shape(hand: Hand) -> None:
    hand.click("#txt2img-size [data-shape='2:3']")
    hand.draw()


def add_lora(hand: Hand) -> None:
    hand.click(hand.chips("+ LoRA"))
    hand.click('#txt2img-lora-panel .loras-found button[data-name="night"]')
    hand.draw()


def take_lora_off(hand: Hand) -> None:
    hand.click(hand.chips("Take night off"))
    hand.draw()


def apply_preset(hand: Hand) -> None:
    hand.click("#txt2img-presets")
    named = hand.page.locator("strong", has_text=re.compile("^Blueprint$"))
    hand.click(hand.page.locator("dialog[open] .presets-found li", has=named).locator("button").first)
    hand.page.locator("dialog[open] .presets-acts").first.wait_for(timeout=LIMIT_MS)  # which thing it is to be
    hand.press("Enter")
    hand.page.locator("dialog[open]").wait_for(state="hidden", timeout=LIMIT_MS)
    hand.draw()


def compare_with_the_one_before(hand: Hand) -> None:
    hand.click("#tab-txt2img [data-act=compare]")
    hand.page.locator("dialog[open] table, dialog[open] .compared").first.wait_for(timeout=LIMIT_MS)
    hand.press("Escape")


def look_at_full_size(hand: Hand) -> None:
    hand.click("#txt2img-gallery img")
    hand.press("1")
    hand.page.get_by_text("100 %").first.wait_for(timeout=LIMIT_MS)
    hand.press("Escape")


def inpaint(hand: Hand) -> None:
    hand.click("#txt2img-send-inpaint")
    hand.page.locator("#inpaint-mask .painter:not(.empty) canvas:not([width='1'])").first.wait_for(timeout=LIMIT_MS)
    hand.paint("#inpaint-mask canvas")
    hand.draw("inpaint")
    hand.page.get_by_role("tab", name="txt2img", exact=True).click()


def enlarge(hand: Hand) -> None:
    hand.click("#txt2img-send-upscale")
    hand.page.locator("#upscale-image img").first.wait_for(timeout=LIMIT_MS)
    hand.draw("upscale")
    hand.page.get_by_role("tab", name="txt2img", exact=True).click()


def reuse_an_old_one(hand: Hand) -> None:
    hand.click(hand.page.get_by_role("tab", name="History"))
    hand.type(".history input[type=search]", "red apple")
    hand.click(".history-found li img")
    hand.page.get_by_role("dialog", name="Large view").wait_for(timeout=LIMIT_MS)
    hand.press("r")
    hand.page.locator("#tab-txt2img #txt2img-generate").wait_for(timeout=LIMIT_MS)


def change_tab(hand: Hand) -> None:
    hand.click(hand.page.get_by_role("tab", name="img2img", exact=True))
    hand.page.locator("#img2img-generate").wait_for(timeout=LIMIT_MS)
    hand.page.get_by_role("tab", name="txt2img", exact=True).click()


def stop(hand: Hand) -> None:
    steps = hand.page.locator("#txt2img-steps input[type=number]")
    steps.fill("150")
    hand.draw("txt2img", "running")
    hand.begin()
    hand.click("#txt2img-stop")
    hand.page.locator("#txt2img-status [data-state=cancelled]").wait_for(timeout=LIMIT_MS)
    steps.fill("20")


FLOWS: dict[str, Callable[[Hand], None]] = {
    "the first picture, from an example": first_picture,
    "one more with the same settings": another_picture,
    "a LoRA put on, drawn again": add_lora,
    "a LoRA taken off, drawn again": take_lora_off,
    "this picture and the one before compared": compare_with_the_one_before,
    "the picture in its own size": look_at_full_size,
    "another shape, drawn again": another_shape,
    "a preset, drawn": apply_preset,
    "a part of the picture painted over and drawn anew": inpaint,
    "the picture enlarged": enlarge,
    "the settings of an old picture found and used": reuse_an_old_one,
    "another tab": change_tab,
    "a job stopped": stop,
}


def run(options: Options) -> list[Row]:
    """Seconds, with what was counted as the note; each flow begins where the one before has ended."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return [Row("flows", "s", (), note="not run: no chromium on the PATH")]
    samples: dict[str, list[float]] = {name: [] for name in FLOWS}
    notes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as data_dir, server(data_dir) as (url, _), sync_playwright() as playwright:
        wait_for_page(url)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(options.rounds):
            context = browser.new_context(viewport=WINDOW)
            hand = Hand(context.new_page())
            hand.page.goto(url)
            hand.page.locator("#darkroom-engine[data-status=ok]").wait_for(timeout=LIMIT_MS)
            hand.page.wait_for_function("darkroom.restored.length === darkroom.PAGES.length", timeout=LIMIT_MS)
            for name, flow in FLOWS.items():
                hand.begin()
                flow(hand)
                samples[name].append(time.perf_counter() - hand.began)
                notes[name] = hand.said()
            context.close()
        browser.close()
    return [Row(name, "s", taken, note=notes[name]) for name, taken in samples.items()]
