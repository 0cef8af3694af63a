"""Layers in 8 bits: near the plain ones' numbers, of the weights that are there, and gone without a trace."""

import pytest
import torch
from torch import nn

from webui.core.engine_options import EngineOptions
from webui.engine.cpu import int8
from webui.engine.cpu.install import install, uninstall
from webui.engine.cpu.int8 import INSTRUCTIONS, Int8Conv2d, Int8Linear, capabilities, to_u8, unfit, use_int8
from webui.engine.nets.layers import Conv1x1
from webui.engine.nets.unet import UNet

CPU = torch.device("cpu")
needs_vnni = pytest.mark.skipif(not any(map(capabilities().get, INSTRUCTIONS)), reason="no 8 bits here")
LAYERS = {
    "conv": (lambda: nn.Conv2d(64, 96, 3, padding=1), (2, 64, 9, 12)),
    "halving": (lambda: nn.Conv2d(64, 64, 3, stride=2, padding=1), (1, 64, 8, 8)),
    "pixels": (lambda: Conv1x1(96, 32), (2, 30, 96)),
    "linear": (lambda: nn.Linear(80, 160, bias=False), (3, 17, 80)),
}


@pytest.fixture
def everything(monkeypatch):
    """However small."""
    monkeypatch.setattr(int8, "LEAST_PRODUCTS", 0)
    monkeypatch.setattr(int8, "LEAST_REUSE", 0)


def make(name: str, dtype: torch.dtype, lean: bool = False) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(3)
    build, shape = LAYERS[name]
    network = nn.Sequential(build()).to(dtype).requires_grad_(False)
    install(network, low_memory=lean)
    given = torch.nn.functional.silu(torch.randn(shape)).to(dtype)
    return network, given.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else given


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.float() - wanted.float()).std() / wanted.float().std())


@needs_vnni
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LAYERS)
@torch.inference_mode()
def test_a_layer_is_nearly_the_plain_one_and_then_the_plain_one_again(everything, name, dtype):
    network, given = make(name, dtype)
    plain = network(given)
    use_int8(network, True)
    fast = network(given)
    assert fast.dtype == dtype and 0 < error(fast, plain) < 0.03
    assert torch.equal(network(given), fast)
    uninstall(network)
    assert "_rounded" not in vars(network[0])
    install(network)
    assert torch.equal(network(given), plain)


@needs_vnni
@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("name", ["conv", "linear"])
@torch.no_grad()
def test_other_weights_are_rounded_anew(everything, monkeypatch, name, lean):
    monkeypatch.setattr("webui.engine.cpu.conv.LARGE_BYTES", 0)
    network, given = make(name, torch.float32, lean)
    first, weight = network(given), network[0].weight.clone()
    use_int8(network, True)
    network(given)
    network[0].weight.mul_(-1)  # in its place
    assert (
        error(network(given), -first if network[0].bias is None else 2 * network[0].bias.view(1, -1, 1, 1) - first)
        < 0.03
    )
    other = weight * 3
    network[0].exchange(other) if name == "conv" else setattr(network[0].weight, "data", other)
    use_int8(other_way := make(name, torch.float32)[0], True)
    other_way[0].weight.copy_(other)
    assert torch.equal(network(given), other_way(given))


@needs_vnni
@torch.inference_mode()
def test_numbers_that_are_none_stay_so(everything):
    for name in ("conv", "linear"):
        network, given = make(name, torch.bfloat16)
        use_int8(network, True)
        given.select(1, 5).fill_(torch.nan)
        assert not network(given).isfinite().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_number_leads_past_the_ends_and_a_zero_is_0(dtype):
    for low, high in ((-0.3, 7.0), (-5.0, 0.1), (-3e-5, 3e-5), (2.0, 9.0), (-1e4, 3.0)):
        numbers = torch.cat([torch.linspace(low, high, 4001), torch.zeros(1)]).to(dtype)
        whole, scale, zero = to_u8(numbers)
        back = (whole.float() - zero) * scale
        assert (back - numbers.float()).abs().max() <= scale * 0.51 and back[-1] == 0
    whole, scale, zero = to_u8(torch.zeros(7, dtype=dtype))
    assert ((whole.float() - zero) * scale == 0).all()


def test_small_layers_and_those_of_time_words_first_and_last_stay_as_they_are():
    unet = UNet({"block_out_channels": (64, 64), "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
                 "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 32})  # fmt: skip
    install(unet)
    use_int8(unet, True)
    kinds = {name: type(part) for name, part in unet.named_modules()}
    whole = {name for name, kind in kinds.items() if kind.__name__.startswith("Int8")}
    inner = "down_blocks.0.attentions.0.transformer_blocks.0"
    assert {f"{inner}.attn2.to_q", f"{inner}.attn1.to_k", f"{inner}.ff.net.2", "mid_block.resnets.0.conv1"} <= whole
    assert not [n for n in whole if n.startswith(("conv_in", "conv_out", "time")) or "time_emb" in n]
    assert not {f"{inner}.attn2.to_k", f"{inner}.attn2.to_v"} & whole
    layer = unet.mid_block.resnets[0].conv1
    assert isinstance(layer, Int8Conv2d) and not layer._pays(torch.Size([2, 64, 8, 8]))
    assert layer._pays(torch.Size([2, 64, 64, 64]))
    use_int8(unet, False)
    assert not [part for part in unet.modules() if isinstance(part, Int8Conv2d | Int8Linear)]


def test_where_it_cannot_be_the_reason_is_said(monkeypatch, tmp_path):
    options = EngineOptions(tmp_path)
    monkeypatch.setattr(int8, "HAS_ONEDNN", True)
    monkeypatch.setattr(int8, "capabilities", lambda: {"avx_vnni": True})
    assert unfit(CPU, torch.bfloat16, options) == ""
    assert unfit(torch.device("cuda"), torch.float16, options).endswith("this is cuda")
    assert unfit(CPU, torch.float16, options).endswith("this is float16")
    assert "are off" in unfit(CPU, torch.float32, EngineOptions(tmp_path, cpu_kernels=False))
    assert unfit(CPU, torch.float32, EngineOptions(tmp_path, memory="blocks")).endswith("--memory blocks")
    monkeypatch.setattr(int8, "capabilities", lambda: {"avx2": True})
    assert unfit(CPU, torch.float32, options).startswith("this processor has no instructions for it")
