"""Finders in ONNX files, run: what is red in a picture is found where it is, whatever the picture's shape."""

import numpy as np
import pytest
from PIL import Image as PilImages

from tests.finder_models import keep_elsewhere, write_detector
from webui.core.files import FinderFile
from webui.core.found import Part, in_order
from webui.engine.families.base import CannotLoad
from webui.engine.finders.network import Finders, most_sure

GROUND, RED = (90, 90, 200), (250, 5, 5)


def picture(size, *boxes):
    made = PilImages.new("RGB", size, GROUND)
    for box in boxes:
        made.paste(RED, box)
    return made


def find(path, shown, threshold=0.5):
    return in_order(Finders().load(FinderFile(path.stem, path)).find(shown, threshold), threshold, 10)


@pytest.mark.parametrize("kind", [{}, {"ended": True}, {"free": True}, {"masks": True}, {"ended": True, "masks": True}])
def test_two_things_are_found_once_each(tmp_path, kind):
    path = write_detector(tmp_path / "red.onnx", **kind)
    parts = find(path, picture((128, 128), (16, 16, 32, 32), (80, 96, 96, 112)))
    assert [part.box for part in parts] == [(0, 0, 48, 48), (64, 80, 112, 128)]
    assert all(part.score > 0.99 for part in parts)
    if not kind.get("masks"):
        assert all(part.mask is None for part in parts)
        return
    for part, box in zip(parts, [(16, 16, 32, 32), (80, 96, 96, 112)], strict=True):
        assert part.mask.size == (128, 128) and set(np.unique(np.asarray(part.mask))) == {0, 255}
        assert np.abs(np.array(part.mask.getbbox()) - box).max() <= 4  # half a cell of the prototypes


@pytest.mark.parametrize("size", [(256, 128), (100, 300), (64, 64), (31, 77)])
def test_the_place_is_that_in_the_picture_whatever_its_shape(tmp_path, size):
    path = write_detector(tmp_path / "red.onnx", masks=True)
    scale = 64 / max(size)
    wide = round(18 / scale)
    left, top = (size[0] - wide) // 2, (size[1] - wide) // 2
    (part, *_) = find(path, picture(size, (left, top, left + wide, top + wide)))
    middle = [(part.box[0] + part.box[2]) / 2, (part.box[1] + part.box[3]) / 2]
    assert np.abs(np.array(middle) - [size[0] / 2, size[1] / 2]).max() <= 8 / scale / 2 + 1
    shown = np.asarray(part.mask, float) / 255
    rows, columns = np.nonzero(shown)
    assert abs(rows.mean() - size[1] / 2) < 3 / scale and abs(columns.mean() - size[0] / 2) < 3 / scale


def test_the_threshold_is_kept_and_the_surer_come_first():
    parts = [Part((9, 0, 12, 3), 0.501), Part((0, 5, 3, 8), 0.9), Part((5, 0, 8, 3), 0.499), Part((1, 1, 1, 4), 0.99)]
    assert [part.box[0] for part in in_order(parts, 0.3, 9)] == [0, 5, 9]  # half a hundredth is not a difference
    assert [part.box[0] for part in in_order(parts, 0.5, 9)] == [0, 9]
    assert [part.box[0] for part in in_order(parts, 0.3, 1)] == [0]


def test_of_boxes_over_each_other_the_surest_stays():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [5, 0, 15, 10], [40, 40, 50, 50]], np.float32)
    assert most_sure(boxes, np.array([0.5, 0.9, 0.6, 0.7], np.float32)) == [1, 3, 2]
    assert most_sure(np.zeros((0, 4), np.float32), np.zeros(0, np.float32)) == []


def test_nothing_red_is_nothing_found(tmp_path):
    assert find(write_detector(tmp_path / "red.onnx"), picture((128, 96))) == []


def test_a_file_that_changes_is_read_again_and_a_bad_one_is_named(tmp_path):
    path = write_detector(tmp_path / "red.onnx")
    finders, file = Finders(), FinderFile("red", path)
    first = finders.load(file)
    assert finders.load(file) is first
    write_detector(path, masks=True)
    assert finders.load(file) is not first
    keep_elsewhere(path, "secret.bin")
    with pytest.raises(CannotLoad, match="finder 'red': red.onnx keeps its numbers in another file, 'secret.bin'"):
        finders.load(file)
    path.unlink()
    with pytest.raises(CannotLoad, match="finder 'red' can no longer be read"):
        finders.load(file)
