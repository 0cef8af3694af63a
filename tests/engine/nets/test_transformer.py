"""What a transformer computes once for all prompts, and in parts where the tokens are many."""

from collections.abc import Iterator

import pytest
import torch

from webui.engine.nets import transformer
from webui.engine.nets.transformer import Transformer


@pytest.fixture
def small() -> Transformer:
    torch.manual_seed(0)
    return Transformer(32, heads=2, depth=2, context=24, groups=8, linear=True, merges=True).requires_grad_(False)


def told(module: Transformer, context: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return iter([layer.attn2.attend_to(context) for layer in module.transformer_blocks])


@pytest.mark.parametrize("merging", [0.0, 0.5])
@torch.inference_mode()
def test_until_the_prompts_differ_each_picture_is_computed_once(small: Transformer, merging: float) -> None:
    pictures, context = torch.randn(3, 32, 6, 8), torch.randn(6, 5, 24)
    rows: list[int] = []
    for layer in small.transformer_blocks:
        layer.attn1.register_forward_hook(lambda _module, given, _found: rows.append(len(given[0])))
    once = small(pictures, told(small, context), merging)
    assert rows == [3, 6]
    twice = small(torch.cat([pictures, pictures]), told(small, context), merging)
    assert torch.allclose(once, twice, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2])
@torch.inference_mode()
def test_many_tokens_in_parts_are_the_same(small: Transformer, monkeypatch, rows: int) -> None:
    picture, context = torch.randn(rows, 32, 7, 9), torch.randn(rows, 5, 24)
    whole = small(picture, told(small, context))
    lengths: list[int] = []
    inner = small.transformer_blocks[0].ff.net[0].proj
    inner.register_forward_hook(lambda _module, given, _found: lengths.append(given[0].numel() // 32))
    monkeypatch.setattr(transformer, "HEAP_BYTES", 20 * 8 * 32 * 4)
    parts = small(picture, told(small, context))
    assert sum(lengths) == 63 * rows and max(lengths) <= 20
    assert torch.allclose(parts, whole, atol=1e-5)
