"""What is known of a finder before anything of it is run, and what is refused by name."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.finder_models import constant, keep_elsewhere, save, write_detector, write_other
from webui.core import finder_file
from webui.core.errors import RequestError
from webui.core.files import FinderFile
from webui.core.finder_file import Head, check_finder, read_head
from webui.core.names import choose_finder
from webui.core.onnx_file import read_onnx
from webui.core.tensor_file import BadFile


def refusal(path) -> str:
    with pytest.raises(BadFile) as error:
        check_finder(FinderFile(path.stem, path))
    return str(error.value)


def test_heads_of_detectors_and_segmenters_are_known_by_their_shapes(tmp_path):
    assert read_head(write_detector(tmp_path / "a.onnx")) == Head((64, 64), "float32")
    assert read_head(write_detector(tmp_path / "b.onnx", masks=True)) == Head((64, 64), "float32", 32)
    assert read_head(write_detector(tmp_path / "c.onnx", ended=True)) == Head((64, 64), "float32", ended=True)
    assert read_head(write_detector(tmp_path / "d.onnx", ended=True, masks=True)).masks == 32
    free = write_detector(tmp_path / "e.onnx", free=True, notes={"imgsz": "[320, 640]", "task": "detect"})
    assert read_head(free).sides == (320, 640)
    assert read_head(write_detector(tmp_path / "f.onnx", free=True, notes={"imgsz": "?"})).sides == (640, 640)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (([1, 3, 64, 64], [1, 1000]), "is not a finder of YOLOv8 or later: it gives 1 x 1000"),
        (([1, 3, 64, 64], [1, 25200, 85]), "is not a finder of YOLOv8 or later: it gives 1 x 25200 x 85"),
        (([1, 3, 64, 64], [1, 5, 84], [1, 7]), "it gives 1 x 5 x 84 and 1 x 7"),
        (([1, 16], [1, 5, 84]), "is not a finder: it takes 1 x 16, not one picture of three colours"),
        (([4, 3, 64, 64], [4, 5, 84]), "is not a finder: it takes 4 x 3 x 64 x 64"),
        (([1, 3, 4096, 64], [1, 5, 84]), "wants pictures of 64 x 4096 px; 32 to 2048 in steps of 32 are given"),
    ],
)
def test_what_is_no_detector_says_what_it_is(tmp_path, shapes, said):
    assert said in refusal(write_other(tmp_path / "other.onnx", *shapes))


def test_other_tasks_are_told_by_what_they_do(tmp_path):
    poses = write_detector(tmp_path / "pose.onnx", notes={"task": "pose"})
    assert refusal(poses).startswith("finds poses, not boxes: use a detector or segmenter")


def test_nothing_is_read_beside_the_file_and_no_foreign_operator_is_run(tmp_path):
    for place in ("../../etc/passwd", "/etc/passwd", "weights.bin"):
        outside = keep_elsewhere(write_detector(tmp_path / "outside.onnx"), place)
        assert refusal(outside) == (
            f"keeps its numbers in another file, {place!r}, which is not opened: export it whole"
        )
    custom = helper.make_node("Evil", ["images"], ["spare"], domain="custom")
    assert "not ONNX's own, 'custom.Evil', and is not run" in refusal(
        write_detector(tmp_path / "c.onnx", nodes=[custom])
    )
    hidden = helper.make_graph([custom], "inner", [], [helper.make_tensor_value_info("spare", 1, None)])
    branch = helper.make_node("If", ["yes"], ["spare"], then_branch=hidden, else_branch=hidden)
    yes = constant("yes", True, np.bool_)
    assert "'custom.Evil'" in refusal(write_detector(tmp_path / "i.onnx", nodes=[branch], tensors=[yes]))
    body = helper.make_graph([], "body", [], [])
    loop = helper.make_node("Loop", ["", ""], ["spare"], body=body)
    assert refusal(write_detector(tmp_path / "l.onnx", nodes=[loop])).startswith(
        "has a loop (Loop), which may have no end"
    )


def test_a_constant_of_a_node_is_looked_at_too(tmp_path):
    tensor = TensorProto(name="far", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "far.bin"
    node = helper.make_node("Constant", [], ["far"], value=tensor)
    assert "'far.bin'" in refusal(write_detector(tmp_path / "far.onnx", nodes=[node]))


def test_a_pickle_is_never_opened_and_the_line_that_exports_it_is_told(tmp_path):
    pickle = tmp_path / "face_yolov8n.pt"
    pickle.write_bytes(b"PK\x03\x04 whatever")
    assert "`yolo export model=face_yolov8n.pt format=onnx`" in refusal(pickle)


def test_without_the_runtime_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(finder_file, "find_spec", lambda _name: None)
    said = refusal(write_detector(tmp_path / "face.onnx"))
    assert said == "needs the package onnxruntime, which is not installed: pip install onnxruntime"


def test_no_bytes_do_more_than_be_refused(tmp_path):
    whole = write_detector(tmp_path / "whole.onnx").read_bytes()
    other = tmp_path / "other.onnx"
    for said, data in {
        "is empty": b"",
        "it is a web page": b"<html><body>no</body></html>",
        "is not an ONNX file": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        "it holds no network": b"\x08\x08",
    }.items():
        other.write_bytes(data)
        assert said in refusal(other)
    for cut in range(1, len(whole), 97):
        other.write_bytes(whole[:cut])
        with pytest.raises(BadFile):
            read_onnx(other)
    rng = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 4):
            data[place] = int(rng.integers(0, 256))
        other.write_bytes(data)
        with contextlib.suppress(BadFile):
            read_head(other)


def test_graphs_within_graphs_without_end_are_refused(tmp_path):
    inner = helper.make_graph([], "inner", [], [])
    for _ in range(12):
        inner = helper.make_graph([helper.make_node("If", ["c"], [], then_branch=inner)], "inner", [], [])
    path = save(tmp_path / "deep.onnx", inner.node, [], [])
    assert "is not an ONNX file" in refusal(path)


def test_names_of_finders(tmp_path):
    named = {
        name: FinderFile(name, tmp_path / f"{name}.onnx", place=f"bbox/{name}") for name in ("face_yolov8n", "hand")
    }
    named["old"] = FinderFile("old", tmp_path / "old.pt", place="old")
    for name in ("face_yolov8n", "face_yolov8n.onnx", "face_yolov8n.pt", "FACE_yolov8n.PT", "bbox/face_yolov8n.onnx"):
        assert choose_finder(name, named, "detail") == "face_yolov8n"
    assert choose_finder("Demo-Subject", named, "detail") == "demo-subject"
    assert choose_finder("old.pt", named, "detail") == "old"  # which is refused when it is looked at
    with pytest.raises(RequestError, match="There is no finder “face_yolov9n”; did you mean face_yolov8n") as error:
        choose_finder("face_yolov9n", named, "detail")
    assert error.value.field == "detail"
    with pytest.raises(RequestError, match=r"`yolo export model=person.pt format=onnx` makes one of a .pt\.$"):
        choose_finder("person.pt", named, "detail")


def test_the_library_finds_them_in_both_layouts(tmp_path, settings):
    from webui.library.library import find_finders

    other = tmp_path / "comfy"
    for place in ("adetailer/face.onnx", "adetailer/face.pt", "ultralytics/bbox/hand.onnx", "ultralytics/segm/old.pt"):
        for root in (settings.data_dir / "models", other / "models") if "face" in place else (other / "models",):
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_bytes(b"?")
    found = find_finders(settings.model_copy(update={"models_dir": (other,)}))
    assert [*found][:2] == ["face", "adetailer/face"] and {"hand", "old", "face.pt"} <= set(found)
    assert not found["hand"].problem and "yolo export model=old.pt" in found["old"].problem
    assert SimpleNamespace(**vars(found["hand"])).place == "bbox/hand"


def test_the_doctor_lists_them_and_says_what_is_missing(settings, capsys, monkeypatch):
    from webui import doctor

    folder = settings.data_dir / "models" / "adetailer"
    write_detector(folder / "face.onnx")
    (folder / "old.pt").write_bytes(b"PK")
    ((problem, _),) = doctor._examine_finders(settings)
    assert problem.startswith("finder 'old': old.pt is a pickle") and "export model=old.pt" in problem
    assert capsys.readouterr().out == "Finders: demo-subject, face, old\n"
    monkeypatch.setattr(doctor, "find_spec", lambda _name: None)
    ((problem, mend),) = doctor._examine_finders(settings)
    assert problem == "finders face need onnxruntime" and mend.endswith("-m pip install onnxruntime")
