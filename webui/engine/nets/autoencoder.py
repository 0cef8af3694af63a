"""The KL autoencoder of Stable Diffusion, under the names that diffusers gives its parts.

Esser et al. 2021, "Taming Transformers"; Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion
Models". Pictures lie channels-last all the way, so that the attention's tokens are a view of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from webui.engine.nets.layers import Conv1x1, to_picture, to_tokens

DEFAULTS: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "shift_factor": 0.0,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
EPS = 1e-6
Network = Callable[[torch.Tensor], torch.Tensor]
Norm = Callable[[int], nn.Module]
"""Makes a norm of so many channels."""


class Coder(nn.Module):
    """What all autoencoders share: pictures (n, 3, h, w) in -1..1 to latents (n, c, h / s, w / s) and back.

    All in the weights' dtype; latents are without ``scaling_factor`` and ``shift_factor``. ``use_tiling`` bounds the
    memory that large ones take: no more than ``tile_latents`` by ``tile_latents`` go at once.
    """

    block_out_channels: tuple[int, ...]
    latent_channels: int
    scaling_factor: float
    shift_factor: float = 0.0
    use_tiling: bool = False
    tile_latents: int = 64

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return self._any_weight.dtype

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self._any_weight.device

    @property
    def _any_weight(self) -> torch.Tensor:
        raise NotImplementedError

    def encode(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of a picture's latents, (n, c, h / s, w / s) each."""
        raise NotImplementedError

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The picture of latents (n, c, h, w), (n, 3, h * s, w * s), which may leave -1..1 a little."""
        raise NotImplementedError

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """A picture as it comes back from its latents."""
        return self.decode(self.encode(picture)[0])

    def _run(self, network: Network, given: torch.Tensor, shrinks: int = 1, grows: int = 1) -> torch.Tensor:
        """``network``, which makes the sides so many times shorter or longer; in tiles, where it must be."""
        if self.use_tiling and max(given.shape[-2:]) > self.tile_latents * shrinks:
            return _in_tiles(network, given, self.tile_latents, shrinks, grows)
        return network(given)


def _in_tiles(network: Network, given: torch.Tensor, side: int, shrinks: int, grows: int) -> torch.Tensor:
    """``network`` on overlapping tiles one after another, each fading into the next in a straight line."""
    height, width = (-(-length // shrinks) for length in given.shape[-2:])
    down, across = (_cut(length, side, grows, given.device) for length in (height, width))
    whole = torch.empty(0)
    for top, bottom, fade_y in down:
        for left, right, fade_x in across:
            tile = given[..., top * shrinks : bottom * shrinks, left * shrinks : right * shrinks]
            made = network(tile).float()
            if not len(whole):
                whole = made.new_zeros(*made.shape[:2], height * grows, width * grows)
            rows, columns = made.shape[-2:]  # one less at the end, where the picture ends within a latent
            part = whole[..., top * grows :, left * grows :][..., :rows, :columns]
            part += made * (fade_y[:rows, None] * fade_x[:columns])
    return whole[..., : top * grows + rows, : left * grows + columns].to(given.dtype)


def _cut(length: int, side: int, grows: int, device: torch.device) -> list[tuple[int, int, torch.Tensor]]:
    """Start, end and weights of the fewest equal tiles with a quarter of ``side`` in common; weights add up to 1."""
    common = side // 4
    count = max(1, math.ceil((length - common) / (side - common)))
    side = math.ceil((length + (count - 1) * common) / count)
    starts = [round(number * (length - side) / max(count - 1, 1)) for number in range(count)]
    middles = torch.arange(side * grows, device=device) + 0.5
    fade = torch.minimum(middles, side * grows - middles).clamp(max=common * grows)
    total = torch.zeros(length * grows, device=device)
    parts = [slice(start * grows, (start + side) * grows) for start in starts]
    for part in parts:
        total[part] += fade
    return [(start, start + side, fade / total[part]) for start, part in zip(starts, parts, strict=True)]


class PixelNorm(nn.Module):
    """Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", over the channels of each pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to the same, a new tensor."""
        normed = functional.normalize(picture.float(), dim=1)
        return normed.mul_(self.gamma.float() * len(self.gamma) ** 0.5).to(picture.dtype)


