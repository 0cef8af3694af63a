"""Files of textual inversion: each program's form is read, all else is refused with the reason."""

import math
import struct

import pytest
import torch
from safetensors.torch import save_file

from webui.core.tensor_file import BadFile, hash_file
from webui.engine.embeddings import fits, read_embedding

SD1, SD2, SDXL = {"text_encoder": 768}, {"text_encoder": 1024}, {"text_encoder": 768, "text_encoder_2": 1280}
REFINER = {"text_encoder_2": 1280}


@pytest.fixture
def write(tmp_path):
    """``write({key: shape or tensor})``: a file of random numbers in these shapes, and its tensors."""

    def write(content, name="style.safetensors"):
        tensors = {
            key: value if isinstance(value, torch.Tensor) else torch.randn(value) for key, value in content.items()
        }
        save_file(tensors, tmp_path / name)
        return tmp_path / name, tensors

    return write


@pytest.mark.parametrize(
    ("shapes", "keys", "widths"),
    [
        ({"emb_params": (8, 768)}, {"text_encoder": "emb_params"}, SD1),
        ({"emb_params": (1, 1024)}, {"text_encoder": "emb_params"}, SD2),
        ({"emb_params": (75, 768)}, {"text_encoder": "emb_params"}, SD1),
        ({"<cat-toy>": (768,)}, {"text_encoder": "<cat-toy>"}, SD1),
        ({"<cat-toy>": (3, 768)}, {"text_encoder": "<cat-toy>"}, SD1),
        ({"clip_l": (4, 768), "clip_g": (4, 1280)}, {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}, SDXL),
        ({"clip_l": (768,), "clip_g": (1, 1280)}, {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}, SDXL),
        (
            {"text_encoders_1": (2, 1280), "text_encoders_0": (2, 768)},
            {"text_encoder": "text_encoders_0", "text_encoder_2": "text_encoders_1"},
            SDXL,
        ),
        ({"<a>": (2, 1280), "<b>": (2, 768)}, {"text_encoder": "<b>", "text_encoder_2": "<a>"}, SDXL),
    ],
)
def test_every_form_is_read(write, shapes, keys, widths):
    path, tensors = write(shapes)
    embedding = read_embedding("Style", path)
    assert embedding.name == "Style" and embedding.content_hash == hash_file(path).content
    assert embedding.vectors.keys() == keys.keys()
    for component, vectors in embedding.vectors.items():
        assert vectors.dtype == torch.float32 and vectors.shape == (embedding.rows, widths[component])
        assert torch.equal(vectors, tensors[keys[component]].reshape(vectors.shape))
    assert [fits(embedding, other) for other in (SD1, SD2, SDXL, REFINER)] == [
        widths == other for other in (SD1, SD2, SDXL, REFINER)
    ]


def test_names_say_which_encoder_it_is_for_even_where_widths_do_not(write):
    path, tensors = write({"clip_g": (1, 8), "clip_l": (1, 8)})
    vectors = read_embedding("x", path).vectors
    assert torch.equal(vectors["text_encoder"], tensors["clip_l"])
    assert torch.equal(vectors["text_encoder_2"], tensors["clip_g"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(write, dtype):
    path, tensors = write({"emb_params": torch.randn(2, 768).to(dtype)})
    vectors = read_embedding("x", path).vectors["text_encoder"]
    assert vectors.dtype == torch.float32 and torch.equal(vectors, tensors["emb_params"].float())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "has 0 tensors"),
        ({"lora_unet_conv_in.lora_up.weight": (2, 768)}, "is a LoRA; it belongs in the folder for LoRAs (models/Lora)"),
        ({"decoder.conv_in.weight": (2, 768)}, "is a VAE; it belongs in the folder for VAEs"),
        ({"a": (1, 768), "b": (1, 768), "c": (1, 768)}, "has 3 tensors; an embedding has one, or two for SDXL"),
        ({"emb_params": (2, 3, 768)}, "'emb_params' of shape [2, 3, 768]"),
        ({"emb_params": ()}, "shape []"),
        ({"emb_params": (0, 768)}, "shape [0, 768]"),
        ({"emb_params": (2, 0)}, "shape [2, 0]"),
        ({"emb_params": (76, 768)}, "has 76 rows; 75 are allowed"),
        ({"clip_l": (2, 768), "clip_g": (3, 1280)}, "unequal numbers of rows"),
        ({"clip_l": (768,), "clip_g": (3, 1280)}, "unequal numbers of rows"),
        ({"clip_l": (2, 768), "clip_g": (80, 1280)}, "has 80 rows"),
        ({"<a>": (1, 768), "<b>": (1, 768)}, "cannot be told"),
        ({"emb_params": torch.ones(2, 768, dtype=torch.int64)}, "numbers of type int64"),
        ({"emb_params": torch.full((2, 768), math.nan)}, "not finite"),
        ({"emb_params": torch.full((2, 768), -math.inf)}, "not finite"),
        ({"emb_params": torch.full((2, 768), 1e300, dtype=torch.float64)}, "not finite"),
        ({"clip_l": (1, 768), "clip_g": torch.full((1, 1280), math.nan)}, "not finite"),
    ],
)
def test_what_is_no_embedding_is_refused_with_the_reason(write, content, reason):
    path, _ = write(content)
    with pytest.raises(BadFile) as caught:
        read_embedding("x", path)
    assert reason in str(caught.value)


@pytest.mark.parametrize("ending", [".pt", ".bin"])
def test_a_pickle_is_never_opened(tmp_path, ending):
    path = tmp_path / f"style{ending}"
    torch.save({"string_to_param": {"*": torch.randn(1, 768)}}, path)
    with pytest.raises(BadFile, match="is a pickle"):
        read_embedding("x", path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b"<html>404 not found</html>", "is not a safetensors file"),
        (b'{"a":{"dtype":"F32","shape":[1,4],"data_offsets":[0,8]}}', "is damaged"),  # offsets and shape disagree
        (b'{"a":{"dtype":"X9","shape":[1,4],"data_offsets":[0,16]}}', "is damaged"),
        (b'{"a":{"dtype":"F32","shape":[1,4],"data_offsets":[0,64]}}', "is cut short"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, content, reason):
    path = tmp_path / "style.safetensors"
    if content is not None:
        is_header = content.startswith(b"{")
        path.write_bytes(struct.pack("<Q", len(content)) + content + bytes(16) if is_header else content)
    with pytest.raises(BadFile) as caught:
        read_embedding("x", path)
    assert reason in str(caught.value)
