"""Files whose weights are small numbers with a scale beside them: which can be read, and how the others are named."""

import json
import struct

import pytest

from webui.core.quantization import check_quantization, scale_names
from webui.core.tensor_file import BadFile, read_header

LAYER = "model.diffusion_model.input_blocks.1.1.proj_in"


@pytest.fixture
def check(tmp_path):
    """``check({key: bytes}, metadata)``: looks at a file with these tensors of bytes."""

    def check(tensors, metadata=None):
        header, body = {"__metadata__": metadata or {}}, b""
        for key, content in tensors.items():
            places = [len(body), len(body) + len(content)]
            header[key] = {"dtype": "U8", "shape": [len(content)], "data_offsets": places}
            body += content
        text = json.dumps(header).encode()
        path = tmp_path / "x.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + body)
        check_quantization(path, read_header(path))

    return check


def note(**said) -> bytes:
    return json.dumps(said).encode()


@pytest.mark.parametrize(
    "tensors",
    [
        {f"{LAYER}.weight": b"1", f"{LAYER}.weight_scale": b"1", f"{LAYER}.input_scale": b"1"},
        {f"{LAYER}.weight": b"1", f"{LAYER}.scale_weight": b"1", "scaled_fp8": b"12"},
        {f"{LAYER}.comfy_quant": note(format="float8_e4m3fn", full_precision_matrix_mult=True)},
        {f"{LAYER}.comfy_quant": note(format="float8_e5m2", convrot=False)},
        {"v_pred": b"", f"{LAYER}.weight": b"1"},
    ],
)
def test_fp8_with_scales_is_known(check, tensors):
    check(tensors)
    check(tensors, {"_quantization_metadata": note(layers={LAYER: {"format": "float8_e4m3fn"}}).decode()})


@pytest.mark.parametrize(
    ("tensors", "form"),
    [
        ({f"{LAYER}.comfy_quant": note(format="nvfp4")}, "nvfp4"),
        ({f"{LAYER}.comfy_quant": note(format="mxfp8")}, "mxfp8"),
        ({f"{LAYER}.comfy_quant": note(format="int8_tensorwise", smoothed=True)}, "int8_tensorwise with smoothed"),
        ({f"{LAYER}.comfy_quant": note(format="convrot_w4a4", convrot=True)}, "convrot_w4a4"),
        ({f"{LAYER}.comfy_quant": b'"int8_blockwise"'}, "int8_blockwise"),
        ({f"{LAYER}.comfy_quant": note(format="float8_e4m3fn", convrot=True)}, "float8_e4m3fn with convrot"),
        ({f"{LAYER}.weight_scale_2": b"1"}, "nvfp4"),
        ({f"{LAYER}.pre_quant_scale": b"1"}, "a format with smoothed inputs"),
        ({f"{LAYER}.weight.quant_state.bitsandbytes__nf4": b"1"}, "bitsandbytes nf4"),
        ({f"{LAYER}.qweight": b"1"}, "GPTQ, AWQ or SVDQuant"),
    ],
)
def test_other_forms_are_refused_by_name(check, tensors, form):
    with pytest.raises(BadFile, match=f"^is quantized as {form}, which is not known here; get it in float16"):
        check(tensors)


@pytest.mark.parametrize("layers", [{LAYER: {"format": "nvfp4"}}, {LAYER: "nvfp4"}])
def test_a_form_that_only_the_metadata_tell_is_seen_too(check, layers):
    with pytest.raises(BadFile, match="nvfp4"):
        check({"x": b"1"}, {"_quantization_metadata": note(layers=layers).decode()})


@pytest.mark.parametrize("said", [b"", b"\xff\x00", b"{", b"[" * 4000])
def test_a_note_that_cannot_be_read_is_no_crash(check, said):
    with pytest.raises(BadFile, match="is quantized in a way that it does not tell"):
        check({f"{LAYER}.comfy_quant": said})


def test_a_scale_goes_by_two_names():
    assert list(scale_names("a.weight")) == ["a.weight_scale", "a.scale_weight"]
    assert list(scale_names("a.in_proj_weight")) == ["a.in_proj_weight_scale", "a.in_proj_scale_weight"]
    assert list(scale_names("positional_embedding")) == ["positional_embedding_scale"]
