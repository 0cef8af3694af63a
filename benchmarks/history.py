"""The History tab with 10,000 and 100,000 pictures: what the server takes, and what a browser waits for.

The files are made here, small and by day, with settings that differ. The index is measured in this process, from none
at all and with all of it there. The browser opens the tab of a server whose index is there, and scrolls from the newest
to the oldest picture. Needs Chromium on the PATH for that part.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial
from os import utime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PilImages
from playwright.sync_api import Page, sync_playwright

from benchmarks.coldstart import server, wait_for_page
from benchmarks.measure import Options, Row
from webui.core.events import Image
from webui.core.recipe import Recipe
from webui.core.request import LoraRef, Request
from webui.workspace.history import History
from webui.workspace.outputs import save_picture
from webui.workspace.search import Filter

SIZES = (10_000, 100_000)
A_DAY = 120
KINDS = 40
THINGS = ["apple", "panda", "rocket", "castle", "flamingo", "owl", "boat", "cupcake", "tiger", "fox"]
LIMIT_MS = 120_000
FIRST_CARDS_MS = 500
QUESTIONS = {
    "newest": Filter(),
    "words": Filter("red fox"),
    "settings": Filter("steps>20 size:64x64 sampler:euler"),
    "a LoRA": Filter(lora="night"),
    "by prompt": Filter(order="prompt"),
    "no such thing": Filter("nothing is like that"),
}
# The longest time in which the page could not answer, while it is scrolled from end to end.
SCROLL = """async () => {
  let longest = 0;
  const note = ({ duration }) => (longest = Math.max(longest, duration));
  const watch = new PerformanceObserver((list) => list.getEntries().forEach(note));
  watch.observe({ type: "longtask" });
  const height = document.documentElement.scrollHeight, steps = 100;
  for (let k = 0; k <= steps; k++) {
    scrollTo(0, (height * k) / steps);
    await new Promise(requestAnimationFrame);
  }
  await new Promise((done) => setTimeout(done, 100));
  watch.disconnect();
  return { longest, elements: document.querySelectorAll(".history-found li").length };
}"""
LOADED = """() => {
  const images = [...document.querySelectorAll(".history-found img")];
  return images.length && images.every((image) => {
    const { top } = image.getBoundingClientRect();
    return top > innerHeight || top < 0 || (image.complete && image.naturalWidth);
  });
}"""


def run(options: Options) -> list[Row]:
    """Rows for each number of pictures."""
    rows: list[Row] = []
    for count in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            data_dir = Path(folder)
            make_pictures(data_dir / "outputs", count)
            rows += _index(data_dir, count, options.rounds)
            rows += _browser(data_dir, count, options.rounds)
    return rows


def make_pictures(outputs: Path, count: int) -> None:
    """So many PNGs of 64 px with recipes, ``A_DAY`` of them a day, in folders as the server makes them."""
    patterns = [path.read_bytes() for path in _draw(outputs.parent / "patterns")]
    now = time.time()
    for number in range(count):
        day = number // A_DAY
        place = outputs / "txt2img" / (date.today() - timedelta(days=day)).isoformat()
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{count - number:06d}.png"
        path.write_bytes(patterns[number * 7 % KINDS])
        utime(path, (now - 86400 * day - number % A_DAY,) * 2)
    for place in outputs.glob("*/*"):
        utime(place, (now - 60,) * 2)
    shutil.rmtree(outputs.parent / "patterns")


def _draw(folder: Path) -> Iterator[Path]:
    random = np.random.default_rng(0)
    for kind in range(KINDS):
        colours = random.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        request = Request(
            prompt=f"a {('red', 'blue', 'green')[kind % 3]} {THINGS[kind % 10]}, flat style, on a plain background",
            seed=kind,
            steps=10 + kind,
            sampler=("Euler a", "DPM++ 2M")[kind % 2],
            width=64,
            height=64,
            loras=(LoraRef(name="night"),) if kind % 4 == 0 else (),
        )
        drawn = PilImages.fromarray(colours).resize((64, 64), PilImages.Resampling.BICUBIC)
        yield save_picture(Image(0, drawn, Recipe(request, {"model": {"demo": "0" * 64}})), folder)


def _index(data_dir: Path, count: int, rounds: int) -> Iterator[Row]:
    name = f"{count:,} pictures"
    history = History(data_dir / "outputs", data_dir / "cache")
    yield Row(f"{name}: first page, no index", "ms", [_ms(lambda: history.search(Filter(), limit=100))])
    started = time.perf_counter()
    history.refresh()
    yield Row(f"{name}: all read", "s", [time.perf_counter() - started])
    for words, wanted in QUESTIONS.items():
        samples = [_ms(partial(history.search, wanted, limit=100)) for _ in range(rounds)]
        yield Row(f"{name}: {words}", "ms", samples)
    middle = [_ms(lambda: history.search(Filter(), limit=100, offset=count // 2)) for _ in range(rounds)]
    yield Row(f"{name}: from the middle on", "ms", middle)


def _ms(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started)


def _browser(data_dir: Path, count: int, rounds: int) -> Iterator[Row]:
    name = f"{count:,} pictures"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        yield Row(f"{name}: in a browser", "ms", (), note="not run: no chromium on the PATH")
        return
    opened_ms, scrolled = [], []
    with server(str(data_dir)) as (url, _), sync_playwright() as playwright:
        wait_for_page(url)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(rounds):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            opened_ms.append(_open(page, url))
            scrolled.append(page.evaluate(SCROLL))
            page.close()
        browser.close()
    holds = sorted(opened_ms)[len(opened_ms) // 2] < FIRST_CARDS_MS if count == SIZES[0] else None
    yield Row(f"{name}: from the tab to its pictures", "ms", opened_ms, holds=holds)
    elements = max(each["elements"] for each in scrolled)
    note = f"at most {elements} cards are elements"
    yield Row(f"{name}: longest task while scrolled", "ms", [each["longest"] for each in scrolled], note=note)


def _open(page: Page, url: str) -> float:
    page.goto(url)
    page.locator("#darkroom-engine[data-status=ok]").wait_for(timeout=LIMIT_MS)
    started = time.perf_counter()
    page.get_by_role("tab", name="History").click()
    page.wait_for_function(LOADED, timeout=LIMIT_MS)
    return 1e3 * (time.perf_counter() - started)
