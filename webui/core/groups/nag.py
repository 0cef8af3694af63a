"""Normalized attention guidance: a negative prompt that works in few steps, and at guidance 1."""

from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from webui.core.files import Files
from webui.core.groups.base import Group
from webui.core.stages import Pass, Stage
from webui.core.values import share_field


class Nag(Group):
    """Chen et al. 2025, "Normalized Attention Guidance: Universal Negative Guidance for Diffusion Models"."""

    switch: ClassVar[str] = "Makes the negative prompt count at guidance 1 too, as models for few steps need it"

    scale: float = Field(
        default=3.0,
        ge=1.0,
        le=30.0,
        allow_inf_nan=False,
        title="NAG scale",
        description="How far to go from the negative prompt. 1: off",
    )
    tau: float = Field(
        default=2.5,
        ge=1.0,
        le=20.0,
        allow_inf_nan=False,
        title="NAG tau",
        description="By how much this may enlarge what the model attends to",
    )
    alpha: float = share_field(0.5, "NAG alpha", "How much of it is taken: 0 is none, 1 is all")

    @property
    def acts(self) -> bool:
        """Whether it changes anything."""
        return self.scale > 1 and self.alpha > 0

    def stages(self, stages: tuple[Stage, ...], files: Files) -> tuple[Stage, ...]:
        """All passes."""
        if not self.acts:
            return stages
        return tuple(replace(stage, nag=self) if isinstance(stage, Pass) else stage for stage in stages)
