"""What a control is to the loop, whatever network is behind it."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from webui.engine.families.base import Conditioning
from webui.engine.nets.encoder import Added

SOFT = 0.825
"""What each layer counts for of the one behind it where the prompt matters more (lllyasviel, ControlNet's guess mode:
``0.825 ** (12 - i)`` for the skip i of 12, and 1 for the middle; as in sd-webui-controlnet, ``scripts/hook.py``)."""
SOFT_INSIDE = (0.25, 0.62, 0.825, 1.0)
"""The same for a T2I-Adapter's four resolutions (there)."""


class Control(Protocol):
    """A loaded control with its map at one size."""

    def prepare(self, forwards: Sequence[Sequence[Conditioning]], count: int, negative: bool) -> Sequence[Any]:
        """What it is told in each step of ``count`` pictures, one entry a forward of the backbone.

        ``forwards`` are what the backbone is told in each; the very first of it is ``negative`` or not. It holds as
        long as that does.
        """

    def added(self, seen: torch.Tensor, time: torch.Tensor, prepared: Any, weight: float) -> Added | None:
        """What it adds to a forward for latents ``seen`` (count, channels, h, w) at a time of 0..1000, if anything."""


def soft_skips(skips: int) -> Sequence[float]:
    """Factors for so many skips and the middle, where the prompt matters more."""
    return [SOFT ** (skips - number) for number in range(skips + 1)]


def soft_inside(levels: int) -> Sequence[float]:
    """The same for a T2I-Adapter of so many resolutions."""
    return SOFT_INSIDE[-levels:] if levels <= len(SOFT_INSIDE) else [1.0] * levels
