"""The page in a new Chromium: from its address to a prompt that can be drawn, beside a small page of Gradio.

Needs Chromium on the PATH. The server has its model in memory before the first visit; each visit is a new visitor's,
with nothing in the browser's cache. A reload has the files, not the page.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import gradio
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.coldstart import server, wait_for_page
from benchmarks.measure import Options, Row, compared

LIMIT_MS = 60_000
READY = "#txt2img-generate, #bare-generate"


def run(options: Options) -> list[Row]:
    """Milliseconds until Generate can be pressed, and until our page knows its engine."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return [Row("page", "ms", (), note="not run: no chromium on the PATH")]
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as data_dir, server(data_dir) as (ours, _), _bare_page() as bare:
        wait_for_page(ours)
        with sync_playwright() as playwright:
            for k in range(options.rounds + 1):
                # a browser each: a new context of a running one finds Gradio's scripts compiled
                for name, url in (("bare Gradio", bare), ("darkroom", ours)):
                    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                    for what, spent_ms in _visit(browser, url).items():
                        if k:
                            samples.setdefault(f"{what}, {name}", []).append(spent_ms)
                    browser.close()
    rows: dict[str, Row] = {}
    for what in ("opens", "opens again"):
        stock = rows[what] = Row(f"{what}, bare Gradio", "ms", samples[f"{what}, bare Gradio"])
        rows[f"{what}, ours"] = compared(f"{what}, darkroom", "ms", samples[f"{what}, darkroom"], stock)
    return list(rows.values())


def _visit(browser: Browser, url: str) -> dict[str, float]:
    page = browser.new_page()
    started = time.perf_counter()
    page.goto(url)
    _wait(page)
    opened = time.perf_counter()
    page.reload()
    _wait(page)
    return {"opens": 1e3 * (opened - started), "opens again": 1e3 * (time.perf_counter() - opened)}


def _wait(page: Page) -> None:
    page.locator(READY).wait_for(timeout=LIMIT_MS)
    if page.locator("#darkroom-engine").count():
        page.locator("#darkroom-engine[data-status=ok]").wait_for(timeout=LIMIT_MS)


@contextmanager
def _bare_page() -> Iterator[str]:
    """A page with two controls and a button, served by this process."""
    with gradio.Blocks(analytics_enabled=False) as blocks:
        prompt, answer = gradio.Textbox(label="Prompt"), gradio.Textbox(label="Answer")
        gradio.Button("Generate", elem_id="bare-generate").click(lambda text: text, prompt, answer)
    _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True, inbrowser=False)
    try:
        yield url
    finally:
        blocks.close(verbose=False)
