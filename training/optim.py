"""Optimisation shared by both training stages: Muon with AdamW, learning rate and weight average."""

import math
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrices of [..., rows, columns], by a quintic Newton-Schulz iteration.

    The iteration runs on the small Gram matrix: each step multiplies by a polynomial in it, and all
    such factors commute, so the wide matrix itself is multiplied only once, at the end.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if tall else matrices
    wide = wide / (torch.linalg.matrix_norm(wide)[..., None, None] + 1e-7)
    gram = wide @ wide.mT
    identity = torch.eye(gram.shape[-1], device=gram.device)
    total = identity
    for step in range(steps):
        factor = a * identity + b * gram + c * (gram @ gram)
        total = factor @ total
        if step + 1 < steps:
            gram = factor @ gram @ factor
    result: Tensor = total @ wide
    return result.mT if tall else result


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, for matrices and convolution kernels.

    The update's root mean square is scaled to 0.2, as AdamW's typically is, so that both optimisers take learning
    rates of the same order. Parameters of one shape are updated together. The learning rate is a number or a tensor.
    """

    def __init__(self, params: Iterable[Tensor], lr: float | Tensor, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for parameters in shapes.values():
                self.update(parameters, group["lr"], group["momentum"])

    def update(self, parameters: list[Tensor], lr: float | Tensor, decay: float) -> None:
        """Update parameters of one shape."""
        updates = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            gradient = parameter.grad
            assert gradient is not None  # `step` leaves such parameters out
            momentum = state["momentum"].lerp_(gradient, 1 - decay)
            updates.append(gradient.lerp(momentum, decay).flatten(1))
        orthogonal = orthogonalise(torch.stack(updates))
        scaled = orthogonal * (lr * 0.2 * math.sqrt(max(orthogonal.shape[1:])))
        for parameter, change in zip(parameters, scaled, strict=True):
            parameter.sub_(change.view_as(parameter))


def make_optimisers(modules: Iterable[nn.Module], matrix_lr: float, other_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices and kernels, AdamW for biases, norms, embeddings and the network's ends."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            end = any(part in name for part in ("embedding", "conv_in", "conv_out", "quant_conv"))
            (others if parameter.ndim < 2 or end else matrices).append(parameter)
    optimisers: list[torch.optim.Optimizer] = [Muon(matrices, matrix_lr)]
    if others:
        optimisers.append(adamw(others, other_lr))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["base_lr"] = group["lr"]
            if group["params"][0].is_cuda:  # in a recorded step only a tensor can change
                group["lr"] = torch.tensor(group["lr"], device=group["params"][0].device)
    return optimisers


def adamw(parameters: Iterable[Tensor], lr: float) -> torch.optim.AdamW:
    """AdamW without weight decay, so that a CUDA graph can record its step."""
    parameters = list(parameters)
    return torch.optim.AdamW(parameters, lr, betas=(0.9, 0.98), weight_decay=0.0, capturable=parameters[0].is_cuda)


def set_learning_rate(
    optimisers: list[torch.optim.Optimizer], progress: float, hold: float, step: int, warmup: int = 60
) -> float:
    """Warm up, hold until `progress` passes `hold`, then follow a cosine to zero; return the factor."""
    decayed = min(max((progress - hold) / (1 - hold), 0.0), 1.0)
    factor = min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * decayed))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(group["base_lr"] * factor)
            else:
                group["lr"] = group["base_lr"] * factor
    return factor


def update(optimisers: list[torch.optim.Optimizer], parameters: Iterable[Tensor]) -> None:
    """One step with the gradients that are there, their norm limited to 1; they are cleared afterwards."""
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def load_states(optimisers: list[torch.optim.Optimizer], states: list[dict[str, Any]]) -> None:
    """Put stored states back into optimisers that were made in the same way."""
    for optimiser, state in zip(optimisers, states, strict=True):
        optimiser.load_state_dict(state)


def half(device: torch.device | None = None) -> torch.autocast:
    """Matrix products and convolutions in bfloat16, on CUDA and on processors that have it in hardware."""
    if device is not None and device.type == "cuda":  # without the cache, which a recorded step cannot use
        return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def channels_last(module: Module, device: torch.device | None = None) -> Module:
    """The module, on that device, with its kernels in the order in which convolutions are fastest."""
    module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's annotations lack it
    return module


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module; the decay grows with the steps until it reaches its value."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = [(self.values[name], value) for name, value in module.state_dict().items() if value.is_floating_point()]
        torch._foreach_lerp_([own for own, _ in pairs], [value for _, value in pairs], 1 - decay)
