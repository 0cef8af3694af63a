"""Groups of which a request has a list, and how text says one."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from webui.core.groups.base import Group


class Listed(Group):
    """One of a list. None at all is off."""

    flag: ClassVar[str] = ""
    """What the flag for one of them is called, where it is not called as the list is."""
    example: ClassVar[str]
    """What text for one of them looks like."""
    by_hand: ClassVar[tuple[str, ...]] = ()
    """Its fields that are no plain values: they have controls of their own, and no grid varies them."""
    pictures: ClassVar[tuple[str, ...]] = ()
    """Its fields that hold pictures. Recipes name them by their pixels, and presets have none."""

    @property
    def told(self) -> dict[str, Any]:
        """What of it is not left out, for people."""
        return self.said

    @classmethod
    def asked(cls) -> tuple[str, ...]:
        """Its fields that people set, in their order."""
        return tuple(name for name in cls.model_fields if name not in cls.set_by_programs)

    @classmethod
    def read_all(cls, value: Any) -> Any:
        """A list of them out of text: JSON, or as ``split`` reads it; one alone is a list too.

        Raises ValueError for what is neither.
        """
        if value is None:
            return ()
        if isinstance(value, Mapping | cls):
            return (value,)
        if not isinstance(value, str):
            return value
        if not value.strip():
            return ()
        if value.lstrip()[0] in "[{":
            try:
                read = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError("must be JSON that can be read") from None
            return (read,) if isinstance(read, Mapping) else read
        return (cls.split(value),)

    @classmethod
    def split(cls, text: str) -> dict[str, Any]:
        """``name=VALUE,name=VALUE`` by field. A comma within a text is one, as long as no field's name comes behind it.

        Raises ValueError for what begins with no field.
        """
        found: dict[str, Any] = {}
        known = cls.asked()
        for piece in text.split(","):
            name, equals, value = piece.partition("=")
            if equals and (name := name.strip()) in known:
                if name in found:
                    raise ValueError(f"must name {name} once")
                found[name] = value.strip()
            elif found:
                last = [*found][-1]
                found[last] = f"{found[last]},{piece.rstrip()}"
            else:
                raise ValueError(f"must look like {cls.example}, of {', '.join(known)}")
        return found
