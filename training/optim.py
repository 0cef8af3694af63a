"""Optimisation shared by both training stages: Muon with AdamW, learning rate and weight average."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix of [rows, columns], by a quintic Newton-Schulz iteration.

    The iteration runs on the small Gram matrix: each step multiplies by a polynomial in it, and all
    such factors commute, so the wide matrix itself is multiplied only once, at the end.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / (wide.norm() + 1e-7)
    gram = wide @ wide.T
    identity = torch.eye(len(gram))
    total = identity
    for step in range(steps):
        factor = a * identity + b * gram + c * (gram @ gram)
        total = factor @ total
        if step + 1 < steps:
            gram = factor @ gram @ factor
    result = total @ wide
    return result.T if matrix.shape[0] > matrix.shape[1] else result


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, for matrices and convolution kernels.

    The update's root mean square is scaled to 0.2, as AdamW's typically is, so that
    both optimisers take learning rates of the same order.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(momentum, group["momentum"])
                update = orthogonalise(update.reshape(len(update), -1)).view_as(update)
                scale = 0.2 * math.sqrt(max(len(update), update[0].numel()))
                parameter.add_(update, alpha=-group["lr"] * scale)


def make_optimisers(modules: Iterable[nn.Module], matrix_lr: float, other_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices and kernels, AdamW for biases, norms, embeddings and the network's ends."""
    matrices, others = [], []
    for module in modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            end = any(part in name for part in ("embedding", "conv_in", "conv_out", "quant_conv"))
            (others if parameter.ndim < 2 or end else matrices).append(parameter)
    optimisers: list[torch.optim.Optimizer] = [Muon(matrices, matrix_lr)]
    if others:
        optimisers.append(torch.optim.AdamW(others, other_lr, betas=(0.9, 0.98), weight_decay=0.0))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["base_lr"] = group["lr"]
    return optimisers


def set_learning_rate(
    optimisers: list[torch.optim.Optimizer], progress: float, hold: float, step: int, warmup: int = 60
) -> float:
    """Warm up, hold until `progress` passes `hold`, then follow a cosine to zero; return the factor."""
    decayed = min(max((progress - hold) / (1 - hold), 0.0), 1.0)
    factor = min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * decayed))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["base_lr"] * factor
    return factor


def update(optimisers: list[torch.optim.Optimizer], parameters: Iterable[Tensor]) -> None:
    """One step with the gradients that are there, their norm limited to 1; they are cleared afterwards."""
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def load_states(optimisers: list[torch.optim.Optimizer], states: list[dict]) -> None:
    """Put stored states back into optimisers that were made in the same way."""
    for optimiser, state in zip(optimisers, states, strict=True):
        optimiser.load_state_dict(state)


def half() -> torch.autocast:
    """Matrix products and convolutions in bfloat16, on processors that have it in hardware."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module; the decay grows with the steps until it reaches its value."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)
