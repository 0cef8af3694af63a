"""The tiny autoencoder of Stable Diffusion (TAESD), under the names that diffusers gives its parts.

Bohan 2023, github.com/madebyollin/taesd: plain residual convolutions, trained to do as the KL autoencoder does.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional

from webui.engine.nets.autoencoder import Coder

WIDTH, LATENT_CHANNELS, SCALE = 64, 4, 8
ENCODER_BLOCKS, DECODER_BLOCKS = (1, 3, 3, 3), (3, 3, 3, 1)
LATENT_LIMIT = 3.0


class TinyAutoencoder(Coder):
    """Pictures to latents and back in a small part of the time; its latents are certain and need no scaling."""

    def __init__(self) -> None:
        super().__init__()
        self.block_out_channels, self.latent_channels, self.scaling_factor = (WIDTH,) * 4, LATENT_CHANNELS, 1.0
        down: list[nn.Module] = []
        for level, count in enumerate(ENCODER_BLOCKS):
            first = nn.Conv2d(WIDTH, WIDTH, 3, 2, padding=1, bias=False) if level else nn.Conv2d(3, WIDTH, 3, padding=1)
            down += [first, *(_Block() for _ in range(count))]
        down.append(nn.Conv2d(WIDTH, LATENT_CHANNELS, 3, padding=1))
        up: list[nn.Module] = [nn.Conv2d(LATENT_CHANNELS, WIDTH, 3, padding=1), nn.ReLU(inplace=True)]
        for level, count in enumerate(DECODER_BLOCKS):
            if level:
                up += [nn.Upsample(scale_factor=2.0), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)]
            up += [_Block() for _ in range(count)]
        up.append(nn.Conv2d(WIDTH, 3, 3, padding=1))
        self.encoder, self.decoder = _Half(down), _Half(up)

    @property
    def _any_weight(self) -> torch.Tensor:
        bias = self.decoder.layers[0].bias
        assert isinstance(bias, torch.Tensor)
        return bias

    def encode(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The latents (n, 4, h / 8, w / 8) and zeros, for a picture (n, 3, h, w) in -1..1 in the weights' dtype."""
        latents = self._run(self.encoder, (picture + 1) / 2, shrinks=SCALE)
        return latents, torch.zeros_like(latents)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The picture (n, 3, 8 * h, 8 * w), about -1..1, for latents (n, 4, h, w) in the weights' dtype.

        Latents are held softly within -3..3, as the author's decoder does.
        """
        bounded = torch.tanh(latents / LATENT_LIMIT) * LATENT_LIMIT
        return self._run(self.decoder, bounded, grows=SCALE).mul_(2).sub_(1)


class _Half(nn.Module):
    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layers(given.contiguous(memory_format=torch.channels_last))
        return output


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first, second, third = (nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True), third)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.conv(hidden).add_(hidden), inplace=True)
