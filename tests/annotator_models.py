"""Networks that make maps, of known weights: depth is how bright it is, and a person stands where the test says."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PERSON_PX = 64
POINTS = 133
ACROSS, DOWN = 36, 48


def write(path, nodes, inputs, outputs, tensors=()):
    """A file with one picture as input and these outputs, each a name and a shape."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs]
    graph = helper.make_graph(list(nodes), "annotator", ports, given, list(tensors))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def write_depth(path, sides=("h", "w"), scale=1.0):
    """The mean of the three channels, as near."""
    tensors = [numpy_helper.from_array(np.array([scale], np.float32), "scale")]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["depth"]),
    ]
    return write(path, nodes, [("image", [1, 3, *sides])], [("depth", [1, *sides])], tensors)


def write_people(path, *boxes):
    """YOLOX that finds people in these boxes (left, top, right, bottom in px of 64 x 64), each in a cell of its own."""
    cells = (PERSON_PX // 8) ** 2 + (PERSON_PX // 16) ** 2 + (PERSON_PX // 32) ** 2
    rows = np.zeros((1, cells, 85), np.float32)
    for number, (left, top, right, bottom) in enumerate(boxes):  # in the first row of cells, 8 px each
        rows[0, number, :2] = (left + right) / 16 - number, (top + bottom) / 16
        rows[0, number, 2:6] = np.log((right - left) / 8), np.log((bottom - top) / 8), 0.9, 0.9
    node = helper.make_node("Identity", ["rows"], ["output"])
    tensors = [numpy_helper.from_array(rows, "rows")]
    return write(path, [node], [("images", [1, 3, PERSON_PX, PERSON_PX])], [("output", list(rows.shape))], tensors)


def write_points(path, places):
    """DWPose that finds points at ``places`` {number: (x, y)}, shares of the part that it is shown, and no others."""
    found = [np.zeros((1, POINTS, 2 * side), np.float32) for side in (ACROSS, DOWN)]
    for number, place in places.items():
        for bins, share in zip(found, place, strict=True):
            bins[0, number, round(share * bins.shape[2])] = 0.8
    nodes = [helper.make_node("Identity", [f"{side}_held"], [side]) for side in ("x", "y")]
    tensors = [numpy_helper.from_array(bins, f"{side}_held") for side, bins in zip("xy", found, strict=True)]
    outputs = [(side, list(bins.shape)) for side, bins in zip("xy", found, strict=True)]
    return write(path, nodes, [("input", [1, 3, DOWN, ACROSS])], outputs, tensors)


def damaged(path):
    """A file with an operator that is nobody's."""
    node = helper.make_node("Spell", ["image"], ["depth"], domain="their.own")
    write(path, [node], [("image", [1, 3, 8, 8])], [("depth", [1, 8, 8])])
    onnx.load(path)
    return path
