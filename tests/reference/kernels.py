"""What a CPU computed the networks with as it was on 2026-11-29, frozen: later ways must give its very bits.

It is not to follow the product, and so imports nothing of it. ``convolve`` and the others take a part of a network and
what it is given, in the place of the part's own ``forward``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from reference import winograd
from reference.winograd import TILE
from torch import nn
from torch.nn import functional

HEAP_BYTES = 24 * 2**20
LARGE_BYTES = 32 * 2**20
"""Of a picture. glibc maps a block of that size anew each time, and Linux zeroes it page by page."""
STRIP_BYTES = 8 * 2**20

Rows = Callable[[int, int], torch.Tensor]
"""The rows from the first to before the second of what is convolved: (1, c, rows, w), channels-last."""


def convolve(conv: nn.Conv2d, given: torch.Tensor, padding: Sequence[int] | None = None) -> torch.Tensor:
    """3 x 3: by Winograd's way, or by oneDNN's with the weight in order for it."""
    padding = conv.padding if padding is None else padding
    if winograd.suits(given, conv.weight, conv.stride):
        return winograd.convolve(given, conv.weight, conv.bias, padding)
    settings = list(padding), list(conv.stride), [1, 1], 1
    packed = torch.ops.mkldnn._reorder_convolution_weight(conv.weight.data, *settings, list(given.shape))
    return torch.ops.mkldnn._convolution_pointwise(given, packed, conv.bias, *settings, "none", [], "")


def feed_forward(part: Any, tokens: torch.Tensor) -> torch.Tensor:
    def gate(tokens: torch.Tensor) -> torch.Tensor:
        inner, gate = part.net[0].proj(tokens).chunk(2, dim=-1)
        return part.net[2](functional.gelu(gate).mul_(inner))

    parts = math.ceil(8 * tokens.numel() * tokens.element_size() / HEAP_BYTES)
    if parts == 1:
        return gate(tokens)
    return torch.cat([gate(part) for part in tokens.flatten(0, 1).chunk(parts)]).view(tokens.shape)


def half(part: Any, given: torch.Tensor) -> torch.Tensor:
    hidden = part.conv_in(given.contiguous(memory_format=torch.channels_last))
    for block in (*part.down_blocks, part.mid_block, *part.up_blocks):
        hidden = block(hidden)
    if is_large(hidden):
        return convolve_normed(part.conv_norm_out, part.conv_out, hidden)
    return part.conv_out(functional.silu(part.conv_norm_out(hidden), inplace=True))


def upsampler(part: Any, hidden: torch.Tensor) -> torch.Tensor:
    if is_large(hidden, grows=2):
        return convolve_enlarged(part.conv, hidden)
    return part.conv(functional.interpolate(hidden, scale_factor=2.0))


def resnet(part: Any, hidden: torch.Tensor) -> torch.Tensor:
    past = hidden
    if part.conv_shortcut is not None:
        past = part.conv_shortcut(hidden.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    if is_large(hidden):
        return convolve_normed(part.norm2, part.conv2, convolve_normed(part.norm1, part.conv1, hidden), onto=past)
    inner = part.norm2(part.conv1(functional.silu(part.norm1(hidden), inplace=True)))
    return part.conv2(functional.silu(inner, inplace=True)).add_(past)


def is_large(picture: torch.Tensor, grows: int = 1) -> bool:
    """Whether strips are the faster way for (n, c, h, w), whose sides will be so many times as long."""
    return picture.device.type == "cpu" and len(picture) == 1 and picture.nbytes * grows**2 >= LARGE_BYTES


def convolve_normed(
    norm: nn.GroupNorm, conv: nn.Conv2d, picture: torch.Tensor, onto: torch.Tensor | None = None
) -> torch.Tensor:
    """``conv(silu(norm(picture)))``, (1, c, h, w) to (1, c', h, w); if ``onto`` is given, added to it in its place."""
    height, width = picture.shape[-2:]
    high = _strip_height(picture, conv, height, width)
    known = *_moments(norm, picture, high), norm.weight.float(), norm.bias.float()

    def rows(first: int, last: int) -> torch.Tensor:
        return functional.silu(functional.batch_norm(picture[:, :, first:last], *known, eps=norm.eps), inplace=True)

    if onto is None:
        return _convolve_rows(conv, rows, high, _new_picture(picture, conv, height, width))
    return _convolve_rows(conv, rows, high, onto, adds=True)


def convolve_enlarged(conv: nn.Conv2d, picture: torch.Tensor) -> torch.Tensor:
    """``conv`` of a picture with each pixel four times, (1, c, h, w) to (1, c', 2 h, 2 w)."""
    height, width = (2 * side for side in picture.shape[-2:])

    def rows(first: int, last: int) -> torch.Tensor:
        above = first // 2
        part = functional.interpolate(picture[:, :, above : -(-last // 2)], scale_factor=2.0)
        return part[:, :, first - 2 * above : last - 2 * above]

    high = _strip_height(picture, conv, height, width)
    return _convolve_rows(conv, rows, high, _new_picture(picture, conv, height, width))


def _strip_height(picture: torch.Tensor, conv: nn.Conv2d, height: int, width: int) -> int:
    """Rows that go at once, whole tiles of ``winograd`` if possible.

    All strips are equally high: a convolution's weight is in order for one shape.
    """
    row_bytes = width * max(conv.in_channels, conv.out_channels) * picture.element_size()
    most = min(max(1, STRIP_BYTES // row_bytes), height)
    fitting = [rows for rows in range(1, most + 1) if height % rows == 0]
    return max(fitting, key=lambda rows: (rows % TILE == 0, rows))


def _new_picture(like: torch.Tensor, conv: nn.Conv2d, height: int, width: int) -> torch.Tensor:
    return like.new_empty(1, height, width, conv.out_channels).permute(0, 3, 1, 2)


def _convolve_rows(conv: nn.Conv2d, rows: Rows, high: int, made: torch.Tensor, adds: bool = False) -> torch.Tensor:
    """Puts into ``made``, or adds to it, the 3 x 3 convolution, with a margin of one, of all that ``rows`` gives."""
    height = made.shape[2]
    for top in range(0, height, high):
        strip = rows(max(top - 1, 0), min(top + high + 1, height))
        margins = (int(top == 0), int(top + high == height))
        strip = functional.pad(strip, (0, 0, *margins)) if any(margins) else strip
        place, part = made[:, :, top : top + high], convolve(conv, strip, (0, 1))
        place.add_(part) if adds else place.copy_(part)
    return made


def _moments(norm: nn.GroupNorm, picture: torch.Tensor, high: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of each channel's group (Wu and He 2018), (c,) each, float32.

    The variance is that of the strips, which are equally large, and that of their means.
    """
    _, channels, height, width = picture.shape
    ones = torch.ones(channels)  # they have torch compute in float32 what is in bfloat16
    found = []
    for top in range(0, height, high):
        part = picture[:, :, top : top + high]
        found += [torch.native_group_norm(part, ones, ones, 1, channels, high * width, norm.num_groups, norm.eps)[1:]]
    means, inverses = (torch.cat(values) for values in zip(*found, strict=True))
    variance, mean = torch.var_mean(means, dim=0, correction=0)
    variance += (inverses.pow(-2) - norm.eps).mean(dim=0)
    each = channels // norm.num_groups
    return mean.repeat_interleave(each), variance.repeat_interleave(each)
