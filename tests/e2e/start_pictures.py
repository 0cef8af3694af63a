"""Start pictures and masks for tests, and the img2img and inpaint pages."""

import base64
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image as PilImages

from .tab import Tab

BLUE, GREEN = (40, 70, 200), (30, 160, 60)
BOX = (16, 16, 48, 48)
PASTE = """(data) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const clipboardData = new DataTransfer();
  clipboardData.items.add(new File([bytes], "image.png", { type: "image/png" }));
  document.activeElement.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
}"""
TO_CLIPBOARD = """async (data) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) })]);
}"""


def picture(size=(64, 64), colour=BLUE) -> PilImages.Image:
    """One colour with a speckle, so that a pixel that moved or changed shows."""
    levels = np.full((size[1], size[0], 3), colour, np.uint8)
    levels += np.random.default_rng(0).integers(0, 24, levels.shape, np.uint8)
    return PilImages.fromarray(levels)


def rectangle(box=BOX, size=(64, 64)) -> PilImages.Image:
    mask = PilImages.new("L", size)
    mask.paste(255, box)
    return mask


def png(image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def text(image) -> str:
    return base64.b64encode(png(image)).decode()


def levels(image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(np.int16)


def changed(before, after) -> np.ndarray:
    assert before.size == after.size
    return abs(levels(before) - levels(after)).max(axis=2) > 0


def assert_only_inside(box, before, after, reach_px=16) -> None:
    """Something changed in the box, nothing farther from it than the blur reaches."""
    left, top, right, bottom = box
    where = changed(before, after)
    assert where[top:bottom, left:right].mean() > 0.5
    rows, columns = np.nonzero(where)
    assert left - reach_px <= columns.min() and columns.max() < right + reach_px
    assert top - reach_px <= rows.min() and rows.max() < bottom + reach_px


class Page:
    """The img2img or inpaint page of a tab."""

    def __init__(self, tab: Tab, name: str) -> None:
        self.tab, self.name, self.page = tab, name, tab.page

    def show(self) -> "Page":
        self.page.get_by_role("tab", name=self.name, exact=True).click()
        self.find("generate").wait_for()
        self.tab.let_fields_settle()
        return self

    def find(self, name: str):
        return self.page.locator(f"#{self.name}-{name}")

    def unfold(self, title: str, inside: str) -> None:
        """Opens a fold, if it is not open, until what is in it shows."""
        if not self.find(inside).is_visible():
            self.page.locator(f"[id^={self.name}-]").get_by_role(
                "button", name=re.compile(rf"^{re.escape(title)}\b")
            ).click()
            self.find(inside).wait_for()
            self.tab.let_fields_settle()

    def give(self, file: Path, field: str = "image") -> "Page":
        self.find(field).locator("input[type=file]").first.set_input_files(file)
        return self.wait_for_picture(field)

    def wait_for_picture(self, field: str = "image", other_than: str = "") -> "Page":
        self.page.wait_for_function(
            "([id, old]) => { const image = document.querySelector(`#${id} img`);"
            " return image?.complete && image.naturalWidth && image.src !== old; }",
            arg=[f"{self.name}-{field}", other_than],
        )
        return self

    def shown(self, field: str = "image") -> str:
        return self.find(field).locator("img").first.get_attribute("src")

    def wait_for_painter(self) -> "Page":
        self.find("mask").locator(".painter:not(.empty) canvas:not([width='1'])").wait_for()
        return self

    def quick(self, **values) -> "Page":
        """Few steps, and what else is set."""
        self.find("steps").wait_for()
        for name, value in ({"steps": 2} | values).items():
            field = self.find(name).locator("input[type=number], textarea").first
            field.fill(str(value))
            field.blur()
        return self

    @property
    def status(self):
        return self.page.locator(f"#{self.name}-status [data-state]")

    def generate(self, state: str = "done") -> str:
        """Presses Generate and returns the job that ended so, or the words where it failed."""
        before = self.status.get_attribute("data-job")
        self.find("generate").click()
        self.page.wait_for_function(
            "([id, before]) => { const at = document.querySelector(`#${id} [data-state]`)?.dataset;"
            " return at?.job ? at.job !== before && ['done', 'failed', 'cancelled'].includes(at.state)"
            " : at?.state === 'failed'; }",
            arg=[f"{self.name}-status", before],
        )
        assert self.status.get_attribute("data-state") == state, self.status.inner_text()
        if state == "failed":
            return self.status.inner_text()
        return self.status.get_attribute("data-job")

    def result(self) -> PilImages.Image:
        """The large picture in the gallery, as the server hands it out."""
        image = self.find("gallery").get_by_label("detailed view of selected image").locator("img")
        image.wait_for()
        return PilImages.open(io.BytesIO(self.tab.server.client.get(image.get_attribute("src")).content))


def queued(server) -> int:
    """How many jobs were taken so far, by what they left behind."""
    health = server.health()
    return len(server.pictures()) + health["waiting"] + bool(health["running"])
