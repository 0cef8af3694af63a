"""Weights by block: which value counts for which module, in sd-webui-lora-block-weight's terms."""

import pytest

from webui.core.block_weights import (
    BLOCKS,
    ELEMENTS,
    LISTS,
    PRESETS,
    block_of,
    left_out,
    outside,
    read_block_weights,
)

ATTENTION = "transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("conv_in", "IN00"),
        ("down_blocks.0.resnets.0.conv1", "IN01"),
        ("down_blocks.0.attentions.1.proj_in", "IN02"),
        ("down_blocks.0.downsamplers.0.conv", "IN03"),
        ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0", "IN04"),
        ("down_blocks.2.attentions.1.proj_out", "IN08"),
        ("down_blocks.3.resnets.1.conv2", "IN11"),
        ("mid_block.attentions.0.proj_in", "MID"),
        ("mid_block.resnets.1.time_emb_proj", "MID"),
        ("up_blocks.0.resnets.0.conv1", "OUT00"),
        ("up_blocks.0.upsamplers.0.conv", "OUT02"),
        ("up_blocks.1.attentions.2.proj_in", "OUT05"),
        ("up_blocks.3.attentions.2.proj_in", "OUT11"),
        ("lora_unet_down_blocks_1_attentions_1_proj_in.lora_down.weight", "IN05"),
        (f"lora_unet_up_blocks_2_attentions_0_{ATTENTION}.alpha", "OUT06"),
        (f"lora_unet_input_blocks_4_1_{ATTENTION}.lora_up.weight", "IN04"),
        ("lora_unet_input_blocks_0_0.lora_up.weight", "IN00"),
        ("lora_unet_middle_block_1_proj_in.alpha", "MID"),
        ("lora_unet_output_blocks_11_1_proj_in.alpha", "OUT11"),
        ("lora_unet_conv_in.lora_down.weight", "IN00"),
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", "MID"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", "BASE"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", "BASE"),
        ("lora_te2_text_projection.alpha", "BASE"),
        ("text_encoder_2.encoder.layers.0.mlp.fc1.lora_A.weight", "BASE"),
        ("time_embedding.linear_1", ""),
        ("conv_out", ""),
        ("lora_unet_nowhere.lora_up.weight", ""),
    ],
)
def test_which_block_a_module_is_in(name, block):
    assert block_of(name) == block


def test_lists_name_the_blocks_of_their_kind_of_file():
    assert {length: len(blocks) for length, blocks in LISTS.items()} == {n: n for n in (12, 17, 20, 26)}
    assert LISTS[12] == tuple(
        ["BASE", "IN04", "IN05", "IN07", "IN08", "MID", "OUT00", "OUT01", "OUT02", "OUT03", "OUT04", "OUT05"]
    )
    assert " ".join(LISTS[17]) == (
        "BASE IN01 IN02 IN04 IN05 IN07 IN08 MID OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11"
    )
    assert LISTS[20][9:13] == ("IN08", "MID", "OUT00", "OUT01") and LISTS[20][-1] == "OUT08" and LISTS[26] == BLOCKS
    assert all(len(values.split(",")) == 17 for values in PRESETS.values())


def factors(text: str, elements: str = "", name: str = "") -> dict[str, float]:
    weights = read_block_weights(text, elements)
    return {block: weights.factor(block, name) for block in BLOCKS if weights.factor(block, name)}


def test_a_value_counts_for_its_block_and_those_that_are_not_named_count_0():
    assert factors(",".join(str(n) for n in range(12)))["OUT05"] == 11
    out = {block: 1.0 for block in LISTS[17] if block.startswith("OUT")}
    assert factors("OUTALL") == {"BASE": 1.0} | out
    assert factors("ALL0.5") == dict.fromkeys(LISTS[17], 0.5)
    assert read_block_weights(",".join(["1"] * 26)) is None and read_block_weights("ALL") is not None
    assert read_block_weights("") is None and factors("NONE") == {}


def test_elements_count_more_than_blocks():
    deep = BLOCKS[BLOCKS.index("IN05") : BLOCKS.index("OUT05") + 1]
    assert factors("NONE", "ATTNDEEPON", f"up_blocks_1_attentions_0_{ATTENTION}") == dict.fromkeys(deep, 1.0)
    assert factors("NONE", "ATTNDEEPON", "proj_in") == {}
    without = dict.fromkeys((block for block in BLOCKS if block not in deep), 1.0)
    assert factors("", "ATTNDEEPOFF", "attn2.to_k") == without == factors("", "PROJDEEPOFF", "ff.net.0.proj")
    assert factors("", "PROJDEEPOFF", "resnets.0.time_emb_proj") == dict.fromkeys(BLOCKS, 1.0)
    assert set(ELEMENTS) == {"ATTNDEEPON", "ATTNDEEPOFF", "PROJDEEPOFF"}


def test_what_a_list_leaves_out_and_what_is_in_no_block():
    keys = ["lora_unet_down_blocks_0_downsamplers_0_conv.alpha", f"lora_unet_output_blocks_3_1_{ATTENTION}.alpha", "?"]
    assert left_out(read_block_weights("OUTALL"), keys) == ("IN03",) and outside(keys) == ""
    assert left_out(read_block_weights(",".join(["0"] * 26)), keys) == ()
    for key in ("lora_unet_time_embedding_linear_1.alpha", "lora_unet_out_2.alpha", "unet.conv_norm_out.diff"):
        assert outside([*keys, key]) == key
    assert not outside(["lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0.alpha"])
