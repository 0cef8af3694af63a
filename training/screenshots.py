"""The README's pictures of the page: four screenshots, and what LoRAs do to one seed, as an animation.

``python -m training.screenshots`` draws them with the product itself. Needs Chromium on the PATH.
"""

import shutil
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image as PilImages
from PIL.Image import Image as PilImage
from playwright.sync_api import Page, ViewportSize, sync_playwright

from benchmarks.coldstart import Checkout, server, wait_for_page

DOCS = Path(__file__).resolve().parents[1] / "docs"
WINDOW = ViewportSize(width=1280, height=800)
LIMIT_MS = 120_000
PROMPT, SEED = "a fox, 3d style, on a teal background", "11"
THINGS = ("panda", "rocket", "castle", "flamingo", "owl", "sailboat", "cupcake", "tiger")
SETS = ((), ("night",), ("sepia",), ("blueprint",), ("blueprint", "night"))
FRAME_MS, FRAME_WIDTH = 1200, 900
DONE = """([page, before]) => {
  const { job, state } = document.querySelector(`#${page}-status [data-state]`).dataset;
  return job !== before && state === "done";
}"""


def main() -> None:
    """Writes them into ``docs/``."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    ours = Checkout(way=("-m", "webui"))
    with (
        tempfile.TemporaryDirectory() as folder,
        server(folder, checkout=ours) as (url, _),
        sync_playwright() as playwright,
    ):
        wait_for_page(url)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=WINDOW)
        page.set_default_timeout(LIMIT_MS)
        page.goto(url)
        page.locator("#darkroom-engine[data-status=ok]").wait_for()
        page.wait_for_function("darkroom.restored.length === darkroom.PAGES.length")
        _animate(page)
        _take(page)
        browser.close()


def _animate(page: Page) -> None:
    page.locator("#txt2img-prompt textarea").fill(PROMPT)
    page.locator("#txt2img-seed input").first.fill(SEED)
    frames = [_small(frame) for frame in _frames(page)]
    file, rest = DOCS / "lora-switch.gif", frames[1:]
    frames[0].save(file, save_all=True, append_images=rest, duration=FRAME_MS, loop=0, optimize=True)


def _frames(page: Page) -> Iterator[bytes]:
    """One for each set of LoRAs, all of one seed."""
    chips = page.locator(".chips[data-page=txt2img]")
    worn: set[str] = set()
    for names in SETS:
        for name in sorted(worn - {*names}):
            chips.get_by_role("button", name=f"Take {name} off").click()
        for name in sorted({*names} - worn):
            chips.get_by_role("button", name="+ LoRA").click()
            page.locator(f'#txt2img-lora-panel .loras-found button[data-name="{name}"]').click()
            chips.get_by_role("button", name=f"Take {name} off").wait_for()
        worn = {*names}
        _draw(page)
        _draw(page)  # the set is in the cache now, as it is for whoever goes back and forth
        page.locator(".asking").first.evaluate("(column) => column.querySelector('.folds').scrollTo(0, 0)")
        yield page.screenshot()


def _draw(page: Page) -> None:
    before = page.locator("#txt2img-status [data-state]").get_attribute("data-job")
    page.locator("#txt2img-generate").click()
    page.wait_for_function(DONE, arg=["txt2img", before])
    page.locator("#txt2img-gallery img").first.wait_for()
    page.wait_for_timeout(500)  # what fades in


def _small(png: bytes) -> PilImage:
    with PilImages.open(BytesIO(png)) as shot:
        height = shot.height * FRAME_WIDTH // shot.width
        small = shot.convert("RGB").resize((FRAME_WIDTH, height), PilImages.Resampling.LANCZOS)
    return small.quantize(256, dither=PilImages.Dither.NONE)


def _take(page: Page) -> None:
    """The page, two pictures compared, the presets, the history."""
    for name in SETS[-1]:
        page.locator(".chips[data-page=txt2img]").get_by_role("button", name=f"Take {name} off").click()
    page.locator("#txt2img-lora-panel").get_by_role("button", name="LoRAs").first.click()
    seed = page.locator("#txt2img-seed input").first
    for number, thing in enumerate(THINGS):
        page.locator("#txt2img-prompt textarea").fill(
            f"a {thing}, cartoon style, on a {('pink', 'yellow')[number % 2]} background"
        )
        seed.fill(str(number))
        _draw(page)
    _shoot(page, "screenshot")
    page.locator("#tab-txt2img [data-act=compare]").click()
    page.wait_for_timeout(1500)
    _shoot(page, "compare")
    page.keyboard.press("Escape")
    page.locator("#txt2img-presets").click()
    page.locator("dialog[open] .presets-found img").nth(8).wait_for()
    page.wait_for_timeout(1500)
    _shoot(page, "presets")
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="History").click()
    page.locator(".history-found img").nth(6).wait_for()
    page.wait_for_timeout(1500)
    _shoot(page, "history")


def _shoot(page: Page, name: str) -> None:
    with PilImages.open(BytesIO(page.screenshot())) as shot:
        shot.convert("RGB").save(DOCS / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
