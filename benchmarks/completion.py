"""Suggestions while a prompt is typed, with a list of 150,000 tags: from a key to the frame that shows what it brings.

Needs Chromium on the PATH. Keys are pressed one after the other in the real page; the time is the browser's own, from
the key's event to the frame behind the one in which the list was laid out, and the processor time of the page's thread
for that key, which other programs on the machine leave alone. The tags are made up: words of a stock that
has few common and many rare ones, as on the sites, with two aliases each.
"""

import random
import shutil
import tempfile
from pathlib import Path
from statistics import quantiles

from playwright.sync_api import CDPSession, Page, sync_playwright

from benchmarks.coldstart import server, wait_for_page
from benchmarks.measure import Options, Row

TAGS = 150_000
PROMISED_MS = 50
LIMIT_MS = 60_000
SYLLABLES = (
    *("ka", "ri", "mo", "to", "shi", "ha", "bl", "st", "re", "an"),
    *("on", "er", "ch", "la", "ne", "be", "wi", "do", "gr", "fu"),
)
NOTHING = ("zzzq", "a walk in the zzzq", "kazzq")
# When the newest key was pressed, and how long each took until its list was seen.
NOTE_KEYS = """
window.taken = [];
let pressed = 0, seen = null;
addEventListener("keydown", ({ timeStamp }) => (pressed = timeStamp), true);
const look = () => {
  const list = document.querySelector(".complete");
  if (!list || list === seen || !pressed) return;
  seen = list;
  const began = pressed;
  requestAnimationFrame(() => setTimeout(() => window.taken.push(performance.now() - began)));
};
new MutationObserver(look).observe(document, { childList: true, subtree: true });
"""


def run(options: Options) -> list[Row]:
    """Milliseconds from a key to its list, for the first key on a page and for those after it; their processor time;
    and what is computed for a key that brings no list."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return [Row("completion", "ms", (), note="not run: no chromium on the PATH")]
    first: list[float] = []
    later: list[float] = []
    vain: list[float] = []
    worked: list[float] = []
    with tempfile.TemporaryDirectory() as data_dir:
        words = write_tags(Path(data_dir) / "tags/made-up.csv", TAGS)
        with server(data_dir) as (url, _), sync_playwright() as playwright:
            wait_for_page(url)
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for k in range(options.rounds + 1):
                page = browser.new_page()
                page.add_init_script(NOTE_KEYS)
                page.goto(url)
                page.locator("#darkroom-engine[data-status=ok]").wait_for(timeout=LIMIT_MS)
                began, _ = _type(page, words[k][:2])
                spans = [_type(page, word)[1] for word in words[10 * k : 10 * k + 10]]
                spent = page.evaluate("window.taken")
                if k:
                    first.append(began[0])
                    later += spent[len(began) :]
                    worked += [span for word in spans for span in word]
                    vain += [page.evaluate(LOOK, text) for text in NOTHING]
                page.close()
            browser.close()
    return [
        Row("first key on a page, to its list", "ms", first, note="the list of tags is fetched and taken in meanwhile"),
        Row("a key, to its list", "ms", later),
        Row("a key, processor time of the page", "ms", worked, holds=quantiles(worked, n=10)[-1] <= PROMISED_MS),
        Row("computing what fits, nothing does", "ms", vain),
    ]


LOOK = """(text) => {
  const box = document.querySelector("#txt2img-prompt textarea");
  const began = performance.now();
  for (let k = 0; k < 20; k++) window.darkroomComplete.suggestions(box, text);
  return (performance.now() - began) / 20;
}"""


def _type(page: Page, word: str) -> tuple[list[float], list[float]]:
    """Types it letter by letter into the empty box, each once the list of the one before is there: times and processor
    times of the letters from the second on."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    box = page.locator("#txt2img-prompt textarea")
    box.fill("")
    before = page.evaluate("window.taken.length")
    box.press(word[0])
    worked = []
    for k, letter in enumerate(word[1:]):
        began = _worked_ms(session)
        box.press(letter)
        page.wait_for_function("(known) => window.taken.length > known", arg=before + k, timeout=LIMIT_MS)
        worked.append(_worked_ms(session) - began)
    return page.evaluate("(known) => window.taken.slice(known)", before), worked


def _worked_ms(session: CDPSession) -> float:
    metrics = {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}
    return 1e3 * float(metrics["TaskDuration"])


def write_tags(file: Path, count: int) -> list[str]:
    """A list in the form of tagcomplete; the words that begin its first tags."""
    chance = random.Random(1)
    stock = ["".join(chance.choices(SYLLABLES, k=chance.randint(2, 3))) for _ in range(6000)]

    def name() -> str:
        return "_".join(stock[chance.randrange(chance.randrange(6000) + 1)] for _ in range(chance.randint(1, 3)))

    names = [f"{name()}_{k}" for k in range(count)]
    rows = (f'{each},0,{5_000_000 // (k + 1)},"{name()},{name()}"' for k, each in enumerate(names))
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(rows), "utf-8")
    return [each.partition("_")[0] for each in names]
