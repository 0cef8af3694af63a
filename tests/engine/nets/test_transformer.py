"""What a transformer computes once for all prompts."""

from collections.abc import Iterator

import pytest
import torch

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
