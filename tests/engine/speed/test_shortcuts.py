"""What the UNet leaves out where it is told to, on small real modules."""

import pytest
import torch
from checkpoints import SMALL_UNET
from torch.nn import functional

from webui.engine.nets.encoder import Prepared
from webui.engine.nets.unet import UNet
from webui.engine.speed.shortcuts import Merging, Shortcuts

SD1 = SMALL_UNET | {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 2,
}
DEEP = SD1 | {"down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2}
KINDS = pytest.mark.parametrize("config", [SMALL_UNET, SD1, DEEP], ids=["small", "sd1", "deep"])


@pytest.fixture
def make():
    """``make(config)``: a UNet with random weights, latents of one picture, and two prompts prepared for it."""

    def make(config: dict, height: int = 8, width: int = 8) -> tuple[UNet, torch.Tensor, Prepared]:
        torch.manual_seed(0)
        unet = UNet(config).eval().requires_grad_(False)
        return unet, torch.randn(1, 4, height, width), unet.prepare(torch.randn(2, 5, 24))

    return make


def middle_runs(unet: UNet) -> list[int]:
    """One entry each time that the innermost layers run."""
    runs: list[int] = []
    unet.mid_block.resnets[0].register_forward_pre_hook(lambda *_: runs.append(1))
    return runs


class TestReuse:
    @KINDS
    @torch.inference_mode()
    def test_with_the_same_latents_the_reused_features_are_the_right_ones(self, make, config):
        unet, latents, prepared = make(config)
        exact, runs, shortcuts = unet(latents, torch.tensor(9), prepared), middle_runs(unet), Shortcuts(reuse=2)
        for whole in (1, 1, 2, 2):
            assert torch.equal(unet(latents, torch.tensor(9), prepared, shortcuts), exact)
            assert len(runs) == whole

    @KINDS
    @torch.inference_mode()
    def test_other_latents_are_seen_all_the_same(self, make, config):
        unet, latents, prepared = make(config)
        shortcuts = Shortcuts(reuse=3)
        first = unet(latents, torch.tensor(9), prepared, shortcuts)
        moved = latents + 0.1 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
        near, exact = unet(moved, torch.tensor(8), prepared, shortcuts), unet(moved, torch.tensor(8), prepared)
        assert not torch.equal(near, exact) and not torch.equal(near, first)
        assert (near - exact).norm() < (first - exact).norm()

    @torch.inference_mode()
    def test_of_every_three_the_first_is_whole(self, make):
        unet, latents, prepared = make(SD1)
        runs, shortcuts = middle_runs(unet), Shortcuts(reuse=3)
        for _ in range(7):
            unet(latents, torch.tensor(9), prepared, shortcuts)
        assert len(runs) == 3

    @torch.inference_mode()
    def test_two_series_know_nothing_of_each_other(self, make):
        unet, latents, prepared = make(SD1)
        one, other = Shortcuts(reuse=2), Shortcuts(reuse=2)
        unet(latents, torch.tensor(9), prepared, one)
        exact = unet(2 * latents, torch.tensor(9), prepared)
        assert torch.equal(unet(2 * latents, torch.tensor(9), prepared, other), exact)


class TestMergedTokens:
    @KINDS
    @pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 1)], ids=str)
    @torch.inference_mode()
    def test_fewer_tokens_attend_at_the_highest_resolution_alone(self, make, config, size):
        unet, latents, prepared = make(config, *size)
        lengths: list[int] = []
        for name, module in unet.named_modules():
            if name.endswith("attn1.to_q"):
                module.register_forward_pre_hook(lambda _module, args: lengths.append(args[0].shape[1]))
        exact = unet(latents, torch.tensor(9), prepared)
        all_lengths = list(lengths)
        lengths.clear()
        merged = unet(latents, torch.tensor(9), prepared, Shortcuts(merging=0.5))
        most = max(all_lengths)
        assert lengths == [most - int(0.5 * most) if length == most else length for length in all_lengths] or most == 1
        assert torch.isfinite(merged).all() and torch.equal(merged, exact) == (most == 1)

    @torch.inference_mode()
    def test_it_repeats_bit_for_bit(self, make):
        unet, latents, prepared = make(SD1)
        one, other = (unet(latents, torch.tensor(9), prepared, Shortcuts(merging=0.75)) for _ in range(2))
        assert torch.equal(one, other)

    def test_tokens_that_are_alike_lose_nothing(self):
        blocks = torch.randn(2, 8, 4, 5)
        tokens = functional.interpolate(blocks, scale_factor=2.0, mode="nearest").flatten(2).transpose(1, 2)
        merging = Merging.find(tokens, 8, 10, 0.75)
        few = merging.merge(tokens)
        assert few.shape == (2, 20, 8)
        assert torch.allclose(merging.spread(few), tokens, atol=1e-6)

    def test_those_that_go_together_become_their_mean_and_the_rest_is_kept(self):
        """Of 2 x 2 the first is the destination; the second is its double in direction, the others point elsewhere."""
        tokens = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [0.0, 5.0], [0.0, -7.0]]])
        merging = Merging.find(tokens, 2, 2, 0.25)
        few = merging.merge(tokens)
        assert few.tolist() == [[[2.0, 0.0], [0.0, 5.0], [0.0, -7.0]]]
        assert merging.spread(few).tolist() == [[[2.0, 0.0], [2.0, 0.0], [0.0, 5.0], [0.0, -7.0]]]

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 3), (16, 16)])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
    def test_every_token_finds_its_value_again_whatever_the_size(self, height, width, share):
        count = height * width
        tokens = torch.randn(3, count, 4, generator=torch.Generator().manual_seed(0))
        merging = Merging.find(tokens, height, width, share)
        few = merging.merge(tokens)
        destinations = -(-height // 2) * -(-width // 2)
        assert few.shape[1] == max(count - int(share * count), destinations)
        kept = (merging.spread(few) == tokens).all(dim=-1).sum(dim=1)
        assert (kept >= few.shape[1] - destinations).all()
