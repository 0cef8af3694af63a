"""Segment Anything of known weights, in the signatures of its exporters: a thing is what has the colour of a point."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE_PX, PLACES = 256, 16
"""Of the square that the encoder sees, and of its embeddings."""
NEAR = 0.5
"""How far the colours of one thing may differ, as the encoder sees them."""
FAR = 1e3
FORMS = ("sam", "prepared", "sam2", "ort", "optimum")
"""Meta's script and samexporter's; samexporter's with preparation in the file; SAM 2 as samexporter and as onnxruntime
export it; Hugging Face's optimum."""
NAMES = {"optimum": ("vision_encoder", "prompt_encoder_mask_decoder")}
_EMBEDDINGS = {"sam2": "image_embed"}
_FINER = {"sam2": "high_res_feats", "ort": "image_features"}


def write_segmenter(folder, form="sam", name="tiny_sam", scale=1.0):
    """Both files, {name: path}; with another ``scale`` colours are other numbers."""
    encoder, decoder = NAMES.get(form, (f"{name}.encoder", f"{name}.decoder"))
    folder.mkdir(parents=True, exist_ok=True)
    found = {encoder: folder / f"{encoder}.onnx", decoder: folder / f"{decoder}.onnx"}
    write_encoder(found[encoder], form, scale)
    write_decoder(found[decoder], form)
    return found


