"""What a person does with the page, and sees on it."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .server import Server

WINDOW = {"width": 1280, "height": 900}
# Previews come and go faster than a test can ask: the page itself notes each that was shown.
WATCH_PREVIEWS = """
window.previews = [];
new MutationObserver(() => {
  const image = document.querySelector("#txt2img-preview .preview-live img");
  if (!image || image.src === window.previews.at(-1)?.src) return;
  const state = document.querySelector("#txt2img-status [data-state]").dataset.state;
  window.previews.push({ src: image.src, state, shown: image.checkVisibility() });
}).observe(document, { childList: true, subtree: true, attributes: true });
"""
DRAWN = """async (image) => {
  while (!(image.complete && image.naturalWidth > 0)) await new Promise(requestAnimationFrame);
  const canvas = new OffscreenCanvas(32, 32), context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, 32, 32);
  return [...context.getImageData(0, 0, 32, 32).data];
}"""
SIZE = "async (image) => { await image.decode(); return [image.naturalWidth, image.naturalHeight]; }"
STATUS = "#txt2img-status [data-state]"
# Messages go by themselves, and are closed where they are in the way: the page notes each that was shown.
NOTE_MESSAGES = """
window.PAGES = ["txt2img", "img2img", "inpaint"];
window.told = [];
new MutationObserver((changes) => {
  const added = changes.flatMap((change) => [...change.addedNodes]).filter((node) => node.nodeType === 1);
  const nodes = added.flatMap((node) => [node, ...node.querySelectorAll("*")]);
  window.told.push(...nodes.filter((node) => node.matches("[data-testid=toast-text]")).map((node) => node.textContent));
}).observe(document, { childList: true, subtree: true });
"""
# As a person leaves it who has turned off what enlarges the embedded model's pictures: most tests are of the drawing.
NOT_ENLARGED = """
if (location.protocol !== "about:") {
  const kept = sessionStorage["darkroom.txt2img.fields"] ?? localStorage["darkroom.txt2img.fields"];
  if (!kept)
    localStorage["darkroom.txt2img.fields"] = '{"upscale": false, "upscale.scale": 2}';
}
"""
# What a page remembers while nobody has used it, and which folds are open.
NOTE_FIELDS = "Object.fromEntries(darkroom.PAGES.map((page) => [page, darkroom.recall(page)]))"
NOTE_STATE = f"""() => ({{
  fields: {NOTE_FIELDS},
  storages: [localStorage, sessionStorage].map((storage) => ({{ ...storage }})),
  open: [...document.querySelectorAll("button.label-wrap.open")].map((button) => button.closest("[id]").id),
}})"""
BEGIN_ANEW = (Path(__file__).parent / "begin_anew.js").read_text("utf-8")
BUSY = ("queued", "loading", "running")


class Tab:
    """A browser tab with the txt2img page. Waits on what shows; Playwright's timeout is the only clock."""

    def __init__(self, page: Any, server: Server, newcomer: bool = False) -> None:
        self.page = page
        self.server = server
        self.new: dict[str, Any] | None = None  # how the page is while nobody has used it, where it is kept
        self._left: dict[str, str] = {}
        self.leaving = False  # while the page is left, or the server gone, the browser complains of what is cut off
        self.is_emptied = False  # while History may show what a test has taken away behind its back
        self.is_refused = False  # while the server is to refuse what the page asks, the browser says so too
        self.is_newcomer = newcomer

    def watch(self) -> "Tab":
        """The page is a new one: from now on it notes what goes by too fast for a test."""
        for script in (WATCH_PREVIEWS, NOTE_MESSAGES, *(() if self.is_newcomer else (NOT_ENLARGED,))):
            self.page.add_init_script(script)
        return self

    def open(self, query: str = "") -> "Tab":
        self.page.goto(self.server.url + query)
        return self._wait_until_ready()

    def reload(self) -> "Tab":
        self.leaving = True
        self.page.reload()
        self.leaving = False
        return self._wait_until_ready()

    def _wait_until_ready(self) -> "Tab":
        self.page.locator("#txt2img-generate").wait_for()
        self.page.locator("#darkroom-engine[data-status=ok]").wait_for()
        self.page.wait_for_function("darkroom.restored.length === darkroom.PAGES.length")
        return self

    def keep(self) -> "Tab":
        """The page was just opened, and is to serve one test after another."""
        self.new = self.page.evaluate(NOTE_STATE)
        return self

    def leave(self) -> None:
        """A test has used the page: notes what is in its fields, before the browser forgets it."""
        self._left = self.page.evaluate(NOTE_FIELDS)

    def begin_anew(self) -> "Tab":
        """As a newcomer finds the page, but for the last picture and the jobs that ended."""
        self.page.unroute_all()
        self.page.set_viewport_size(WINDOW)
        self.page.bring_to_front()
        if not self.page.evaluate(BEGIN_ANEW, [self.new, self._left]):
            self.reload()
        self.find("generate").wait_for()
        self.let_fields_settle()
        return self

    def find(self, name: str) -> Any:
        """The element with id ``txt2img-<name>``."""
        return self.page.locator(f"#txt2img-{name}")

    # fields

    def open_settings(self) -> None:
        if not self.find("clip_skip").is_visible():
            self.find("settings").get_by_role("button", name="Settings").click()
            self.find("clip_skip").locator("input[type=number]").wait_for()  # the last one
            self.let_fields_settle()

    def let_fields_settle(self) -> None:
        """Gradio forgets what is typed in the few milliseconds after a field appears, faster than a person types."""
        self.page.evaluate("() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")

    def set(self, **values: Any) -> None:
        """Types into fields, as a person does: fill, then leave the field."""
        self.page.bring_to_front()
        for name, value in values.items():
            if name != "prompt":
                self.open_settings()
            field = self._field(name)
            field.fill(str(value))
            field.blur()

    def choose(self, name: str, text: str) -> None:
        """Picks from a list, of which only the part in sight exists: typing narrows it first."""
        self.page.bring_to_front()
        self.open_settings()
        self.find(name).get_by_role("combobox").fill(text)
        self.page.get_by_role("option", name=text).first.click()

    def values(self, *names: str) -> dict[str, str]:
        """What the fields show."""
        self.open_settings()
        return {name: self._field(name).input_value() for name in names}

    def wait_for_value(self, name: str, value: str) -> None:
        self.open_settings()
        self._wait(self._selector(name), "(field, value) => field?.value === value", value)

    def _selector(self, name: str) -> str:
        inputs = {"prompt": "textarea", "negative": "textarea", "sampler": "input", "schedule": "input"}
        return f"#txt2img-{name} {inputs.get(name, 'input[type=number]')}"

    def _field(self, name: str) -> Any:
        return self.page.locator(self._selector(name))

    # jobs

    @property
    def status(self) -> Any:
        return self.page.locator(STATUS)

    @property
    def state(self) -> str:
        return self.status.get_attribute("data-state")

    @property
    def job(self) -> str:
        return self.status.get_attribute("data-job")

    @property
    def message(self) -> str:
        return self.status.inner_text()

    def generate(self, start: Callable[[], None] | None = None) -> str:
        """Starts a job (by the button, or however ``start`` does) and returns its id once the page names it."""
        self.page.bring_to_front()
        before = ["", self.job, *self.jobs]  # the last one may not be shown yet, on a page just loaded
        (start or self.find("generate").click)()
        self._wait(STATUS, "(status, before) => status && !before.includes(status.dataset.job)", before)
        return self.job

    def wait_for_state(self, *states: str) -> str:
        wanted = ", ".join(f'#txt2img-status [data-state="{state}"]' for state in states)
        self.page.locator(wanted).wait_for()
        return self.state

    def wait_for_message(self, text: str) -> None:
        self._wait(STATUS, "(status, text) => status?.textContent.includes(text)", text)

    def wait_until_told(self, text: str) -> None:
        """Waits for a message that comes up, or was up before it was closed, since the page was loaded."""
        self.page.wait_for_function("(text) => told.some((message) => message.includes(text))", arg=text)

    def wait_for_step(self) -> int:
        """Waits until steps are shown and returns the newest one's number."""
        script = """(selector) => {
            const status = document.querySelector(selector);
            return status?.dataset.state === "running" && /^\\s*Step (\\d+) of/.exec(status.textContent)?.[1];
        }"""
        return int(self.page.wait_for_function(script, arg=STATUS).json_value())

    def draw(self, **fields: Any) -> str:
        """A picture from beginning to end."""
        self.set(**fields)
        job = self.generate()
        self.wait_for_state("done", "failed", "cancelled")
        assert self.state == "done", self.message
        return job

    @property
    def jobs(self) -> list[str]:
        """The ids of the page's jobs that this tab remembers, oldest first."""
        kept = self.page.evaluate("sessionStorage.getItem('darkroom.txt2img.jobs')")
        return [job_id for run in json.loads(kept or "[]") for job_id in run["ids"]]

    def add_job(self, **fields: Any) -> str:
        """Presses Generate while another job is under way, and returns the new one's id."""
        self.set(**fields)
        before = self.jobs
        self.find("generate").click()
        known = "JSON.parse(sessionStorage.getItem('darkroom.txt2img.jobs') ?? '[]').flatMap((run) => run.ids)"
        self.page.wait_for_function(f"(before) => {known}.some((id) => !before.includes(id))", arg=before)
        return self.jobs[-1]

    @property
    def queue(self) -> Any:
        """The panel of all jobs, which is opened where it is not."""
        panel = self.page.locator("#darkroom-queue-panel")
        if not panel.is_visible():
            self.page.locator("#darkroom-queue").click()
        return panel

    def wait_for_queue(self, *texts: str) -> None:
        """Waits until the line under Generate, and then the rows of the queue's panel, say this."""
        self.queue.wait_for()
        found = "document.querySelectorAll('#txt2img-queue p, #darkroom-queue-panel li')"
        script = f"(wanted) => wanted.every((text, k) => {found}[k]?.textContent.includes(text))"
        self.page.wait_for_function(script, arg=list(texts))

    def stop_if_busy(self) -> None:
        if not self.page.is_closed():
            for job in [*self.jobs, self.job]:
                self.server.cancel(job)

    # pictures

    @property
    def picture(self) -> Any:
        """The large picture in the gallery."""
        return self.find("gallery").get_by_label("detailed view of selected image").locator("img")

    @property
    def infotext(self) -> str:
        return self.find("infotext").locator("textarea").input_value()

    def wait_for_infotext(self, text: str) -> None:
        self._wait("#txt2img-infotext textarea", "(field, text) => field.value.includes(text)", text)

    def pixels(self, image: Any) -> list[int]:
        """The image as the browser drew it, at 32 x 32, once it is there."""
        image.wait_for()
        return image.evaluate(DRAWN)

    def size_of(self, image: Any) -> list[int]:
        """The image's own width and height in px, once it is there."""
        image.wait_for()
        return image.evaluate(SIZE)

    def picture_bytes(self) -> bytes:
        """The file behind the large picture."""
        self.picture.wait_for()
        return self.server.client.get(self.picture.get_attribute("src")).content

    def previews(self) -> list[dict[str, Any]]:
        """Every preview that was shown: its state, whether it was visible, its JPEG."""
        seen = json.loads(self.page.evaluate("JSON.stringify(window.previews)"))
        return [entry | {"jpeg": base64.b64decode(entry["src"].partition(",")[2])} for entry in seen]

    def _wait(self, selector: str, condition: str, argument: Any) -> None:
        """Asks the page again and again: what an update replaces is a new element."""
        script = f"([selector, argument]) => ({condition})(document.querySelector(selector), argument)"
        self.page.wait_for_function(script, arg=[selector, argument])
