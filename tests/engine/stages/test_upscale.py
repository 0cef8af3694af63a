"""Pictures enlarged by the embedded network: tiles, sizes, colours and transparency, and what a job tells of it."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PilImages

from webui import Darkroom, Request
from webui.core.events import Cancelled, Done, Image, Step, to_json
from webui.core.groups.upscale import DEFAULT_UPSCALER
from webui.core.images import FILTER
from webui.core.settings import Settings
from webui.core.stages import Upscale
from webui.engine.stages.upscale import Enlarger
from webui.library.library import DEMO_MODEL, Library

SHOWN = DEMO_MODEL / "preview.png"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    files = Library(Settings(data_dir=tmp_path_factory.mktemp("none"))).snapshot().upscalers
    assert [*files] == ["realesr-animevideov3"]
    return files["realesr-animevideov3"]


@pytest.fixture(scope="module")
def enlarger():
    return Enlarger()


@pytest.fixture
def picture():
    return PilImages.open(SHOWN).convert("RGB")


def never():
    pass


def enlarge(enlarger, picture, file, size, check=never):
    steps, shares = enlarger.enlarge(picture, Upscale(file, size), check), []
    while True:
        try:
            shares.append(next(steps))
        except StopIteration as stop:
            return stop.value, shares


def difference(one, other):
    return np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16))


def test_a_picture_becomes_sharper_than_a_filter_makes_it(enlarger, embedded, picture):
    large, shares = enlarge(enlarger, picture, embedded, (512, 512))
    plain, none = enlarge(enlarger, picture, None, (512, 512))
    assert large.size == plain.size == (512, 512) and (shares, none) == ([1.0], [])
    edges = [np.square(np.diff(np.asarray(one.convert("L"), np.float32))).mean() for one in (large, plain)]
    assert edges[0] > 1.3 * edges[1]
    assert difference(large.resize((128, 128), FILTER), picture).mean() < 5  # and it is the same picture


@pytest.mark.parametrize("size", [(640, 400), (317, 250)])
def test_in_tiles_it_is_the_same_picture_within_one_level(enlarger, embedded, picture, size):
    picture = picture.resize((160, 100), FILTER)
    network = enlarger.load(embedded)
    whole, _ = enlarge(enlarger, picture, embedded, size)
    network.tile_px = 32
    try:
        tiled, shares = enlarge(enlarger, picture, embedded, size)
    finally:
        del network.tile_px
    assert whole.size == tiled.size == size and difference(whole, tiled).max() <= 1
    assert len(shares) > 6 and shares == sorted(shares) and shares[-1] == 1.0


def test_other_scales_are_the_network_s_brought_down(enlarger, embedded, picture):
    large, _ = enlarge(enlarger, picture, embedded, (512, 512))
    half, _ = enlarge(enlarger, picture, embedded, (256, 256))
    assert difference(half, large.resize((256, 256), FILTER)).max() <= 1
    twice, shares = enlarge(enlarger, picture.crop((0, 0, 32, 32)), embedded, (256, 256))
    once, _ = enlarge(enlarger, picture.crop((0, 0, 32, 32)), embedded, (128, 128))
    again, _ = enlarge(enlarger, once, embedded, (512, 512))
    assert len(shares) == 2 and difference(twice, again.resize((256, 256), FILTER)).max() <= 1


def test_another_shape_is_cut_in_the_middle(enlarger, embedded, picture):
    cut, _ = enlarge(enlarger, picture, embedded, (512, 128))
    middle, _ = enlarge(enlarger, picture.crop((0, 48, 128, 80)), embedded, (512, 128))
    assert cut.size == (512, 128) and difference(cut, middle).max() <= 1
    tall, _ = enlarge(enlarger, picture.resize((8, 128)), embedded, (512, 512))
    assert tall.size == (512, 512)


def test_greys_stay_grey_and_transparency_is_kept(enlarger, embedded, picture):
    colours, _ = enlarge(enlarger, picture, embedded, (256, 256))
    grey, _ = enlarge(enlarger, picture.convert("L"), embedded, (256, 256))
    assert grey.mode == "L" and difference(grey, colours.convert("L")).mean() < 3
    deep = PilImages.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257)
    levels, _ = enlarge(enlarger, deep, embedded, (256, 256))
    assert deep.mode == "I;16" and levels.mode == "L" and difference(levels, grey).max() <= 1
    seen = picture.copy()
    seen.paste((0, 0, 0), (0, 0, 64, 128))  # hidden: it must not be seen along the edge
    opacity = PilImages.new("L", seen.size, 255)
    opacity.paste(0, (0, 0, 64, 128))
    seen.putalpha(opacity)
    clear, shares = enlarge(enlarger, seen, embedded, (256, 256))
    assert clear.mode == "RGBA" and len(shares) == 2
    assert clear.getpixel((20, 100))[3] == 0 and clear.getpixel((200, 100))[3] == 255
    edge = np.asarray(clear)[:, 130:136, :3].astype(np.int16), np.asarray(colours)[:, 130:136].astype(np.int16)
    assert np.abs(edge[0] - edge[1]).mean() < 6
    whole = picture.convert("RGBA")
    assert enlarge(enlarger, whole, embedded, (256, 256))[0] == colours


def test_a_job_draws_and_enlarges_and_says_which_it_is_at(tmp_path, picture):
    with Darkroom(Settings(device="cpu", dtype="float32", data_dir=tmp_path)) as darkroom:
        request = Request(prompt="a red apple", seed=3, steps=2, width=64, height=64, count=2)
        plain = darkroom.draw(request)
        assert not darkroom.manager.room.beside
        events = list(darkroom.generate(request.model_copy(update={"upscale": Request(upscale={}).upscale})))
        drawn = [event for event in events if isinstance(event, Image)]
        told = [to_json(event) for event in events if isinstance(event, Step)]
        assert [(step["stage"], step["stage_index"]) for step in told] == [("base", 0)] * 2 + [("upscale", 1)] * 2
        assert told[-1]["index"] == told[-1]["total"] == 3
        assert [image.image.size for image in drawn] == [(128, 128)] * 2
        assert [path.stem for path in darkroom.manager.room.beside] == [DEFAULT_UPSCALER], "it is in memory now"
        assert [*drawn[0].recipe.hashes] == ["model", "upscaler"]
        for small, large in zip(plain, drawn, strict=True):
            (alone,) = darkroom.draw(Request(init={"image": small.image}, upscale={"only": True}))
            assert alone.image.tobytes() == large.image.tobytes()
            assert [*alone.recipe.hashes] == ["upscaler"] and alone.recipe.sampler == {}
        assert not any("stage" in to_json(event) for event in darkroom.generate(request) if isinstance(event, Step))


def test_alone_it_loads_no_model_and_stops_within_a_tile(tmp_path, picture):
    with Darkroom(Settings(device="cpu", dtype="bfloat16", data_dir=tmp_path)) as darkroom:
        ask = Request(init={"image": picture.resize((800, 64))}, upscale={"only": True, "scale": 4})
        seen = []
        events = list(darkroom.generate(ask, lambda: len(seen) > 1 or not seen.append(1) and False))
        assert isinstance(events[-1], Cancelled) and darkroom.manager.model_name is None
        assert len([event for event in events if isinstance(event, Step)]) == len(seen) < 4
        small = Request(init={"image": picture.resize((32, 32))}, upscale={"only": True, "upscaler": "lanczos"})
        *_, image, done = darkroom.generate(small)
        assert isinstance(done, Done) and image.image == picture.resize((32, 32)).resize((64, 64), FILTER)
        assert image.recipe.hashes == {} and image.recipe.environment["dtype"] == "float32"
        assert darkroom.manager.model_name is None


def test_a_file_that_changes_is_read_anew_and_only_two_networks_are_kept(enlarger, embedded, tmp_path):
    copy = replace(embedded, path=tmp_path / "copy.safetensors")
    copy.path.write_bytes(embedded.path.read_bytes())
    first = enlarger.load(copy)
    assert enlarger.load(copy) is first
    copy.path.touch()
    assert enlarger.load(copy) is not first
    other = replace(copy, name="other")
    assert {enlarger.load(other), enlarger.load(embedded)} and enlarger.load(copy) is not first


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_8192_px_in_bounded_memory(tmp_path, embedded):
    """From 2048 px, in a process of its own, whose memory grows by little more than the result."""
    program = f"""
import resource, sys
from pathlib import Path
from PIL import Image as PilImages
from webui.core.files import UpscalerFile
from webui.core.stages import Upscale
from webui.engine.stages.upscale import Enlarger
file = UpscalerFile("embedded", Path({str(embedded.path)!r}))
picture = PilImages.open({str(SHOWN)!r}).convert("RGB").resize((2048, 2048))
enlarger = Enlarger()
for _ in enlarger.enlarge(picture.resize((320, 320)), Upscale(file, (1280, 1280)), lambda: None):
    pass
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
steps, tiles = enlarger.enlarge(picture, Upscale(file, (8192, 8192)), lambda: None), 0
while True:
    try:
        next(steps)
        tiles += 1
    except StopIteration as stop:
        break
print(tiles, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    tiles, grown_mib = map(int, done.stdout.split())
    print(f"8192 px: {tiles} tiles, {grown_mib} MiB more than for 1280 px")
    assert tiles == 64 and grown_mib < 450
