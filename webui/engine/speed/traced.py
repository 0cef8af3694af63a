"""On a CPU: what one forward of a small UNet does, written down by TorchScript and done again without Python.

Between its operations a small network takes as long as for a third of them. A program is for one size; it takes 0.1 s,
no compiler, and gives the plain network's bits. Weights are its inputs, so that a LoRA switch remains a swap of
pointers. (https://docs.pytorch.org/docs/stable/generated/torch.jit.trace.html)
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from cachetools import LRUCache
from torch import nn
from torch.jit import TracerWarning, optimized_execution  # type: ignore[attr-defined]
from torch.utils import _pytree as pytree

from webui.engine.cpu.conv import PackedConv2d
from webui.engine.nets.encoder import Added, Prepared
from webui.engine.nets.unet import UNet
from webui.engine.speed.shortcuts import Shortcuts

logger = logging.getLogger(__name__)

FORWARDS_BEFORE = 4
"""Of a size, before its program is written: it takes as long as a program saves in twenty."""
MAX_BYTES = 256 * 2**20
"""Of a small network's weights. With more, what is between the operations is no longer worth it."""
MAX_PROGRAMS = 16
"""So many sizes, batches and prompt lengths are kept."""

Order = tuple[PackedConv2d, torch.Size, tuple[int, ...]]
"""A convolution with the shape and the padding that its weight is put in order for."""

warnings.filterwarnings("ignore", category=TracerWarning)  # a program is for one size, and told so


def suits(unet: UNet) -> bool:
    """Whether a network is small, and all that it does can be written down."""
    weights = [
        weight for part in unet.modules() for weight in part.__dict__["_parameters"].values() if weight is not None
    ]
    if any(weight.device.type != "cpu" for weight in weights) or sum(weight.nbytes for weight in weights) > MAX_BYTES:
        return False
    convolutions = [part for part in unet.modules() if isinstance(part, PackedConv2d)]
    return bool(convolutions) and all(convolution.packs for convolution in convolutions)


@dataclass
class _Known:
    """A size that was drawn: the weights in order for it, how often it was, and in the end its program."""

    orders: Sequence[Order]
    forwards: int = 1
    program: Callable[..., torch.Tensor] | None = None


