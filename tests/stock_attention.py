"""Attention beside diffusers' own, written out as papers have it."""

import torch
from torch.nn import functional


class Nag:
    """Chen et al. 2025, equations 7 to 10: a processor for cross-attention.

    What the last rows find is pushed away from ``unwanted`` (those rows, length, width).
    """

    def __init__(self, unwanted: torch.Tensor, scale: float, tau: float, alpha: float) -> None:
        self.unwanted, self.scale, self.tau, self.alpha = unwanted, scale, tau, alpha

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        def attend(tokens, context):
            parts = attn.to_q(tokens), attn.to_k(context), attn.to_v(context)
            split = [part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in parts]
            return functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)

        rows = len(self.unwanted)
        found = attend(hidden_states, encoder_hidden_states)
        plus, minus = found[-rows:], attend(hidden_states[-rows:], self.unwanted)
        guided = plus + (self.scale - 1) * (plus - minus)
        ratio = guided.abs().sum(-1, keepdim=True) / plus.abs().sum(-1, keepdim=True)
        guided = torch.where(ratio > self.tau, guided * self.tau / ratio, guided)
        found = torch.cat([found[:-rows], self.alpha * guided + (1 - self.alpha) * plus])
        return attn.to_out[1](attn.to_out[0](found))
