"""The owner adds models on the page: a file that is dropped is in the lists, and drawn with, a moment later."""

import shutil
from pathlib import Path

from webui.library.library import DEMO_MODEL

from .test_drop import drop

UNET = DEMO_MODEL / "unet" / "diffusion_pytorch_model.safetensors"
LORA = DEMO_MODEL / "loras" / "night.safetensors"


def test_what_is_dropped_or_named_is_added_and_used(open_tab, server, tmp_path: Path) -> None:
    added = server.data_dir / "models"
    tab = open_tab()
    tab.is_refused, page = True, tab.page
    dialog = drop(page, LORA.read_bytes(), "added.safetensors")
    dialog.locator("li", has_text="added").get_by_text("a LoRA").wait_for()
    choice = dialog.locator("input[type=file]")
    shutil.copy(UNET, tmp_path / "added-small.safetensors")
    choice.set_input_files(tmp_path / "added-small.safetensors")
    row = dialog.locator("li", has_text="added-small")
    row.get_by_text("It is here.").wait_for()
    row.get_by_text("an SD 1.x model").wait_for()
    row.get_by_text(str(added / "Stable-diffusion" / "added-small.safetensors")).wait_for()
    # a name that is taken can be changed there; a wrong file is refused with the reason
    files = {"added.safetensors": LORA.read_bytes(), "login.safetensors": b"<html>log in</html>" * 99}
    choice.set_input_files([{"name": name, "mimeType": "", "buffer": data} for name, data in files.items()])
    dialog.get_by_text("it is a web page; the download may need a login").wait_for()
    dialog.locator("input[aria-label='Another name']:visible").fill("added-too.safetensors")
    dialog.get_by_role("button", name="Add under this name").click()
    dialog.locator("li", has_text="added-too").get_by_text("It is here.").wait_for()
    # a path; addresses are off on this server, and say so
    (tmp_path / "added-night.safetensors").write_bytes(LORA.read_bytes())
    source = dialog.get_by_label("An https address, or the path")
    source.fill("https://x.org/a.safetensors")
    source.press("Enter")
    dialog.locator(".drop-trouble", has_text="Nothing is fetched").wait_for()
    source.fill(str(tmp_path / "added-night.safetensors"))
    dialog.get_by_role("button", name="Add", exact=True).click()
    dialog.locator("li", has_text="added-night").get_by_role("button", name="Use it").click()
    assert page.locator("dialog[open]").count() == 0
    page.locator(".chips[data-page=txt2img]").get_by_text("added-night").wait_for()
    page.locator(".prompt-words .add-model-open").first.click()
    row.get_by_role("button", name="Use it").click()
    page.wait_for_function("document.querySelector('#txt2img-model input').value === 'added-small'")
    shutil.rmtree(added, ignore_errors=True)
