"""Orthogonal fine-tuning: a layer's weight is turned instead of added to, as R W0; the change of it is R W0 - W0.

Every rotation turns the model's own weight, so that several LoRAs add up in any order. A strength goes in a straight
line from the base to the turned weight, as in kohya's sd-scripts, LyCORIS (but for BOFT) and A1111.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class OutputRotation:
    """OFT (Qiu et al. 2023) and BOFT (Liu et al. 2024) over a layer's outputs, as kohya and LyCORIS write them.

    ``blocks`` (n, b, b) are n blocks along the n * b outputs; with (m, n, b, b) they are m butterfly stages of it.
    Block k is R = (I + Q)(I - Q)^-1 of Q = B - B^T (Cayley), the norm of all Q limited to ``constraint`` times the
    outputs, if that is not 0; with ``turned`` the blocks are R already. ``rescale`` is one factor an output.
    """

    blocks: torch.Tensor
    constraint: float
    rescale: torch.Tensor | None
    turned: bool = False

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return self.blocks.nbytes + (0 if self.rescale is None else self.rescale.nbytes)

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """What leads from the base to the turned weight, so far as the strength says."""
        rotations = self._rotations(len(base))
        turned = _butterfly(rotations, base) if rotations.dim() == 4 else _turn(rotations.mT, base)
        if self.rescale is not None:
            turned = turned * self.rescale.float().reshape(-1, *[1] * (base.dim() - 1))
        return (turned - base) * strength

    def _rotations(self, outputs: int) -> torch.Tensor:
        blocks = self.blocks.float()
        if blocks.dim() not in (3, 4) or blocks.shape[-1] != blocks.shape[-2]:
            raise RuntimeError(f"blocks of the shape {tuple(blocks.shape)}")
        if self.turned:
            return blocks
        skew = blocks - blocks.mT
        if self.constraint > 0:
            limit = self.constraint * outputs
            skew = skew * (limit / (torch.linalg.vector_norm(skew) + 1e-8)).clamp(max=1.0)
        return _cayley(skew)


@dataclass(frozen=True)
class InputRotation:
    """OFT over a layer's inputs, as PEFT (OFT v2, Qiu et al. 2025) and OneTrainer write it.

    ``vectors`` (n, b (b - 1) / 2) are the upper triangles of n skew blocks Q along the n * b inputs (those of a
    convolution times its kernel), or of one that all share. R is the Cayley transform of -Q where ``exact``, else
    I + 2Q + 2Q^2 + 2Q^3 + Q^4, which comes near that of Q, or what PEFT has with other than five ``terms``. The weight
    becomes W R^T; that of a convolution only with ``by_peft``, for OneTrainer makes W R of it. ``scaled`` vectors are
    divided by 2 sqrt(b - 1).
    """

    vectors: torch.Tensor
    by_peft: bool
    scaled: bool = False
    exact: bool = False
    terms: int = 5

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return self.vectors.nbytes

    def change(self, base: torch.Tensor, strength: float) -> torch.Tensor:
        """What leads from the base to the turned weight, so far as the strength says."""
        rotations = self._rotations()
        size = rotations.shape[-1]
        rows = base.reshape(len(base), -1, size)
        if len(rotations) not in (1, rows.shape[1]):
            raise RuntimeError(f"{len(rotations)} blocks of {size} for {rows.shape[1] * size} inputs")
        rotations = rotations.expand(rows.shape[1], size, size)
        turned = torch.einsum("onk,nkc->onc", rows, rotations.mT if self.by_peft or base.dim() == 2 else rotations)
        return (turned.reshape(base.shape) - base) * strength

    def _rotations(self) -> torch.Tensor:
        count, numbers = self.vectors.shape
        size = round((1 + (1 + 8 * numbers) ** 0.5) / 2)
        if size * (size - 1) // 2 != numbers:
            raise RuntimeError(f"{numbers} numbers are not a triangle of a block")
        vectors = self.vectors.float() / (2 * (size - 1) ** 0.5 if self.scaled else 1.0)
        skew = vectors.new_zeros(count, size, size)
        rows, columns = torch.triu_indices(size, size, 1, device=vectors.device)
        skew[:, rows, columns] = vectors
        skew = skew - skew.mT
        if self.exact:
            return _cayley(-skew)
        power = torch.eye(size, device=vectors.device).expand_as(skew)
        total, last = power, max(3, self.terms - 1) if self.terms > 2 else self.terms - 1
        for exponent in range(1, last + 1):
            power = power @ skew
            total = total + (power if exponent == last > 2 else 2 * power)
        return total


def _cayley(skew: torch.Tensor) -> torch.Tensor:
    """(I + Q)(I - Q)^-1, orthogonal where Q is skew; the last two axes are the matrix."""
    eye = torch.eye(skew.shape[-1], device=skew.device)
    inverse: torch.Tensor = torch.linalg.inv(eye - skew)
    return (eye + skew) @ inverse


def _turn(blocks: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``blocks`` (n, b, b) as one block-diagonal matrix times ``weight`` (n * b, ...)."""
    if len(blocks) == 1:  # one that all share
        blocks = blocks.expand(len(weight) // blocks.shape[1], -1, -1)
    if len(blocks) * blocks.shape[1] != len(weight):
        raise RuntimeError(f"{len(blocks)} blocks of {blocks.shape[1]} for {len(weight)} outputs")
    grouped = weight.reshape(len(blocks), blocks.shape[1], -1)
    return torch.bmm(blocks, grouped).reshape(weight.shape)


def _butterfly(stages: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``stages`` (m, n, b, b), the i-th mixing outputs that lie 2^i * b / 2 apart (LyCORIS, boft.py)."""
    half = stages.shape[-1] // 2
    for number, blocks in enumerate(stages):
        apart = 2**number * half
        shuffled = weight.unflatten(0, (-1, 2, apart)).transpose(1, 2).flatten(0, 2)
        turned = _turn(blocks, shuffled)
        weight = turned.unflatten(0, (-1, apart, 2)).transpose(1, 2).flatten(0, 2)
    return weight
