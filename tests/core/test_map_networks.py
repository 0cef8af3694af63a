"""Maps that networks make: depth and poses from ONNX files, and what is said where one is missing or bad."""

import numpy as np
import pytest
from onnx import helper
from PIL import Image as PilImages

from tests.annotator_models import (
    damaged,
    write,
    write_colours,
    write_depth,
    write_edges,
    write_first_channel,
    write_kinds,
    write_people,
    write_points,
)
from webui.core.errors import RequestError
from webui.core.files import AnnotatorFile
from webui.core.maps import MAPS, choose_map, make_map, networks
from webui.core.tensor_file import BadFile

# Shares of the part: a nose, shoulders and elbows, the left hand's wrist and its first finger, a chin.
PLACES = {0: (0.5, 0.25), 5: (0.75, 0.5), 6: (0.25, 0.5), 7: (0.75, 0.75), 91: (0.75, 0.875), 92: (0.875, 0.875)}
PLACES |= {31: (0.5, 0.375)}


@pytest.fixture
def ramp() -> PilImages.Image:
    return PilImages.linear_gradient("L").resize((120, 80)).convert("RGB")


def files(*paths):
    return {path.stem: AnnotatorFile(path.stem, path) for path in paths}


def drawn(name, picture, found, **options):
    return np.asarray(
        make_map(name, picture, picture.size, options=options, networks=choose_map(name).find_networks(found))
    )


@pytest.mark.parametrize("sides", [("h", "w"), (56, 70)])
def test_depth_is_white_where_things_are_near(tmp_path, ramp, sides):
    found = files(write_depth(tmp_path / "depth_anything_v2_tiny.onnx", sides))
    levels = drawn("depth", ramp, found)[..., 0].astype(int)
    assert levels[0].max() <= 2 and levels[-1].min() >= 253 and (np.diff(levels[:, 60]) >= 0).all()
    assert np.abs(levels[40] - 128).max() < 6
    plain = drawn("depth", PilImages.new("RGB", (64, 64), (9, 9, 9)), found)
    assert not plain.any()


@pytest.fixture
def people(tmp_path):
    found = write_people(tmp_path / "yolox_l.onnx", (16, 8, 40, 40))
    return files(found, write_points(tmp_path / "dw-ll_ucoco_384.onnx", PLACES))


def test_a_pose_is_drawn_where_the_person_is(people):
    picture = PilImages.new("RGB", (128, 128), (90, 90, 90))
    made = drawn("pose", picture, people)
    # The box is 32..80 x 16..80 px there, the part around its middle (56, 48) 60 x 80 px.
    at = {number: (round(26 + 60 * x), round(8 + 80 * y)) for number, (x, y) in PLACES.items()}
    dots = {0: (255, 0, 0), 5: (85, 255, 0), 6: (255, 170, 0), 7: (0, 255, 0), 92: (0, 0, 255), 31: (255, 255, 255)}
    for number, colour in dots.items():
        x, y = at[number]
        assert tuple(made[y, x]) == colour, number
    neck = (at[5][0] + at[6][0]) // 2, (at[5][1] + at[6][1]) // 2
    assert tuple(made[neck[1], neck[0]]) == (255, 85, 0)
    arm = made[(at[5][1] + at[7][1]) // 2, at[5][0]]
    assert tuple(arm) == (102, 153, 0)  # dimmed
    assert not made[:, :20].any() and not made[100:].any()
    body = drawn("body", picture, people)
    assert not body[at[31][1], at[31][0]].all() and tuple(body[at[0][1], at[0][0]]) == (255, 0, 0)


def test_everybody_is_drawn_once_and_nobody_leaves_it_black(tmp_path, people):
    picture = PilImages.new("RGB", (64, 64), (90, 90, 90))
    two = write_people(tmp_path / "yolox_l.onnx", (0, 8, 24, 40), (1, 8, 25, 40), (36, 8, 60, 40))
    reds = (drawn("body", picture, people | files(two)) == (255, 0, 0)).all(axis=2)
    assert reds[:, :32].any() and reds[:, 32:].any() and reds.sum() < 2 * 90
    nobody = write_people(tmp_path / "yolox_l.onnx")
    assert not drawn("pose", picture, people | files(nobody)).any()


def test_soft_edges_are_the_mean_of_what_hed_and_teed_find(tmp_path, ramp):
    for name, file in (("hed", "ControlNetHED"), ("teed", "teed_7")):
        found = files(write_edges(tmp_path / f"{file}.onnx", 0.05, 0.03))
        levels = drawn(name, ramp, found)[..., 0].astype(int)
        known = 255 / (1 + np.exp(-0.04 * (np.asarray(ramp)[..., 0].astype(float) - 127.5)))
        assert np.abs(levels - known).max() <= 3
    huge = PilImages.new("RGB", (64, 64), "white")
    assert drawn("softedge_hed", huge, files(write_edges(tmp_path / "hed.onnx", 9.0))).all()


def test_pidinet_is_shown_blue_first_and_its_last_map_is_taken(tmp_path):
    picture = PilImages.new("RGB", (64, 48), (10, 90, 200))
    picture.paste((255, 0, 30), (0, 0, 32, 48))
    levels = drawn("softedge_pidinet", picture, files(write_first_channel(tmp_path / "table5_pidinet.onnx")))
    assert (levels[:, :30, 0] == 30).all() and (levels[:, 34:, 0] == 200).all()


@pytest.mark.parametrize("channels", [3, 4])
def test_normals_are_colours(tmp_path, channels):
    picture = PilImages.new("RGB", (64, 64), (10, 90, 200))
    made = drawn("normal_bae", picture, files(write_colours(tmp_path / "normalbae_scannet.onnx", channels)))
    assert np.abs(made.astype(int) - (10, 90, 200)).max() <= 1


def test_kinds_of_things_have_their_colours(tmp_path):
    picture = PilImages.new("RGB", (96, 64), "red")
    picture.paste("lime", (32, 0, 64, 64))
    picture.paste("blue", (64, 0, 96, 64))
    found = files(write_kinds(tmp_path / "segformer-b0-finetuned-ade-512-512.onnx", kinds=(0, 9, 149)))
    made = drawn("seg_ofade20k", picture, found)
    places = {8: (120, 120, 120), 48: (4, 250, 7), 88: (92, 0, 255)}  # wall, grass, flag
    assert {x: tuple(made[32, x]) for x in places} == places
    assert {tuple(colour) for colour in made.reshape(-1, 3)} == set(places.values())


def test_a_network_that_gives_something_else_is_refused_by_its_shape(tmp_path):
    for name, path in (
        ("normals", write_edges(tmp_path / "normalbae.onnx", 1.0)),
        ("segmentation", write_kinds(tmp_path / "upernet.onnx", number_of=19)),
        ("hed", write_colours(tmp_path / "hed.onnx")),
    ):
        with pytest.raises(RequestError, match=rf"{path.name} gives 1 x \d+ x .*, as .* does not"):
            MAPS[name].find_networks(files(path))
        with pytest.raises(BadFile, match="does not"):
            networks.check_annotator(AnnotatorFile(path.stem, path))
    free = write(
        tmp_path / "ade20k.onnx",
        [helper.make_node("Identity", ["image"], ["out"])],
        [("image", [1, 3, 8, 8])],
        [("out", None)],
    )
    with pytest.raises(RequestError, match=r"ade20k\.onnx does not give scores of ADE20K's 150 kinds"):
        drawn("segmentation", PilImages.new("RGB", (64, 64)), files(free))


def test_what_is_missing_is_said_with_where_it_goes(tmp_path, ramp, monkeypatch):
    with pytest.raises(
        RequestError, match="depth needs Depth Anything or MiDaS as an ONNX file in models/annotators, "
    ):
        make_map("depth", ramp, ramp.size)
    found = files(write_people(tmp_path / "yolox_l.onnx"))
    with pytest.raises(RequestError, match=r"pose needs DWPose as an ONNX file .*such as dw-ll_ucoco_384\.onnx"):
        MAPS["pose"].find_networks(found)
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="depth needs the package onnxruntime, .*pip install onnxruntime"):
        MAPS["depth"].find_networks({})


