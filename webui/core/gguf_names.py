"""What llama.cpp calls the tensors of text encoders in GGUF files, and what transformers calls them.

By the file's ``general.architecture`` (llama.cpp, gguf-py/gguf/constants.py and tensor_mapping.py). Image models keep
their own names there, so that nothing is to be done for them.
"""

from collections.abc import Iterable, Mapping

LANGUAGE_MODEL = "token_embd.weight"
"""A tensor that every file of llama.cpp's has, and no image model's."""

_QWEN3 = (  # what a name begins with, or what is in it, in this order
    ("token_embd.", "model.embed_tokens."),
    ("output_norm.", "model.norm."),
    ("blk.", "model.layers."),
    (".attn_norm.", ".input_layernorm."),
    (".attn_q_norm.", ".self_attn.q_norm."),
    (".attn_k_norm.", ".self_attn.k_norm."),
    (".attn_q.", ".self_attn.q_proj."),
    (".attn_k.", ".self_attn.k_proj."),
    (".attn_v.", ".self_attn.v_proj."),
    (".attn_output.", ".self_attn.o_proj."),
    (".ffn_norm.", ".post_attention_layernorm."),
    (".ffn_gate.", ".mlp.gate_proj."),
    (".ffn_up.", ".mlp.up_proj."),
    (".ffn_down.", ".mlp.down_proj."),
)
_T5 = (
    ("token_embd.", "shared."),
    ("enc.output_norm.", "encoder.final_layer_norm."),
    ("enc.blk.", "encoder.block."),
    (".attn_norm.", ".layer.0.layer_norm."),
    (".attn_rel_b.", ".layer.0.SelfAttention.relative_attention_bias."),
    (".attn_q.", ".layer.0.SelfAttention.q."),
    (".attn_k.", ".layer.0.SelfAttention.k."),
    (".attn_v.", ".layer.0.SelfAttention.v."),
    (".attn_o.", ".layer.0.SelfAttention.o."),
    (".ffn_norm.", ".layer.1.layer_norm."),
    (".ffn_gate.", ".layer.1.DenseReluDense.wi_0."),
    (".ffn_up.", ".layer.1.DenseReluDense.wi_1."),
    (".ffn_down.", ".layer.1.DenseReluDense.wo."),
)
ARCHITECTURES: Mapping[str, tuple[tuple[str, str], ...]] = {"qwen3": _QWEN3, "t5": _T5, "t5encoder": _T5}


def transformers_names(architecture: str, names: Iterable[str]) -> dict[str, str]:
    """transformers' name of each tensor of llama.cpp's; its own for one of which there is none. Raises KeyError."""
    table = ARCHITECTURES[architecture]
    return {name: _renamed(name, table) for name in names}


def _renamed(name: str, table: Iterable[tuple[str, str]]) -> str:
    for theirs, ours in table:
        name = name.replace(theirs, ours, 1)
    return name
