"""What every group is."""

from pydantic import BaseModel, ConfigDict

from webui.core.files import Files
from webui.core.stages import Stage


class Group(BaseModel):
    """A frozen value whose fields become controls, flags and JSON as those of the request do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def stages(self, stages: tuple[Stage, ...], files: Files) -> tuple[Stage, ...]:
        """The stages with what this group does to them."""
        raise NotImplementedError
