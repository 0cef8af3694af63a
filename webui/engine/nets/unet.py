"""The UNet of Stable Diffusion 1.x, 2.x and SDXL, under the names that diffusers gives its parts.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"; SDXL: Podell et al. 2023. Pictures
lie channels-last all the way, so that an attention's tokens are a view of them.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from webui.engine.nets.layers import Conv1x1, spread
from webui.engine.nets.transformer import Attention, Transformer
from webui.engine.speed.shortcuts import Shortcuts

DEFAULTS: Mapping[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "num_attention_heads": None,
    "cross_attention_dim": 1280,
    "use_linear_projection": False,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "projection_class_embeddings_input_dim": None,
    "time_cond_proj_dim": None,
}
FIXED: Mapping[str, tuple[Any, ...]] = {
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "addition_embed_type": (None, "text_time"),
    "act_fn": ("silu",),
    "attention_type": ("default",),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "encoder_hid_dim_type": (None,),
    "encoder_hid_dim": (None,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "reverse_transformer_layers_per_block": (None,),
    "cross_attention_norm": (None,),
    "only_cross_attention": (False,),
    "dual_cross_attention": (False,),
    "center_input_sample": (False,),
    "resnet_skip_time_act": (False,),
    "mid_block_only_cross_attention": (None, False),
    "resnet_out_scale_factor": (1,),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (1,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
}
"""What diffusers' class knows and these models do not use, with the values that mean so."""

MAX_PERIOD = 10_000

OUTER_LAYERS = 2
"""So many of the last layers, and what makes their skips, run where the features of all others are reused."""


class Prepared(NamedTuple):
    """What the UNet is told besides latents and time; the same in each step, so it is computed once.

    ``attended`` has the prompt's keys and values, (rows, heads, length, width) each, for each cross-attention in the
    order of the forward. ``embedding`` (rows, width) is added to that of the time, ``guidance`` (rows, channels) to
    what it is made from.
    """

    attended: Sequence[tuple[torch.Tensor, torch.Tensor]]
    embedding: torch.Tensor | None = None
    guidance: torch.Tensor | None = None


