"""The upscale page in a real browser: a picture given, one that was drawn, several, and before beside after."""

import io

import pytest
from PIL import Image as PilImages

from webui.library.library import DEMO_MODEL

from .start_pictures import Page

SHOWN = DEMO_MODEL / "preview.png"
SIDES = "() => [...document.querySelectorAll('#upscale-wipe img')].map((image) => image.naturalWidth)"


@pytest.fixture
def upscale(tab) -> Page:
    return Page(tab, "upscale")


def sizes(page: Page) -> list[tuple[int, int]]:
    """Of the files behind the gallery's pictures."""
    sources = page.page.eval_on_selector_all("#upscale-gallery img", "(images) => images.map((image) => image.src)")
    client = page.tab.server.client
    return [PilImages.open(io.BytesIO(client.get(source).content)).size for source in dict.fromkeys(sources)]


def small(folder, name="small.png", size=(40, 24)):
    path = folder / name
    PilImages.open(SHOWN).convert("RGB").resize(size).save(path)
    return path


def test_a_picture_becomes_larger_and_is_shown_beside_what_it_was(upscale, tmp_path):
    upscale.show().give(small(tmp_path))
    upscale.find("upscale-scale").locator("input[type=number]").fill("4")
    upscale.find("upscale-scale").locator("input[type=number]").blur()
    upscale.generate()
    assert sizes(upscale) == [(160, 96)]
    upscale.page.locator("#upscale-gallery .caption", has_text="160 × 96 px").wait_for()
    upscale.page.locator("#upscale-wipe .wipe").wait_for()
    upscale.page.wait_for_function(f"({SIDES})().join() === '40,160'")
    line = upscale.page.get_by_label("Before and after").locator("visible=true").first
    line.focus()
    line.press("Home")
    assert upscale.page.eval_on_selector(".wipe-stage", "(stage) => stage.style.getPropertyValue('--wipe')") == "0%"
    upscale.find("verify").click()
    upscale.page.locator("#upscale-verdict").get_by_text("identical").wait_for()
    upscale.page.get_by_role("tab", name="txt2img", exact=True).click()
    upscale.tab.reload()
    upscale.show()
    assert upscale.find("upscale-scale").locator("input[type=number]").input_value() == "4"
    upscale.wait_for_picture()


def test_a_drawn_picture_is_one_click_away_and_a_batch_is_one_job(upscale, tmp_path):
    tab = upscale.tab
    tab.draw(prompt="a red apple", steps=2, width=64, height=64)
    tab.picture.wait_for()
    tab.find("send-upscale").click()
    upscale.find("generate").wait_for()
    upscale.wait_for_picture()
    upscale.find("upscale-scale").locator("input[type=number]").fill("2")
    upscale.find("upscale-scale").locator("input[type=number]").blur()
    upscale.generate()
    assert sizes(upscale) == [(128, 128)]
    upscale.unfold("Batch", "files")
    paths = [small(tmp_path, "a.png"), small(tmp_path, "b.png", (24, 40))]
    upscale.find("files").locator("input[type=file]").set_input_files(paths)
    upscale.find("files").locator("tr").nth(1).wait_for()
    upscale.generate()
    upscale.find("gallery").locator(".thumbnails button img, button.thumbnail-item img").nth(1).wait_for()
    assert sorted(sizes(upscale)) == [(48, 80), (80, 48)]


def test_what_is_wrong_is_said_before_anything_is_queued(upscale, tmp_path):
    upscale.show()
    upscale.find("generate").click()
    refused = upscale.find("refused")
    refused.filter(has_text="Add a picture first").wait_for()
    upscale.give(small(tmp_path))
    width = upscale.find("upscale-width").locator("input")
    width.fill("9000")
    width.blur()
    upscale.find("generate").click()
    refused.filter(has_text="upscale.width must be at most 8192").wait_for()
    assert upscale.tab.server.is_idle()


def test_a_fold_on_each_page_enlarges_what_is_drawn(upscale):
    tab = upscale.tab
    tab.page.locator("#txt2img-upscale").get_by_role("button", name="Upscale").click()
    tab.find("upscale-on").locator("input").check()
    tab.draw(prompt="a red apple", steps=2, width=64, height=64)
    assert PilImages.open(io.BytesIO(tab.picture_bytes())).size == (128, 128)
    assert "Postprocess upscale by: 2" in tab.infotext
