"""A picture near another one: the noise that it begins from lies between that of its seed and that of a second one."""

from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from webui.core.files import Files
from webui.core.groups.base import Group
from webui.core.stages import Pass, Stage
from webui.core.values import MAX_SEED, share_field


class Variation(Group):
    """A1111's variation seed. While it acts, the pictures of a job keep their seed, and its own goes up by one."""

    since: ClassVar[int] = 2

    seed: int = Field(
        default=-1,
        ge=-1,
        le=MAX_SEED,
        title="Variation seed",
        description="The seed of the other noise. -1: a random one",
    )
    strength: float = share_field(
        0.0, "Variation strength", "How far to go from the seed's noise to the other: 0 is off, 1 is the other alone"
    )

    def picture(self, k: int) -> "Variation":
        """That of picture ``k`` of the job."""
        return self.model_copy(update={"seed": self.seed + k})

    def stages(self, stages: tuple[Stage, ...], files: Files) -> tuple[Stage, ...]:
        """All passes that draw noise to begin from."""
        if self.strength == 0:
            return stages
        return tuple(
            replace(stage, variation=self) if isinstance(stage, Pass) and stage.begin != "handover" else stage
            for stage in stages
        )
