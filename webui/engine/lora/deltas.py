"""The maths: what one LoRA adds to one tensor, and the sum of several, taken in float32 and rounded once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


class Delta(Protocol):
    """What a LoRA changes in one tensor of the model."""

    @property
    def nbytes(self) -> int:
        """Memory it holds."""

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """What is added to the pristine ``base`` (float32, any shape), in its shape, float32.

        Raises RuntimeError where the shapes do not fit.
        """


@dataclass(frozen=True)
class LowRank:
    """LoRA (Hu et al. 2021): scale * up @ down, ``up`` (out, r), ``down`` (r, in * kernel), any float type."""

    up: torch.Tensor
    down: torch.Tensor
    scale: float

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return self.up.nbytes + self.down.nbytes

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """The product, in the shape of ``base``."""
        return (self.up.float() * (self.scale * strength) @ self.down.float()).view(base.shape)


@dataclass(frozen=True)
class Hadamard:
    """LoHa (Hyeon-Woo et al. 2021, FedPara): scale * (a1 @ b1) * (a2 @ b2), all four of rank r.

    ``a`` (out, r), ``b`` (r, in * kernel); with the cores ``t`` (r, r, *kernel) of a Tucker product, ``a`` is (r, out)
    and ``b`` (r, in).
    """

    a1: torch.Tensor
    b1: torch.Tensor
    a2: torch.Tensor
    b2: torch.Tensor
    t1: torch.Tensor | None
    t2: torch.Tensor | None
    scale: float

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return _nbytes(self.a1, self.b1, self.a2, self.b2, self.t1, self.t2)

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """The product of the two products, in the shape of ``base``."""
        one, other = _product(self.a1, self.b1, self.t1), _product(self.a2, self.b2, self.t2)
        return (one * other * (self.scale * strength)).reshape(base.shape)


@dataclass(frozen=True)
class Kronecker:
    """LoKr (Yeh et al. 2023, LyCORIS): scale * kron(w1, w2), each whole or a pair (a, b), w2 maybe with a core t."""

    w1: torch.Tensor | tuple[torch.Tensor, torch.Tensor]
    w2: torch.Tensor | tuple[torch.Tensor, torch.Tensor]
    t2: torch.Tensor | None
    scale: float

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        halves = [part if isinstance(part, tuple) else (part,) for part in (self.w1, self.w2)]
        return _nbytes(*halves[0], *halves[1], self.t2)

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """The Kronecker product, in the shape of ``base``."""
        w1 = _product(*self.w1) if isinstance(self.w1, tuple) else self.w1.float()
        w2 = _product(*self.w2, self.t2) if isinstance(self.w2, tuple) else self.w2.float()
        if isinstance(self.w2, tuple) and self.t2 is None:
            w2 = w2.view(-1, *self.w2[1].shape[1:])
        while w1.dim() < w2.dim():
            w1 = w1.unsqueeze(-1)
        return (torch.kron(w1, w2.contiguous()) * (self.scale * strength)).reshape(base.shape)


@dataclass(frozen=True)
class Scaled:
    """IA3 (Liu et al. 2022): the base's rows, or its columns with ``on_input``, times a learned vector."""

    factors: torch.Tensor
    on_input: bool

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return self.factors.nbytes

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """The base times the vector, along its input or its output axis."""
        shape = [1] * base.dim()
        shape[1 if self.on_input else 0] = -1
        factors = self.factors.float().reshape(shape)
        if factors.numel() != base.shape[1 if self.on_input else 0]:
            raise RuntimeError(f"{factors.numel()} factors for a weight of {tuple(base.shape)}")
        return base * factors * strength


@dataclass(frozen=True)
class Difference:
    """A whole tensor to add: full weights, norms, biases."""

    tensor: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return self.tensor.nbytes

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """The tensor at this strength."""
        return (self.tensor.float() * strength).view(base.shape)


@dataclass(frozen=True)
class Decomposed:
    """DoRA (Liu et al. 2024): the changed weight gets learned lengths, one a row (out, 1, ...) or column (1, in, ...).

    Strengths other than 1 follow LyCORIS: W' = (W + s * delta) * (1 + s * (magnitude / length - 1)).
    """

    inner: Delta
    magnitude: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return self.inner.nbytes + self.magnitude.nbytes

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """What leads from the base to the rescaled weight."""
        changed = base + self.inner.change(base, strength)
        by_row = self.magnitude.shape[0] == base.shape[0] and self.magnitude.numel() == base.shape[0]
        if not by_row and self.magnitude.numel() != base.shape[1]:
            raise RuntimeError(f"{self.magnitude.numel()} lengths for a weight of {tuple(base.shape)}")
        shape = [1] * base.dim()
        shape[0 if by_row else 1] = -1
        others = [axis for axis in range(base.dim()) if axis != (0 if by_row else 1)]
        length = torch.linalg.vector_norm(changed, dim=others, keepdim=True) + torch.finfo(torch.float32).eps
        factors = self.magnitude.float().reshape(shape) / length
        return changed * (1 + strength * (factors - 1)) - base


def merge(base: torch.Tensor, parts: Sequence[tuple[Delta, float]]) -> torch.Tensor:
    """``base`` with all parts added, a new tensor of the same dtype, shape and memory layout; ``base`` is only read.

    The sum is taken in float32, in the order given but for plain LoRAs, which come first as one product over all
    their ranks. Raises RuntimeError where the shapes do not fit.
    """
    plain = [(delta, strength) for delta, strength in parts if isinstance(delta, LowRank)]
    pristine = base.float()
    total = pristine
    if plain:
        ups = [delta.up.float() * (delta.scale * strength) for delta, strength in plain]
        downs = [delta.down.float() for delta, _ in plain]
        rows = pristine.reshape(len(base), -1)
        total = torch.addmm(rows, torch.cat(ups, dim=1), torch.cat(downs, dim=0)).view(base.shape)
    for delta, strength in parts:
        if not isinstance(delta, LowRank):
            total = total + delta.change(pristine, strength)
    if total.dtype == base.dtype and total.stride() == base.stride():
        return total
    return torch.empty_like(base).copy_(total)


def _product(a: torch.Tensor, b: torch.Tensor, core: torch.Tensor | None = None) -> torch.Tensor:
    if core is None:
        return a.float() @ b.float().flatten(1)
    return torch.einsum("ij...,ip,jr->pr...", core.float(), a.float(), b.float())


def _nbytes(*tensors: torch.Tensor | None) -> int:
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
