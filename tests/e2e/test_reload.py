"""A reload finds what was there: the tab, its start picture, its mask. The address says which tab it is."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImages

from .start_pictures import Page, changed, picture, png, rectangle
from .tab import Tab


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """A start picture and a mask picture."""
    (tmp_path / "start.png").write_bytes(png(picture((96, 64))))
    (tmp_path / "mask.png").write_bytes(png(rectangle((0, 0, 24, 24), (96, 64))))
    return tmp_path / "start.png", tmp_path / "mask.png"


def reload(page: Page) -> Page:
    """Until the page is there again, with the job that it followed."""
    job = page.status.get_attribute("data-job")
    page.tab.leaving = True
    page.page.reload()
    page.tab.leaving = False
    page.find("generate").wait_for()
    if job:
        page.page.locator(f"#{page.name}-status [data-job='{job}']").wait_for(state="attached")
    return page


def kept(page: Page) -> str:
    """The id of the start picture that the browser keeps, or nothing."""
    return page.page.evaluate("page => sessionStorage.getItem(`darkroom.${page}.image`) ?? ''", page.name)


MASK_FILE = re.compile(r"/file=.*mask\.png")
KEPT = """([page, old]) => {
  const id = sessionStorage.getItem(`darkroom.${page}.image`);
  return id && id !== old && !sessionStorage.getItem(`darkroom.${page}.image.file`);
}"""


def wait_until_kept(page: Page, other_than: str = "") -> None:
    """The browser has the start picture a moment after it is shown."""
    page.page.wait_for_function(KEPT, arg=[page.name, other_than])


def is_to_keep(request) -> bool:
    """Whether the page asks for the mask picture to keep it, not to show it."""
    return request.resource_type == "fetch" and MASK_FILE.search(request.url) is not None


def mask_of(inpaint: Page) -> np.ndarray:
    url = inpaint.page.evaluate("darkroomPainter.mask('inpaint')")
    return np.asarray(PilImages.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA"))[..., 3] > 0


def test_start_picture_painted_mask_and_mask_picture_come_back(open_tab, server, files):
    inpaint = Page(open_tab(), "inpaint").show().give(files[0]).wait_for_painter()
    canvas = inpaint.find("mask").locator("canvas")
    canvas.press("Space")
    canvas.press("Shift+ArrowRight")
    canvas.press("Shift+ArrowRight")
    canvas.press("Control+z")
    painted = mask_of(inpaint)
    wait_until_kept(inpaint)
    for upload in server.data_dir.rglob("start.png"):
        upload.unlink()  # as after a restart: the browser has it, not the server
    inpaint.unfold("Mask", "mask_picture")
    held: list = []
    inpaint.page.route(
        MASK_FILE, lambda route: route.continue_() if held or not is_to_keep(route.request) else held.append(route)
    )
    with inpaint.page.expect_request(is_to_keep):
        inpaint.give(files[1], "mask_picture")  # the server has it, and the browser has only asked for it
    reload(inpaint).wait_for_painter()
    inpaint.page.wait_for_function("darkroomPainter.mask('inpaint')")
    assert np.array_equal(mask_of(inpaint), painted)
    inpaint.unfold("Mask", "mask_picture")
    inpaint.wait_for_picture("mask_picture")
    job = inpaint.quick(steps=1).generate()
    init = server.show(job, pictures=True)["request"]["init"]
    start, mask = (PilImages.open(io.BytesIO(base64.b64decode(init[name]))) for name in ("image", "mask"))
    assert not changed(start, picture((96, 64))).any()
    both = np.asarray(mask.convert("L")) > 0
    assert both[:24, :24].all() and both[painted].all() and both.sum() == 24 * 24 + painted.sum()


def test_what_is_taken_away_or_replaced_stays_so(open_tab, server, files, tmp_path):
    img2img = Page(open_tab(), "img2img").show().give(files[0])
    wait_until_kept(img2img)
    first, first_id = img2img.shown(), kept(img2img)
    (tmp_path / "second.png").write_bytes(png(picture((64, 80))))
    img2img.find("image").get_by_role("button", name="Remove Image").click()
    img2img.give(tmp_path / "second.png").wait_for_picture(other_than=first)
    wait_until_kept(img2img, other_than=first_id)
    reload(img2img).wait_for_picture()
    job = img2img.quick(steps=1).generate()
    start = PilImages.open(io.BytesIO(base64.b64decode(server.show(job, pictures=True)["request"]["init"]["image"])))
    assert start.size == (64, 80)
    img2img.find("image").get_by_role("button", name="Remove Image").click()
    img2img.find("image").locator("input[type=file]").first.wait_for(state="attached")
    img2img.page.wait_for_function("sessionStorage.getItem('darkroom.img2img.image') === ''")
    reload(img2img)
    assert "Add a picture first" in img2img.generate("failed")


def test_the_tab_in_front_is_in_the_address_and_back_goes_back(open_tab):
    tab: Tab = open_tab()
    tab.leaving = True

    def show(name: str) -> None:
        tab.page.get_by_role("tab", name=name, exact=True).click()

    def wait_for(name: str) -> None:
        tab.page.get_by_role("tab", name=name, exact=True, selected=True).wait_for()

    show("inpaint")
    tab.page.wait_for_url(re.compile("#inpaint$"))
    show("History")
    tab.page.wait_for_url(re.compile("#history$"))
    tab.page.reload()
    wait_for("History")
    tab.page.go_back()
    wait_for("inpaint")
    tab.page.go_back()
    wait_for("txt2img")
    tab.page.go_forward()
    wait_for("inpaint")
    tab.page.goto(f"{tab.server.url}?__theme=light#png-info")
    wait_for("PNG info")
    show("txt2img")
    tab.page.wait_for_url(re.compile("#txt2img$"))