def test_a_file_that_cannot_be_used_is_named(tmp_path, ramp):
    def refused(path):
        with pytest.raises(RequestError) as error:
            drawn("depth", ramp, files(path))
        return str(error.value)

    flat = write(tmp_path / "depth_flat.onnx", [], [("image", [1, 4])], [])
    assert "depth_flat.onnx takes something else than one picture" in refused(flat)
    assert "uses an operator that is not ONNX's own" in refused(damaged(tmp_path / "depth_spell.onnx"))
    wild = write_depth(tmp_path / "depth_wild.onnx", scale=float("nan"))
    assert "depth_wild.onnx gives values that are not numbers" in refused(wild)
    gone = MAPS["depth"].find_networks(files(passing := write_depth(tmp_path / "depth_passing.onnx")))
    passing.unlink()
    with pytest.raises(RequestError, match=r"depth_passing\.onnx can(not| no longer) be read"):
        make_map("depth", ramp, ramp.size, networks=gone)
    words = tmp_path / "depth_words.onnx"
    words.write_text("not a network")
    assert "depth_words.onnx is not an ONNX file" in refused(words)
    bad = {"depth": AnnotatorFile("depth", words, problem="is not an ONNX file")}
    with pytest.raises(RequestError, match=r"but depth_words\.onnx is not an ONNX file"):
        MAPS["depth"].find_networks(bad)
    others = files(write_depth(tmp_path / "yolox.onnx", (64, 64)), write_depth(tmp_path / "dwpose.onnx", (48, 36)))
    with pytest.raises(RequestError, match=r"yolox\.onnx gives \(1, 64, 64\), as YOLOX does not"):
        drawn("pose", ramp, others)
    people = files(
        write_people(tmp_path / "yolox_l.onnx", (16, 8, 40, 40)), write_depth(tmp_path / "dwpose.onnx", (48, 36))
    )
    with pytest.raises(RequestError, match=r"dwpose\.onnx gives \(1, 48, 36\), as DWPose does not"):
        drawn("pose", ramp, people)


def test_a_file_that_changes_is_read_again(tmp_path, ramp):
    path = write_depth(tmp_path / "depth.onnx")
    first = drawn("depth", ramp, files(path))
    write_depth(path, scale=-1.0)
    path.touch()
    assert np.abs(255 - first.astype(int) - drawn("depth", ramp, files(path))).max() <= 1
