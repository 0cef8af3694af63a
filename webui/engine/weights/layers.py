"""Layers whose weight is ``Stored``: they compute with the dense weight, which is made for each forward.

A layer becomes one of these by its class, as it is: under its names, with its bias. A LoRA rides beside the weight as a
pair of products, so that it comes off bit for bit; what is no such pair stands in the weight's place.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

from webui.engine.nets.layers import Conv1x1
from webui.engine.weights.stored import Stored


@dataclass(frozen=True, eq=False)
class Pair:
    """What is added to a weight, as ``up`` (out, r) times ``down`` (r, in * kernel)."""

    up: torch.Tensor
    down: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return self.up.nbytes + self.down.nbytes

    def to(self, device: torch.device | str, copy: bool = False) -> "Pair":
        """As a tensor's."""
        return Pair(self.up.to(device, copy=copy), self.down.to(device, copy=copy))


Change: TypeAlias = "Pair | torch.Tensor | None"


class StoredLayer(nn.Module):
    """What these layers share. ``changed`` is what LoRAs make of the weight: added to it, in its place, or nothing."""

    changed: Change = None

    @property
    def stored(self) -> Stored:
        """The weight as it is kept."""
        weight = self.__dict__["_modules"]["weight"]
        assert isinstance(weight, Stored)
        return weight

    def change(self, changed: Change) -> None:
        """Puts on what LoRAs make of it, or takes it off; past nn.Module's way, for a network has hundreds."""
        self.__dict__["changed"] = changed

    def _dense(self, like: torch.Tensor) -> torch.Tensor:
        if isinstance(self.changed, torch.Tensor):
            return self.changed.to(like)
        weight: torch.Tensor = self.stored(like.dtype, lent=True)
        return weight


class StoredLinear(StoredLayer, nn.Linear):
    """(..., in) to (..., out)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """With the LoRAs' own product added."""
        output = functional.linear(input, self._dense(input), self.bias)
        if isinstance(self.changed, Pair):
            few = functional.linear(input, self.changed.down.to(input))
            output = output + functional.linear(few, self.changed.up.to(input))
        return output


class StoredConv1x1(StoredLayer, Conv1x1):
    """As ``StoredLinear``, over channels."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        output = functional.linear(input, self._dense(input).flatten(1), self.bias)
        if isinstance(self.changed, Pair):
            few = functional.linear(input, self.changed.down.to(input))
            output = output + functional.linear(few, self.changed.up.to(input))
        return output


class StoredConv2d(StoredLayer, nn.Conv2d):
    """(n, in, h, w) to (n, out, h', w')."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """With the LoRAs' own convolutions added: to few channels, and from these, pixel by pixel."""
        output = self._convolve(input)
        if isinstance(self.changed, Pair):
            down = self.changed.down.to(input).view(-1, *self.stored.shape[1:])
            few = functional.conv2d(input, down, None, self.stride, self.padding, self.dilation, self.groups)
            output = output + functional.conv2d(few, self.changed.up.to(input)[:, :, None, None])
        return output

    def _convolve(self, input: torch.Tensor) -> torch.Tensor:
        weight = self._dense(input)
        return functional.conv2d(input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class StoredEmbedding(StoredLayer, nn.Embedding):
    """Ids to rows; only the rows that are asked for are made dense."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(...) to (..., width)."""
        if isinstance(self.changed, torch.Tensor):
            return functional.embedding(input, self.changed.to(input.device))
        rows = self.stored.rows(input)
        if isinstance(self.changed, Pair):
            rows = rows + functional.embedding(input, self.changed.up.to(rows)) @ self.changed.down.to(rows)
        return rows


KEEPING: Mapping[type[nn.Module], type[StoredLayer]] = {
    nn.Linear: StoredLinear,
    Conv1x1: StoredConv1x1,
    nn.Conv2d: StoredConv2d,
    nn.Embedding: StoredEmbedding,
}


def can_keep(layer: nn.Module, parameter: str) -> bool:
    """Whether a layer can compute with a ``Stored`` in the place of this parameter."""
    if parameter != "weight" or type(layer) not in KEEPING:
        return False
    return not isinstance(layer, nn.Conv2d) or (layer.groups == 1 and layer.padding_mode == "zeros")


def keep(layer: nn.Module, weight: Stored) -> None:
    """Has a layer that can keep it compute with this weight."""
    del layer.weight
    layer.__class__ = KEEPING[type(layer)]
    layer.weight = weight


def keeps_small(network: nn.Module) -> bool:
    """Whether some of its weights are ``Stored``."""
    return any(isinstance(layer, StoredLayer) for layer in network.modules())
