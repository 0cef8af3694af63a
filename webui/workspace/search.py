"""What people look for in the history, as conditions of its index: words, and settings such as ``steps>15``."""

import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from webui.core.errors import RequestError
from webui.workspace.picture_files import KINDS, MAX_INTEGER, plain_text

MAX_TERMS = 32
TOKEN = re.compile(r'([A-Za-z]+)(:?[<>]=?|:|=)("[^"]*"?|\S*)|"([^"]*)"?|(\S+)')
NUMBER = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)(?:-([0-9]{1,19}(?:\.[0-9]{1,9})?))?")
SIZE = re.compile(r"([0-9]{1,6})[x×*]([0-9]{1,6})", re.IGNORECASE)
NUMBERS = {
    **{"seed": "seed", "steps": "steps", "cfg": "guidance", "guidance": "guidance", "strength": "strength"},
    **{"width": "width", "height": "height"},
}
"""Settings that are numbers, by the names that people give them, with their columns."""
# What is in a few different texts is looked for in those, and not in each picture's.
NAMES = {
    "model": "model IN (SELECT model FROM (SELECT DISTINCT model FROM pictures) WHERE instr(folded(model), ?))",
    "lora": "loras IN (SELECT loras FROM (SELECT DISTINCT loras FROM pictures)"
    " WHERE EXISTS (SELECT 1 FROM json_each(loras) WHERE instr(folded(value), ?)))",
    "sampler": "instr(folded(sampler), ?) > 0",
    "schedule": "instr(folded(schedule), ?) > 0",
    "negative": "instr(negative, ?) > 0",
}
"""Settings that are texts: a part of them is enough."""
ORDERS: Mapping[str, str] = {
    "newest": "mtime_ns DESC, id DESC",
    "oldest": "mtime_ns, id",
    "prompt": "prompt = '', substr(words, 1, 64), mtime_ns, id",  # those without one come last
    "largest": "width * height DESC, mtime_ns DESC, id DESC",
}
BY_TIME = ("newest", "oldest")

Condition = tuple[str, list[Any]]
"""The text of a condition, and its values."""


@dataclass(frozen=True)
class Filter:
    """Which pictures, and in what order.

    ``query`` is what a person types: words of the prompt or the file's name, which must all be there, and settings
    (``read_query``). ``model``, ``lora`` and ``board`` are exact names, ``kind`` is one of ``KINDS``; both days count.
    """

    query: str = ""
    model: str = ""
    lora: str = ""
    first_day: date | None = None
    last_day: date | None = None
    favourites: bool = False
    board: str = ""
    kind: str = ""
    order: str = "newest"


def conditions(wanted: Filter) -> tuple[str, list[Any]]:
    """The text after WHERE, and its values; raises RequestError for a setting that is not understood.

    Files that are no pictures have a width of 0: they are known, not shown.
    """
    found: list[Condition] = [("width > 0", [])]
    for term, value in (
        ("model = ?", wanted.model),
        (
            "loras IN (SELECT loras FROM (SELECT DISTINCT loras FROM pictures)"
            " WHERE EXISTS (SELECT 1 FROM json_each(loras) WHERE value = ?))",
            wanted.lora,
        ),
        ("day >= ?", wanted.first_day and wanted.first_day.isoformat()),
        ("day <= ?", wanted.last_day and wanted.last_day.isoformat()),
        ("path IN (SELECT path FROM marked WHERE mark = ?)", wanted.board),
        ("kind = ?", wanted.kind),
    ):
        if value:
            found.append((term, [plain_text(value)]))
    if wanted.favourites:
        found.append(("path IN (SELECT path FROM marked WHERE mark = '')", []))
    found += read_query(wanted.query)
    return " AND ".join(term for term, _ in found), [value for _, values in found for value in values]


def read_query(text: str) -> list[Condition]:
    """The conditions of what a person typed; raises RequestError for a setting that is not understood.

    ``seed:123``, ``steps>15``, ``cfg:4-7``, ``size:512x768``, ``sampler:"DPM++ 2M"``, ``kind:grid``. What begins like
    a setting and names none is a word, as prompts have them; a setting without a value yet says nothing.
    """
    found: list[Condition] = []
    for match in list(TOKEN.finditer(plain_text(text)))[:MAX_TERMS]:
        name, sign, value, phrase, word = match.groups()
        setting = _setting((name or "").lower(), sign or "", (value or "").strip('"'))
        if setting is None:
            words = match[0] if name else phrase if word is None else word
            setting = [("instr(words, ?) > 0", [words.casefold()])] if words else []
        found += setting
    return found


def _setting(name: str, sign: str, value: str) -> list[Condition] | None:
    """Its conditions; None where there is no such setting."""
    if name in NUMBERS:
        return _number(name, sign.removeprefix(":") or "=", value) if value else []
    if sign not in (":", "="):
        return None
    if name == "size":
        return _size(value) if value else []
    if name == "kind":
        return _kind(value.lower()) if value else []
    if name in NAMES:
        return [(NAMES[name], [value.casefold()])] if value else []
    return None


def _number(name: str, sign: str, value: str) -> list[Condition]:
    column = NUMBERS[name]
    match = NUMBER.fullmatch(value)
    if match is None or match[2] and sign != "=":
        raise RequestError(f"{name} takes a number: {name}:20, {name}>15 or {name}:10-30, not {value[:40]!r}", "query")
    if match[2] is None:
        return [(f"{column} {sign} ?", [_value(match[1])])]
    return [(f"{column} BETWEEN ? AND ?", [_value(match[1]), _value(match[2])])]


def _value(text: str) -> int | float:
    return float(text) if "." in text else min(int(text), MAX_INTEGER)


def _size(value: str) -> list[Condition]:
    match = SIZE.fullmatch(value)
    if match is None:
        raise RequestError(f"size is width and height: size:512x768, not {value[:40]!r}", "query")
    return [("width = ? AND height = ?", [int(match[1]), int(match[2])])]


def _kind(value: str) -> list[Condition]:
    if value not in KINDS:
        raise RequestError(f"kind is one of {', '.join(KINDS)}, not {value[:40]!r}", "query")
    return [("kind = ?", [value])]


def look_up(db: sqlite3.Connection, sql: str, read: Callable[[str], list[str]]) -> tuple[str, ...]:
    """All different names in the texts that the question finds, sorted; ``read`` takes names out of a text."""
    return tuple(sorted({name for (text,) in map(tuple, db.execute(sql)) for name in read(text)}))
