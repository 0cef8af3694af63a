"""Feed-forwards over many tokens, a part of them at a time: what lies between its layers is eight times as large."""

import math

import torch

from webui.engine.cpu.fused import gate
from webui.engine.nets.transformer import FeedForward

HEAP_BYTES = 24 * 2**20
"""Of a block that comes and goes. One of 32 MiB or more is mapped, zeroed and unmapped by glibc each time."""


class PartwiseFeedForward(FeedForward):
    """As the plain one."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(rows, length, width) to the same."""
        inner_bytes = 8 * tokens.numel() * tokens.element_size()
        parts = math.ceil(inner_bytes / HEAP_BYTES) if tokens.device.type == "cpu" else 1
        if parts == 1:
            return self._gate(tokens)
        return torch.cat([self._gate(part) for part in tokens.flatten(0, 1).chunk(parts)]).view(tokens.shape)

    def _gate(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens) if (gated := gate(self, tokens)) is None else gated
