"""ControlNet for Stable Diffusion 1.x, 2.x and SDXL, under the names that diffusers gives its parts.

Zhang et al. 2023, "Adding Conditional Control to Text-to-Image Diffusion Models": half a UNet of its own that sees a
picture besides, and adds to what the UNet's own half hands over.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from webui.engine.nets import encoder
from webui.engine.nets.blocks import Embedding
from webui.engine.nets.encoder import Added, Encoder, Prepared, Walk
from webui.engine.nets.layers import Conv1x1


class ControlNet(Encoder):
    """``config`` is that of diffusers' ControlNetModel; ValueError for what this one does not do.

    ``pools`` says that it adds the same to all places, and nothing where there is no prompt: a shuffled picture says
    nothing of places. ``skips`` is how many skips its UNet has.
    """

    TITLE = "ControlNet"
    DEFAULTS: Mapping[str, Any] = {
        **encoder.DEFAULTS,
        "conditioning_channels": 3,
        "conditioning_embedding_out_channels": (16, 32, 96, 256),
        "controlnet_conditioning_channel_order": "rgb",
        "global_pool_conditions": False,
    }
    FIXED: Mapping[str, tuple[Any, ...]] = {
        **encoder.FIXED,
        "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D"),
        "controlnet_conditioning_channel_order": ("rgb", "bgr"),
    }
    __call__: Callable[..., Added]  # which torch has without types

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        given = self.config
        first, last = given["block_out_channels"][0], given["block_out_channels"][-1]
        self.pools = bool(given["global_pool_conditions"])
        self._turned_colours = given["controlnet_conditioning_channel_order"] == "bgr"
        self.controlnet_cond_embedding = _PictureEmbedding(
            given["conditioning_channels"], given["conditioning_embedding_out_channels"], first
        )
        self.controlnet_down_blocks: Any = nn.ModuleList(Conv1x1(width, width) for width in self._widths())
        self.controlnet_mid_block = Conv1x1(last, last)

    @property
    def skips(self) -> int:
        """How many skips it adds to."""
        return len(self.controlnet_down_blocks)

    def see(self, picture: torch.Tensor) -> torch.Tensor:
        """A map (1, 3, height, width), 0..1 or -1 where nothing is known, as the network takes it: kept for all steps.

        (1, channels, h, w) at the size of latents, channels-last.
        """
        picture = picture.flip(1) if self._turned_colours else picture
        seen: torch.Tensor = self.controlnet_cond_embedding(picture.contiguous(memory_format=torch.channels_last))
        return seen

    def forward(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        prepared: Prepared,
        seen: torch.Tensor,
        scales: Sequence[float],
        kind: int | None = None,
    ) -> Added:
        """What is added to the UNet for latents (n, in channels, h, w) at one timestep, in as many rows as it differs.

        ``scales`` are factors, one a skip and the last for the middle. ``kind`` is which of its kinds of map a union is
        shown, None for none.
        """
        time = self._time(timestep, prepared, latents.dtype)
        if (told := self._kind(kind, latents)) is not None:
            time = time + told
        rows = len(prepared.attended[0][0]) if prepared.attended else max(len(time), len(latents))
        if len(time) > len(latents):
            latents = latents.repeat(rows // len(latents), 1, 1, 1)
        hidden = self.conv_in(latents.contiguous(memory_format=torch.channels_last))
        hidden = hidden + self._fuse(seen, hidden, kind)
        walk = Walk(functional.silu(time), iter(prepared.attended), rows, 0.0, [hidden])
        walk.down(self._downward())
        middle = walk.through(self.mid_block)
        layers = (*self.controlnet_down_blocks, self.controlnet_mid_block)
        *skips, middle = (
            self._scaled(layer(one.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), scale)
            for layer, one, scale in zip(layers, (*walk.skips, middle), scales, strict=True)
        )
        return Added(skips, middle)

    def _scaled(self, added: torch.Tensor, scale: float) -> torch.Tensor:
        added = added if scale == 1 else added * scale
        return added.mean(dim=(2, 3), keepdim=True) if self.pools else added

    def _kind(self, _kind: int | None, _like: torch.Tensor) -> torch.Tensor | None:
        """What a kind of map adds to the time's embedding."""
        return None

    def _fuse(self, seen: torch.Tensor, _hidden: torch.Tensor, _kind: int | None) -> torch.Tensor:
        """What is added to the latents' first features."""
        return seen

    def _widths(self) -> Iterator[int]:
        """Of the skips."""
        yield self.config["block_out_channels"][0]
        for block, width in zip(self.down_blocks, self.config["block_out_channels"], strict=True):
            yield from [width] * (len(block.resnets) + len(block.downsamplers))


