"""Things found by clicks on them, by Segment Anything's networks in the signatures of their exporters."""

import shutil

import numpy as np
import pytest
from PIL import Image as PilImages

from tests.annotator_models import write_depth
from tests.segmenter_models import FORMS, write_decoder, write_encoder, write_segmenter
from webui.core import segmenter_file
from webui.core.errors import RequestError
from webui.core.files import AnnotatorFile
from webui.core.maps.networks import check_annotator, is_annotator
from webui.core.segmenter import Eye
from webui.core.segmenter_file import find_segmenters
from webui.core.tensor_file import BadFile


def files(*paths):
    return {path.stem: AnnotatorFile(path.stem, path) for path in paths}


@pytest.fixture
def scene():
    """A red thing, a green one and a blue one on grey, in a picture that is wider than it is high."""
    picture = PilImages.new("RGB", (192, 96), (120, 120, 120))
    boxes = {"red": (24, 24, 60, 60), "green": (96, 36, 132, 84), "blue": (144, 12, 180, 48)}
    known = {}
    for colour, box in boxes.items():
        picture.paste(colour, box)
        known[colour] = np.zeros((96, 192), bool)
        known[colour][box[1] : box[3], box[0] : box[2]] = True
    return picture, known


def overlap(mask, known):
    found = np.asarray(mask) > 0
    return (found & known).sum() / (found | known).sum()


@pytest.mark.parametrize("form", FORMS)
def test_a_click_finds_the_thing_and_more_clicks_refine_it(tmp_path, scene, form):
    picture, known = scene
    (segmenter,) = find_segmenters(files(*write_segmenter(tmp_path, form).values()))
    eye = Eye()
    mask = eye.find(segmenter, picture, [(114, 60)], [1])
    assert mask.mode == "L" and mask.size == picture.size and set(np.unique(mask)) == {0, 255}
    assert overlap(mask, known["green"]) > 0.8
    both = eye.find(segmenter, picture, [(114, 60), (42, 42)], [1, 1])
    assert overlap(both, known["green"] | known["red"]) > 0.8
    all_but = eye.find(segmenter, picture, [(114, 60), (42, 42), (42, 42)], [1, 1, 0])
    assert overlap(all_but, known["green"]) > 0.8
    tall = eye.find(segmenter, picture.transpose(PilImages.Transpose.ROTATE_90), [(30, 30)], [1])
    assert overlap(tall, np.rot90(known["blue"])) > 0.8


def test_a_picture_is_seen_once(tmp_path, scene):
    picture, known = scene
    found = write_segmenter(tmp_path)
    (segmenter,) = find_segmenters(files(*found.values()))
    eye = Eye()
    eye.find(segmenter, picture, [(114, 60)], [1])
    encoder = found["tiny_sam.encoder"]
    stat = encoder.stat()
    encoder.write_bytes(b"\0" * stat.st_size)  # what is kept is not made again, while the file is the same by its time
    shutil.os.utime(encoder, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert overlap(eye.find(segmenter, picture.copy(), [(42, 42)], [1]), known["red"]) > 0.8
    write_encoder(encoder, "sam", scale=0.0)  # another file sees it anew: all is alike
    assert np.asarray(eye.find(segmenter, picture, [(42, 42)], [1])).all()


def test_points_are_on_the_picture_and_one_is_on_the_thing(tmp_path, scene):
    picture, _ = scene
    (segmenter,) = find_segmenters(files(*write_segmenter(tmp_path).values()))
    for points, labels, said in (
        ([(193, 4)], [1], "the point 193, 4 is not on the picture of 192 x 96 px"),
        ([(float("nan"), 4)], [1], "the point nan, 4 is not on"),
        ([(4, 4)], [0], "at least one must be 1"),
        ([(4, 4)], [1, 1], "1 to 64 points are taken, each with a label"),
    ):
        with pytest.raises(RequestError, match=said):
            Eye().find(segmenter, picture, points, labels)


def test_files_belong_together_by_name_or_where_one_of_each_is_left(tmp_path):
    two = files(
        *write_segmenter(tmp_path, name="sam_vit_b").values(), *write_segmenter(tmp_path, "sam2", "sam2_tiny").values()
    )
    assert [one.name for one in find_segmenters(two)] == ["sam2_tiny", "sam_vit_b"]
    write_encoder(tmp_path / "mobile_sam.encoder.onnx", "prepared")
    write_decoder(tmp_path / "sam_vit_h.decoder.onnx", "sam")
    mobile = files(tmp_path / "mobile_sam.encoder.onnx", tmp_path / "sam_vit_h.decoder.onnx")
    assert [one.name for one in find_segmenters(two | mobile)] == ["mobile_sam", "sam2_tiny", "sam_vit_b"]
    lone = two | files(tmp_path / "mobile_sam.encoder.onnx")
    assert [one.name for one in find_segmenters(lone)] == ["sam2_tiny", "sam_vit_b"]
    halves = write_segmenter(tmp_path / "slim", "optimum")
    placed = {name: AnnotatorFile(name, path, place=f"slimsam/{name}") for name, path in halves.items()}
    assert [one.name for one in find_segmenters(placed)] == ["slimsam"]


def test_what_is_missing_or_bad_is_said_by_name(tmp_path, monkeypatch):
    def said(*paths):
        with pytest.raises(BadFile) as error:
            find_segmenters(files(*paths))
        return str(error.value)

    depth = write_depth(tmp_path / "depth.onnx")
    assert said() == said(depth)
    assert said().startswith(
        "needs Segment Anything as two ONNX files in models/annotators, such as mobile_sam.encoder"
    )
    encoder, decoder = write_segmenter(tmp_path).values()
    assert "decoder that belongs to tiny_sam.encoder.onnx" in said(encoder)
    assert "encoder that belongs to tiny_sam.decoder.onnx" in said(decoder)
    other = write_depth(tmp_path / "efficient_sam.onnx")
    assert (
        "but efficient_sam.onnx is not Segment Anything, neither the encoder nor the decoder: it takes 1 x 3"
        in said(other)
    )
    words = tmp_path / "sam.decoder.onnx"
    words.write_text("not a network")
    assert "sam.decoder.onnx is not an ONNX file" in said(encoder, words)
    write_decoder(tmp_path / "sam2.decoder.onnx", "sam2")
    assert "needs" in said(encoder, tmp_path / "sam2.decoder.onnx")
    for path in (encoder, decoder, depth):
        check_annotator(AnnotatorFile(path.stem, path))
        assert is_annotator(path.stem)
    with pytest.raises(BadFile, match="neither the encoder nor the decoder"):
        check_annotator(AnnotatorFile(other.stem, other))
    assert not is_annotator("FastSAM-s") and not is_annotator("face_yolov8n") and not is_annotator("sample")
    monkeypatch.setattr(segmenter_file, "find_spec", lambda name: None)
    assert "needs the package onnxruntime" in said(encoder, decoder)
