"""Pictures that come in: what is bad is named without being decoded, what is good comes out with the right pixels."""

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImages
from PIL.Image import Image as PilImage

from webui.core import images
from webui.core.images import ImageError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SIDE = st.integers(8, 96)
MB = 2**20
TURNED = PilImages.Exif()
TURNED[0x0112] = 6


def encode(image: PilImage, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def picture(width: int = 16, height: int = 8, seed: int = 0) -> PilImage:
    return PilImages.fromarray(noise(width, height, seed=seed))


def png(width: int, height: int, depth: int, colour_type: int, rows: list[bytes], *more: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand, for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), *more, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def colours(image: PilImage) -> list[tuple[int, ...]]:
    """The colours in the order in which they first appear."""
    flat = np.asarray(image).reshape(-1, 3).tolist()
    return list(dict.fromkeys(map(tuple, flat)))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"exif": TURNED}], ids=["plain", "progressive", "turned"]
)
@pytest.mark.parametrize("missing", [1, 2, 40])
def test_a_jpeg_without_its_last_bytes_is_opened_and_marked(tmp_path, mode, options, missing):
    data = encode(picture(120, 200).convert(mode), "JPEG", **options)
    (tmp_path / "cut.jpg").write_bytes(data[:-missing])
    whole = np.asarray(images.plain(images.open_image(data)))
    for source in (data[:-missing], tmp_path / "cut.jpg"):
        opened = images.plain(images.open_image(source))
        assert opened.mode == mode
        assert images.ENDS_EARLY in opened.info or missing < 3, "without its end marker alone Pillow may take it"
        assert options or np.array_equal(np.asarray(opened)[:-16], whole[:-16])
        assert np.asarray(opened).shape == whole.shape
    assert images.ENDS_EARLY not in images.open_image(data).info


