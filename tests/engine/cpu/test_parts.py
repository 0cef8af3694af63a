"""Feed-forwards over many tokens go a part of them at a time: the same numbers."""

import pytest
import torch

from webui.engine.cpu import parts
from webui.engine.cpu.install import install
from webui.engine.nets.transformer import FeedForward


@pytest.mark.parametrize("rows", [1, 2])
@torch.inference_mode()
def test_many_tokens_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    torch.manual_seed(0)
    module, tokens = FeedForward(32), torch.randn(rows, 63, 32)
    whole, lengths = module(tokens), list[int]()
    module.net[0].proj.register_forward_hook(lambda _module, given, _found: lengths.append(given[0].numel() // 32))
    install(module)
    assert torch.equal(module(tokens), whole) and lengths == [63 * rows]
    monkeypatch.setattr(parts, "HEAP_BYTES", 20 * 8 * 32 * 4)
    found = module(tokens)
    assert found.shape == whole.shape and torch.allclose(found, whole, atol=1e-5)
    assert sum(lengths[1:]) == 63 * rows and max(lengths[1:]) <= 20
