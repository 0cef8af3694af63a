"""What every group is."""

from typing import Any, ClassVar

from webui.core.files import Files
from webui.core.stages import Stage
from webui.core.values import Value


class Group(Value):
    """A part of a request that may be left out. In JSON it is an object under its name."""

    since: ClassVar[int] = 3
    """The first schema of recipes that can say it (``core.migrations``): the newest, where it says no other."""
    switch: ClassVar[str] = ""
    """What turning it on does, in words for people; empty where its values say whether it does anything."""
    set_by_programs: ClassVar[tuple[str, ...]] = ()
    """Its fields that have no control and no flag."""

    @property
    def said(self) -> dict[str, Any]:
        """What of it is not left out, for JSON."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)

    def stages(self, stages: tuple[Stage, ...], files: Files) -> tuple[Stage, ...]:
        """The stages with what this group does to them."""
        raise NotImplementedError