class TestBadFiles:
    @pytest.fixture
    def refusal(self, tmp_path):
        """``refusal(bytes)``: why they are refused, as a file and as bytes alike."""

        def refusal(data: bytes, name: str = "picture.png") -> str:
            path = tmp_path / name
            path.write_bytes(data)
            said = []
            for source in (path, data):
                with pytest.raises(ImageError) as caught:
                    images.open_image(source)
                said.append(str(caught.value))
            assert said[0] == said[1] and "\n" not in said[0] and str(tmp_path) not in said[0]
            return said[0]

        return refusal

    @pytest.mark.parametrize("kept", [0.95, 0.5, 0.1])
    def test_a_truncated_png_is_damaged(self, refusal, kept):
        data = encode(picture(200, 200))
        assert "is damaged" in refusal(data[: int(len(data) * kept)])

    @pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
    def test_half_a_file_of_another_kind_is_refused(self, refusal, kind):
        data = encode(picture(200, 200), kind)
        assert refusal(data[: len(data) // 2]).startswith(("is damaged: ", "is not a picture"))

    @pytest.mark.parametrize("kept", [0.3, 0.85])
    @pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
    def test_a_jpeg_that_lacks_a_good_part_of_it_is_refused(self, refusal, mode, kept):
        data = encode(picture(200, 200).convert(mode), "JPEG")
        assert "is damaged: image file is truncated" in refusal(data[: int(len(data) * kept)])

    def test_a_png_with_one_wrong_byte_in_its_pixels_is_damaged(self, refusal):
        data = bytearray(encode(picture(64, 64)))
        data[len(data) // 2] ^= 0xFF
        assert "is damaged" in refusal(bytes(data))

    @pytest.mark.parametrize(
        "data",
        [
            b"just words",
            b"",
            b"\x89PNG\r\n\x1a\n",
            b"<svg xmlns='http://www.w3.org/2000/svg' width='64' height='64'><rect width='64' height='64'/></svg>",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n",
            b"P6\n64 64\n255\n" + bytes(64 * 64 * 3),
        ],
        ids=["text", "empty", "signature alone", "SVG", "PostScript", "PPM"],
    )
    def test_what_is_no_picture_we_read_is_refused_with_the_kinds_we_do(self, refusal, data):
        assert refusal(data) == "is not a picture that can be read (one of PNG, JPEG, WEBP, AVIF, GIF, BMP, TIFF)"

    def test_one_pixel_and_a_thread_are_too_small(self, refusal):
        assert refusal(encode(picture(1, 1))) == "is 1 x 1 px; each side must be at least 8 px"
        assert refusal(encode(picture(1, 20_000))) == "is 1 x 20000 px; each side must be at least 8 px"
        assert images.open_image(encode(picture(8, 8))).size == (8, 8)

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_30_megapixels_are_too_many(self, refusal):
        data = encode(PilImages.new("L", (6000, 5000)))
        assert refusal(data) == "is 6000 x 5000 px, 30 megapixels; the limit is 24"

    def test_a_lab_picture_is_refused_by_its_colours(self, refusal):
        assert refusal(encode(PilImages.new("LAB", (16, 16)), "TIFF")) == "has LAB colours, which cannot be read"

    def test_a_folder_and_nothing_at_all_are_named(self, tmp_path):
        with pytest.raises(ImageError, match="is a folder"):
            images.open_image(tmp_path)
        with pytest.raises(ImageError, match="does not exist"):
            images.open_image(tmp_path / "missing.png")

    def test_too_many_bytes_are_refused(self, monkeypatch):
        data = encode(picture(64, 64))
        monkeypatch.setattr(images, "MAX_FILE_BYTES", len(data) - 1)
        with pytest.raises(ImageError, match="the limit is"):
            images.open_image(data)
        monkeypatch.setattr(images, "MAX_FILE_BYTES", len(data))
        assert images.open_image(data).size == (64, 64)

    @pytest.mark.parametrize("text", ["", "not base64!", "AAAA", "data:image/png;base64,", "ÄÖ", "data:"])
    def test_text_that_holds_no_picture_is_refused(self, text):
        with pytest.raises(ImageError):
            images.decode_text(text)

    @pytest.mark.filterwarnings("ignore:Truncated File Read")
    @given(st.binary(max_size=300), st.sampled_from(["", "PNG", "GIF", "WEBP", "JPEG", "BMP", "TIFF"]))
    def test_any_bytes_are_refused_in_one_short_line_or_read(self, junk, kind):
        head = encode(picture(16, 16), kind)[:60] if kind else b""
        try:
            image = images.open_image(head + junk)
        except ImageError as error:
            assert 0 < len(str(error)) < 200 and "\n" not in str(error)
        else:
            assert images.to_rgb(image).size == image.size

    def test_text_survives_the_way_through_base64(self):
        given_picture = picture(24, 16)
        text = images.encode_text(given_picture)
        for form in (text, f"data:image/png;base64,{text}", f"DATA:image/png;base64,{text}"):
            assert images.pixels_sha256(images.decode_text(form)) == images.pixels_sha256(given_picture)


def claim_size(kind: str, width: int, height: int) -> bytes:
    """A small file whose header claims a huge canvas."""
    data = bytearray(encode(PilImages.new("RGB", (16, 16), RED), kind))
    match kind:
        case "PNG":
            return png(width, height, 8, 2, [bytes(48)] * 16)
        case "GIF":
            data[6:10] = struct.pack("<HH", width, height)
            at = data.index(b"\x2c\0\0\0\0")
            data[at + 5 : at + 9] = struct.pack("<HH", width, height)
        case "JPEG":
            at = data.index(b"\xff\xc0")
            data[at + 5 : at + 9] = struct.pack(">HH", height, width)
        case "BMP":
            data[18:26] = struct.pack("<ii", width, height)
        case "WEBP":
            frames = [PilImages.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
            data = bytearray(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
            assert data[12:16] == b"VP8X"
            data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        case "TIFF":
            (start,) = struct.unpack_from("<I", data, 4)
            for k in range(struct.unpack_from("<H", data, start)[0]):
                entry = start + 2 + 12 * k
                tag = struct.unpack_from("<H", data, entry)[0]
                if tag in (256, 257):
                    struct.pack_into("<HII", data, entry + 2, 4, 1, width if tag == 256 else height)
    return bytes(data)


BOMBS = {
    "PNG": (60_000, 60_000),
    "GIF": (60_000, 60_000),
    "JPEG": (60_000, 60_000),
    "BMP": (60_000, 60_000),
    "WEBP": (16_000, 16_000),
    "TIFF": (60_000, 60_000),
}

MEASURE = """
import json, resource, sys, warnings
from pathlib import Path
from webui.core.images import ImageError, open_image

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before, said = peak_mb(), {}
for path in map(Path, sys.argv[1:]):
    try:
        open_image(path)
    except ImageError as error:
        said[path.name] = str(error)
print(json.dumps({"growth_mb": peak_mb() - before, "said": said}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is POSIX")
def test_a_tiny_file_with_a_huge_canvas_is_refused_by_its_header_and_costs_no_memory(tmp_path, repository):
    files = []
    for kind, size in BOMBS.items():
        files.append(tmp_path / kind)
        files[-1].write_bytes(claim_size(kind, *size))
        assert files[-1].stat().st_size < 10_000
    between = tmp_path / "between"  # where Pillow itself would only warn
    between.write_bytes(claim_size("PNG", 7_000, 5_000))
    zeros = tmp_path / "zeros"  # 400 megapixels that compress to almost nothing
    zeros.write_bytes(png(20_000, 20_000, 1, 0, [bytes(2_500)] * 20_000))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *files, between, zeros], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    told = json.loads(done.stdout)
    assert set(told["said"]) == {*BOMBS, "between", "zeros"}
    for name in (*BOMBS, "zeros"):
        assert told["said"][name] == "is far too large; the limit is 24 megapixels", name
    assert told["said"]["between"] == "is 7000 x 5000 px, 35 megapixels; the limit is 24"
    assert told["growth_mb"] < 200


class TestPixels:
    """``to_rgb`` of files of every kind."""

    @pytest.mark.parametrize(
        ("orientation", "upright"),
        [
            (1, lambda a: a),
            (2, lambda a: a[:, ::-1]),
            (3, lambda a: a[::-1, ::-1]),
            (4, lambda a: a[::-1]),
            (5, lambda a: a.transpose(1, 0, 2)),
            (6, lambda a: a.transpose(1, 0, 2)[:, ::-1]),
            (7, lambda a: a.transpose(1, 0, 2)[::-1, ::-1]),
            (8, lambda a: a.transpose(1, 0, 2)[::-1]),
        ],
    )
    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
    def test_a_turned_picture_is_set_upright(self, kind, orientation, upright):
        stored = noise(24, 16)
        exif = PilImages.Exif()
        exif[0x0112] = orientation
        options = {"lossless": True} if kind == "WEBP" else {}
        opened = images.open_image(encode(PilImages.fromarray(stored), kind, exif=exif, **options))
        assert np.array_equal(np.asarray(images.to_rgb(opened)), upright(stored))
        assert np.array_equal(np.asarray(images.to_mask(opened.convert("L"))), np.asarray(images.to_mask(opened)))

    @pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
    def test_a_phone_s_picture_is_set_upright(self, kind):
        half = np.zeros((16, 32, 3), np.uint8)
        half[:, :16] = 255  # lying on its side: white on the left
        data = encode(PilImages.fromarray(half), kind, exif=TURNED, quality=95)
        upright = np.asarray(images.to_rgb(images.open_image(data)))
        assert upright.shape == (32, 16, 3) and upright[:14].min() > 240 and upright[18:].max() < 15

    @pytest.mark.parametrize("background", ["#ffffff", "#000000", "#2040ff"])
    def test_transparency_shows_the_chosen_background(self, background):
        levels = np.array([[0, 1, 64, 128, 200, 254, 255, 255]] * 8, np.uint8)
        colour = np.full((8, 8, 3), (200, 100, 50), np.uint8)
        opened = images.open_image(encode(PilImages.fromarray(np.dstack([colour, levels]))))
        assert opened.mode == "RGBA"
        behind = np.array([int(background[k : k + 2], 16) for k in (1, 3, 5)])
        share = levels[..., None] / 255
        got = np.asarray(images.to_rgb(opened, background)).astype(float)
        assert abs(got - (share * colour + (1 - share) * behind)).max() <= 1
        assert np.array_equal(got[:, 0], np.broadcast_to(behind, (8, 3)))
        assert np.array_equal(got[:, -1], colour[:, -1])

    def test_what_is_under_full_transparency_does_not_shine_through(self):
        hidden = PilImages.fromarray(np.dstack([noise(8, 8), np.zeros((8, 8), np.uint8)]))
        assert colours(images.to_rgb(images.open_image(encode(hidden)), "#00ff00")) == [GREEN]

    def test_16_bit_grey_keeps_its_range(self):
        values = np.array([[0, 257, 32_768, 65_535, 40_000, 300, 12_345, 65_000]] * 8, np.uint16)
        for kind in ("PNG", "TIFF"):
            got = np.asarray(images.to_rgb(images.open_image(encode(PilImages.fromarray(values), kind))))
            assert abs(got[..., 0] - values / 257).max() <= 0.5
            assert np.array_equal(got[..., 0], got[..., 1]) and np.array_equal(got[..., 0], got[..., 2])

    def test_a_dark_16_bit_grey_stays_dark(self):
        values = np.full((8, 8), 200, np.uint16)
        assert colours(images.to_rgb(images.open_image(encode(PilImages.fromarray(values))))) == [(1, 1, 1)]

    @pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)], ids=["RGB", "RGBA", "grey+alpha"])
    def test_16_bit_colours_and_alpha_keep_their_range(self, colour_type, channels):
        levels = np.random.default_rng(0).integers(0, 65_536, (8, 8, channels))
        rows = [row.astype(">u2").tobytes() for row in levels]
        got = np.asarray(images.to_rgb(images.open_image(png(8, 8, 16, colour_type, rows)), "#000000")).astype(float)
        alpha = levels[..., -1:] / 65_535 if channels in (2, 4) else 1.0
        colour = levels[..., :3] if channels >= 3 else np.repeat(levels[..., :1], 3, axis=2)
        assert abs(got - colour / 257 * alpha).max() < 3

    def test_floats_and_32_bit_greys_keep_their_range(self):
        ramp = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (8, 1))
        as_int = [(ramp * white).astype(np.int32) for white in (255, 65_535)]
        for values in (ramp, ramp * 255, ramp * 65_535, *as_int):
            opened = images.open_image(encode(PilImages.fromarray(values), "TIFF"))
            got = np.asarray(images.to_rgb(opened))[0, :, 0].astype(float)
            assert abs(got - ramp[0] * 255).max() <= 1

    @pytest.mark.parametrize(("ink", "colour"), [((255, 0, 0, 0), (0, 255, 255)), ((0, 255, 255, 0), RED)])
    @pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
    def test_printing_inks_become_light(self, kind, ink, colour):
        opened = images.open_image(encode(PilImages.new("CMYK", (16, 16), ink), kind))
        assert opened.mode == "CMYK"
        assert abs(np.asarray(images.to_rgb(opened)).astype(int) - colour).max() <= 4

    def test_black_ink_darkens(self):
        opened = images.open_image(encode(PilImages.new("CMYK", (16, 16), (0, 0, 0, 255)), "TIFF"))
        assert colours(images.to_rgb(opened)) == [(0, 0, 0)]

    def palette(self) -> PilImage:
        image = PilImages.new("P", (9, 9))
        image.putpalette([*RED, *GREEN, *BLUE])
        image.putdata([k % 3 for k in range(81)])
        return image

    @pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
    def test_a_palette_is_looked_up(self, kind):
        opened = images.open_image(encode(self.palette(), kind))
        assert opened.mode == "P" and colours(images.to_rgb(opened)) == [RED, GREEN, BLUE]

    @pytest.mark.parametrize("kind", ["PNG", "GIF"])
    def test_a_transparent_colour_of_a_palette_shows_the_background(self, kind):
        opened = images.open_image(encode(self.palette(), kind, transparency=1))
        assert colours(images.to_rgb(opened, "#102030")) == [RED, (16, 32, 48), BLUE]

    def test_a_palette_with_a_transparency_each_shows_the_background_through(self):
        opened = images.open_image(encode(self.palette(), transparency=bytes([255, 0, 128])))
        first, second, third = colours(images.to_rgb(opened, "#000000"))
        assert (first, second) == (RED, (0, 0, 0)) and third[:2] == (0, 0) and abs(third[2] - 128) <= 1

    @pytest.mark.parametrize(
        ("image", "transparent"),
        [(PilImages.new("RGB", (8, 8), RED), RED), (PilImages.new("L", (8, 8), 77), 77)],
        ids=["RGB", "L"],
    )
    def test_one_colour_that_stands_for_transparent_shows_the_background(self, image, transparent):
        opened = images.open_image(encode(image, transparency=transparent))
        assert opened.mode == image.mode and colours(images.to_rgb(opened, "#00ff00")) == [GREEN]

    def test_grey_with_alpha(self):
        opened = images.open_image(encode(PilImages.new("LA", (8, 8), (200, 128))))
        assert opened.mode == "LA"
        (got,) = colours(images.to_rgb(opened, "#000000"))
        assert got[0] == got[1] == got[2] and abs(got[0] - 200 * 128 / 255) <= 1

    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_of_several_frames_the_first_is_taken(self, kind):
        frames = [PilImages.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        opened = images.open_image(data)
        assert opened.n_frames == 3
        assert colours(images.to_rgb(opened)) == [RED]

    def test_black_and_white_and_grey(self):
        bits = PilImages.new("1", (8, 8))
        bits.putdata([255 * (k % 2) for k in range(64)])
        opened = images.open_image(encode(bits))
        assert opened.mode == "1" and colours(images.to_rgb(opened)) == [(0, 0, 0), (255, 255, 255)]
        greys = PilImages.fromarray(noise(16, 16, 1)[..., 0])
        opened = images.open_image(encode(greys))
        assert opened.mode == "L" and np.array_equal(np.asarray(images.to_rgb(opened))[..., 1], np.asarray(greys))

    def test_rgb_is_taken_as_it_is_the_same_object(self):
        opened = images.open_image(encode(picture()))
        assert images.to_rgb(opened) is opened and images.plain(opened) is opened

    @pytest.mark.parametrize(
        "mode", ["1", "L", "LA", "P", "PA", "I", "F", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"]
    )
    def test_a_plain_picture_looks_the_same_and_a_png_holds_it(self, mode):
        made = PilImages.fromarray(noise(16, 16, 4)).convert("RGBA").convert("PA" if mode == "PA" else "RGB")
        made = made if mode == "PA" else made.convert(mode)
        held = images.plain(made)
        back = images.decode_text(images.encode_text(held))
        for background in ("#ffffff", "#102030"):
            seen = [np.asarray(images.to_rgb(image, background)) for image in (made, held, back)]
            assert np.array_equal(seen[0], seen[1]) and np.array_equal(seen[1], seen[2])
            assert seen[0].std() > 1


class TestMasks:
    def test_a_grey_mask_is_taken_as_it_is_the_same_object(self):
        mask = images.open_image(encode(PilImages.new("L", (8, 8), 99)))
        assert images.to_mask(mask) is mask

    def test_colours_become_their_grey_and_transparent_is_black(self):
        for level in (0, 1, 100, 254, 255):
            assert images.to_mask(PilImages.new("RGB", (8, 8), (level,) * 3)).getextrema() == (level, level)
        assert images.to_mask(PilImages.new("RGBA", (8, 8), (255, 255, 255, 0))).getextrema() == (0, 0)
        assert images.to_mask(PilImages.new("RGBA", (8, 8), (255, 255, 255, 255))).getextrema() == (255, 255)
        assert images.to_mask(PilImages.new("1", (8, 8), 1)).getextrema() == (255, 255)
        assert images.to_mask(PilImages.fromarray(np.full((8, 8), 65_535, np.uint16))).getextrema() == (255, 255)

    @given(SIDE, SIDE, st.data(), st.integers(0, 40), st.integers(8, 256), st.integers(8, 256))
    def test_the_region_lies_inside_holds_the_mask_with_its_padding_and_has_the_shape_where_it_can(
        self, width, height, data, padding, across, down
    ):
        left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
        right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
        mask = PilImages.new("L", (width, height))
        mask.paste(data.draw(st.integers(1, 255)), (left, top, right, bottom))
        box = images.masked_region(mask, padding, (across, down))
        assert 0 <= box[0] <= max(0, left - padding) and 0 <= box[1] <= max(0, top - padding)
        assert min(width, right + padding) <= box[2] <= width and min(height, bottom + padding) <= box[3] <= height
        wide, high = box[2] - box[0], box[3] - box[1]
        if wide < width and high < height:
            assert abs(wide - high * across / down) <= 1 or abs(high - wide * down / across) <= 1

    def test_nothing_masked_has_no_region(self):
        assert images.masked_region(PilImages.new("L", (64, 64)), 8, (64, 64)) is None

    def test_filling_changes_only_what_is_masked_and_takes_the_colours_around_it(self):
        image = PilImages.fromarray(noise(64, 48))
        image.paste((10, 20, 200), (0, 0, 64, 24))
        mask = PilImages.new("L", (64, 48))
        mask.paste(255, (8, 4, 24, 12))
        filled, before, inside = (np.asarray(each) for each in (images.fill_masked(image, mask), image, mask))
        assert np.array_equal(filled[inside == 0], before[inside == 0])
        assert abs(filled[inside == 255].astype(int) - (10, 20, 200)).max() <= 2
        image.paste(RED, (8, 4, 24, 12))
        again = np.asarray(images.fill_masked(image, mask))
        assert np.array_equal(again, filled), "what was masked shines through"

    def test_filling_all_or_nothing_leaves_the_picture(self):
        image = picture(16, 16)
        for level in (0, 255):
            assert images.fill_masked(image, PilImages.new("L", (16, 16), level)) is image

    def test_rectangles(self):
        mask = np.asarray(images.parse_rectangles("2, 3, 4, 5\n\n  20 0 100 1\n6;6;1;1", (32, 16)))
        expected = np.zeros((16, 32), np.uint8)
        expected[3:8, 2:6] = expected[0:1, 20:32] = expected[6, 6] = 255
        assert np.array_equal(mask, expected)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("1, 2, 3", "rectangle 1 must be four whole numbers: left, top, width, height"),
            ("1, 1, 1, 1\n-1, 0, 5, 5", "rectangle 2 must be four whole numbers"),
            ("1.5, 0, 5, 5", "must be four whole numbers"),
            ("a, b, c, d", "must be four whole numbers"),
            ("0, 0, 0, 5", "rectangle 1 lies outside the picture of 32 x 16 px"),
            ("32, 0, 5, 5", "lies outside"),
            ("0, 16, 5, 5", "lies outside"),
            ("1, 1, 1, " + "9" * 5000, "must be four whole numbers"),
        ],
    )
    def test_a_line_that_is_no_rectangle_is_named(self, text, reason):
        with pytest.raises(ImageError) as caught:
            images.parse_rectangles(text, (32, 16))
        assert reason in str(caught.value) and len(str(caught.value)) < 120


@pytest.fixture
def resampled(monkeypatch) -> list[tuple[int, int]]:
    """The sizes that were resampled to so far."""
    sizes: list[tuple[int, int]] = []
    resize = PilImage.resize

    def count(image, size, *args, **kwargs):
        sizes.append(tuple(size))
        return resize(image, size, *args, **kwargs)

    monkeypatch.setattr(PilImage, "resize", count)
    return sizes


class TestSizes:
    @given(st.integers(1, 40), st.integers(1, 40))
    def test_sides_that_are_multiples_of_8_are_left_alone_the_same_object(self, across, down):
        image = PilImages.new("RGB", (8 * across, 8 * down))
        assert images.ensure_multiple_of_8(image) is image

    @given(st.integers(8, 320), st.integers(8, 320))
    def test_any_other_size_goes_to_the_nearest(self, width, height):
        for side, snapped in zip((width, height), images.snapped_size((width, height)), strict=True):
            assert snapped % 8 == 0 and snapped > 0 and abs(snapped - side) <= 4

    @pytest.mark.parametrize("size", [(63, 64), (64, 100), (101, 99)])
    def test_any_other_size_is_resampled_once_with_a_good_filter(self, resampled, size):
        image = picture(*size)
        fitted = images.ensure_multiple_of_8(image)
        assert resampled == [images.snapped_size(size)] == [fitted.size]
        good = image.resize(fitted.size, PilImages.Resampling.LANCZOS)
        assert images.pixels_sha256(fitted) == images.pixels_sha256(good)

    @pytest.mark.parametrize("mode", ["just resize", "crop and resize", "resize and fill", "latent resize"])
    def test_the_size_it_has_already_is_no_work_the_same_object(self, resampled, mode):
        image = picture(64, 48)
        assert images.resize(image, (64, 48), mode) is image and resampled == []

    @pytest.mark.parametrize("mode", ["just resize", "crop and resize", "resize and fill"])
    @pytest.mark.parametrize("size", [(64, 64), (200, 40), (40, 200), (8, 8)])
    def test_every_mode_gives_the_size_with_at_most_one_resample(self, resampled, mode, size):
        assert images.resize(picture(64, 32), size, mode).size == size
        assert len(resampled) <= 1
        resampled.clear()
        assert images.resize(picture(64, 32).convert("L"), size, mode).mode == "L"

    def test_cropping_keeps_the_middle(self):
        image = PilImages.new("RGB", (64, 16), RED)
        image.paste(GREEN, (24, 0, 40, 16))
        assert colours(images.resize(image, (16, 16), "crop and resize")) == [GREEN]
        assert len(colours(images.resize(image, (16, 16), "just resize"))) > 1

    def test_filling_shows_all_of_it_over_stretched_edges(self):
        image = PilImages.new("RGB", (64, 32), BLUE)
        image.paste(RED, (0, 0, 64, 1))
        image.paste(GREEN, (0, 31, 64, 32))
        filled = np.asarray(images.resize(image, (64, 64), "resize and fill"))
        assert np.array_equal(filled[16:48], np.asarray(image))
        assert (filled[:16] == RED).all() and (filled[48:] == GREEN).all()

    def test_a_canvas_is_extended_by_its_edges(self):
        image = picture(16, 8)
        wide = np.asarray(images.extend(image, (8, 16, 24, 32)))
        inner = np.asarray(image)
        assert wide.shape == (8 + 16 + 32, 16 + 8 + 24, 3)
        assert np.array_equal(wide[16:24, 8:24], inner)
        assert (wide[16:24, :8] == inner[:, :1]).all() and (wide[16:24, 24:] == inner[:, -1:]).all()
        assert (wide[:16, 8:24] == inner[:1]).all() and (wide[24:, 8:24] == inner[-1:]).all()

    def test_the_mask_of_an_extended_canvas_is_white_where_it_is_new_and_a_little_into_the_old(self):
        mask = np.asarray(images.extension_mask(None, (32, 32), (8, 0, 16, 0), overlap_px=4))
        assert mask.shape == (32, 56)
        assert (mask[:, :12] == 255).all() and (mask[:, 12:36] == 0).all() and (mask[:, 36:] == 255).all()
        drawn = PilImages.new("L", (32, 32))
        drawn.paste(130, (10, 10, 20, 20))
        both = np.asarray(images.extension_mask(drawn, (32, 32), (0, 8, 0, 0), overlap_px=0))
        assert (both[:8] == 255).all() and np.array_equal(both[8:], np.asarray(drawn))

    def test_blur_softens_and_support_is_all_that_is_not_black(self):
        mask = PilImages.new("L", (64, 64))
        mask.paste(3, (16, 16, 48, 48))
        assert images.blur(mask, 0) is mask
        reach = images.support(mask)
        assert reach.getbbox() == (16, 16, 48, 48) and set(reach.get_flattened_data()) == {0, 255}
        soft = images.blur(reach, 4)
        assert len(set(soft.get_flattened_data())) > 10 and soft.getpixel((32, 32)) == 255

    def test_a_file_path_and_its_bytes_are_the_same_picture(self, tmp_path):
        path = Path(tmp_path / "a.png")
        path.write_bytes(encode(picture()))
        assert images.pixels_sha256(images.open_image(path)) == images.pixels_sha256(
            images.open_image(path.read_bytes())
        )
