"""The half of a UNet that goes down to the smallest picture and through the middle. A ControlNet is another such half.

Pictures lie channels-last all the way, so that an attention's tokens are a view of them.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from webui.engine.nets.blocks import Block, Embedding, Resampler, Resnet
from webui.engine.nets.layers import spread
from webui.engine.nets.transformer import Against, Attended, Attention

DEFAULTS: Mapping[str, Any] = {
    "in_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
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
    "addition_embed_type": (None, "text_time"),
    "act_fn": ("silu",),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "encoder_hid_dim_type": (None,),
    "encoder_hid_dim": (None,),
    "resnet_time_scale_shift": ("default",),
    "only_cross_attention": (False,),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (1,),
}
"""What diffusers' classes know and these models do not use, with the values that mean so."""

MAX_PERIOD = 10_000


class Prepared(NamedTuple):
    """What the network is told besides latents and time; the same in each step, so it is computed once.

    ``attended`` is what each cross-attention looks at, in the order of the forward. ``embedding`` (rows, width) is
    added to that of the time, ``guidance`` (rows, channels) to what it is made from. The last ``perturbed`` of the rows
    are answered once more, behind the others, with the innermost self-attention perturbed; from there on there are so
    many rows more.
    """

    attended: Sequence[Attended]
    embedding: torch.Tensor | None = None
    guidance: torch.Tensor | None = None
    perturbed: int = 0


class Added(NamedTuple):
    """What controls add to a UNet on its way, each (n, channels, h, w) for n latents or (rows, ...).

    ``skips`` are added to what goes up past the middle, one a skip, ``conv_in``'s first, and ``middle`` to what comes
    out of that. ``inside`` are added on the way down, one a resolution, and one more behind the middle where there is
    one.
    """

    skips: Sequence[torch.Tensor] = ()
    middle: torch.Tensor | None = None
    inside: Sequence[torch.Tensor] = ()

    def plus(self, other: "Added") -> "Added":
        """Both together."""
        middles = [one for one in (self.middle, other.middle) if one is not None]
        return Added(
            _sums(self.skips, other.skips),
            _sums(middles[:1], middles[1:])[0] if middles else None,
            _sums(self.inside, other.inside),
        )


