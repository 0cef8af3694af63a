"""Preprocessors: what is made of a picture, at which size, and what is refused."""

import hashlib

import numpy as np
import pytest
from PIL import Image as PilImages
from PIL import ImageDraw

from webui.core.errors import RequestError
from webui.core.maps import MAPS, choose_map, lines, make_map
from webui.core.maps.canny import canny

MODES = ("just resize", "crop and resize", "resize and fill", "latent resize")
ALONE = [name for name, row in MAPS.items() if not row.networks]


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (61, 90, 3), np.uint8)


@pytest.fixture(scope="module")
def scene() -> PilImages.Image:
    """Shapes of several colours on a gradient, larger than their maps are made."""
    across, down = np.meshgrid(np.linspace(40, 200, 240), np.linspace(0, 90, 160))
    picture = PilImages.fromarray(np.stack([across, down, across - down / 2], axis=-1).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((60, 30, 150, 120), fill=(230, 40, 30), outline=(10, 10, 10), width=3)
    pen.rectangle((170, 90, 220, 140), fill=(20, 120, 220))
    return picture


def drawn(name: str, picture: PilImages.Image, size: tuple[int, int] | None = None, **options: float) -> np.ndarray:
    return np.asarray(make_map(name, picture, size or picture.size, options=options))


@pytest.mark.parametrize(("low", "high"), [(100, 200), (50, 60), (1, 255), (200, 100), (20.7, 40.2)])
def test_canny_is_opencvs(noise, scene, low, high):
    cv2 = pytest.importorskip("cv2")
    soft = np.asarray(scene.resize((97, 83)))
    for levels in (noise, soft, noise // 6 + 100):
        assert np.array_equal(canny(levels, low, high), cv2.Canny(np.ascontiguousarray(levels), low, high))


def test_canny_where_there_is_no_opencv_is_the_same(noise):
    assert hashlib.sha256(canny(noise // 2, 100, 200).tobytes()).hexdigest()[:16] == "be89e74f990b851a"


def test_lines_and_scribbles_are_those_that_models_know(scene):
    cv2 = pytest.importorskip("cv2")
    levels = np.asarray(scene)
    dark = np.min(cv2.GaussianBlur(levels.astype(np.float32), (0, 0), 6.0) - levels, axis=2).clip(0, 255)
    expected = (dark / max(16, np.median(dark[dark > 8])) * 127).clip(0, 255)
    assert np.abs(lines.line(levels) - expected).max() <= 1
    fine, coarse = (cv2.GaussianBlur(levels.astype(np.float32), (0, 0), sigma) for sigma in (0.5, 5.0))
    strokes = 2 * (255 - (255 - np.min(coarse - fine, axis=2)).clip(0, 255).astype(np.uint8)) > 32
    assert np.mean((lines.scribble(levels, 32) > 0) != strokes) < 0.001
    assert 0.01 < strokes.mean() < 0.5


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("resize", MODES)
def test_each_map_has_the_size_that_is_asked_for(scene, name, resize):
    mask = PilImages.new("L", scene.size, 0)
    for size in ((64, 96), (96, 64), (240, 160)):
        made = make_map(name, scene, size, resize, mask=mask)
        assert made.size == size and made.mode == ("RGBA" if MAPS[name].needs_mask else "RGB")


def test_a_resolution_makes_a_map_at_that_and_brings_it_to_the_size(scene):
    coarse, fine = (drawn("canny", scene, resolution=side) for side in (40, 0))
    assert coarse.shape == fine.shape and set(np.unique(coarse)) == {0, 255}
    assert (coarse > 0).sum() > 1.5 * (fine > 0).sum()  # thicker lines


def test_a_resolution_that_would_fill_the_memory_is_refused(scene):
    with pytest.raises(RequestError, match="the map would be 2048 x 65536 px; the limit is 8 megapixels") as refused:
        make_map("canny", scene, (64, 2048), options={"resolution": 2048})
    assert refused.value.field == "options"


def test_of_a_picture_as_thin_as_a_line_there_is_a_map():
    for size in ((4000, 8), (8, 4000)):
        assert make_map("canny", PilImages.new("RGB", size), (64, 64), "resize and fill").size == (64, 64)


def test_where_a_picture_ends_there_is_no_edge(scene):
    filled = np.asarray(make_map("canny", scene, (240, 320), "resize and fill"))
    assert not filled[:78].any() and not filled[-78:].any() and filled[80:-80].any()


def test_a_map_that_is_finished_stays_what_it_is(scene, noise):
    assert np.array_equal(drawn("none", PilImages.fromarray(noise)), noise)
    edges = make_map("canny", scene, scene.size)
    for size in ((480, 320), (120, 80)):
        scaled = drawn("none", edges, size)
        assert set(np.unique(scaled)) == {0, 255} and 0.3 < (scaled > 0).mean() / (np.asarray(edges) > 0).mean() < 3
    areas = PilImages.new("RGB", (100, 100), (120, 120, 70))
    areas.paste((4, 200, 3), (30, 30, 70, 70))
    areas.paste((0, 0, 255), (60, 60, 90, 90))
    assert len(make_map("none", areas, (173, 131)).getcolors()) == 3
    assert np.abs(drawn("none", scene, (120, 80)).astype(int) - np.asarray(scene.resize((120, 80), 1))).max() == 0


def test_of_a_larger_picture_the_middle_fills_the_map():
    halves = PilImages.new("RGB", (300, 100), (9, 9, 9))
    halves.paste((200, 60, 50), (150, 0, 300, 100))
    made = drawn("none", halves, (100, 100))
    assert (made[:, :50] == 9).all() and (made[:, 50:] == (200, 60, 50)).all()


def test_what_is_masked_is_transparent_for_inpaint(scene):
    mask = PilImages.new("L", scene.size, 0)
    mask.paste(255, (0, 0, 120, 160))
    made = drawn_inpaint = np.asarray(make_map("inpaint", scene, scene.size, mask=mask))
    assert (made[:, :120, 3] == 0).all() and (made[:, 120:, 3] == 255).all()
    assert np.array_equal(made[:, 120:, :3], np.asarray(scene)[:, 120:])
    cut = scene.copy()
    cut.putalpha(mask.point(lambda level: 255 - level))
    assert np.array_equal(np.asarray(make_map("inpaint", cut, scene.size))[..., 3], drawn_inpaint[..., 3])
    wide = np.asarray(make_map("inpaint", scene, (240, 320), "resize and fill", mask=mask))
    assert (wide[:80, :, 3] == 0).all() and (wide[80:240, 130:, 3] == 255).all()
    assert set(np.unique(make_map("inpaint", scene, (96, 64), mask=mask.resize((31, 17))).getchannel("A"))) == {0, 255}
    with pytest.raises(RequestError, match="needs a mask"):
        make_map("inpaint", scene, scene.size)


def test_colours_and_greys(scene):
    levels = np.asarray(scene)
    assert np.array_equal(drawn("invert", scene), 255 - levels)
    assert len(make_map("colour grid", scene, (256, 192)).getcolors()) == 12
    assert np.array_equal(drawn("tile", scene), levels)
    coarse = drawn("tile", scene, rate=8)
    assert coarse.shape == levels.shape and coarse.std() < levels.std() and abs(coarse.mean() - levels.mean()) < 2
    black = drawn("threshold", scene, level=60) == 0
    assert np.array_equal(black[..., 0], levels.min(axis=2) <= 60)
    grey = PilImages.new("RGB", (64, 64), (119, 119, 119))  # L* 50
    assert drawn("luminance", grey)[0, 0, 0] == pytest.approx(128, abs=1)
    assert drawn("luminance", grey, gamma=2)[0, 0, 0] == pytest.approx(64, abs=1)
    red = PilImages.new("RGB", (64, 64), (200, 0, 0))
    assert drawn("intensity", red)[0, 0, 0] == 200 and drawn("luminance", red)[0, 0, 0] < 120
    soft = drawn("soft edge", scene)
    assert soft.max() == 255 and len(np.unique(soft)) > 50 and np.median(soft) < 40


def test_blur_is_opencvs_to_a_level(scene):
    cv2 = pytest.importorskip("cv2")
    blurred = cv2.GaussianBlur(np.asarray(scene), (0, 0), 9.0)
    assert np.abs(drawn("blur", scene).astype(int) - blurred).max() <= 1


def test_a_shuffle_keeps_the_colours_and_is_the_same_again(scene):
    first, again, other = (drawn("shuffle", scene, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.abs(first.astype(int) - np.asarray(scene)).mean() > 10
    assert len(set(map(tuple, first.reshape(-1, 3)))) > 500


@pytest.mark.parametrize("name", [name for name in ALONE if not MAPS[name].needs_mask])
@pytest.mark.parametrize("picture", [PilImages.new("RGB", (64, 64), (90, 90, 90)), PilImages.new("LA", (8, 9))])
def test_a_plain_picture_has_a_map_too(name, picture):
    assert make_map(name, picture, (72, 64)).size == (72, 64)


def test_names_are_ours_and_those_that_people_know():
    known = {"lineart_standard": "line", "Canny": "canny", "invert (from white bg & black line)": "invert"}
    known |= {"scribble_xdog": "scribble", "tile_resample": "tile", "None": "none", "inpaint_only": "inpaint"}
    assert {name: choose_map(name).name for name in known} == known
    with pytest.raises(RequestError, match="There is no preprocessor “cany”; did you mean canny") as error:
        choose_map("cany")
    assert error.value.mend.value == "canny"


def test_an_option_out_of_its_bounds_is_named(scene):
    with pytest.raises(RequestError, match="low must be 1 to 255, not 300"):
        drawn("canny", scene, low=300)
    with pytest.raises(RequestError, match="There is no option of the preprocessor canny “rate”"):
        drawn("canny", scene, rate=2)
    for value in (True, float("nan"), "12"):
        with pytest.raises(RequestError, match="high must be a number"):
            drawn("canny", scene, high=value)