def _read_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a UNet is built from, with diffusers' defaults; raises ValueError for what this one does not do."""
    for name, allowed in FIXED.items():
        if config.get(name, allowed[0]) not in allowed:
            raise ValueError(f"the UNet's {name} is {config[name]!r}, which is not supported")
    given = {name: config.get(name, default) for name, default in DEFAULTS.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


class UNet(nn.Module):
    """Predicts the noise (or v) in latents. ``config`` is that of diffusers' UNet2DConditionModel.

    Raises ValueError for a configuration that asks for what this one does not do.
    """

    __call__: Callable[..., torch.Tensor]  # which torch has without types
    config: Mapping[str, Any]
    down_blocks: Any
    mid_block: Any
    up_blocks: Any

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        given = self.config = _read_config(config)
        channels = given["block_out_channels"]
        count, first, last = len(channels), channels[0], channels[-1]
        self.in_channels: int = given["in_channels"]
        self.guidance_channels: int | None = given["time_cond_proj_dim"]
        self._turned, self._shift = bool(given["flip_sin_to_cos"]), float(given["freq_shift"])
        self._id_channels: int | None = given["addition_time_embed_dim"]
        depths = _per_block(given["transformer_layers_per_block"], count)
        heads = _per_block(given["num_attention_heads"] or given["attention_head_dim"], count)
        contexts = _per_block(given["cross_attention_dim"], count)
        layers = _per_block(given["layers_per_block"], count)
        groups, eps, time = given["norm_num_groups"], given["norm_eps"], 4 * first
        linear = bool(given["use_linear_projection"])
        attending = [level for level, kind in enumerate(given["down_block_types"]) if kind == "CrossAttnDownBlock2D"]

        def block(into: Sequence[int], out: int, level: int, attends: bool) -> _Block:
            transformer = partial_transformer(level, out) if attends else None
            return _Block(into, out, time, groups, eps, transformer)

        def partial_transformer(level: int, width: int) -> dict[str, Any]:
            return {
                "width": width,
                "heads": heads[level],
                "depth": depths[level],
                "context": contexts[level],
                "groups": groups,
                "linear": linear,
                "merges": level == min(attending, default=count - 1),
            }

        self.conv_in = nn.Conv2d(self.in_channels, first, 3, padding=1)
        self.time_embedding = _Embedding(first, time, self.guidance_channels)
        if given["addition_embed_type"]:
            self.add_embedding = _Embedding(given["projection_class_embeddings_input_dim"], time)
        self.down_blocks = nn.ModuleList()
        for level, kind in enumerate(_known(given["down_block_types"], "DownBlock2D", "CrossAttnDownBlock2D")):
            out, before = channels[level], channels[max(level - 1, 0)]
            down = block([before, *[out] * (layers[level] - 1)], out, level, kind == "CrossAttnDownBlock2D")
            if level < count - 1:
                down.downsamplers = nn.ModuleList([_Resampler(out, stride=2)])
            self.down_blocks.append(down)
        self.mid_block = block([last], last, count - 1, True)
        self.mid_block.resnets.append(_Resnet(last, last, time, groups, eps))
        self.up_blocks = nn.ModuleList()
        below = last
        for number, kind in enumerate(_known(given["up_block_types"], "UpBlock2D", "CrossAttnUpBlock2D")):
            level = count - 1 - number
            out, beside = channels[level], channels[max(level - 1, 0)]
            skipped = [out] * layers[level] + [beside]
            into = [wide + skip for wide, skip in zip([below, *[out] * layers[level]], skipped, strict=True)]
            up = block(into, out, level, kind == "CrossAttnUpBlock2D")
            if level > 0:
                up.upsamplers = nn.ModuleList([_Resampler(out, stride=1)])
            self.up_blocks.append(up)
            below = out
        self.conv_norm_out = nn.GroupNorm(groups, first, eps)
        self.conv_out = nn.Conv2d(first, given["out_channels"], 3, padding=1)

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return self.time_embedding.linear_1.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.time_embedding.linear_1.weight.device

    def prepare(
        self,
        context: torch.Tensor,
        summary: torch.Tensor | None = None,
        ids: torch.Tensor | None = None,
        guidance: torch.Tensor | None = None,
    ) -> Prepared:
        """What ``forward`` needs to know of the prompts, for as long as the weights stay.

        ``context`` (rows, length, width) is attended to; SDXL has a ``summary`` (rows, width) and sizes ``ids``
        (rows, numbers) too, a UNet that guides itself a ``guidance`` embedding (rows, channels).
        """
        attended = [attention.attend_to(context) for attention in self._cross_attentions()]
        embedding = None
        if summary is not None and ids is not None:
            assert self._id_channels
            sizes = self._sinusoid(ids.flatten(), self._id_channels).reshape(len(ids), -1)
            embedding = self.add_embedding(torch.cat([summary, sizes.to(summary.dtype)], dim=-1))
        return Prepared(attended, embedding, None if guidance is None else guidance.to(context.dtype))

    def forward(
        self, latents: torch.Tensor, timestep: torch.Tensor, prepared: Prepared, shortcuts: Shortcuts | None = None
    ) -> torch.Tensor:
        """The prediction, (rows, out channels, h, w), for latents (n, in channels, h, w) at one timestep.

        ``rows`` are those of ``prepared``, n or a multiple: each further n rows are the same latents with another
        prompt. What comes before the first cross-attention is the same for them and is computed once.
        """
        rows = len(prepared.attended[0][0])
        sinusoid = self._sinusoid(timestep.reshape(1), self.conv_in.out_channels).to(latents.dtype)
        time = self.time_embedding(sinusoid, prepared.guidance)
        if prepared.embedding is not None:
            time = time + prepared.embedding
        if len(time) > len(latents):
            latents = latents.repeat(rows // len(latents), 1, 1, 1)
        shortcuts = shortcuts or Shortcuts()
        down, up = list(self._downward()), list(self._upward())
        outer = up[-OUTER_LAYERS:]
        hidden = self.conv_in(latents.contiguous(memory_format=torch.channels_last))
        walk = _Walk(functional.silu(time), iter(prepared.attended), rows, shortcuts.merging, [hidden])
        walk.down(down[: OUTER_LAYERS - 1])
        if (features := shortcuts.recall()) is None:
            walk.down(down[OUTER_LAYERS - 1 :])
            features = walk.up(walk.through(self.mid_block), up[:-OUTER_LAYERS])
            shortcuts.keep(features)
        elif attends := sum(len(layer[1].transformer_blocks) for layer in outer if layer[1] is not None):
            walk.prompts = iter(prepared.attended[-attends:])
        hidden = walk.up(features, outer)
        output: torch.Tensor = self.conv_out(functional.silu(self.conv_norm_out(hidden), inplace=True))
        return output

    def convolved(self, count: int, rows: int, height: int, width: int) -> Iterator[tuple[nn.Conv2d, torch.Size]]:
        """Each 3 x 3 convolution with the shape that a whole forward of so many latents and rows gives it."""
        if hasattr(self, "add_embedding"):
            count = rows
        side = height, width
        yield from _given(self.conv_in, count, side)
        skips = [side]
        for layer, transformer in self._downward():
            yield from _given(layer, count, side)
            side = (-(-side[0] // 2), -(-side[1] // 2)) if isinstance(layer, _Resampler) else side
            count = count if transformer is None else rows
            skips.append(side)
        for resnet, seen in zip(self.mid_block.resnets, (count, rows), strict=True):
            yield from _given(resnet, seen, side)
        for resnet, _, upsampler in self._upward():
            skips.pop()
            yield from _given(resnet, rows, side)
            if upsampler is not None:
                side = skips[-1]
                yield from _given(upsampler, rows, side)
        yield from _given(self.conv_out, rows, side)

    def _downward(self) -> Iterator[tuple[nn.Module, Any]]:
        """What makes a skip each: a residual layer with its transformer, if it has one, or a downsampler."""
        for block in self.down_blocks:
            yield from block.layers()
            yield from ((downsampler, None) for downsampler in block.downsamplers)

    def _upward(self) -> Iterator[tuple[nn.Module, Any, Any]]:
        """What takes a skip each: a residual layer, its transformer, the upsampler after it."""
        for block in self.up_blocks:
            *others, last = block.layers()
            yield from ((*layer, None) for layer in others)
            yield (*last, next(iter(block.upsamplers), None))

    def _sinusoid(self, values: torch.Tensor, channels: int) -> torch.Tensor:
        """(n,) as (n, channels), float32: Vaswani et al. 2017, section 3.5."""
        half = channels // 2
        exponents = torch.arange(half, device=values.device, dtype=torch.float32) / (half - self._shift)
        angles = values[:, None].float() * torch.exp(-math.log(MAX_PERIOD) * exponents)
        parts = (angles.cos(), angles.sin()) if self._turned else (angles.sin(), angles.cos())
        return torch.cat(parts, dim=-1)

    def _cross_attentions(self) -> Iterator[Attention]:
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            for transformer in block.attentions:
                for layer in transformer.transformer_blocks:
                    yield layer.attn2


@dataclass
class _Walk:
    """One forward on its way: what the layers are given besides the picture, and the skips that wait for theirs."""

    time: torch.Tensor
    prompts: Iterator[tuple[torch.Tensor, torch.Tensor]]
    rows: int
    merging: float
    skips: list[torch.Tensor]

    def down(self, layers: Iterable[tuple[nn.Module, Any]]) -> None:
        for layer, transformer in layers:
            hidden = layer(self.skips[-1], self.time)
            if transformer is not None:
                hidden = transformer(hidden, self.prompts, self.merging)
            self.skips.append(hidden)

    def through(self, block: Any) -> torch.Tensor:
        first, second = block.resnets
        hidden = first(self.skips[-1], self.time)
        hidden = block.attentions[0](hidden, self.prompts, self.merging)
        output: torch.Tensor = second(hidden, self.time)
        return output

    def up(self, hidden: torch.Tensor, layers: Iterable[tuple[nn.Module, Any, Any]]) -> torch.Tensor:
        for resnet, transformer, upsampler in layers:
            hidden = resnet(torch.cat([hidden, spread(self.skips.pop(), self.rows)], dim=1), self.time)
            if transformer is not None:
                hidden = transformer(hidden, self.prompts, self.merging)
            if upsampler is not None:
                hidden = upsampler(functional.interpolate(hidden, self.skips[-1].shape[-2:], mode="nearest"))
        return hidden


def _given(layer: nn.Module, rows: int, side: tuple[int, int]) -> Iterator[tuple[nn.Conv2d, torch.Size]]:
    for part in layer.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3):
            yield part, torch.Size([rows, part.in_channels, *side])


def _per_block(value: Any, count: int) -> list[Any]:
    """One value a level, from one for all or one each."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise ValueError(f"the UNet has {count} levels, but a setting with {len(values)} values")
    return values


def _known(kinds: Sequence[str], *known: str) -> Sequence[str]:
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"the UNet has a {kind}, which is not supported")
    return kinds


class _Embedding(nn.Module):
    """Two linear layers; the first may be given a further condition."""

    def __init__(self, channels: int, width: int, condition_channels: int | None = None) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, width)
        if condition_channels is not None:
            self.cond_proj = nn.Linear(condition_channels, channels, bias=False)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, values: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        if condition is not None:
            values = values + self.cond_proj(condition)
        output: torch.Tensor = self.linear_2(functional.silu(self.linear_1(values)))
        return output


class _Block(nn.Module):
    """One resolution: residual layers, each with a transformer where the level attends to the prompt."""

    def __init__(
        self, into: Sequence[int], out: int, time: int, groups: int, eps: float, transformer: dict[str, Any] | None
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_Resnet(channels, out, time, groups, eps) for channels in into)
        self.attentions = nn.ModuleList([Transformer(**transformer) for _ in into] if transformer else [])
        self.downsamplers = nn.ModuleList()
        self.upsamplers = nn.ModuleList()

    def layers(self) -> Iterator[tuple[nn.Module, nn.Module | None]]:
        transformers = iter(self.attentions)
        return ((resnet, next(transformers, None)) for resnet in self.resnets)


class _Resampler(nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)

    def forward(self, hidden: torch.Tensor, _time: torch.Tensor | None = None) -> torch.Tensor:
        output: torch.Tensor = self.conv(hidden)
        return output


class _Resnet(nn.Module):
    """He et al. 2016, with group norm before each convolution and the time added between them."""

    def __init__(self, into: int, out: int, time: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, into, eps)
        self.conv1 = nn.Conv2d(into, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(time, out)
        self.norm2 = nn.GroupNorm(groups, out, eps)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = Conv1x1(into, out) if into != out else None

    def forward(self, hidden: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        inner = self.conv1(functional.silu(self.norm1(hidden), inplace=True))
        inner = self.norm2(inner.add_(self.time_emb_proj(time)[:, :, None, None]))
        inner = self.conv2(functional.silu(inner, inplace=True))
        if self.conv_shortcut is not None:
            hidden = self.conv_shortcut(hidden.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        output: torch.Tensor = inner.add_(hidden)
        return output
