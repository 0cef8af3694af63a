"""Weights by block: factors on each module's delta, exact, and part of the set."""

import random
from types import SimpleNamespace

import pytest
import torch

from webui.core.block_weights import BLOCKS, block_of, read_block_weights
from webui.core.stages import LoraUse
from webui.engine.families.ldm import unet_name
from webui.engine.families.sdxl import STABLE_DIFFUSION_XL
from webui.engine.lora.deltas import merge
from webui.engine.lora.names import ModuleIndex
from webui.engine.lora.reading import CannotApply, read_lora
from webui.engine.lora.switcher import LoraSwitcher
from webui.engine.nets.unet import UNet

PARTS = STABLE_DIFFUSION_XL.parts

CPU = torch.device("cpu")
ONES = ",".join(["1"] * 26)


def listed(seed: int) -> str:
    """26 values, some of them 0."""
    dice = random.Random(seed)
    return ",".join(dice.choice(["0", "1", f"{dice.uniform(-1, 2):.3f}"]) for _ in BLOCKS)


@pytest.fixture(params=["demo", "sdxl"])
def parts(request):
    return request.getfixturevalue(f"{request.param}_parts")


@pytest.fixture
def file(parts, random_lora, write_lora):
    """A LoRA for much of both: attention, convolutions, the text encoders."""
    return write_lora(random_lora(parts, 1, r"attn|conv_in|conv_shortcut|samplers|mlp"))


@pytest.fixture
def switcher(parts):
    switcher = LoraSwitcher(SimpleNamespace(components=parts, family=STABLE_DIFFUSION_XL, kind=""), CPU, 2**40)
    yield switcher
    switcher.switch(())


@pytest.fixture
def state(parts):
    return lambda: {
        (part, *name.rpartition(".")[::2]): tensor.detach().clone()
        for part, module in parts.items()
        for name, tensor in module.named_parameters()
    }


def use(file, text: str = "", unet: float = 0.8, words: float = 0.6, elements: str = "") -> LoraUse:
    return LoraUse(file, unet, words, read_block_weights(text, elements))


def same(one, other) -> bool:
    return all(torch.equal(tensor, other[place]) for place, tensor in one.items())


def test_diffusers_names_are_in_the_blocks_of_the_original_program(sdxl_parts):
    small = {"block_out_channels": [32, 64, 64, 64], "norm_num_groups": 8, "attention_head_dim": 4}
    seen = set()
    for unet in (sdxl_parts["backbone"], UNet(small | {"cross_attention_dim": 32})):
        for path, module in unet.named_modules():
            if any(True for _ in module.parameters(recurse=False)):
                original = unet_name(path, unet)
                kind, number, *_ = (*original.split("."), "")
                expected = {"input_blocks": "IN", "output_blocks": "OUT"}.get(kind, "")
                expected += f"{int(number):02}" if expected else "MID" if kind == "middle_block" else ""
                assert block_of(path) == block_of(original) == expected, path
                seen.add(expected)
    assert seen == {"", *BLOCKS} - {"BASE"}


def test_each_tensor_is_what_merging_by_hand_makes_of_it(parts, file, switcher, state):
    index = ModuleIndex(parts, PARTS)
    deltas, before = read_lora(file, index, CPU).deltas, state()
    for seed in range(3):
        text = listed(seed)
        values = dict(zip(BLOCKS, map(float, text.split(",")), strict=True))
        switcher.switch([use(file, text)])
        found, changed = state(), 0
        for place, base in before.items():
            block = "BASE" if place[0] != "backbone" else block_of(place[1])
            strength = (0.8 if place[0] == "backbone" else 0.6) * values.get(block, 1)
            by_hand = merge(base, [(deltas[place], strength)]) if place in deltas and strength else base
            assert torch.equal(found[place], by_hand), place
            changed += not torch.equal(found[place], base)
        assert changed > 10
        switcher.switch(())
        assert same(state(), before)


def test_all_1_is_the_lora_without_them_bit_for_bit(file, switcher, state):
    switcher.switch([use(file)])
    plain = state()
    assert switcher.switch([use(file, ONES)])[0].how == "unchanged" and same(state(), plain)


def test_lists_share_the_tensors_that_they_do_not_differ_in(file, switcher):
    switcher.switch([use(file)])
    whole = switcher.cache.nbytes
    switcher.switch([use(file, ONES[:-1] + "0")])
    assert switcher.cache.nbytes == whole
    switcher.switch([use(file, ONES[:-1] + "0.5")])
    assert whole <= switcher.cache.nbytes < 1.5 * whole


def test_one_lora_with_two_lists_is_their_sum(file, switcher, state):
    halves = ["1," * 13 + ",".join(["0"] * 13), "0," * 13 + ",".join(["1"] * 13)]
    switcher.switch([use(file)])
    plain, text_key = state(), switcher.text_key
    switcher.switch([use(file, half) for half in halves])
    assert same(state(), plain) and switcher.text_key == text_key


def test_without_base_the_text_encoders_stay(file, switcher):
    switcher.switch([use(file, "0," + ONES[2:])])
    assert switcher.text_key == ()
    switcher.switch([use(file, "0.5," + ONES[2:])])
    assert [strength for _, strength in switcher.text_key] == [0.3]


def test_elements(file, switcher, state):
    switcher.switch(())
    before = state()
    switcher.switch([use(file, elements="ATTNDEEPOFF")])
    changed = {place for place, tensor in state().items() if not torch.equal(tensor, before[place])}
    deep = set(BLOCKS[BLOCKS.index("IN05") : BLOCKS.index("OUT05") + 1])
    assert not any("attn" in path and block_of(path) in deep for part, path, _ in changed if part == "backbone")
    assert any(block_of(path) in deep for part, path, _ in changed if part == "backbone")


def test_what_is_in_no_block_is_named(parts, random_lora, write_lora, switcher, state):
    before = state()
    outside = write_lora(random_lora(parts, 2, r"to_q|conv_out$"), name="outside")
    with pytest.raises(CannotApply, match="LoRA 'outside' changes conv_out, which no block of lbw and lbwe has in it"):
        switcher.switch([use(outside, "OUTALL")])
    assert same(state(), before)
    switcher.switch([use(outside, ONES)])
    assert not same(state(), before)
