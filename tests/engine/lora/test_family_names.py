"""What programs call the modules of a network is its part's own table: fused layers, other prefixes, other families."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import nn

from webui.engine.families.family import Part, Spelling
from webui.engine.families.sdxl import STABLE_DIFFUSION_XL
from webui.engine.lora.deltas import merge
from webui.engine.lora.names import ModuleIndex
from webui.engine.lora.reading import CannotApply, read_lora

WIDTH = 6
CPU = torch.device("cpu")


def spellings(path: str, _root: nn.Module) -> Iterator[Spelling]:
    yield Spelling(path)
    outer, _, inner = path.rpartition(".")
    yield Spelling(f"{outer.replace('transformer_blocks', 'blocks')}.{inner.replace('to_', '')}_proj")
    if inner in ("to_q", "to_k", "to_v"):
        first = WIDTH * ("to_q", "to_k", "to_v").index(inner)
        yield Spelling(f"{outer}.qkv", (first, first + WIDTH))


PARTS = (
    Part(
        role="backbone",
        title="transformer",
        make=lambda _config: nn.Linear(1, 1),
        config=lambda *_: {},
        lora_prefixes=("transformer_", "diffusion_model_", "lora_unet_", "net_"),
        spellings=spellings,
    ),
)


@pytest.fixture
def index() -> ModuleIndex:
    torch.manual_seed(0)
    attention = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in ("to_q", "to_k", "to_v", "to_out")})
    blocks = nn.ModuleList([nn.ModuleDict({"attn": attention})])
    network = nn.ModuleDict({"transformer_blocks": blocks})
    return ModuleIndex({"backbone": network.requires_grad_(False)}, PARTS, "Anima")


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3 * WIDTH, 2, generator=generator), torch.randn(2, WIDTH, generator=generator)


STYLES = {
    "diffusers": ("transformer.transformer_blocks.0.attn.to_{}", ("lora_B", "lora_A")),
    "ComfyUI": ("diffusion_model.blocks.0.attn.{}_proj", ("lora_B", "lora_A")),
    "kohya": ("lora_unet_blocks_0_attn_{}_proj", ("lora_up", "lora_down")),
    "its authors'": ("net.blocks.0.attn.{}_proj", ("lora_B", "lora_A")),
}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_changes_the_same_modules_alike(index, write_lora, pair, style):
    name, (up, down) = STYLES[style]
    rows = {letter: pair[0][k * WIDTH : (k + 1) * WIDTH] for k, letter in enumerate("qkv")}
    tensors = {f"{name.format(letter)}.{up}.weight": own for letter, own in rows.items()}
    tensors |= {f"{name.format(letter)}.{down}.weight": pair[1] for letter in rows}
    weights = read_lora(write_lora(tensors), index, CPU)
    assert weights.unmatched == () and len(weights.deltas) == 3
    for letter, own in rows.items():
        place = ("backbone", f"transformer_blocks.0.attn.to_{letter}", "weight")
        base = index.parameter(*place)
        torch.testing.assert_close(merge(base, [(weights.deltas[place], 0.5)]), base + 0.5 * own @ pair[1])


def test_a_fused_layer_is_three_bit_for_bit(index, write_lora, pair):
    up, down = pair
    key = "diffusion_model.transformer_blocks.0.attn.qkv"
    fused = {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(1.0)}
    weights = read_lora(write_lora(fused), index, CPU)
    whole = up * 0.5 @ down
    for k, letter in enumerate("qkv"):
        delta = weights.deltas["backbone", f"transformer_blocks.0.attn.to_{letter}", "weight"]
        assert torch.equal(delta.up, up[k * WIDTH : (k + 1) * WIDTH]) and delta.down is not None
        torch.testing.assert_close(delta.change(torch.zeros(WIDTH, WIDTH), 1.0), whole[k * WIDTH : (k + 1) * WIDTH])


def test_a_fused_layer_in_other_formats_changes_each_of_its_layers(index, write_lora):
    key, generator = "diffusion_model.transformer_blocks.0.attn.qkv", torch.Generator().manual_seed(5)

    def numbers(*shape):
        return torch.randn(shape, generator=generator)

    whole, rank = 3 * WIDTH, 2
    product = {f"{key}.hada_w{n}_a": numbers(whole, rank) for n in (1, 2)}
    product |= {f"{key}.hada_w{n}_b": numbers(rank, WIDTH) for n in (1, 2)}
    lengths = {f"{key}.lora_up.weight": numbers(whole, rank), f"{key}.lora_down.weight": numbers(rank, WIDTH)}
    lengths[f"{key}.dora_scale"] = numbers(whole, 1)
    base = numbers(whole, WIDTH)
    for tensors, expected in (
        ({f"{key}.lokr_w1": numbers(2, 2), f"{key}.lokr_w2": numbers(whole // 2, WIDTH // 2)}, _kronecker),
        (product, _hadamard),
        (lengths, partial(_decomposed, base)),
    ):
        change = expected(*tensors.values())
        weights = read_lora(write_lora(tensors), index, CPU)
        for k, letter in enumerate("qkv"):
            rows = slice(k * WIDTH, (k + 1) * WIDTH)
            delta = weights.deltas["backbone", f"transformer_blocks.0.attn.to_{letter}", "weight"]
            torch.testing.assert_close(delta.change(base[rows], 1.0), change[rows])


def _kronecker(one, other):
    return torch.kron(one, other)


def _hadamard(one_a, other_a, one_b, other_b):
    return (one_a @ one_b) * (other_a @ other_b)


def _decomposed(base, up, down, lengths):
    changed = base + up @ down
    return lengths * changed / changed.norm(dim=1, keepdim=True) - base


def test_a_fused_layer_of_a_format_without_rows_is_refused(index, write_lora):
    key = "diffusion_model.transformer_blocks.0.attn.qkv"
    with pytest.raises(CannotApply, match="several layers in one tensor"):
        read_lora(write_lora({f"{key}.oft_blocks": torch.zeros(9, 2, 2)}), index, CPU)


@pytest.mark.parametrize(
    ("key", "shape", "made_for"),
    [
        ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", (4, 768), "SD 1.x"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight", (4, 2048), "SDXL"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", (4, 8), "FLUX.1, FLUX.2 Klein or FLUX.2 dev"),
    ],
)
def test_a_lora_of_another_family_is_refused_with_both(index, write_lora, key, shape, made_for):
    with pytest.raises(CannotApply, match=f"is made for {made_for}, but this model is Anima"):
        read_lora(write_lora({key: torch.zeros(shape)}), index, CPU)


def test_a_lora_of_the_same_family_is_none_of_another_and_fits_here(index, write_lora, demo_parts, pair):
    key = "diffusion_model.blocks.0.self_attn.q_proj"  # by its names for Anima or Cosmos
    file = write_lora({f"{key}.lora_A.weight": pair[1], f"{key}.lora_B.weight": pair[0][:WIDTH]})
    with pytest.raises(CannotApply, match="is made for Anima or Cosmos, but this model is a model with texts"):
        read_lora(file, ModuleIndex(demo_parts, STABLE_DIFFUSION_XL.parts, "SD 1.x"), CPU)
    with pytest.raises(CannotApply, match="has no weights that this model, Anima, has a place for"):
        read_lora(file, index, CPU)
