"""img2img and inpaint as people use them on the page. What is asserted is what comes out."""

import base64
import io

import numpy as np
import pytest
from PIL import Image as PilImages
from PIL import ImageDraw, ImageFilter

from tests.segmenter_models import write_segmenter

from .server import SMALL, wait_for
from .start_pictures import (
    BOX,
    GREEN,
    PASTE,
    TO_CLIPBOARD,
    Page,
    assert_only_inside,
    changed,
    levels,
    picture,
    png,
    queued,
    rectangle,
    text,
)


@pytest.fixture
def page(tab):
    """``page("inpaint")``: that page, in front."""
    return lambda name: Page(tab, name).show()


class TestImg2Img:
    def test_an_uploaded_picture_becomes_another_of_the_same_size(self, page, tmp_path, server):
        path = tmp_path / "start.png"
        path.write_bytes(png(picture((96, 64))))
        job = page("img2img").give(path).quick(seed=5)
        job_id, result = job.generate(), job.result()
        assert result.size == (96, 64) and changed(picture((96, 64)), result).mean() > 0.5
        request = server.show(job_id, pictures=True)["request"]
        assert (request["seed"], request["init"]["strength"], request["init"]["mask"]) == (5, 0.75, None)
        assert "Denoising strength: 0.75" in result.text["parameters"]

    def test_a_pasted_picture_becomes_the_start_picture_and_so_does_the_next(self, page):
        img2img = page("img2img")
        img2img.find("prompt").locator("textarea").focus()
        img2img.page.evaluate(PASTE, text(picture()))
        first = img2img.wait_for_picture().shown()
        img2img.page.evaluate(PASTE, text(picture((80, 64), GREEN)))
        img2img.wait_for_picture(other_than=first)
        img2img.quick().find("strength").locator("input[type=number]").fill("0")
        img2img.generate()
        assert not changed(picture((80, 64), GREEN), img2img.result()).any()

    def test_the_clipboard_button_takes_the_picture_there(self, page):
        img2img = page("img2img")
        img2img.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        img2img.page.evaluate(TO_CLIPBOARD, text(picture()))
        img2img.find("image").get_by_role("button", name="Paste from clipboard").click()
        img2img.wait_for_picture()

    def test_a_batch_of_files_shows_every_result(self, page, tmp_path, server):
        paths = []
        for k, size in enumerate([(64, 64), (72, 64), (64, 80)]):
            paths.append(tmp_path / f"{k}.png")
            paths[-1].write_bytes(png(picture(size)))
        img2img = page("img2img")
        img2img.unfold("Batch", "files")
        img2img.find("files").locator("input[type=file]").set_input_files(paths)
        img2img.find("files").locator("tr").nth(2).wait_for()
        before = len(server.pictures())
        img2img.quick(steps=1, seed=3)
        img2img.find("generate").click()
        wait_for(lambda: img2img.status.get_attribute("data-state") == "done", "the whole batch to be done")
        thumbnails = img2img.find("gallery").locator(".thumbnails button img, button.thumbnail-item img")
        wait_for(lambda: thumbnails.count() >= 3, "3 results")
        sizes = [PilImages.open(path).size for path in server.pictures()[before:]]
        assert sizes == [(64, 64), (72, 64), (64, 80)]

    def test_one_bad_file_of_a_batch_is_named_and_none_is_drawn(self, page, tmp_path, server):
        good, bad = tmp_path / "good.png", tmp_path / "bad.png"
        good.write_bytes(png(picture()))
        bad.write_text("just words")
        img2img = page("img2img")
        img2img.unfold("Batch", "files")
        img2img.find("files").locator("input[type=file]").set_input_files([good, bad])
        img2img.find("files").locator("tr").nth(1).wait_for()
        before = queued(server)
        said = img2img.generate("failed")
        assert "bad.png" in said and "is not a picture that can be read" in said
        assert queued(server) == before


