"""The maths: what one LoRA adds to one tensor, and the sum of several, taken in float32 and rounded once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

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
    """LoKr (Yeh et al. 2023, LyCORIS): scale * kron(w1, w2), each whole or a pair (a, b), w2 maybe with a core t.

    With ``rows`` it is only these of the product, as in ``rows_of``.
    """

    w1: torch.Tensor | tuple[torch.Tensor, torch.Tensor]
    w2: torch.Tensor | tuple[torch.Tensor, torch.Tensor]
    t2: torch.Tensor | None
    scale: float
    rows: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        halves = [part if isinstance(part, tuple) else (part,) for part in (self.w1, self.w2)]
        return _nbytes(*halves[0], *halves[1], self.t2)

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """The Kronecker product, or its rows, in the shape of ``base``."""
        w1 = _product(*self.w1) if isinstance(self.w1, tuple) else self.w1.float()
        w2 = _product(*self.w2, self.t2) if isinstance(self.w2, tuple) else self.w2.float()
        if isinstance(self.w2, tuple) and self.t2 is None:
            w2 = w2.view(-1, *self.w2[1].shape[1:])
        while w1.dim() < w2.dim():
            w1 = w1.unsqueeze(-1)
        product = torch.kron(w1, w2.contiguous()) * (self.scale * strength)
        return _reshape(product if self.rows is None else _pick(product, self.rows), base)


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
class Generalized:
    """GLoRA (Chavan et al. 2023): scale * (W a1 a2 + b1 b2), all four of rank r.

    ``a1`` (in, r), ``a2`` (r, in), ``b1`` (out, r), ``b2`` (r, in * kernel); LyCORIS before 2.0 had the first of each
    pair second, which the shapes tell.
    """

    a1: torch.Tensor
    a2: torch.Tensor
    b1: torch.Tensor
    b2: torch.Tensor
    alpha: float | None

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return _nbytes(self.a1, self.a2, self.b1, self.b2)

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """The base's own product of low rank and the other, in the shape of ``base``."""
        a1, a2, b1, b2 = (part.float().flatten(1) for part in (self.a1, self.a2, self.b1, self.b2))
        if len(a1) != base.shape[1]:
            a1, a2, b1, b2 = a2, a1, b2, b1
        rank = len(a2)
        if rank == 0:
            raise RuntimeError("its rank is 0")
        turned = torch.einsum("oi...,ir,rj->oj...", base, a1, a2)
        scale = 1.0 if self.alpha is None else self.alpha / rank
        return (turned + _reshape(b1 @ b2, base)) * (scale * strength)


ResidualOf = Literal["principal", "middle", "last"]


@dataclass(frozen=True)
class Residual:
    """T-LoRA (Soboleva et al. 2025): scale * (p diag(l) q - p0 diag(l0) q0), with every rank at every step.

    ``p`` (out, r), ``factors`` l (r), ``q`` (r, in). Training began from r singular vectors of the weight itself, those
    that ``of`` says, and what they made then is taken off.
    """

    p: torch.Tensor
    factors: torch.Tensor
    q: torch.Tensor
    scale: float
    of: ResidualOf = "principal"

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return _nbytes(self.p, self.factors, self.q)

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """The difference of the two products, in the shape of ``base``."""
        u, s, v = torch.linalg.svd(base.flatten(1), full_matrices=False)
        rank = min(len(self.q), len(s))
        start = {"principal": 0, "middle": (len(s) - rank) // 2, "last": len(s) - rank}[self.of]
        first = slice(start, start + rank)
        now = (self.p.float() * self.factors.float().flatten()) @ self.q.float()
        return _reshape(now - (u[:, first] * s[first]) @ v[first], base) * (self.scale * strength)


@dataclass(frozen=True)
class Replacement:
    """The weight itself, to stand in the place of the base's; other strengths than 1 go part of the way."""

    tensor: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return self.tensor.nbytes

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """What leads from the base to the tensor."""
        return (_reshape(self.tensor.float(), base) - base) * strength


@dataclass(frozen=True)
class Difference:
    """A whole tensor to add, times a scale: full weights, norms, biases."""

    tensor: torch.Tensor
    scale: float = 1.0

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return self.tensor.nbytes

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """The tensor at this strength."""
        return _reshape(self.tensor.float() * (self.scale * strength), base)


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
        length: torch.Tensor = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
        length = length + torch.finfo(torch.float32).eps
        return (changed * (self.magnitude.float().reshape(shape) / length) - base) * strength


def rows_of(delta: Delta, rows: Sequence[int], whole: int) -> Delta:
    """Of what changes several layers in one, one behind the other: the rows of one of them, bit for bit.

    ``rows`` are (first, behind last), and so on for several pieces; ``whole`` is how many all layers have. Raises
    ValueError where it changes another number, and for formats in which rows cannot be told apart.
    """
    if (found := _height(delta)) not in (None, whole):
        raise ValueError(f"changes {found:,} rows of several layers in one, where this model's have {whole:,}")
    if isinstance(delta, LowRank):
        return replace(delta, up=_pick(delta.up, rows))
    if isinstance(delta, Difference | Replacement):
        return replace(delta, tensor=_pick(delta.tensor, rows))
    if isinstance(delta, Hadamard) and delta.t1 is None and delta.t2 is None:
        return replace(delta, a1=_pick(delta.a1, rows), a2=_pick(delta.a2, rows))
    if isinstance(delta, Kronecker):
        return replace(delta, rows=tuple(rows))
    if isinstance(delta, Decomposed) and len(delta.magnitude) == delta.magnitude.numel():
        return replace(delta, inner=rows_of(delta.inner, rows, whole), magnitude=_pick(delta.magnitude, rows))
    raise ValueError("changes several layers in one tensor, in a format of which their rows cannot be told apart")


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


def _height(delta: Delta) -> int | None:
    """How many rows it changes, of formats whose rows can be told apart."""
    if isinstance(delta, LowRank):
        return len(delta.up)
    if isinstance(delta, Difference | Replacement):
        return len(delta.tensor)
    if isinstance(delta, Hadamard):
        return len(delta.a1) if delta.t1 is None else delta.a1.shape[1]
    if isinstance(delta, Kronecker):
        core = delta.t2 is not None
        one = len(delta.w1[0] if isinstance(delta.w1, tuple) else delta.w1)
        return one * (delta.w2[0].shape[core] if isinstance(delta.w2, tuple) else len(delta.w2))
    return None


def _pick(tensor: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """Rows of a tensor, a view where they are one piece."""
    pieces = [tensor[first:behind] for first, behind in zip(rows[::2], rows[1::2], strict=True)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


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
