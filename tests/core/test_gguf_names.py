"""Text encoders in llama.cpp's names: known as what they are, and read under transformers' names."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from webui.core.gguf_names import transformers_names
from webui.core.tensor_file import BadFile, parse_gguf_header, read_header
from webui.library.checkpoint import read_part

LAYERS = 2
ARCHITECTURES = {"qwen3": gguf.MODEL_ARCH.QWEN3, "t5encoder": gguf.MODEL_ARCH.T5ENCODER}


def names_of(architecture: str) -> dict[str, str]:
    """llama.cpp's names of transformers' tensors, as its own converter finds them."""
    from transformers import Qwen3Config, Qwen3Model, T5Config, T5EncoderModel

    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    if architecture == "qwen3":
        made = Qwen3Model(Qwen3Config(vocab_size=8, head_dim=16, num_key_value_heads=1, **small))
        before = "model."
    else:
        t5 = {"vocab_size": 8, "d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": LAYERS, "num_heads": 2}
        made, before = T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", **t5)), ""
    table = gguf.get_tensor_name_map(ARCHITECTURES[architecture], LAYERS)
    ours = [f"{before}{name}" for name, _ in made.named_parameters()]
    return {table.get_name(name, try_suffixes=(".weight",)): name for name in ours}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tensor_has_the_name_that_llama_cpp_s_converter_gives_it(architecture: str) -> None:
    theirs = names_of(architecture)
    assert None not in theirs and len(theirs) > 10
    assert transformers_names(architecture, theirs) == theirs


def write(path: Path, architecture: str, names: tuple[str, ...], rows: int = 4, words: int = 0) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    if words:
        writer.add_array("tokenizer.ggml.tokens", [f"word {number}" for number in range(words)])
    for name in names:
        writer.add_tensor(name, np.zeros((rows if name == "token_embd.weight" else 4, 32), np.float16))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    return path


def test_a_file_of_qwen3_is_known_behind_its_vocabulary(tmp_path: Path) -> None:
    names = ("token_embd.weight", "blk.0.attn_q_norm.weight", "output_norm.weight")
    path = write(tmp_path / "x.gguf", "qwen3", names, rows=151_936, words=120_000)
    found = read_part(path)
    assert found and (found.family, found.parts, found.width_of("text_encoder")) == ("Qwen3", ("text_encoder",), 32)
    assert set(read_header(path).shapes) == {
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_norm.weight",
        "model.norm.weight",
    }
    assert parse_gguf_header(path.read_bytes()[: 2**18], path.stat().st_size) is None, "it needs more"


def test_another_architecture_and_two_names_for_one_tensor_are_refused(tmp_path: Path) -> None:
    gemma = write(tmp_path / "gemma.gguf", "gemma2", ("token_embd.weight",))
    with pytest.raises(BadFile, match="language model of the architecture 'gemma2'; qwen3, t5, t5encoder can read"):
        read_header(gemma)
    twice = write(tmp_path / "twice.gguf", "qwen3", ("token_embd.weight", "model.embed_tokens.weight"))
    with pytest.raises(BadFile, match="two of its tensors mean the same"):
        read_header(twice)
