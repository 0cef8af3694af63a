"""Perturbed-attention guidance: away from what the model draws when its innermost layers see no whole."""

from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from webui.core.files import Files
from webui.core.groups.base import Group
from webui.core.stages import Pass, Stage

TRAINED_STEPS = 1000


class Pag(Group):
    """Ahn et al. 2024, "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance", as diffusers has it."""

    switch: ClassVar[str] = "Gives clearer shapes, beside guidance or without it; a step takes longer"

    scale: float = Field(
        default=3.0,
        ge=0.0,
        le=30.0,
        allow_inf_nan=False,
        title="PAG scale",
        description="How far to go from what the model draws without looking at the whole. 0: off",
    )
    adaptive: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        allow_inf_nan=False,
        title="PAG fading",
        description="How fast the scale fades: what it loses per thousandth of the way. 0: it stays",
    )

    @property
    def acts(self) -> bool:
        """Whether it changes anything."""
        return self.scale > 0

    def stages(self, stages: tuple[Stage, ...], files: Files) -> tuple[Stage, ...]:
        """All passes."""
        if not self.acts:
            return stages
        return tuple(replace(stage, pag=self) if isinstance(stage, Pass) else stage for stage in stages)

    def at(self, time: Any) -> Any:
        """The scale at a network's time, a number or a tensor of 0..1000."""
        if self.adaptive == 0:
            return self.scale
        return (self.scale - self.adaptive * (TRAINED_STEPS - time)).clip(min=0.0)
