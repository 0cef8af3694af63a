"""A convolution's weight in the order that it is computed with stays with the weight, where the budget allows it."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from webui.engine.cpu import conv
from webui.engine.cpu.install import install, uninstall
from webui.engine.lora.cache import WeightCache
from webui.engine.lora.deltas import Difference
from webui.engine.lora.reading import LoraWeights
from webui.engine.lora.sets import SetKey, set_key

pytestmark = pytest.mark.skipif(not conv.convolves(torch.float32), reason="oneDNN does not convolve here")
A, B, C, D = (set_key([(name, 1.0, 1.0, None)]) for name in "abcd")
WEIGHT_BYTES = 4 * 8 * 8 * 9
PLENTY = 1000 * WEIGHT_BYTES


@pytest.fixture
def unet() -> nn.ModuleDict:
    torch.manual_seed(0)
    unet = nn.ModuleDict({f"layer{k}": nn.Conv2d(8, 8, 3, padding=1) for k in range(2)}).requires_grad_(False)
    install(unet)
    return unet


@pytest.fixture
def draw(unet, monkeypatch) -> Callable[[], tuple[torch.Tensor, int]]:
    """What comes out, and how many weights were put in order for it."""
    orders: list[None] = []
    pack = conv._pack
    monkeypatch.setattr(conv, "_pack", lambda *given: orders.append(None) or pack(*given))
    given = torch.randn(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)

    def draw() -> tuple[torch.Tensor, int]:
        orders.clear()
        return unet["layer1"](unet["layer0"](given)), len(orders)

    return draw


@pytest.fixture
def read() -> Callable[[str], LoraWeights]:
    places = {"a": (0, 1), "b": (0, 1), "c": (0, 1), "d": (1,)}

    def read(name: str) -> LoraWeights:
        generator = torch.Generator().manual_seed(ord(name))
        deltas = {
            ("backbone", f"layer{k}", "weight"): Difference(torch.randn(8, 8, 3, 3, generator=generator))
            for k in places[name]
        }
        return LoraWeights(deltas, ())

    return read


def test_a_set_that_comes_back_and_the_base_find_theirs(unet, draw, read) -> None:
    cache = WeightCache({"backbone": unet}, PLENTY)
    first = {}
    for key in ((), A, D, B):
        cache.switch(key, read)
        first[key], count = draw()
        assert count == (1 if key == D else 2)
    for key in (A, (), D, B, (), A):
        cache.switch(key, read)
        found, count = draw()
        assert torch.equal(found, first[key]) and count == 0


def test_another_size_is_put_in_order_again(unet, draw, read) -> None:
    cache = WeightCache({"backbone": unet}, PLENTY)
    draw()
    cache.switch(A, read)
    unet["layer0"](torch.randn(1, 8, 12, 12))
    cache.switch((), read)
    cache.switch(A, read)
    again, count = draw()
    assert count == 2
    cache.switch((), read)
    cache.switch(A, read)
    assert draw()[1] == 0 and torch.equal(draw()[0], again)


@pytest.mark.parametrize("weights", [0, 1, 2, 3, 4, 5, 6, 9])
def test_they_keep_to_what_sets_leave_of_the_budget(unet, draw, read, weights) -> None:
    budget_bytes = weights * WEIGHT_BYTES
    plain = copy.deepcopy(unet)
    uninstall(plain)
    cache, other = (WeightCache({"backbone": network}, budget_bytes) for network in (unet, plain))
    expected: dict[SetKey, torch.Tensor] = {}
    for key in (A, B, (), A, C, A, B, D, (), D, ()):
        assert cache.switch(key, read)[0] == other.switch(key, read)[0], "no set is dropped for them"
        found, _ = draw()
        assert torch.equal(found, expected.setdefault(key, found))
        copies = sum(one.nbytes for one in cache._ordered.values())
        assert cache.nbytes == other.nbytes + copies and (not copies or cache.nbytes <= budget_bytes)
    assert weights < 9 or cache._ordered


def test_those_of_sets_that_are_gone_are_gone(unet, draw, read) -> None:
    cache = WeightCache({"backbone": unet}, 4 * WEIGHT_BYTES)
    cache.switch(A, read)
    draw()
    weights = [StorageWeakRef(part.weight.data.untyped_storage()) for part in unet.values()]
    cache.switch((), read)
    assert len(cache._ordered) == 2
    for key in (B, C):
        cache.switch(key, read)
        draw()
    assert A not in cache and all(weight.expired() for weight in weights)