class TestInpaint:
    def stroke(self, inpaint: Page, box=BOX, size=64) -> None:
        """Drags the brush along the box's middle line; the brush is as thick as the page chose it."""
        canvas = inpaint.wait_for_painter().find("mask").locator("canvas")
        canvas.scroll_into_view_if_needed()
        area = canvas.bounding_box()
        y = area["y"] + (box[1] + box[3]) / 2 / size * area["height"]
        mouse = inpaint.page.mouse
        mouse.move(area["x"] + box[0] / size * area["width"], y)
        mouse.down()
        mouse.move(area["x"] + box[2] / size * area["width"], y, steps=5)
        mouse.up()

    def painted(self, inpaint: Page) -> np.ndarray:
        """Where the painter's mask is, as the page would send it."""
        url = inpaint.page.evaluate("darkroomPainter.mask('inpaint')")
        if not url:
            return np.zeros((64, 64), bool)
        mask = PilImages.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        return np.asarray(mask.convert("RGBA"))[..., 3] > 0

    def test_what_was_painted_over_with_the_mouse_is_drawn_anew_and_nothing_else(self, page, start_file):
        inpaint = page("inpaint").give(start_file).quick(steps=3)
        self.stroke(inpaint)
        thick = int(inpaint.find("mask").get_by_label("Brush size in px").input_value())
        inpaint.generate()
        middle = (BOX[1] + BOX[3]) // 2
        box = (BOX[0], middle - thick // 2, BOX[2], middle + thick // 2)
        assert_only_inside(box, picture(), inpaint.result(), reach_px=thick + 12)

    @pytest.mark.slow
    def test_a_stroke_draws_again_while_live_is_on(self, page, start_file):
        inpaint = page("inpaint").give(start_file).quick()
        self.stroke(inpaint)
        inpaint.find("more").press("Enter")
        inpaint.page.get_by_role("menuitemcheckbox", name="Live").press("Enter")
        drawn = "({ job, state }, before) => job && job !== before && state === 'done'"
        status = "darkroom.statusOf('inpaint').dataset"
        inpaint.page.wait_for_function(f"(before) => ({drawn})({status}, before)", arg="")
        first = inpaint.status.get_attribute("data-job")
        self.stroke(inpaint, box=(8, 40, 56, 60))
        inpaint.page.wait_for_function(f"(before) => ({drawn})({status}, before)", arg=first)
        inpaint.page.get_by_role("button", name="End live").click()

    def test_brush_eraser_undo_clear_and_zoom(self, page, start_file):
        inpaint = page("inpaint").give(start_file)
        tools = inpaint.wait_for_painter().find("mask").get_by_role("toolbar", name="Mask tools")
        button = {name: tools.get_by_role("button", name=name) for name in ("Brush", "Eraser", "Undo", "Clear")}
        assert not self.painted(inpaint).any()
        self.stroke(inpaint)
        first = self.painted(inpaint)
        assert first[32, 20:44].all() and not first[:16].any() and not first[48:].any()
        tools.get_by_label("Brush size in px").fill("20")
        self.stroke(inpaint)
        assert self.painted(inpaint).sum() > 2 * first.sum(), "a larger brush paints more"
        button["Undo"].click()
        assert np.array_equal(self.painted(inpaint), first)
        button["Eraser"].click()
        assert button["Eraser"].get_attribute("aria-pressed") == "true"
        self.stroke(inpaint, (32, 16, 48, 48))
        erased = self.painted(inpaint)
        assert erased.any() and not erased[32, 34:46].any() and (first | erased).sum() == first.sum()
        button["Brush"].click()
        width = inpaint.find("mask").locator("canvas").bounding_box()["width"]
        tools.get_by_role("button", name="Zoom in").click()
        tools.get_by_text("150 %").wait_for()
        assert inpaint.find("mask").locator("canvas").bounding_box()["width"] == pytest.approx(1.5 * width, rel=0.02)
        assert np.array_equal(self.painted(inpaint), erased)
        tools.get_by_role("button", name="Zoom out").click()
        tools.get_by_text("100 %").wait_for()
        button["Clear"].click()
        assert not self.painted(inpaint).any()

    def test_a_click_masks_the_thing_and_one_with_shift_takes_it_out(self, page, tmp_path):
        shown, ball = PilImages.new("RGB", (64, 64), "skyblue"), PilImages.new("L", (64, 64))
        for image, colour in ((shown, "tomato"), (ball, 255)):
            ImageDraw.Draw(image).ellipse((16, 20, 48, 52), fill=colour)
        (tmp_path / "ball.png").write_bytes(png(shown.filter(ImageFilter.GaussianBlur(0.7))))
        inpaint = page("inpaint").give(tmp_path / "ball.png")
        tools = inpaint.wait_for_painter().find("mask").get_by_role("toolbar", name="Mask tools")
        tools.get_by_role("button", name="Pick").click()
        tools.get_by_label("How far colours may differ").fill("30")
        canvas = inpaint.find("mask").locator("canvas")
        canvas.click()
        picked, known = self.painted(inpaint), np.asarray(ball) > 0
        assert (picked & known).sum() > 0.9 * (picked | known).sum()
        canvas.click(position={"x": 4, "y": 4})
        assert self.painted(inpaint).all()
        canvas.click(modifiers=["Shift"])
        rest = self.painted(inpaint)
        assert rest.any() and not rest[picked].any()
        canvas.press("Control+z")
        canvas.press("Control+z")
        assert np.array_equal(self.painted(inpaint), picked)

    def test_a_segmenter_finds_things_which_more_clicks_refine(self, page, tmp_path, server):
        shown = PilImages.new("RGB", (64, 64), "skyblue")
        shown.paste("tomato", (8, 8, 32, 56))
        shown.paste("darkgreen", (40, 8, 56, 24))
        (tmp_path / "things.png").write_bytes(png(shown))
        inpaint = page("inpaint").give(tmp_path / "things.png")
        mask = inpaint.wait_for_painter().find("mask")
        tools, note = mask.get_by_role("toolbar", name="Mask tools"), mask.get_by_role("status")
        canvas, choice = mask.locator("canvas"), tools.get_by_label("Find by")
        side = canvas.bounding_box()["width"]

        def click(x, y, **more):
            canvas.click(position={"x": x * side / 64, "y": y * side / 64}, **more)
            canvas.and_(mask.locator("[aria-busy]")).wait_for(state="detached")

        tools.get_by_role("button", name="Pick").click()
        choice.get_by_text("whole things").wait_for(state="attached")
        choice.select_option("whole things")
        note.get_by_text("The segmenter needs Segment Anything as two ONNX files in models/annotators").wait_for()
        assert choice.input_value() == "colour"
        files = write_segmenter(server.data_dir / "models" / "annotators")
        try:
            server.client.get("/api/controls", params={"reload": True})
            tools.get_by_role("button", name="Pick").click()
            inpaint.page.wait_for_function("(choice) => choice.value === 'tiny_sam'", arg=choice.element_handle())
            click(20, 30)
            note.get_by_text("N begins another thing.").wait_for()
            red = self.painted(inpaint)
            assert red[12:52, 12:28].all() and not red[:, 36:].any()
            click(48, 16)
            both = self.painted(inpaint)
            assert both[red].all() and both[12:20, 44:52].all() and mask.locator(".painter-point").count() == 2
            click(48, 16, modifiers=["Shift"])
            assert np.array_equal(self.painted(inpaint), red)
            canvas.press("Control+z")
            assert np.array_equal(self.painted(inpaint), both)
            canvas.press("n")
            tools.get_by_role("button", name="Take out").click()
            click(48, 16)  # a thing of its own
            assert np.array_equal(self.painted(inpaint), red)
            inpaint.page.get_by_role("tab", name="txt2img", exact=True).click()
            inpaint.tab.reload()
            inpaint.show().wait_for_painter()
            inpaint.page.wait_for_function("darkroomPainter.mask('inpaint')")
            assert np.array_equal(self.painted(inpaint), red)
        finally:
            for path in files.values():
                path.unlink()
            server.client.get("/api/controls", params={"reload": True})

    def test_the_mask_can_be_painted_by_keyboard_alone(self, page, start_file):
        inpaint = page("inpaint").give(start_file).wait_for_painter()
        canvas = inpaint.find("mask").locator("canvas")
        assert "Arrow keys" in canvas.get_attribute("aria-label")
        canvas.focus()
        canvas.press("Space")
        dot = self.painted(inpaint)
        assert dot[32, 32] and dot.sum() < 200
        for _ in range(4):
            canvas.press("Shift+ArrowRight")
        line = self.painted(inpaint)
        assert line[32, 32:36].all() and (dot | line).sum() == line.sum() > dot.sum()
        canvas.press("e")
        canvas.press("Space")
        assert self.painted(inpaint).sum() < line.sum()
        canvas.press("Control+z")
        assert np.array_equal(self.painted(inpaint), line)
        canvas.press("Delete")
        assert not self.painted(inpaint).any()

    def test_another_picture_starts_with_an_empty_mask(self, page, start_file, tmp_path):
        inpaint = page("inpaint").give(start_file)
        self.stroke(inpaint)
        assert self.painted(inpaint).any()
        other = tmp_path / "other.png"
        other.write_bytes(png(picture((128, 64), GREEN)))
        before = inpaint.shown()
        inpaint.find("image").locator("input[type=file]").first.set_input_files(other)
        inpaint.wait_for_picture(other_than=before)
        inpaint.find("mask").locator("canvas[width='128']").wait_for()
        assert not self.painted(inpaint).any()

    def test_rectangles_alone_make_a_mask(self, page, start_file, server):
        inpaint = page("inpaint").give(start_file).quick(steps=3)
        inpaint.unfold("Mask", "rectangles")
        inpaint.find("rectangles").locator("textarea").fill("16, 16, 32, 32")
        job = inpaint.generate()
        assert_only_inside(BOX, picture(), inpaint.result())
        mask = PilImages.open(io.BytesIO(base64.b64decode(server.show(job, pictures=True)["request"]["init"]["mask"])))
        assert np.array_equal(np.asarray(mask), np.asarray(rectangle()))

    def test_an_uploaded_mask_picture_is_used(self, page, start_file, tmp_path):
        mask = tmp_path / "mask.png"
        mask.write_bytes(png(rectangle()))
        inpaint = page("inpaint").give(start_file).quick(steps=3)
        inpaint.unfold("Mask", "mask_picture")
        inpaint.give(mask, "mask_picture")
        inpaint.generate()
        assert_only_inside(BOX, picture(), inpaint.result())

    def test_a_side_is_added_by_outpainting(self, page, start_file):
        inpaint = page("inpaint").give(start_file).quick()
        inpaint.unfold("Outpaint: extend the picture", "outpaint_right")
        side = inpaint.find("outpaint_right").locator("input")
        side.fill("32")
        side.blur()
        inpaint.generate()
        result = inpaint.result()
        assert result.size == (96, 64)
        assert np.array_equal(levels(result)[:, :40], levels(picture())[:, :40])


class TestWhatIsWrong:
    """Clear words in the status, and nothing is queued."""

    def test_no_picture(self, page, server):
        before = queued(server)
        assert page("inpaint").generate("failed") == "Add a picture first: upload, paste or drop one"
        assert queued(server) == before

    def test_words_in_a_file_named_png(self, page, server, tmp_path):
        words = tmp_path / "words.png"
        words.write_text("just words")
        bench = page("img2img")
        before = queued(server)
        bench.find("image").locator("input[type=file]").first.set_input_files(words)
        bench.find("image").locator("img").first.wait_for(state="attached")
        said = bench.generate("failed")
        assert (
            said == "image 'words.png' is not a picture that can be read (one of PNG, JPEG, WEBP, AVIF, GIF, BMP, TIFF)"
        )
        assert queued(server) == before

    def test_no_mask_then_a_mask_of_another_size(self, page, server, tmp_path, start_file):
        inpaint = page("inpaint").give(start_file)
        before = queued(server)
        assert inpaint.generate("failed").startswith("Nothing is masked yet")
        mask = tmp_path / "mask.png"
        mask.write_bytes(png(rectangle(size=(32, 48))))
        inpaint.unfold("Mask", "mask_picture")
        inpaint.give(mask, "mask_picture")
        inpaint.find("generate").click()
        inpaint.status.get_by_text("the mask is 32 x 48 px, but the picture is 64 x 64 px").wait_for()
        mask.write_bytes(png(PilImages.new("L", (64, 64))))
        before_mask = inpaint.shown("mask_picture")
        inpaint.find("mask_picture").locator("input[type=file]").first.set_input_files(mask)
        inpaint.wait_for_picture("mask_picture", other_than=before_mask)
        inpaint.find("generate").click()
        inpaint.status.get_by_text("The mask is empty, so nothing would be drawn").wait_for()
        inpaint.find("rectangles").locator("textarea").fill("1, 2, 3")
        inpaint.find("generate").click()
        inpaint.status.get_by_text("rectangles: rectangle 1 must be four whole numbers").wait_for()
        assert queued(server) == before


class TestSending:
    def test_from_the_gallery_to_img2img_then_to_inpaint_and_back_with_all_settings(self, tab, server):
        tab.draw(prompt="a red apple", seed=21, **SMALL)
        drawn = tab.picture_bytes()
        tab.find("send-img2img").click()
        img2img = Page(tab, "img2img")
        img2img.find("generate").wait_for()
        img2img.wait_for_picture().quick(seed=8, prompt="a house").find("strength").locator("input[type=number]").fill(
            "0"
        )
        img2img.generate()
        kept = img2img.result()
        assert not changed(PilImages.open(io.BytesIO(drawn)), kept).any(), "it is the very picture"
        img2img.find("send-inpaint").click()
        inpaint = Page(tab, "inpaint")
        inpaint.find("generate").wait_for()
        inpaint.wait_for_picture().wait_for_painter()
        sent = server.client.get(inpaint.shown()).content
        assert not changed(kept, PilImages.open(io.BytesIO(sent))).any()
        img2img.show().quick(seed=99, steps=7, prompt="something else")
        img2img.find("strength").locator("input[type=number]").fill("0.4")
        img2img.find("reuse-seed").click()
        tab._wait("#img2img-steps input[type=number]", "(field, value) => field.value === value", "2")
        assert img2img.find("seed").locator("input").input_value() == "8"
        assert img2img.find("strength").locator("input[type=number]").input_value() == "0"
        assert img2img.find("prompt").locator("textarea").input_value() == "a house"

    def test_the_picture_that_is_chosen_is_the_one_that_is_sent(self, tab, server):
        tab.draw(prompt="a red apple", seed=30, count=2, **SMALL)
        tab.picture.wait_for()
        first = tab.picture.get_attribute("src")
        tab.find("gallery").locator(".thumbnails button").nth(1).click()
        tab.wait_for_infotext("Seed: 31")
        second = tab.picture.get_attribute("src")
        assert second != first
        tab.find("send-img2img").click()
        img2img = Page(tab, "img2img")
        img2img.find("generate").wait_for()
        img2img.wait_for_picture()
        sent, chosen = (PilImages.open(io.BytesIO(server.client.get(url).content)) for url in (img2img.shown(), second))
        assert not changed(sent, chosen).any()
        # The next job has fewer pictures: its first is chosen again.
        tab.page.get_by_role("tab", name="txt2img", exact=True).click()
        tab.draw(seed=40, count=1)
        newest = tab.picture.get_attribute("src")
        before = img2img.shown()
        tab.find("send-img2img").click()
        img2img.wait_for_picture(other_than=before)
        sent, chosen = (PilImages.open(io.BytesIO(server.client.get(url).content)) for url in (img2img.shown(), newest))
        assert not changed(sent, chosen).any()
