"""Bad input, and how it is said to people."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from webui.core import images

OFFERED = 8
SHOWN_CHARACTERS = 60
BAD_INPUT = "bad_input"
"""Under which the state of an HTTP request says that what was wrong was in it."""


@dataclass(frozen=True)
class Mend:
    """The one plain way to make bad input good: ``use`` this value in the field, ``remove`` those of its entries (a
    LoRA, a wildcard) that have this name, or ``keep`` the first of those. ``instead_of`` names the entries whose name a
    value takes the place of, where it is not for the whole field."""

    how: Literal["use", "remove", "keep"]
    value: str | int | float
    instead_of: str = ""


VALUELESS = {"missing", "missing_argument", "extra_forbidden", "unexpected_keyword_argument", "string_too_short"}
"""Kinds of pydantic's problems that are not told better by what was given."""

NUMBER = "{number}"
"""In what is wrong with an entry of a list: its number, counted from 1, which the list knows."""


class RequestError(ValueError):
    """Bad input. The message names the input and the reason, in words for people.

    ``field`` is the request's, those of groups and lists as ``hires.scale`` and ``detail.1.strength``, counted from 1;
    ``mend`` is what makes it good, where there is one plain way.
    """

    def __init__(self, message: str, field: str = "", mend: Mend | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.mend = mend


def refusal(error: ValidationError) -> RequestError:
    """The same for people: every problem in one line, and field and mend of the first."""
    first = error.errors(include_url=False)[0]
    own = first.get("ctx", {}).get("error")
    path = _path(first)
    if isinstance(own, RequestError):
        return RequestError(explain(error), ".".join(filter(None, [path, own.field])), own.mend)
    nearest = {"greater_than_equal": "ge", "less_than_equal": "le"}.get(first["type"])
    mend = Mend("use", first["ctx"][nearest]) if nearest else None
    return RequestError(explain(error), path, mend)


def _path(problem: Any) -> str:
    """The field as ``RequestError`` has it."""
    return ".".join(str(part + 1 if isinstance(part, int) else part) for part in problem["loc"])


def explain(error: ValidationError) -> str:
    """Every problem of a ValidationError in one line: field, what it must be, what it was."""
    return "; ".join(explain_problem(problem) for problem in error.errors(include_url=False))


def explain_problem(problem: Any) -> str:
    """One of them, as pydantic has it in ``errors()``."""
    field = _path(problem)
    given, limits = problem.get("input"), problem.get("ctx", {})
    if isinstance(limits.get("error"), images.ImageError):
        return f"{field} {limits['error']}"
    if isinstance(given, BaseModel | Mapping) and problem["type"] == "value_error":
        place = problem["loc"][-1] if problem["loc"] else None
        number = str(place + 1) if isinstance(place, int) else ""
        return str(limits.get("error", f"{field}: {problem['msg']}")).replace(NUMBER, number)
    reasons = {
        "greater_than_equal": "must be at least {ge:g}",
        "less_than_equal": "must be at most {le:.16g}",
        "int_parsing": "must be a whole number",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "int_parsing_size": "must be a smaller whole number",
        "float_parsing": "must be a number",
        "float_type": "must be a number",
        "finite_number": "must be a finite number",
        "bool_parsing": "must be true or false",
        "bool_type": "must be true or false",
        "string_type": "must be text",
        "string_unicode": "must be valid Unicode text",
        "tuple_type": "must be a list",
        "list_type": "must be a list",
        "model_type": "must be an object",
        "model_attributes_type": "must be an object",
        "dict_type": "must be an object",
        "string_too_long": "must be at most {max_length} characters long",
        "string_too_short": "must not be empty",
        "too_long": "must have at most {max_length} entries",
        "extra_forbidden": "is not a known setting",
        "unexpected_keyword_argument": "is not a known setting",
        "missing": "is missing",
        "missing_argument": "is missing",
        "byte_size": "must be a size, such as 2GB or 512MB",
        "byte_size_unit": "must be a size, such as 2GB or 512MB",
        "literal_error": "must be {expected}",
        "multiple_of": "must be a multiple of {multiple_of}",
        "string_pattern_mismatch": "must look like #rrggbb",
    }
    if problem["type"] == "value_error":
        reason = str(limits["error"])
    else:
        reason = reasons.get(problem["type"], problem["msg"][:1].lower() + problem["msg"][1:]).format(**limits)
    if not field:
        return reason
    if problem["type"] == "string_too_long":
        return f"{field} {reason}; it has {len(given):,}"
    if problem["type"] in VALUELESS:
        return f"{field} {reason}"
    return f"{field} {reason}, not {_show(given)}"


def _show(given: Any) -> str:
    try:
        return "nothing" if given is None else repr(given)[:60]
    except ValueError:  # Python refuses to write out whole numbers of more than some thousands of digits
        return "a number that long"


def show_some(names: Iterable[str], last: str = " and ") -> str:
    """The first of these names for people, and how many more there are."""
    shown = [show(name) for name in names]
    if (more := len(shown) - OFFERED) > 0:
        return f"{', '.join(shown[:OFFERED])} and {more} more"
    return last.join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def show(name: str) -> str:
    """A name for a line of text: its beginning, without what cannot be printed."""
    text = name if len(name) <= SHOWN_CHARACTERS else f"{name[: SHOWN_CHARACTERS - 1]}…"
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
