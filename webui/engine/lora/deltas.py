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
    """LoRA (Hu et al. 2021): scale * up @ down, ``up`` (out, r), ``down`` (r, in * kernel), any float type.

    With the core ``mid`` (r, r, *kernel) of a Tucker product, ``down`` is (r, in).
    """

    up: torch.Tensor
    down: torch.Tensor
    scale: float
    mid: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return _nbytes(self.up, self.down, self.mid)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the product: out, in * kernel."""
        kernel = 1 if self.mid is None else self.mid.shape[2:].numel()
        return len(self.up), self.down.shape[1] * kernel

    def rows(self) -> torch.Tensor:
        """What the columns of ``up`` are multiplied with, (r, in * kernel), float32."""
        if self.mid is None:
            return self.down.float()
        return torch.einsum("pj...,jr->pr...", self.mid.float(), self.down.float()).flatten(1)

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """The product, in the shape of ``base``."""
        return (self.up.float() * (self.scale * strength) @ self.rows()).view(base.shape)


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
        return _reshape(one * other * (self.scale * strength), base)


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
        return _reshape(torch.kron(w1, w2.contiguous()) * (self.scale * strength), base)


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
        return _reshape(self.tensor.float() * strength, base)


@dataclass(frozen=True)
class Decomposed:
    """DoRA (Liu et al. 2024): the changed weight gets learned lengths, one a row (out, 1, ...) or column (1, in, ...).

    Strengths other than 1 go in a straight line from the base to the rescaled weight, as in A1111 and ComfyUI.
    """

    inner: Delta
    magnitude: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return self.inner.nbytes + self.magnitude.nbytes

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """What leads from the base to the rescaled weight, so far as the strength says."""
        changed = base + self.inner.change(base, 1.0)
        by_row = self.magnitude.shape[0] == base.shape[0] and self.magnitude.numel() == base.shape[0]
        if not by_row and self.magnitude.numel() != base.shape[1]:
            raise RuntimeError(f"{self.magnitude.numel()} lengths for a weight of {tuple(base.shape)}")
        shape = [1] * base.dim()
        shape[0 if by_row else 1] = -1
        others = [axis for axis in range(base.dim()) if axis != (0 if by_row else 1)]
        length = torch.linalg.vector_norm(changed, dim=others, keepdim=True) + torch.finfo(torch.float32).eps
        return (changed * (self.magnitude.float().reshape(shape) / length) - base) * strength


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
        downs = [delta.rows() for delta, _ in plain]
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


def _reshape(change: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """In the shape of ``base``, where only the inputs are laid out differently; raises RuntimeError."""
    if change.shape[:1] != base.shape[:1]:
        raise RuntimeError(f"a change of {tuple(change.shape)} for a weight of {tuple(base.shape)}")
    return change.reshape(base.shape)


def _nbytes(*tensors: torch.Tensor | None) -> int:
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