def write_encoder(path, form, scale=1.0):
    """The mean colour of each place."""
    picture = {"prepared": ["h", "w", 3]}.get(form, [1, 3, SIDE_PX, SIDE_PX])
    embeddings = _EMBEDDINGS.get(form, "image_embeddings")
    nodes, at, tensors = [], "picture", {"scale": np.float32(scale)}
    if form == "prepared":  # levels to the others' numbers, and room beside them
        tensors |= {"mean": np.float32([123.675, 116.28, 103.53]), "spread": np.float32([58.395, 57.12, 57.375])}
        tensors |= {
            "square": np.int64([1, 3, SIDE_PX, SIDE_PX]),
            "none": np.int64([0, 0, 0, 0]),
            "first": np.int64([0]),
        }
        nodes += [
            helper.make_node("Sub", ["picture", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "spread"], ["even"]),
            helper.make_node("Transpose", ["even"], ["channels"], perm=[2, 0, 1]),
            helper.make_node("Unsqueeze", ["channels", "first"], ["one"]),
            helper.make_node("Shape", ["one"], ["sides"]),
            helper.make_node("Sub", ["square", "sides"], ["room"]),
            helper.make_node("Concat", ["none", "room"], ["pads"], axis=0),
            helper.make_node("Pad", ["one", "pads"], ["padded"]),
        ]
        at = "padded"
    step = SIDE_PX // PLACES
    nodes += [
        helper.make_node("AveragePool", [at], ["seen"], kernel_shape=[step, step], strides=[step, step]),
        helper.make_node("Mul", ["seen", "scale"], [embeddings]),
    ]
    outputs = {embeddings: [1, 3, PLACES, PLACES]}
    if form in _FINER:
        outputs = {}
        for finer, times in ((f"{_FINER[form]}_0", 4), (f"{_FINER[form]}_1", 2)):
            sides, outputs[finer] = [step // times] * 2, [1, 3, times * PLACES, times * PLACES]
            nodes.append(helper.make_node("AveragePool", [at], [finer], kernel_shape=sides, strides=sides))
        outputs |= {embeddings: [1, 3, PLACES, PLACES]}
    if form == "optimum":
        nodes.append(helper.make_node("Identity", [embeddings], ["image_positional_embeddings"]))
        outputs |= {"image_positional_embeddings": [1, 3, PLACES, PLACES]}
    _write(path, nodes, {"picture": (TensorProto.FLOAT, picture)}, outputs, tensors)


def write_decoder(path, form):
    """Masks by colour. SAM's are nothing where no point says that it is the last; of its four the second is wanted for
    one point and the first for several, the others are everything."""
    embeddings = _EMBEDDINGS.get(form, "image_embeddings")
    lead = [1, 1] if form == "optimum" else [1]
    points, labels = ("input_points", "input_labels") if form == "optimum" else ("point_coords", "point_labels")
    number = {"optimum": TensorProto.INT64, "ort": TensorProto.INT32}.get(form, TensorProto.FLOAT)
    low = 4 * PLACES
    inputs = {embeddings: (TensorProto.FLOAT, [1, 3, PLACES, PLACES])}
    if form in _FINER:
        sides = enumerate((low, low // 2))
        inputs |= {f"{_FINER[form]}_{at}": (TensorProto.FLOAT, [1, 3, side, side]) for at, side in sides}
    if form == "optimum":
        inputs |= {"image_positional_embeddings": (TensorProto.FLOAT, [1, 3, PLACES, PLACES])}
    inputs |= {points: (TensorProto.FLOAT, [*lead, "n", 2]), labels: (number, [*lead, "n"])}
    if form != "optimum":
        prior, has_prior = ("input_masks", "has_input_masks") if form == "ort" else ("mask_input", "has_mask_input")
        inputs |= {prior: (TensorProto.FLOAT, [1, 1, low, low]), has_prior: (TensorProto.FLOAT, [1])}
    if form == "ort":
        inputs |= {"original_image_size": (TensorProto.INT32, [2])}
    if form in ("sam", "prepared"):
        inputs |= {"orig_im_size": (TensorProto.FLOAT, [2])}
    is_first = form in ("sam", "prepared")
    scores = [0.1, 0.2, 0.9, 0.3] if is_first else [0.2, 0.9, 0.3]
    wanted = (0, 2) if is_first else (1,)
    tensors = {
        "flat": np.int64([3, PLACES**2]), "pairs": np.int64([-1, 2]), "row": np.int64([-1]), "step": np.float32(16),
        "weights": np.float32([[1], [PLACES]]), "near": np.float32(NEAR), "far": np.float32(FAR),
        "least": np.float32(-FAR), "one": np.float32(1), "zero": np.float32(0), "last": np.float32(-1),
        "row_1": np.int64([1]), "axis_2": np.int64([2]),
        "square": np.int64([1, 1, PLACES, PLACES]), "times": np.float32([1, 1, 4, 4]), "nowhere": np.float32(-1),
        "all": np.ones((1, 1, low, low), np.float32), "scores": np.float32([scores]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Reshape", [embeddings, "flat"], ["places"]),
        helper.make_node("Reshape", [points, "pairs"], ["at"]),
        helper.make_node("Cast", [labels], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["numbers", "row"], ["kinds"]),
        helper.make_node("Div", ["at", "step"], ["steps"]),
        helper.make_node("Floor", ["steps"], ["cells"]),
        helper.make_node("MatMul", ["cells", "weights"], ["index"]),
        helper.make_node("Reshape", ["index", "row"], ["which"]),
        helper.make_node("Cast", ["which"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Gather", ["places", "whole"], ["colours"], axis=1),  # (3, n)
        helper.make_node("Unsqueeze", ["places", "row_1"], ["all_places"]),  # (3, 1, places)
        helper.make_node("Unsqueeze", ["colours", "axis_2"], ["all_colours"]),  # (3, n, 1)
        helper.make_node("Sub", ["all_places", "all_colours"], ["apart"]),
        helper.make_node("Abs", ["apart"], ["distance"]),
        helper.make_node("ReduceMax", ["distance"], ["most"], axes=[0], keepdims=0),  # (n, places)
        helper.make_node("Sub", ["near", "most"], ["alike"]),
        helper.make_node("Neg", ["alike"], ["unlike"]),
        helper.make_node("Unsqueeze", ["kinds", "row_1"], ["kind"]),  # (n, 1)
        helper.make_node("Equal", ["kind", "one"], ["on"]),
        helper.make_node("Equal", ["kind", "zero"], ["beside"]),
        helper.make_node("Where", ["on", "alike", "least"], ["held"]),
        helper.make_node("Where", ["beside", "unlike", "far"], ["kept"]),
        helper.make_node("ReduceMax", ["held"], ["thing"], axes=[0], keepdims=0),
        helper.make_node("ReduceMin", ["kept"], ["rest"], axes=[0], keepdims=0),
        helper.make_node("Min", ["thing", "rest"], ["found"]),
    ]
    if is_first:
        nodes += [
            helper.make_node("ReduceMin", ["kinds"], ["end"], axes=[0], keepdims=0),
            helper.make_node("Equal", ["end", "last"], ["ends"]),
            helper.make_node("Where", ["ends", "found", "nowhere"], ["told"]),
        ]
    nodes += [
        helper.make_node("Reshape", ["told" if is_first else "found", "square"], ["small"]),
        helper.make_node("Resize", ["small", "", "times"], ["mask"], mode="nearest"),
        helper.make_node("Concat", ["mask" if k in wanted else "all" for k in range(len(scores))], ["each"], axis=1),
    ]
    masks, told = {"optimum": ("pred_masks", "iou_scores"), "sam2": ("masks", "iou_predictions")}.get(
        form, ("low_res_masks", "iou_predictions")
    )
    shape, shown = [*lead, len(scores), low, low], [*lead, len(scores)]
    tensors |= {"shape": np.int64(shape), "shown": np.int64(shown)}
    nodes += [
        helper.make_node("Reshape", ["each", "shape"], [masks]),
        helper.make_node("Reshape", ["scores", "shown"], [told]),
    ]
    _write(path, nodes, inputs, {masks: shape, told: shown}, tensors)


def _write(path, nodes, inputs, outputs, tensors):
    ports = [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in inputs.items()]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    held = [numpy_helper.from_array(np.asarray(values), name) for name, values in tensors.items()]
    graph = helper.make_graph(nodes, "segmenter", ports, given, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