class ControlNetUnion(ControlNet):
    """One for several kinds of map, as xinsir's for SDXL. ``config`` is that of diffusers' ControlNetUnionModel.

    A map and the latents' first features are looked at as two tokens by a small transformer, whose attention goes over
    the rows of a forward, which are all the same for one picture: each attends to itself alone, so that it comes to its
    values, and no picture depends on the others of its batch.
    """

    TITLE = "ControlNet Union"
    DEFAULTS: Mapping[str, Any] = {
        **ControlNet.DEFAULTS,
        "conditioning_embedding_out_channels": (48, 96, 192, 384),
        "num_control_type": 6,
        "num_trans_channel": 320,
        "num_trans_layer": 1,
        "num_proj_channel": 320,
    }

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        given = self.config
        self.kinds, width = int(given["num_control_type"]), given["num_trans_channel"]
        if not self._id_channels:
            raise ValueError("the ControlNet Union says no addition_time_embed_dim")
        self.task_embedding = nn.Parameter(torch.empty(self.kinds, width))
        self.transformer_layes: Any = nn.ModuleList(_Alone(width) for _ in range(given["num_trans_layer"]))
        self.spatial_ch_projs = nn.Linear(width, given["num_proj_channel"])
        first = given["block_out_channels"][0]
        self.control_add_embedding = Embedding(self.kinds * self._id_channels, 4 * first)

    def _kind(self, kind: int | None, like: torch.Tensor) -> torch.Tensor | None:
        if kind is None:
            return None
        assert self._id_channels
        chosen = torch.zeros(self.kinds, device=like.device)
        chosen[kind] = 1
        numbers = self._sinusoid(chosen, self._id_channels).reshape(1, -1).to(like.dtype)
        told: torch.Tensor = self.control_add_embedding(numbers)
        return told

    def _fuse(self, seen: torch.Tensor, hidden: torch.Tensor, kind: int | None) -> torch.Tensor:
        if kind is None:
            return seen
        token = seen.mean(dim=(2, 3)) + self.task_embedding[kind]
        for layer in self.transformer_layes:
            token = layer(token)
        shift: torch.Tensor = self.spatial_ch_projs(token)
        return seen + shift[:, :, None, None]


class _PictureEmbedding(nn.Module):
    """A picture at an eighth of its sides: three convolutions that halve them, each behind one that does not."""

    def __init__(self, channels: int, widths: Sequence[int], out: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in zip(widths, widths[1:], strict=False):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out, 3, padding=1)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) to (n, out, height / 8, width / 8)."""
        seen = functional.silu(self.conv_in(picture))
        for block in self.blocks:
            seen = functional.silu(block(seen))
        output: torch.Tensor = self.conv_out(seen)
        return output


class _Alone(nn.Module):
    """A transformer's layer for tokens that attend to themselves alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        attention: Any = nn.Module()
        attention.value = nn.Linear(width, width)
        attention.out_proj = nn.Linear(width, width)
        mlp: Any = nn.Module()
        mlp.c_fc = nn.Linear(width, 4 * width)
        mlp.c_proj = nn.Linear(4 * width, width)
        self.attn, self.mlp = attention, mlp
        self.ln_1 = nn.LayerNorm(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(..., width) to the same."""
        tokens = tokens + self.attn.out_proj(self.attn.value(self.ln_1(tokens)))
        inner = self.mlp.c_fc(self.ln_2(tokens))
        output: torch.Tensor = tokens + self.mlp.c_proj(inner * torch.sigmoid(1.702 * inner))
        return output
