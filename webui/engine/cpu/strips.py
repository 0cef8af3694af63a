"""Convolutions over large pictures on the CPU, a strip of rows at a time.

What is done to a picture before it is convolved (a norm, an enlargement) is then done to a strip that fits into the
processor's cache, and is never a picture of its own: less memory to take, to fill and to read. What a layer is given is
its own: the memory of rows that it has read for the last time goes back to the system while it makes others.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from webui.engine.cpu.conv import PackedConv2d
from webui.engine.cpu.winograd import TILE
from webui.engine.devices import give_back
from webui.engine.nets.autoencoder import Half, Resnet, Upsampler

LARGE_BYTES = 32 * 2**20
"""Of a picture. glibc maps a block of that size anew each time, and Linux zeroes it page by page."""
STRIP_BYTES = 8 * 2**20

Rows = Callable[[int, int], torch.Tensor]
"""The rows from the first to before the second of what is convolved: (1, c, rows, w), channels-last."""


class StripHalf(Half):
    """As the plain one, but for the last bits where pictures are large."""

    conv_out: PackedConv2d

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """The last norm and convolution."""
        if not is_large(hidden):
            return super().finish(hidden)
        return convolve_normed(self.conv_norm_out, self.conv_out, hidden)


class StripUpsampler(Upsampler):
    """As the plain one."""

    conv: PackedConv2d

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to (n, c, 2 h, 2 w)."""
        return convolve_enlarged(self.conv, hidden) if is_large(hidden, grows=2) else super().forward(hidden)


class StripResnet(Resnet):
    """As the plain one, but for the last bits where pictures are large."""

    conv1: PackedConv2d
    conv2: PackedConv2d

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to (n, c', h, w)."""
        if not is_large(hidden):
            return super().forward(hidden)
        if self.conv_shortcut is None:
            onto, inner = hidden, convolve_normed(self.norm1, self.conv1, hidden)
        else:
            onto = _new_picture(hidden, self.conv2, *hidden.shape[-2:])

            def done(first: int, last: int) -> None:
                onto[:, :, first:last] = self.shortcut(hidden[:, :, first:last])
                give_back(hidden[:, :, : last - 1])  # the last row is the next strip's margin

            inner = convolve_normed(self.norm1, self.conv1, hidden, done=done)
        return convolve_normed(self.norm2, self.conv2, inner, onto=onto)


def is_large(picture: torch.Tensor, grows: int = 1) -> bool:
    """Whether strips are the faster way for (n, c, h, w), whose sides will be so many times as long."""
    return picture.device.type == "cpu" and len(picture) == 1 and picture.nbytes * grows**2 >= LARGE_BYTES


def convolve_normed(
    norm: nn.Module,
    conv: PackedConv2d,
    picture: torch.Tensor,
    onto: torch.Tensor | None = None,
    done: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """``conv(silu(norm(picture)))``, (1, c, h, w) to (1, c', h, w); if ``onto`` is given, added to it in its place.

    ``done`` is told of each strip that was made.
    """
    height, width = picture.shape[-2:]
    high = _strip_height(picture, conv, height, width)
    normed: Callable[[torch.Tensor], torch.Tensor] = norm
    if isinstance(norm, nn.GroupNorm):
        known = *_moments(norm, picture, high), norm.weight.float(), norm.bias.float()
        normed = partial(_as_known, known, norm.eps)

    def rows(first: int, last: int) -> torch.Tensor:
        return functional.silu(normed(picture[:, :, first:last]), inplace=True)

    if onto is None:
        return _convolve(conv, rows, high, _new_picture(picture, conv, height, width), done=done)
    return _convolve(conv, rows, high, onto, adds=True, done=done)


def convolve_enlarged(conv: PackedConv2d, picture: torch.Tensor) -> torch.Tensor:
    """``conv`` of a picture with each pixel four times, (1, c, h, w) to (1, c', 2 h, 2 w); nothing of it is left."""
    height, width = (2 * side for side in picture.shape[-2:])

    def rows(first: int, last: int) -> torch.Tensor:
        above = first // 2
        part = functional.interpolate(picture[:, :, above : -(-last // 2)], scale_factor=2.0)
        return part[:, :, first - 2 * above : last - 2 * above]

    high = _strip_height(picture, conv, height, width)
    made = _new_picture(picture, conv, height, width)
    return _convolve(conv, rows, high, made, done=lambda _, last: give_back(picture[:, :, : (last - 1) // 2]))


def _strip_height(picture: torch.Tensor, conv: PackedConv2d, height: int, width: int) -> int:
    """Rows that go at once, whole tiles of ``winograd`` if possible.

    All strips are equally high: a convolution's weight is in order for one shape.
    """
    row_bytes = width * max(conv.in_channels, conv.out_channels) * picture.element_size()
    most = min(max(1, STRIP_BYTES // row_bytes), height)
    fitting = [rows for rows in range(1, most + 1) if height % rows == 0]
    return max(fitting, key=lambda rows: (rows % TILE == 0, rows))


def _new_picture(like: torch.Tensor, conv: PackedConv2d, height: int, width: int) -> torch.Tensor:
    return like.new_empty(1, height, width, conv.out_channels).permute(0, 3, 1, 2)


def _convolve(
    conv: PackedConv2d,
    rows: Rows,
    high: int,
    made: torch.Tensor,
    adds: bool = False,
    done: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Puts into ``made``, or adds to it, the 3 x 3 convolution, with a margin of one, of all that ``rows`` gives."""
    height = made.shape[2]
    for top in range(0, height, high):
        strip = rows(max(top - 1, 0), min(top + high + 1, height))
        margins = (int(top == 0), int(top + high == height))
        strip = functional.pad(strip, (0, 0, *margins)) if any(margins) else strip
        place, part = made[:, :, top : top + high], conv(strip, padding=(0, 1))
        place.add_(part) if adds else place.copy_(part)
        if done:
            done(top, top + high)
    return made


def _as_known(known: tuple[torch.Tensor, ...], eps: float, strip: torch.Tensor) -> torch.Tensor:
    """A strip normed with means, variances, weights and biases (c,)."""
    mean, variance, weight, bias = known
    return functional.batch_norm(strip, mean, variance, weight, bias, eps=eps)


def _moments(norm: nn.GroupNorm, picture: torch.Tensor, high: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of each channel's group (Wu and He 2018), (c,) each, float32.

    The variance is that of the strips, which are equally large, and that of their means.
    """
    _, channels, height, width = picture.shape
    ones = torch.ones(channels)  # they have torch compute in float32 what is in bfloat16
    means, inverses = torch.empty(2, height // high, norm.num_groups)
    for number in range(height // high):
        part = picture[:, :, number * high : (number + 1) * high]
        _, mean, inverse = torch.native_group_norm(
            part, ones, ones, 1, channels, high * width, norm.num_groups, norm.eps
        )
        means[number], inverses[number] = mean, inverse
        del _, mean, inverse  # else they lie behind the normed strip, and the heap has a hole as large for each
    variance, mean = torch.var_mean(means, dim=0, correction=0)
    variance += (inverses.pow(-2) - norm.eps).mean(dim=0)
    each = channels // norm.num_groups
    return mean.repeat_interleave(each), variance.repeat_interleave(each)
