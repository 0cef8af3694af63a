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


def write_edges(path, *scales):
    """HED or TEED: how bright each place is, as scores, once whole and once at half the size for each further scale."""
    nodes = [helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=1)]
    tensors = [numpy_helper.from_array(np.array(127.5, np.float32), "middle")]
    nodes.append(helper.make_node("Sub", ["mean", "middle"], ["bright"]))
    for number, scale in enumerate(scales):
        tensors.append(numpy_helper.from_array(np.array(scale, np.float32), f"scale_{number}"))
        step = [2**number] * 2
        nodes += [
            helper.make_node("AveragePool", ["bright"], [f"pooled_{number}"], kernel_shape=step, strides=step),
            helper.make_node("Mul", [f"pooled_{number}", f"scale_{number}"], [f"side_{number}"]),
        ]
    outputs = [(f"side_{number}", [1, 1, f"h{number}", f"w{number}"]) for number in range(len(scales))]
    return write(path, nodes, [("image", [1, 3, "h", "w"])], outputs, tensors)


def write_first_channel(path):
    """PiDiNet: of what it is shown the first channel, behind another map."""
    tensors = [numpy_helper.from_array(np.array([at], np.int64), f"at_{at}") for at in range(3)]
    nodes = [helper.make_node("Slice", ["image", f"at_{at}", f"at_{at + 1}", "at_1"], [f"map_{at}"]) for at in (1, 0)]
    outputs = [("map_1", [1, 1, "h", "w"]), ("map_0", [1, 1, "h", "w"])]
    return write(path, nodes, [("image", [1, 3, "h", "w"])], outputs, tensors)


def write_colours(path, channels=4):
    """NormalBae: of -1 to 1 the colours that it is shown, at half the size and whole, and how sure it is."""
    mean, spread = (
        np.array(row, np.float32).reshape(1, 3, 1, 1) for row in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    held = {"mean": mean, "spread": spread, "two": np.float32(2), "one": np.float32(1)}
    held |= {"pads": np.int64([0, 0, 0, 0, 0, channels - 3, 0, 0])}
    nodes = [
        helper.make_node("Mul", ["image", "spread"], ["wide"]),
        helper.make_node("Add", ["wide", "mean"], ["colours"]),
        helper.make_node("Mul", ["colours", "two"], ["double"]),
        helper.make_node("Sub", ["double", "one"], ["facing"]),
        helper.make_node("Pad", ["facing", "pads"], ["fine"]),
        helper.make_node("AveragePool", ["fine"], ["coarse"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(values), name) for name, values in held.items()]
    outputs = [("coarse", [1, channels, "h2", "w2"]), ("fine", [1, channels, "h", "w"])]
    return write(path, nodes, [("image", [1, 3, "h", "w"])], outputs, tensors)


def write_kinds(path, number_of=150, kinds=(0, 1, 2)):
    """A network of ADE20K's kinds, at a quarter of the size: where red, green or blue is most is the kind of each."""
    weights = np.full((number_of, 3, 1, 1), -1, np.float32)
    for channel, kind in enumerate(kinds):
        weights[kind, :, 0, 0] = np.eye(3)[channel]
    nodes = [
        helper.make_node("AveragePool", ["pixel_values"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["small", "weights"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(weights, "weights")]
    outputs = [("logits", [1, number_of, "h4", "w4"])]
    return write(path, nodes, [("pixel_values", [1, 3, "h", "w"])], outputs, tensors)


def damaged(path):
    """A file with an operator that is nobody's."""
    node = helper.make_node("Spell", ["image"], ["depth"], domain="their.own")
    write(path, [node], [("image", [1, 3, 8, 8])], [("depth", [1, 8, 8])])
    onnx.load(path)
    return path
