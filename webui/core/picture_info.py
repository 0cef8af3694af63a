"""What is known of a picture from the texts in its file, or from such a text alone."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class PictureInfo:
    """``values`` are for fields of Request and Init by name; ``program`` is "" where none is known.

    ``raw`` is the text as it stands in the file, ``unmapped`` a line for each thing that is not among the values.
    """

    program: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    raw: str = ""
    unmapped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        loras = [ref.model_dump(exclude_none=True) for ref in self.values.get("loras", ())]
        values = dict(self.values) | ({"loras": loras} if "loras" in self.values else {})
        return asdict(self) | {"values": values, "unmapped": list(self.unmapped)}