def _sums(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    if not some or not others:
        return some or others
    return [add(one, other) for one, other in zip(some, others, strict=True)]


def add(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Their sum, with as many rows as the one that has more."""
    rows = max(len(one), len(other))
    return spread(one, rows) + spread(other, rows)


class Encoder(nn.Module):
    """What a UNet and its ControlNets have in common. ``config`` is that of diffusers' class.

    Raises ValueError for a configuration that asks for what this one does not do.
    """

    TITLE = "UNet"
    DEFAULTS = DEFAULTS
    FIXED = FIXED
    config: Mapping[str, Any]
    down_blocks: Any
    mid_block: Any

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        given = self.config = self._read(config)
        channels = given["block_out_channels"]
        count, first, last = len(channels), channels[0], channels[-1]
        self.in_channels: int = given["in_channels"]
        self.guidance_channels: int | None = given["time_cond_proj_dim"]
        self._turned, self._shift = bool(given["flip_sin_to_cos"]), float(given["freq_shift"])
        self._id_channels: int | None = given["addition_time_embed_dim"]
        layers, time = self._per_level("layers_per_block"), 4 * first
        self.conv_in = nn.Conv2d(self.in_channels, first, 3, padding=1)
        self.time_embedding = Embedding(first, time, self.guidance_channels)
        if given["addition_embed_type"]:
            self.add_embedding = Embedding(given["projection_class_embeddings_input_dim"], time)
        self.down_blocks = nn.ModuleList()
        for level, kind in enumerate(self._known("down_block_types", "DownBlock2D", "CrossAttnDownBlock2D")):
            out, before = channels[level], channels[max(level - 1, 0)]
            down = self._block([before, *[out] * (layers[level] - 1)], level, kind == "CrossAttnDownBlock2D")
            if level < count - 1:
                down.downsamplers = nn.ModuleList([Resampler(out, stride=2)])
            self.down_blocks.append(down)
        attends = given["mid_block_type"] == "UNetMidBlock2DCrossAttn"
        self.mid_block = self._block([last], count - 1, attends)
        if attends:
            self.mid_block.resnets.append(Resnet(last, last, time, given["norm_num_groups"], given["norm_eps"]))

    def _read(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The configuration with diffusers' defaults; raises ValueError for what this one does not do."""
        for name, allowed in self.FIXED.items():
            if config.get(name, allowed[0]) not in allowed:
                raise ValueError(f"the {self.TITLE}'s {name} is {config[name]!r}, which is not supported")
        given = {name: config.get(name, default) for name, default in self.DEFAULTS.items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    def _block(self, into: Sequence[int], level: int, attends: bool) -> Block:
        """One of a level's, from so many channels each layer."""
        given, channels = self.config, self.config["block_out_channels"]
        width, groups, time = channels[level], given["norm_num_groups"], 4 * channels[0]
        attending = [at for at, kind in enumerate(given["down_block_types"]) if kind == "CrossAttnDownBlock2D"]
        transformer = {
            "width": width,
            "heads": self._per_level("num_attention_heads" if given["num_attention_heads"] else "attention_head_dim")[
                level
            ],
            "depth": self._per_level("transformer_layers_per_block")[level],
            "context": self._per_level("cross_attention_dim")[level],
            "groups": groups,
            "linear": bool(given["use_linear_projection"]),
            "merges": level == min(attending, default=len(channels) - 1),
        }
        return Block(into, width, time, groups, given["norm_eps"], transformer if attends else None)

    def _per_level(self, name: str) -> list[Any]:
        """One value a level, from a setting that is one for all or one each."""
        value, count = self.config[name], len(self.config["block_out_channels"])
        values = list(value) if isinstance(value, (list, tuple)) else [value] * count
        if len(values) != count:
            raise ValueError(f"the {self.TITLE} has {count} levels, but a setting with {len(values)} values")
        return values

    def _known(self, name: str, *known: str) -> Sequence[str]:
        """The kinds of block of a setting, which must be among those that are known."""
        kinds: Sequence[str] = self.config[name]
        for kind in kinds:
            if kind not in known:
                raise ValueError(f"the {self.TITLE} has a {kind}, which is not supported")
        return kinds

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
        perturbed: int = 0,
        against: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> Prepared:
        """What ``forward`` needs to know of the prompts, for as long as the weights stay.

        ``context`` (rows, length, width) is attended to; SDXL has a ``summary`` (rows, width) and sizes ``ids``
        (rows, numbers) too, a network that guides itself a ``guidance`` embedding (rows, channels). ``perturbed`` as in
        ``Prepared``. ``against`` is a context (some rows, length, width) that so many last rows are pushed away from,
        with the strengths of ``normalized``.
        """
        attended = [
            _attended(attention, context, against, perturbed if is_inner else 0)
            for attention, is_inner in self._cross_attentions()
        ]
        embedding = None
        if summary is not None and ids is not None and self._id_channels:
            sizes = self._sinusoid(ids.flatten(), self._id_channels).reshape(len(ids), -1)
            embedding = self.add_embedding(torch.cat([summary, sizes.to(summary.dtype)], dim=-1))
        return Prepared(attended, embedding, None if guidance is None else guidance.to(context.dtype), perturbed)

    def _time(self, timestep: torch.Tensor, prepared: Prepared, dtype: torch.dtype) -> torch.Tensor:
        """The time's embedding, (1, width), (n, width) where it differs by latents, or (rows, width) by prompt."""
        sinusoid = self._sinusoid(timestep.reshape(-1), self.conv_in.out_channels).to(dtype)
        by_prompt = prepared.guidance if prepared.embedding is None else prepared.embedding
        if by_prompt is not None and len(sinusoid) > 1:
            sinusoid = spread(sinusoid, len(by_prompt))
        time: torch.Tensor = self.time_embedding(sinusoid, prepared.guidance)
        return time if prepared.embedding is None else time + prepared.embedding

    def _downward(self) -> Iterator[tuple[nn.Module, Any]]:
        """What makes a skip each: a residual layer with its transformer, if it has one, or a downsampler."""
        for block in self.down_blocks:
            yield from block.layers()
            yield from ((downsampler, None) for downsampler in block.downsamplers)

    def _sinusoid(self, values: torch.Tensor, channels: int) -> torch.Tensor:
        """(n,) as (n, channels), float32: Vaswani et al. 2017, section 3.5."""
        half = channels // 2
        exponents = torch.arange(half, device=values.device, dtype=torch.float32) / (half - self._shift)
        angles = values[:, None].float() * torch.exp(-math.log(MAX_PERIOD) * exponents)
        parts = (angles.cos(), angles.sin()) if self._turned else (angles.sin(), angles.cos())
        return torch.cat(parts, dim=-1)

    def _cross_attentions(self) -> Iterator[tuple[Attention, bool]]:
        """Each in the order of the forward, and whether it is in the middle or behind it."""
        for number, block in enumerate(self._blocks()):
            for transformer in block.attentions:
                for layer in transformer.transformer_blocks:
                    yield layer.attn2, number >= len(self.down_blocks)

    def _blocks(self) -> Iterator[Any]:
        """All, in the order of the forward."""
        yield from self.down_blocks
        yield self.mid_block


def _attended(
    attention: Attention, context: torch.Tensor, against: tuple[torch.Tensor, torch.Tensor] | None, perturbed: int
) -> Attended:
    """What one cross-attention looks at; with ``perturbed`` its last rows once more."""
    keys, values, *_ = attention.attend_to(context)
    found = Attended(spread(keys, len(keys), perturbed), spread(values, len(values), perturbed))
    if against is None:
        return found
    (keys, values, *_), again = attention.attend_to(against[0]), len(against[0]) if perturbed else 0
    unwanted = spread(keys, len(keys), again), spread(values, len(values), again)
    return found._replace(against=Against(*unwanted, against[1]))


@dataclass
class Walk:
    """One forward on its way: what the layers are given besides the picture, and the skips that wait for theirs.

    ``inside`` is what is added on the way down, by the number of the skip that it is added to. From the middle on the
    last ``perturbed`` rows are there once more.
    """

    time: torch.Tensor
    prompts: Iterator[Attended]
    rows: int
    merging: float
    skips: list[torch.Tensor]
    inside: Mapping[int, torch.Tensor] = field(default_factory=dict)
    perturbed: int = 0
    spread: Callable[[torch.Tensor, int, int], torch.Tensor] = spread

    @property
    def _time(self) -> torch.Tensor:
        """For what the last skip has, down to the middle."""
        return spread(self.time, len(self.skips[-1])) if len(self.time) > 1 else self.time

    @property
    def _later_time(self) -> torch.Tensor:
        """From the middle on."""
        return self.all_rows(self.time) if len(self.time) > 1 else self.time

    def all_rows(self, values: torch.Tensor) -> torch.Tensor:
        """Values of n latents or of the rows, for all rows that there are from the middle on."""
        return self.spread(values, self.rows, self.perturbed)

    def down(self, layers: Iterable[tuple[nn.Module, Any]]) -> None:
        """Through layers that make a skip each."""
        for layer, transformer in layers:
            hidden = layer(self.skips[-1], self._time)
            if transformer is not None:
                hidden = transformer(hidden, self.prompts, self.merging)
            if (more := self.inside.get(len(self.skips))) is not None:
                hidden = add(hidden, more)
            self.skips.append(hidden)

    def through(self, block: Any) -> torch.Tensor:
        """Through the middle, from the last skip."""
        first, *others = block.resnets
        hidden: torch.Tensor = first(self.skips[-1], self._time)
        for transformer, resnet in zip(block.attentions, others, strict=True):
            hidden = resnet(transformer(hidden, self.prompts, self.merging, self.perturbed), self._later_time)
        return hidden

    def receive(self, added: Sequence[torch.Tensor]) -> None:
        """What controls add to the skips that are there."""
        for number, more in enumerate(added[: len(self.skips)]):
            self.skips[number] = add(self.skips[number], more)

    def up(self, hidden: torch.Tensor, layers: Iterable[tuple[nn.Module, Any, Any]]) -> torch.Tensor:
        """Through layers that take a skip each."""
        time = self._later_time
        for resnet, transformer, upsampler in layers:
            hidden = resnet(torch.cat([hidden, self.all_rows(self.skips.pop())], dim=1), time)
            if transformer is not None:
                hidden = transformer(hidden, self.prompts, self.merging)
            if upsampler is not None:
                hidden = upsampler(functional.interpolate(hidden, self.skips[-1].shape[-2:], mode="nearest"))
        return hidden
