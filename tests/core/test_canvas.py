"""Start pictures as values, and the canvas they are brought to: the mask goes with the picture, the rest stays."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImages

from webui.core import images
from webui.core.canvas import drawn_size, fitted, make_canvas
from webui.core.errors import RequestError
from webui.core.groups.init import Init
from webui.core.request import Request

BLUE, GREEN = (30, 60, 200), (0, 255, 0)


def noise(width=64, height=64, seed=0, channels=3):
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return PilImages.fromarray(levels if channels > 1 else levels[..., 0])


def rectangle(box, size=(64, 64), level=255):
    mask = PilImages.new("L", size)
    mask.paste(level, box)
    return mask


def pixels(image) -> np.ndarray:
    return np.asarray(image).astype(np.int16)


def refusal(**init) -> RequestError:
    with pytest.raises(RequestError) as caught:
        Request.parse({"init": {"image": noise()} | init})
    return caught.value


class TestInit:
    def test_a_mask_of_another_size_is_refused_with_both_sizes(self):
        error = refusal(image=noise(128, 96), mask=rectangle((0, 0, 9, 9), (64, 48)))
        assert str(error) == "the mask is 64 x 48 px, but the picture is 128 x 96 px" and error.field == "init"

    def test_a_mask_belongs_to_the_picture_as_it_is_seen(self):
        lying = noise(96, 64)
        lying.getexif()[0x0112] = 6
        init = Init(image=lying, mask=rectangle((0, 0, 8, 8), (64, 96)))
        assert init.image.size == init.mask.size == (64, 96)
        assert "the mask is 96 x 64 px, but the picture is 64 x 96 px" in str(refusal(image=lying, mask=noise(96, 64)))

    @pytest.mark.parametrize("strength", [-0.01, 1.01, 2, "nan", "inf", "much", None, [0.5]])
    def test_a_strength_out_of_range_is_refused_with_the_value(self, strength):
        error = refusal(strength=strength)
        assert str(error).startswith("init.strength must be ") and "\n" not in str(error)
        assert ("nothing" if strength is None else str(strength)[:4]) in str(error)

    @pytest.mark.parametrize("strength", [0, 0.0, 1, "0.5"])
    def test_the_ends_of_the_range_are_in_it(self, strength):
        assert Request.parse({"init": {"image": noise(), "strength": strength}}).init.strength == float(strength)

    @pytest.mark.parametrize("field", ["strength", "mask_blur", "padding"])
    @pytest.mark.parametrize("value", [True, False])
    def test_true_and_false_are_no_numbers(self, field, value):
        assert str(refusal(**{field: value})) == f"init.{field} must be a number, not {value}"

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("not base64!", "is not base64 text of a picture"),
            ("AAAA", "is not a picture that can be read"),
            ("", "is not a picture that can be read"),
            (b"\x89PNG\r\n\x1a\n", "is not a picture that can be read"),
            (17, "is not a picture"),
            (None, "is not a picture"),
            ({}, "is not a picture"),
        ],
    )
    @pytest.mark.parametrize("field", ["image", "mask"])
    def test_what_is_no_picture_is_refused_by_its_name(self, field, value, reason):
        if field == "mask" and value is None:
            assert Request.parse({"init": {"image": noise(), "mask": None}}).init.mask is None
            return
        assert str(refusal(**{field: value})).startswith(f"init.{field} {reason}")

    def test_a_picture_that_is_missing_too_small_or_too_large_is_refused(self):
        with pytest.raises(RequestError, match=r"init\.image is missing"):
            Request.parse({"init": {}})
        assert str(refusal(image=noise(7, 64))) == "init.image is 7 x 64 px; each side must be at least 8 px"
        assert "30 megapixels; the limit is 24" in str(refusal(image=PilImages.new("L", (6000, 5000))))

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("resize", "stretch"),
            ("mask_fill", "paint"),
            ("mask_blur", 65),
            ("mask_blur", -1),
            ("padding", 513),
            ("background", "white"),
            ("background", "#12345"),
            ("outpaint", (0, 0, 0, 12)),
            ("outpaint", (0, 0, 0, -8)),
            ("outpaint", (0, 0, 0, 1032)),
            ("outpaint", (8, 8)),
            ("only_masked", "perhaps"),
            ("unknown", 1),
        ],
    )
    def test_a_value_out_of_range_is_refused_by_its_field(self, field, value):
        assert str(refusal(**{field: value})).startswith(f"init.{field}")

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I", "F"])
    def test_a_request_with_a_start_picture_survives_json(self, mode):
        mask = rectangle((8, 8, 40, 40), level=130)
        init = Init(image=noise().convert("RGB").convert(mode), mask=mask, strength=0.6, outpaint=(8, 0, 16, 0))
        request = Request(prompt="a cat", seed=5, init=init)
        text = request.model_dump_json()
        back = Request.parse(json.loads(text))
        assert back == request and hash(back) == hash(request)
        for one, other in ((init.image, back.init.image), (init.mask, back.init.mask)):
            assert np.array_equal(pixels(images.to_rgb(one)), pixels(images.to_rgb(other)))

    def test_a_turned_picture_survives_json_upright(self):
        lying = noise(96, 64)
        lying.getexif()[0x0112] = 8
        init = Init(image=lying)
        back = Init.model_validate_json(init.model_dump_json())
        assert back == init and back.image.size == (64, 96)

    def test_a_picture_from_a_file_is_equal_to_the_one_it_was_saved_from(self, tmp_path):
        made = noise()
        made.save(tmp_path / "a.png")
        init = Init(image=images.open_image(tmp_path / "a.png"))
        assert init == Init(image=made)
        assert init != Init(image=noise(seed=1)) and init != Init(image=made, strength=0.1) and init != "init"

    OTHERS = {
        "image": lambda: noise(seed=1),
        "mask": lambda: rectangle((8, 8, 32, 33)),
        "resize": lambda: "crop and resize",
        "background": lambda: "#000000",
        "mask_blur": lambda: 5,
        "softness": lambda: 0.5,
        "mask_fill": lambda: "noise",
        "invert_mask": lambda: True,
        "only_masked": lambda: True,
        "padding": lambda: 31,
        "outpaint": lambda: (0, 8, 0, 0),
    }

    def test_the_fingerprint_changes_with_everything_but_the_strength(self):
        assert set(self.OTHERS) | {"strength"} == set(Init.model_fields)
        own = {"image": noise(), "mask": rectangle((8, 8, 32, 32))}
        prints = {Init(**own | {field: value()}).fingerprint for field, value in self.OTHERS.items()}
        prints |= {Init(**own).fingerprint, Init(image=noise()).fingerprint}
        assert len(prints) == len(self.OTHERS) + 2
        assert Init(**own, strength=0.1).fingerprint == Init(**own, strength=0.9).fingerprint

    def test_the_fingerprint_is_of_what_is_seen_not_of_the_bytes_in_the_file(self):
        def with_palette(*colours):
            image = PilImages.new("P", (64, 64))
            image.putpalette([level for colour in colours for level in colour])
            image.putdata([k % 2 for k in range(64 * 64)])
            return image

        one, other = with_palette(BLUE, GREEN), with_palette(GREEN, BLUE)
        assert one.tobytes() == other.tobytes()
        assert Init(image=one).fingerprint != Init(image=other).fingerprint
        turned = noise()
        turned.getexif()[0x0112] = 3
        assert Init(image=turned).fingerprint != Init(image=noise()).fingerprint
        assert Init(image=one).fingerprint == Init(image=one.convert("RGB")).fingerprint

    @pytest.mark.parametrize(
        ("mask", "options", "nothing"),
        [
            (None, {}, False),
            (rectangle((0, 0, 1, 1), level=17), {}, False),
            (rectangle((0, 0, 64, 64), level=16), {}, True),
            (rectangle((0, 0, 64, 64), level=239), {"invert_mask": True}, True),
            (rectangle((0, 0, 64, 64), level=238), {"invert_mask": True}, False),
            (rectangle((0, 0, 64, 64), level=0), {}, True),
            (rectangle((0, 0, 64, 64), level=0), {"invert_mask": True}, False),
            (rectangle((0, 0, 64, 64)), {"invert_mask": True}, True),
            (rectangle((0, 0, 64, 64), level=0), {"outpaint": (8, 0, 0, 0)}, False),
        ],
    )
    def test_a_mask_that_leaves_nothing_to_draw_is_known(self, mask, options, nothing):
        assert Init(image=noise(), mask=mask, **options).nothing_masked is nothing

    def test_the_task_follows_from_what_is_given(self):
        assert Request().task == "txt2img"
        assert Request(init=Init(image=noise())).task == "img2img"
        assert Request(init=Init(image=noise(), mask=rectangle((0, 0, 8, 8)))).task == "inpaint"
        assert Request(init=Init(image=noise(), outpaint=(8, 0, 0, 0))).task == "inpaint"


class TestDrawnSize:
    def test_it_is_the_picture_s_own_to_the_nearest_8_unless_one_is_asked_for(self):
        init = Init(image=noise(101, 150))
        assert drawn_size(init, None, None, 512) == (104, 152)
        assert drawn_size(init, 256, None, 512) == (256, 152)
        assert drawn_size(init, 256, 64, 512) == (256, 64)

    def test_outpainting_adds_its_sides(self):
        assert drawn_size(Init(image=noise(), outpaint=(8, 16, 24, 32)), None, None, 512) == (96, 112)

    def test_only_the_masked_part_is_drawn_at_the_model_s_own_size(self):
        init = Init(image=noise(), mask=rectangle((0, 0, 8, 8)), only_masked=True)
        assert drawn_size(init, None, None, 512) == (512, 512)
        assert drawn_size(init, 64, 128, 512) == (64, 128)

    def test_only_masked_without_a_mask_means_the_whole_picture(self):
        assert drawn_size(Init(image=noise(), only_masked=True), None, None, 512) == (64, 64)

    @pytest.mark.parametrize(("width", "height"), [(2100, 64), (64, 3000), (40, 640)])
    def test_a_picture_that_is_too_large_or_small_to_draw_is_refused_with_its_size(self, width, height):
        init = Init(image=PilImages.new("L", (width, height)))
        with pytest.raises(RequestError, match=f"the picture is {width} x {height} px.*64 to 2048") as caught:
            drawn_size(init, None, None, 512)
        assert caught.value.field == "width"
        assert drawn_size(init, 128, 128, 512) == (128, 128)


@pytest.fixture
def counted(monkeypatch):
    """How often pixels were copied or resampled so far, by method."""
    calls: list[str] = []
    for name in ("resize", "convert", "copy", "crop", "tobytes"):
        method = getattr(PilImages.Image, name)

        def count(image, *args, name=name, method=method, **kwargs):
            calls.append(name)
            return method(image, *args, **kwargs)

        monkeypatch.setattr(PilImages.Image, name, count)
    return calls


class TestCanvas:
    @pytest.mark.parametrize("resize", ["just resize", "crop and resize", "resize and fill", "latent resize"])
    def test_a_picture_of_the_right_size_is_used_as_it_is_the_same_object(self, counted, resize):
        image = noise(96, 64)
        canvas = make_canvas(Init(image=image, resize=resize), (96, 64))
        assert canvas.image is image and canvas.unchanged is image and canvas.mask is None
        assert counted == []

    def test_it_is_used_as_it_is_beside_a_mask_too(self):
        image, mask = noise(), rectangle((8, 8, 32, 32))
        canvas = make_canvas(Init(image=image, mask=mask, mask_blur=0), (64, 64))
        assert canvas.image is image and canvas.mask is mask

    def test_another_size_is_resampled_once(self, counted):
        make_canvas(Init(image=noise(100, 75)), (104, 72))
        assert counted == ["resize"]

    def test_latent_resize_encodes_the_picture_at_its_own_size(self):
        canvas = make_canvas(Init(image=noise(101, 64), resize="latent resize"), (128, 128))
        assert canvas.image.size == (104, 64) and canvas.latent_size == (128, 128)
        assert canvas.unchanged.size == (128, 128)

    @given(
        box=st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 24), st.integers(1, 24)),
        size=st.sampled_from([(64, 64), (128, 128), (128, 64)]),
        mask_blur=st.integers(0, 12),
        padding=st.integers(0, 40),
        mask_fill=st.sampled_from(["fill", "original"]),
        invert_mask=st.booleans(),
        only_masked=st.booleans(),
        outpaint=st.sampled_from([(0, 0, 0, 0), (8, 0, 0, 16)]),
    )
    def test_what_lies_outside_the_blurred_mask_has_the_pixels_of_the_input(
        self, box, size, mask_blur, padding, mask_fill, invert_mask, only_masked, outpaint
    ):
        image = noise(64, 64)
        mask = rectangle((box[0], box[1], box[0] + box[2], box[1] + box[3]), level=200)
        init = Init(
            image=image,
            mask=mask,
            mask_blur=mask_blur,
            padding=padding,
            mask_fill=mask_fill,
            invert_mask=invert_mask,
            only_masked=only_masked,
            outpaint=outpaint,
        )
        whole = (64 + outpaint[0] + outpaint[2], 64 + outpaint[1] + outpaint[3])
        canvas = make_canvas(init, size if only_masked else whole)
        assert canvas.image.size == canvas.mask.size == canvas.size
        drawn = PilImages.new("RGB", canvas.size, GREEN)
        result = canvas.finish(drawn)
        assert result.size == whole
        seen = images.extension_mask(
            mask.point(lambda v: 255 - v) if invert_mask else mask, (64, 64), outpaint, mask_blur
        )
        seen = seen if any(outpaint) else (mask.point(lambda v: 255 - v) if invert_mask else mask)
        opacity = pixels(images.blur(images.support(seen), mask_blur))
        before = pixels(images.extend(image, outpaint)) if any(outpaint) else pixels(image)
        after = pixels(result)
        assert np.array_equal(after[opacity == 0], before[opacity == 0])
        light = pixels(images.blur(seen.point(lambda level: 255 if level > 127 else 0), mask_blur))
        assert (after[light == 255] == GREEN).all()

    def test_outside_means_beyond_the_blur_s_reach(self):
        canvas = make_canvas(Init(image=noise(128, 128), mask=rectangle((56, 56, 72, 72), (128, 128))), (128, 128))
        changed = pixels(canvas.finish(PilImages.new("RGB", (128, 128), GREEN))) != pixels(canvas.unchanged)
        rows, columns = np.nonzero(changed.any(axis=2))
        assert 56 - 16 < rows.min() < 56 and 56 - 16 < columns.min() < 56, "the edge is soft, and near"

    def test_the_mask_goes_with_the_picture_through_every_resize(self):
        image = PilImages.new("RGB", (128, 64), BLUE)
        image.paste(GREEN, (40, 16, 88, 48))
        mask = rectangle((40, 16, 88, 48), (128, 64))
        for resize in ("just resize", "crop and resize", "resize and fill", "latent resize"):
            canvas = make_canvas(Init(image=image, mask=mask, resize=resize, mask_blur=0), (64, 64))
            green, masked = pixels(canvas.unchanged)[..., 1] > 150, pixels(canvas.mask) > 127
            assert masked.any() and (green == masked).mean() > 0.97, resize

    def test_only_masked_shows_the_region_enlarged(self):
        image = PilImages.new("RGB", (128, 128), BLUE)
        image.paste(GREEN, (48, 48, 80, 80))
        init = Init(image=image, mask=rectangle((48, 48, 80, 80), (128, 128)), only_masked=True, padding=0, mask_blur=0)
        canvas = make_canvas(init, (64, 64))
        assert (pixels(canvas.image)[4:-4, 4:-4] == GREEN).all()
        assert canvas.unchanged is image and pixels(canvas.mask).min() == 255

    def test_only_masked_keeps_the_odd_size_of_its_picture(self):
        image = noise(101, 77)
        init = Init(image=image, mask=rectangle((30, 30, 60, 60), (101, 77)), only_masked=True)
        assert make_canvas(init, (64, 64)).finish(PilImages.new("RGB", (64, 64))).size == (101, 77)

    @pytest.mark.parametrize("only_masked", [True, False])
    def test_where_nothing_is_masked_the_picture_itself_comes_back(self, only_masked):
        for size in ((64, 64), (101, 77)) if only_masked else ((64, 64),):
            image = noise(*size)
            init = Init(image=image, mask=rectangle((0, 0, 8, 8), size, level=0), only_masked=only_masked)
            canvas = make_canvas(init, (64, 64))
            assert canvas.nothing_masked and canvas.unchanged is image

    @pytest.mark.parametrize("level", [1, 8, 16])
    @pytest.mark.parametrize(
        "options",
        [{"mask_blur": 0}, {"mask_blur": 8}, {"only_masked": True}, {"invert_mask": True}, {"mask_fill": "fill"}],
        ids=str,
    )
    def test_what_is_nearly_black_in_a_mask_is_black(self, level, options):
        """As scans, JPEG and video have it; one such pixel must not widen the region either."""
        clean = rectangle((16, 16, 32, 32))
        clouded = clean.copy()
        clouded.paste(level, (0, 0, 64, 8))
        clouded.paste(level, (60, 60, 61, 61))
        if options.get("invert_mask"):
            clean, clouded = (mask.point(lambda level: 255 - level) for mask in (clean, clouded))
        drawn = PilImages.new("RGB", (64, 64), GREEN)
        one, other = (make_canvas(Init(image=noise(), mask=mask, **options), (64, 64)) for mask in (clean, clouded))
        assert one.mask == other.mask and one.image == other.image and not other.greys
        assert one.finish(drawn) == other.finish(drawn)

    @pytest.mark.parametrize("only_masked", [True, False])
    def test_a_grey_is_pasted_by_twice_its_level(self, only_masked):
        black, white = (PilImages.new("RGB", (64, 64), level) for level in ("black", "white"))
        for level, shown in ((16, 0), (17, 34), (64, 128), (127, 254), (128, 255), (255, 255)):
            init = Init(image=black, mask=PilImages.new("L", (64, 64), level), mask_blur=0, only_masked=only_masked)
            assert make_canvas(init, (64, 64)).finish(white).getextrema() == ((shown, shown),) * 3

    def test_a_white_part_is_shown_as_far_as_its_scaled_edge_reaches(self):
        init = Init(image=noise(101, 77), mask=rectangle((30, 30, 60, 60), (101, 77)), mask_blur=0)
        canvas = make_canvas(init, (104, 80))
        changed = pixels(canvas.finish(PilImages.new("RGB", (104, 80), GREEN))) != pixels(canvas.unchanged)
        assert np.array_equal(changed.any(axis=2), pixels(canvas.mask) > 0) and not canvas.greys

    def test_greys_are_those_of_the_mask_not_of_its_soft_edge(self):
        for level, greys in ((255, False), (16, False), (17, True), (254, True)):
            for only_masked in (False, True):
                init = Init(image=noise(), mask=rectangle((8, 8, 40, 40), level=level), only_masked=only_masked)
                assert make_canvas(init, (96, 96)).greys is (greys and level != 16), level

    def test_outpainting_shows_the_old_picture_in_its_place(self):
        image = noise()
        canvas = make_canvas(Init(image=image, outpaint=(16, 8, 0, 24), mask_blur=0), (80, 96))
        assert np.array_equal(pixels(canvas.image)[8:72, 16:80], pixels(image))
        assert (pixels(canvas.mask)[8:72, 16:80] == 0).all()
        assert (pixels(canvas.mask)[:8] == 255).all() and (pixels(canvas.mask)[:, :16] == 255).all()

    @pytest.mark.parametrize("mask_fill", ["fill", "original"])
    def test_its_memory_counts_all_that_it_keeps(self, mask_fill):
        size = (1024, 1024)
        mask = rectangle((100, 100, 200, 200), size)
        for only_masked in (False, True):
            init = Init(image=noise(*size), mask=mask, only_masked=only_masked, mask_fill=mask_fill)
            canvas = make_canvas(init, (64, 64) if only_masked else size)
            held = {id(part): part for part in [canvas.image, canvas.unchanged, canvas.mask]}
            todo = [canvas.finish]
            while todo:
                for cell in todo.pop().__closure__ or ():
                    part = cell.cell_contents
                    if isinstance(part, PilImages.Image):
                        held[id(part)] = part
                    elif callable(part):
                        todo.append(part)
            actual = sum((4 if part.mode == "RGB" else 1) * part.width * part.height for part in held.values())
            assert actual <= canvas.nbytes <= 3 * actual


@pytest.mark.parametrize("mode", ["just resize", "crop and resize", "resize and fill", "latent resize"])
@pytest.mark.parametrize("own", [(300, 200), (64, 64), (500, 60), (8, 9)])
def test_what_waits_has_no_more_pixels_than_are_drawn_and_is_drawn_the_same(mode, own):
    picture = PilImages.effect_noise(own, 90).convert("RGBA")
    picture.putalpha(PilImages.linear_gradient("L").resize(own))
    init, size = Init(image=picture, resize=mode, background="#204060"), (128, 64)
    small = fitted(init, size)
    assert mode == "latent resize" or small.image.width * small.image.height <= 128 * 64
    before, after = make_canvas(init, size), make_canvas(small, size)
    assert before.image.tobytes() == after.image.tobytes() and before.unchanged.tobytes() == after.unchanged.tobytes()
    assert (small is init) or small != init and fitted(small, size) is small


@pytest.mark.parametrize("fields", [{"mask": PilImages.new("L", (300, 200), 255)}, {"outpaint": (8, 0, 0, 0)}])
def test_of_what_is_put_back_into_its_picture_all_is_kept(fields):
    init = Init(image=PilImages.new("RGB", (300, 200)), **fields)
    assert fitted(init, (64, 64)) is init