class _Told:
    """What the network is told, taken apart: most is the same from step to step."""

    known: _Known | None = None

    def __init__(self, latents: torch.Tensor, timestep: torch.Tensor, prepared: Prepared, added: Added | None) -> None:
        self._prepared, self._added = prepared, added
        self._first = _form_of(latents), _form_of(timestep)
        self.leaves, self.structure = pytree.tree_flatten((prepared, added))
        self.tensors = [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]
        self.form = *self._first, self.structure, *map(_form_of, self.leaves)

    def is_of(self, latents: torch.Tensor, timestep: torch.Tensor, prepared: Prepared, added: Added | None) -> bool:
        """Whether these are such latents and times, and the very same of all else."""
        same = prepared is self._prepared and added is self._added
        return same and self._first == (_form_of(latents), _form_of(timestep))

    def put_together(self, given: Iterator[torch.Tensor]) -> tuple[Prepared, Added | None]:
        """The same of the next so many tensors."""
        leaves = [next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        prepared, added = pytree.tree_unflatten(leaves, self.structure)
        return prepared, added


def _form_of(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf


class TracedUNet:
    """Runs a program for each size that is drawn more often than a few times.

    With shortcuts, which differ from forward to forward, and for sizes of which a convolution goes another way than by
    an ordered weight, the plain UNet runs. So it does where a program cannot be written, which the log says once.
    """

    is_compiled = False
    """It does what the plain UNet does."""

    def __init__(self, unet: UNet) -> None:
        self._unet = unet
        self._convolutions = [part for part in unet.modules() if isinstance(part, PackedConv2d)]
        self._places = [
            (part.__dict__["_parameters"], name)
            for part in unet.modules()
            for name, weight in part.__dict__["_parameters"].items()
            if weight is not None and not (name == "weight" and isinstance(part, PackedConv2d))
        ]
        self._known: LRUCache[Any, _Known] = LRUCache(MAX_PROGRAMS)
        self._told: _Told | None = None
        self._failed = False

    def __call__(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        prepared: Prepared,
        shortcuts: Shortcuts | None = None,
        added: Added | None = None,
    ) -> torch.Tensor:
        """As ``UNet.forward``, to the bit."""
        if shortcuts is not None or self._failed:
            return self._unet(latents, timestep, prepared, shortcuts, added)
        told = self._told
        if told is None or not told.is_of(latents, timestep, prepared, added):
            told = self._told = _Told(latents, timestep, prepared, added)
        if (known := told.known or self._known.get(told.form)) is None:
            return self._note(told.form, (latents, timestep, prepared, added))
        told.known = known
        known.forwards += 1
        if known.forwards <= FORWARDS_BEFORE or len(known.orders) < len(self._convolutions):
            return self._unet(latents, timestep, prepared, None, added)
        given = latents, timestep, *told.tensors, *_pack(known.orders), *[held[name] for held, name in self._places]
        with optimized_execution(False):  # which would take time, and other ways
            if known.program is not None:
                return known.program(*given)
            try:
                known.program = self._trace(told, given)
                return known.program(*given)
            except RuntimeError as error:
                logger.warning("The UNet runs without a program: %s", str(error).partition("\n")[0])
                self.close()
                self._failed = True
        return self._unet(latents, timestep, prepared, None, added)

    def take_ran(self) -> set[bool]:
        """As in ``CompiledUNet``."""
        return {False}

    def close(self) -> None:
        """Lets go of all programs."""
        self._known.clear()
        self._told = None

    def _note(self, key: Any, inputs: tuple[torch.Tensor, torch.Tensor, Prepared, Added | None]) -> torch.Tensor:
        """A plain forward, and how it has weights put in order."""
        orders: list[Order] = []

        def pack(convolution: PackedConv2d, shape: torch.Size, padding: tuple[int, ...]) -> Any:
            orders.append((convolution, shape, padding))
            return PackedConv2d.pack(convolution, shape, padding)

        with self._packed_by(pack):
            output = self._unet(*inputs[:3], None, inputs[3])
        self._known[key] = _Known(orders)
        return output

    def _trace(self, told: _Told, given: Sequence[torch.Tensor]) -> Callable[..., torch.Tensor]:
        """The program for what is told in this form."""

        def forward(*given: torch.Tensor) -> torch.Tensor:
            return self._forward(told, iter(given))

        program: Callable[..., torch.Tensor] = torch.jit.trace(forward, tuple(given), check_trace=False)
        return program

    def _forward(self, told: _Told, left: Iterator[torch.Tensor]) -> torch.Tensor:
        """The UNet as a function of tensors alone: what it is told, ordered weights, all other weights."""
        latents, timestep = next(left), next(left)
        prepared, added = told.put_together(left)
        packed = [next(left) for _ in self._convolutions]
        own = [weights[name] for weights, name in self._places]
        try:
            for weights, name in self._places:
                weights[name] = next(left)
            in_turn = iter(packed)
            with self._packed_by(lambda *_: next(in_turn)):
                return self._unet(latents, timestep, prepared, None, added)
        finally:
            for (weights, name), weight in zip(self._places, own, strict=True):
                weights[name] = weight

    @contextmanager
    def _packed_by(self, pack: Callable[..., Any]) -> Iterator[None]:
        """Has the convolutions take their ordered weights from there."""
        try:
            for convolution in self._convolutions:
                convolution.__dict__["pack"] = partial(pack, convolution)
            yield
        finally:
            for convolution in self._convolutions:
                del convolution.__dict__["pack"]


def _pack(orders: Sequence[Order]) -> Iterator[nn.Parameter]:
    for convolution, shape, padding in orders:
        convolution.hold()
        yield convolution.pack(shape, padding)