class Autoencoder(Coder):
    """The KL autoencoder. ``config`` is that of diffusers' AutoencoderKL; what it lacks has diffusers' defaults.

    Without groups (``norm_num_groups`` is None) it is Qwen-Image's: it norms each pixel, and each enlargement halves
    the channels. Raises ValueError for a configuration that asks for what this one does not do.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        given = {**DEFAULTS, **config}
        widths = self.block_out_channels = tuple(given["block_out_channels"])
        up_widths = tuple(config.get("decoder_block_out_channels") or widths)
        kinds = {"down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"]}
        for name, known in {"act_fn": "silu", **{name: kind * len(widths) for name, kind in kinds.items()}}.items():
            if list(found := config.get(name, known)) != list(known):
                raise ValueError(f"VAE has {name} {found!r}, which is not supported")
        latents, layers, groups = (given[name] for name in ("latent_channels", "layers_per_block", "norm_num_groups"))
        self.latent_channels, self.scaling_factor = latents, float(given["scaling_factor"])
        self.shift_factor = float(given["shift_factor"] or 0.0)
        self._scale, attends = 2 ** (len(widths) - 1), given["mid_block_add_attention"]
        halves = groups is None
        norm: Norm = PixelNorm if groups is None else partial(nn.GroupNorm, groups, eps=EPS)
        self.encoder = Half(given["in_channels"], widths, 2 * latents, layers, norm, attends, up=False)
        self.decoder = Half(latents, up_widths[::-1], given["out_channels"], layers + 1, norm, attends, True, halves)
        self.quant_conv = Conv1x1(2 * latents, 2 * latents) if given["use_quant_conv"] else None
        self.post_quant_conv = Conv1x1(latents, latents) if given["use_post_quant_conv"] else None

    @property
    def _any_weight(self) -> torch.Tensor:
        return next(self.decoder.conv_norm_out.parameters())

    def encode(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As in ``Coder``; Kingma and Welling 2014, with the logarithm of the variance held within -30..20."""
        moments = self._run(lambda px: _pointwise(self.quant_conv, self.encoder(px)), picture, shrinks=self._scale)
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """As in ``Coder``."""
        return self._run(lambda z: self.decoder(_pointwise(self.post_quant_conv, z)), latents, grows=self._scale)


def _pointwise(layer: nn.Module | None, picture: torch.Tensor) -> torch.Tensor:
    """A layer, if there is one, over the channels of each pixel."""
    return picture if layer is None else layer(picture.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Half(nn.Module):
    """The encoder, or with ``up`` the decoder; ``widths`` are in the order of the way through.

    With ``halves`` what comes to the next has half as many channels.
    """

    def __init__(
        self,
        into: int,
        widths: Sequence[int],
        out: int,
        layers: int,
        norm: Norm,
        attends: bool,
        up: bool,
        halves: bool = False,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(into, widths[0], 3, padding=1)
        given = [width // 2 if halves else width for width in widths]
        steps, middle = zip([widths[0], *given], widths, strict=False), widths[0 if up else -1]
        blocks = [_Block([before, *[width] * (layers - 1)], width, norm) for before, width in steps]
        for block, width, less in zip(blocks[:-1], widths, given, strict=False):
            if up:
                block.upsamplers.append(Upsampler(width, less))
            else:
                block.downsamplers.append(Downsampler(width))
        self.down_blocks, self.up_blocks = nn.ModuleList([] if up else blocks), nn.ModuleList(blocks if up else [])
        self.mid_block = _Block([middle, middle], middle, norm, attends)
        self.conv_norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], out, 3, padding=1)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        hidden = self.conv_in(given.contiguous(memory_format=torch.channels_last))
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            hidden = block(hidden)
        return self.finish(hidden)

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """The last norm and convolution."""
        output: torch.Tensor = self.conv_out(functional.silu(self.conv_norm_out(hidden), inplace=True))
        return output


class _Block(nn.Module):
    """Residual layers at one resolution, with attention after the first in the middle, and the way to the next."""

    def __init__(self, into: Sequence[int], out: int, norm: Norm, attends: bool = False) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(width, out, norm) for width in into)
        self.attentions = nn.ModuleList([_Attention(out, norm)] if attends else [])
        self.downsamplers, self.upsamplers = nn.ModuleList(), nn.ModuleList()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        first, *others = self.resnets
        for layer in (first, *self.attentions, *others, *self.downsamplers, *self.upsamplers):
            hidden = layer(hidden)
        return hidden


class Downsampler(nn.Module):
    """Half as large, with the padding at the far sides only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.conv(functional.pad(hidden, (0, 1, 0, 1)))
        return output


class Upsampler(nn.Module):
    """Twice as large."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.conv(functional.interpolate(hidden, scale_factor=2.0))
        return output


class Resnet(nn.Module):
    """He et al. 2016, with a norm before each convolution."""

    def __init__(self, into: int, out: int, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(into)
        self.conv1 = nn.Conv2d(into, out, 3, padding=1)
        self.norm2 = norm(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = Conv1x1(into, out) if into != out else None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        inner = self.conv1(functional.silu(self.norm1(hidden), inplace=True))
        inner = self.norm2(inner)  # what it was made of is free from here on
        inner = self.conv2(functional.silu(inner, inplace=True))
        output: torch.Tensor = inner.add_(self.shortcut(hidden))
        return output

    def shortcut(self, hidden: torch.Tensor) -> torch.Tensor:
        """What goes past the convolutions, with as many channels as they give."""
        return _pointwise(self.conv_shortcut, hidden)


class _Attention(nn.Module):
    """Vaswani et al. 2017, one head over all pixels."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.group_norm = norm(width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        tokens = to_tokens(self.group_norm(picture))[:, None]
        found = functional.scaled_dot_product_attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return to_picture(self.to_out[0](found[:, 0]), *picture.shape[-2:]).add_(picture)
