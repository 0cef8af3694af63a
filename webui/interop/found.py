"""What a reader finds in another program's text, and what all readers share."""

import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_BRACKETS = 200_000
SHOWN_CHARACTERS = 160
NOTHING: tuple[Any, ...] = (None, "", "None", [], {}, False)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Unreadable(ValueError):
    """A text that is not understood; the message is a line for people. ``program`` wrote it, if that much is known."""

    def __init__(self, message: str, program: str = "") -> None:
        super().__init__(message)
        self.program = program


@dataclass(frozen=True)
class Lora:
    """A LoRA as a program names it; nothing of it is checked yet."""

    name: Any
    weight: Any = 1.0
    text_weight: Any = None


@dataclass
class Found:
    """``values`` by the names of Request's and Init's fields, ``model_hash`` beside them, all unchecked.

    ``unmapped`` has a line for people for whatever was read and is not among the values.
    """

    program: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    loras: list[Lora] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)

    def put(self, name: str, value: Any) -> None:
        """A value for a field that has none yet; nothing where there is none."""
        if value is not None:
            self.values.setdefault(name, value)

    def note(self, name: Any, value: Any) -> None:
        """A line for a setting that is no field here; none for one that is off."""
        if value not in NOTHING:
            self.unmapped.append(f"{str(name)[:60]}: {short(value)}")

    def take(self, settings: Mapping[str, Any], fields: Mapping[str, str], silent: Container[str] = ()) -> None:
        """Each setting as the field that it is; a line for the others, but for the ``silent`` ones."""
        for name, value in settings.items():
            if name in fields:
                self.put(fields[name], value)
            elif name not in silent:
                self.note(name, value)

    @property
    def is_complete(self) -> bool:
        """Whether it has settings, not a prompt alone."""
        return bool(self.values.keys() - {"prompt", "negative"})


def clean(text: str) -> str:
    """The text without what is no character, or steers a terminal."""
    return _CONTROLS.sub("", text.encode("utf-8", "replace").decode().replace("\r\n", "\n"))


def short(value: Any, characters: int = SHOWN_CHARACTERS) -> str:
    """A value as text of bounded length."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return "..."
    return text if len(text) <= characters else f"{text[:characters]}..."


def read_json(text: str, name: str) -> Any:
    """A JSON text of bounded work and memory; raises Unreadable with the text's name."""
    if text.count("[") + text.count("{") > MAX_BRACKETS:
        raise Unreadable(f"{name} has more than {MAX_BRACKETS:,} brackets; it is not read")
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        raise Unreadable(f"{name} cannot be read as JSON") from None


def read_object(text: str, name: str) -> dict[str, Any]:
    """The same for a JSON object."""
    body = read_json(text, name)
    if not isinstance(body, dict):
        raise Unreadable(f"{name} is not a JSON object")
    return body


def read_size(text: Any) -> tuple[int, int] | None:
    """Width and height in px from ``512x640``, ``(512, 640)`` and the like; None where it is no size."""
    match = re.match(r"\W{0,3}(\d{1,6})\s{0,3}(?:[xX*×,])\s{0,3}(\d{1,6})(?!\d)", str(text)[:60])
    return (int(match[1]), int(match[2])) if match else None
