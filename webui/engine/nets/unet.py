"""The UNet of Stable Diffusion 1.x, 2.x and SDXL, under the names that diffusers gives its parts.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"; SDXL: Podell et al. 2023.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from webui.engine.nets import encoder
from webui.engine.nets.blocks import Resampler
from webui.engine.nets.encoder import Added, Encoder, Prepared, Walk, add
from webui.engine.nets.layers import spread
from webui.engine.speed.shortcuts import Shortcuts

OUTER_LAYERS = 2
"""So many of the last layers, and what makes their skips, run where the features of all others are reused."""


class UNet(Encoder):
    """Predicts the noise (or v) in latents. ``config`` is that of diffusers' UNet2DConditionModel.

    Raises ValueError for a configuration that asks for what this one does not do.
    """

    DEFAULTS: Mapping[str, Any] = {
        **encoder.DEFAULTS,
        "out_channels": 4,
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    }
    FIXED: Mapping[str, tuple[Any, ...]] = {
        **encoder.FIXED,
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "attention_type": ("default",),
        "time_embedding_type": ("positional",),
        "time_embedding_dim": (None,),
        "time_embedding_act_fn": (None,),
        "timestep_post_act": (None,),
        "reverse_transformer_layers_per_block": (None,),
        "cross_attention_norm": (None,),
        "dual_cross_attention": (False,),
        "center_input_sample": (False,),
        "resnet_skip_time_act": (False,),
        "mid_block_only_cross_attention": (None, False),
        "resnet_out_scale_factor": (1,),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
    }
    __call__: Callable[..., torch.Tensor]  # which torch has without types
    up_blocks: Any
    spread = staticmethod(spread)

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        given = self.config
        channels, layers = given["block_out_channels"], self._per_level("layers_per_block")
        count, first = len(channels), channels[0]
        self.up_blocks = nn.ModuleList()
        below = channels[-1]
        for number, kind in enumerate(self._known("up_block_types", "UpBlock2D", "CrossAttnUpBlock2D")):
            level = count - 1 - number
            out, beside = channels[level], channels[max(level - 1, 0)]
            skipped = [out] * layers[level] + [beside]
            into = [wide + skip for wide, skip in zip([below, *[out] * layers[level]], skipped, strict=True)]
            up = self._block(into, level, kind == "CrossAttnUpBlock2D")
            if level > 0:
                up.upsamplers = nn.ModuleList([Resampler(out, stride=1)])
            self.up_blocks.append(up)
            below = out
        self.conv_norm_out = nn.GroupNorm(given["norm_num_groups"], first, given["norm_eps"])
        self.conv_out = nn.Conv2d(first, given["out_channels"], 3, padding=1)

    def forward(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        prepared: Prepared,
        shortcuts: Shortcuts | None = None,
        added: Added | None = None,
    ) -> torch.Tensor:
        """The prediction, (rows, out channels, h, w), for latents (n, in channels, h, w) at one timestep, or (n,).

        ``rows`` are those of ``prepared``, n or a multiple: each further n rows are the same latents with another
        prompt. What comes before the first cross-attention is the same for them and is computed once; so are perturbed
        rows with their own, up to the middle.
        """
        rows = len(prepared.attended[-1].keys) - prepared.perturbed
        time = self._time(timestep, prepared, latents.dtype)
        if len(time) > len(latents):
            latents = latents.repeat(rows // len(latents), 1, 1, 1)
        shortcuts, added = shortcuts or Shortcuts(), added or Added()
        down, up = list(self._downward()), list(self._upward())
        outer = up[-OUTER_LAYERS:]
        hidden = self.conv_in(latents.contiguous(memory_format=torch.channels_last))
        inside = dict(zip(self._ends(), added.inside, strict=False))
        prompts, perturbed = iter(prepared.attended), prepared.perturbed
        walk = Walk(functional.silu(time), prompts, rows, shortcuts.merging, [hidden], inside, perturbed, self.spread)
        walk.down(down[: OUTER_LAYERS - 1])
        if (features := shortcuts.recall()) is None:
            walk.down(down[OUTER_LAYERS - 1 :])
            features = self._middle(walk, added)
            walk.receive(added.skips)
            features = walk.up(features, up[:-OUTER_LAYERS])
            shortcuts.keep(features)
        else:
            walk.receive(added.skips)
            if attends := sum(len(layer[1].transformer_blocks) for layer in outer if layer[1] is not None):
                walk.prompts = iter(prepared.attended[-attends:])
        hidden = walk.up(features, outer)
        output: torch.Tensor = self.conv_out(functional.silu(self.conv_norm_out(hidden), inplace=True))
        return output

    def convolved(
        self, count: int, rows: int, height: int, width: int, perturbed: int = 0
    ) -> Iterator[tuple[nn.Conv2d, torch.Size]]:
        """Each 3 x 3 convolution with the shape that a whole forward of so many latents and rows gives it."""
        if hasattr(self, "add_embedding"):
            count = rows
        side = height, width
        yield from _given(self.conv_in, count, side)
        skips = [side]
        for layer, transformer in self._downward():
            yield from _given(layer, count, side)
            side = (-(-side[0] // 2), -(-side[1] // 2)) if isinstance(layer, Resampler) else side
            count = count if transformer is None else rows
            skips.append(side)
        for resnet, seen in zip(self.mid_block.resnets, (count, rows + perturbed), strict=True):
            yield from _given(resnet, seen, side)
        rows += perturbed
        for resnet, _, upsampler in self._upward():
            skips.pop()
            yield from _given(resnet, rows, side)
            if upsampler is not None:
                side = skips[-1]
                yield from _given(upsampler, rows, side)
        yield from _given(self.conv_out, rows, side)

    def _middle(self, walk: Walk, added: Added) -> torch.Tensor:
        """Through the middle, with what controls add there."""
        features = walk.through(self.mid_block)
        for more in (*added.inside[len(self.down_blocks) :], *(() if added.middle is None else (added.middle,))):
            features = add(features, walk.all_rows(more))
        return features

    def _ends(self) -> Iterator[int]:
        """The number of the skip at which a T2I-Adapter's features are added, for each resolution.

        As in diffusers: behind the last layer that attends to the prompt, else behind the downsampler.
        """
        skips = 0
        for block in self.down_blocks:
            layers, downsamplers = len(block.resnets), len(block.downsamplers)
            yield skips + layers + (0 if len(block.attentions) else downsamplers)
            skips += layers + downsamplers

    def _upward(self) -> Iterator[tuple[nn.Module, Any, Any]]:
        """What takes a skip each: a residual layer, its transformer, the upsampler after it."""
        for block in self.up_blocks:
            *others, last = block.layers()
            yield from ((*layer, None) for layer in others)
            yield (*last, next(iter(block.upsamplers), None))

    def _blocks(self) -> Iterator[Any]:
        yield from super()._blocks()
        yield from self.up_blocks


def _given(layer: nn.Module, rows: int, side: tuple[int, int]) -> Iterator[tuple[nn.Conv2d, torch.Size]]:
    for part in layer.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3):
            yield part, torch.Size([rows, part.in_channels, *side])
