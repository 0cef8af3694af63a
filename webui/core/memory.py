"""What a model takes of memory, and under which plan it fits: arithmetic on bytes, without a network."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from webui.core.checkpoint import Checkpoint
from webui.core.images import Size

PLANS = ("resident", "offload", "blocks", "sequential")
"""Where weights rest while nothing computes with them, the fastest first."""
STREAMING = PLANS[2:]
"""Those under which the backbone, too, rests in the computer's memory."""
PLAN_WORDS: Mapping[str, str] = {
    "resident": "the whole model on the device",
    "offload": "text encoder and VAE off the device while the UNet runs",
    "blocks": "blocks brought to the device as they are needed, as many as fit stay there",
    "sequential": "every layer brought to the device as it is needed",
}
HEADROOM = 1.05
"""How much more than its weights a model must find free: allocators leave gaps."""
BLOCKS_SHARE = 4
"""Blocks pay where the device holds this part of the largest network; below it nearly nothing would stay there."""
TOLD_BYTES = 2**28
"""What a step takes is said where it is as much."""
SLOTS = 2
"""One block computes while the next one comes."""


@dataclass(frozen=True)
class Need:
    """Bytes: of the weights by part, of the largest layer's, and of what a step takes besides."""

    parts: Mapping[str, int]
    layer_bytes: int
    step_bytes: int = 0

    @property
    def weight_bytes(self) -> int:
        """Of all parts."""
        return sum(self.parts.values())

    def on_device(self, plan: str) -> int:
        """What the device must have free under a plan."""
        largest = max((nbytes for part, nbytes in self.parts.items() if part != "backbone"), default=0)
        held = {
            "resident": self.weight_bytes,
            "offload": self.parts.get("backbone", 0) + largest,
            "blocks": max(max(self.parts.values(), default=0) // BLOCKS_SHARE, SLOTS * self.layer_bytes),
            "sequential": SLOTS * self.layer_bytes,
        }[plan]
        return int(held * HEADROOM) + self.step_bytes

    def block_bytes(self, free_bytes: int) -> int:
        """What of a device's free memory weights may take under the plan ``blocks``."""
        return max(0, math.floor((free_bytes - self.step_bytes) / HEADROOM))

    def choose(self, free_bytes: int, plans: Iterable[str] = PLANS) -> str | None:
        """The first plan that fits."""
        return next((plan for plan in plans if self.on_device(plan) <= free_bytes), None)

    def told(self, model: str, device: str, plan: str) -> str:
        """What is taken and how, for people."""
        total, step = in_gib(self.weight_bytes + self.step_bytes), in_gib(self.step_bytes)
        return f"{model} takes {total} of memory on {device}, {step} of it for a step; memory plan: {plan}."

    def refusal(self, model: str, device: str, free_bytes: int, plans: Iterable[str] = PLANS) -> str:
        """Why nothing fits, for people: what is missing, and what would help."""
        plans_tried = tuple(plans)
        least = min(plans_tried, key=self.on_device)
        missing = self.on_device(least) - free_bytes
        step = f", {in_gib(self.step_bytes)} of it for steps of this size" if self.step_bytes >= TOLD_BYTES else ""
        helps = ["close other programs", "draw a smaller picture" if self.step_bytes > missing else ""]
        helps += ["choose a file with smaller weights (fp8, GGUF)" if plans_tried == PLANS else "use --memory auto"]
        return (
            f"model {model!r} needs {in_gib(self.on_device(least))} of memory on {device}{step}, and"
            f" {in_gib(free_bytes)} are free: {', or '.join(text for text in helps if text)}"
        )


def step_bytes(checkpoint: Checkpoint, size: Size, count: int, guided: bool, number_bytes: int) -> int:
    """What a step takes beside the weights: ``count`` pictures of this (width, height) at once, in this format.

    With ``guided`` each is asked about with a negative prompt, too.
    """
    rows = count * (2 if guided else 1)
    return math.prod(size) * rows * checkpoint.row.step_px_bytes * number_bytes // 2


def in_gib(nbytes: int) -> str:
    """For people."""
    return f"{nbytes / 2**30:.1f} GiB"
