"""A picture that is dropped or pasted anywhere is read or started from; of other files it is said where they go."""

import base64
from pathlib import Path
from typing import Any

from PIL import Image as PilImages

from webui.core.events import Image
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.workspace.outputs import save_picture

from .server import wait_for

DROP = """([bytes, name, type]) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([Uint8Array.from(atob(bytes), (one) => one.charCodeAt(0))], name, { type }));
  const target = document.querySelector("#darkroom-tabs");
  const send = (kind) => target.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
  send("dragenter");
  const isTaken = !send("dragover"); // else the browser would leave the page for the file
  const isShown = Boolean(document.querySelector(".drop-veil"));
  send("drop");
  return [isTaken, isShown, Boolean(document.querySelector(".drop-veil"))];
}"""
PASTE = """(text) => {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", text);
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
}"""


def drop(page: Any, data: bytes, name: str, kind: str = "") -> Any:
    """The question that is asked then."""
    assert page.evaluate(DROP, [base64.b64encode(data).decode(), name, kind]) == [True, True, False]
    dialog = page.locator("dialog.drop")
    dialog.wait_for()
    return dialog


def test_what_is_dropped_is_read_or_started_from(open_tab, tmp_path: Path) -> None:
    request = Request(prompt="a green hat", seed=7, steps=11, width=96, height=72)
    drawn = Image(0, PilImages.new("RGB", (96, 72), "blue"), Recipe(request, {"model": {"demo": "0" * 64}}))
    picture = save_picture(drawn, tmp_path).read_bytes()
    tab = open_tab()
    page = tab.page
    dialog = drop(page, picture, "hat.png", "image/png")
    dialog.get_by_text("Made with Darkroom").wait_for()
    dialog.get_by_role("button", name="Read its settings into txt2img").click()
    tab.wait_for_value("prompt", "a green hat")
    assert tab.values("steps", "width", "height", "seed") == {
        "steps": "11",
        "width": "96",
        "height": "72",
        "seed": "-1",
    }
    # on a page that begins with a picture its settings alone are read, unless it is to begin from this one
    page.get_by_role("tab", name="img2img").click()
    page.locator("#img2img-image").wait_for()
    drop(page, picture, "hat.png", "image/png").get_by_role("button", name="Read its settings into img2img").click()
    prompt = page.locator("#img2img-prompt textarea")
    wait_for(lambda: prompt.input_value() == "a green hat", "the prompt")
    assert page.locator("#img2img-image img").count() == 0
    page.get_by_role("tab", name="txt2img").click()
    drop(page, picture, "hat.png", "image/png").get_by_role("button", name="Start from it in img2img").click()
    page.locator("#img2img-image img").wait_for()
    tab.is_refused = True
    dialog = drop(page, b"x", "new-model.safetensors")
    dialog.get_by_text("is not a safetensors file").wait_for()
    dialog.get_by_role("button", name="Close").click()
    page.evaluate(PASTE, "a red hat\nSteps: 12, Sampler: Euler a, Seed: 5, Size: 64x64")
    page.locator("dialog.drop").get_by_label("With its seed").check()
    page.get_by_role("button", name="Read its settings into img2img").click()
    wait_for(lambda: prompt.input_value() == "a red hat", "the pasted prompt")
