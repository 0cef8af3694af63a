"""Detectors of known weights in the layout of ultralytics' exports: they find what is red.

The score of a place is the sigmoid of 40 (red - 0.6) for ``red``, the mean of R - (G + B) / 2 over a square of 8 px.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE_PX, STRIDE_PX = 64, 8
BOX_PX = 24
PROTOTYPES = 32


def constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def red(stride, name, source="images"):
    """Nodes for the map of 40 (red - 0.6) in squares of ``stride`` px, and their weights."""
    nodes = [
        helper.make_node("AveragePool", [source], [f"{name}_mean"], kernel_shape=[stride] * 2, strides=[stride] * 2),
        helper.make_node("Conv", [f"{name}_mean", f"{name}_weight", f"{name}_bias"], [name], kernel_shape=[1, 1]),
    ]
    return nodes, [
        constant(f"{name}_weight", np.array([40.0, -20.0, -20.0]).reshape(1, 3, 1, 1)),
        constant(f"{name}_bias", [-24.0]),
    ]


def write_detector(path, *, masks=False, ended=False, free=False, notes=None, nodes=(), tensors=(), side=SIDE_PX):
    """A detector of one class, with masks where wanted; ``ended`` gives corners, score and class for each place."""
    cells = side // STRIDE_PX
    places = cells * cells
    rows, columns = np.mgrid[:cells, :cells] * STRIDE_PX + STRIDE_PX / 2
    centres = np.stack([columns.ravel(), rows.ravel()])
    sizes = np.full((2, places), BOX_PX, np.float32)
    boxes = (
        np.concatenate([centres, sizes]) if not ended else np.concatenate([centres - sizes / 2, centres + sizes / 2])
    )
    found, held = red(STRIDE_PX, "logits")
    graph = [*nodes, *found]
    held = [*tensors, *held, constant("boxes", boxes[None]), constant("flat", [1, 1, places], np.int64)]
    graph += [
        helper.make_node("Sigmoid", ["logits"], ["scores_map"]),
        helper.make_node("Reshape", ["scores_map", "flat"], ["scores"]),
    ]
    joined = ["boxes", "scores"]
    if ended:
        held.append(constant("classes", np.zeros((1, 1, places))))
        joined.append("classes")
    channels = 4 + len(joined) - 1
    outputs = []
    if masks:
        mixes = np.zeros((1, PROTOTYPES, places))
        mixes[:, 0] = 1
        held.append(constant("mixes", mixes))
        joined.append("mixes")
        channels += PROTOTYPES
        fine, weights = red(4, "fine")
        held += [*weights, constant("others", np.zeros((1, PROTOTYPES - 1, side // 4, side // 4)))]
        graph += [*fine, helper.make_node("Concat", ["fine", "others"], ["output1"], axis=1)]
        outputs = [helper.make_tensor_value_info("output1", 1, [1, PROTOTYPES, side // 4, side // 4])]
    shape = [1, channels, "places" if free else places]
    graph.append(helper.make_node("Concat", joined, ["wide" if ended else "output0"], axis=1))
    if ended:
        graph.append(helper.make_node("Transpose", ["wide"], ["output0"], perm=[0, 2, 1]))
        shape = [shape[0], shape[2], shape[1]]
    sides = ["height", "width"] if free else [side, side]
    images = helper.make_tensor_value_info("images", 1, ["batch" if free else 1, 3, *sides])
    outputs = [helper.make_tensor_value_info("output0", 1, shape), *outputs]
    return save(path, graph, [images], outputs, held, notes or ({"imgsz": f"[{side}, {side}]"} if free else {}))


def save(path, nodes, inputs, outputs, tensors=(), notes=None):
    """A model of these parts, as a file; its path."""
    graph = helper.make_graph(list(nodes), "detector", list(inputs), list(outputs), list(tensors))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("custom", 1)])
    model.ir_version = 8
    helper.set_model_props(model, notes or {})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(model.SerializeToString())
    return Path(path)


def write_other(path, shape_in, *shapes_out):
    """A network that is no detector: it gives zeros of these shapes."""
    inputs = [helper.make_tensor_value_info("images", 1, shape_in)]
    outputs = [helper.make_tensor_value_info(f"output{k}", 1, shape) for k, shape in enumerate(shapes_out)]
    nodes = [helper.make_node("Identity", [f"zeros{k}"], [f"output{k}"]) for k in range(len(shapes_out))]
    return save(path, nodes, inputs, outputs, [constant(f"zeros{k}", np.zeros(s)) for k, s in enumerate(shapes_out)])


def keep_elsewhere(path, place):
    """The file's first tensor says that its numbers are in another file."""
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    path.write_bytes(model.SerializeToString())
    return path
