"""An axis of a grid: what is varied, by its name, and its values, which are read as A1111's X/Y/Z plot reads them."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from io import StringIO
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from webui.core.errors import RequestError, explain, show
from webui.core.groups import GROUP_FIELDS, GROUPS, LISTS, SWITCHES
from webui.core.groups.init import Init
from webui.core.lora_ref import LoraRef
from webui.core.names import choose, fold
from webui.core.prompt import split_constant_loras
from webui.core.request import NOT_ASKED, PROMPTS, Request
from webui.core.schedule import write_points

MAX_VALUES = 200
"""Of an axis: more could not be told apart on a sheet."""
MAX_PICTURES = 5_000
"""Of a grid."""
LORA, WORD, PRESET = "lora", "prompt", "preset"
NUMBER = r"([+-]?\s*\d+(?:\.\d+)?)"
RANGE = re.compile(rf"\s*{NUMBER}\s*-\s*{NUMBER}\s*(?:\(\s*([+-]?\s*\d+(?:\.\d+)?)\s*\)|\[\s*(\d+)\s*\])?\s*")
ON, OFF = ("true", "1", "yes", "on"), ("false", "0", "no", "off")

Presets = Callable[[str, Request], Request]
"""A request with the preset of that name laid over it; raises RequestError where there is none."""

INIT_FIELDS: Mapping[str, FieldInfo] = {
    f"init.{name}": info for name, info in Init.model_fields.items() if name not in ("image", "mask", "outpaint")
}
LIST_FIELDS: Mapping[str, FieldInfo] = {
    f"{group}.{name}": info
    for group, made_of in LISTS.items()
    for name, info in made_of.model_fields.items()
    if name not in (*made_of.set_by_programs, *made_of.by_hand)
}
"""Of all entries of a list at once."""
FIELDS: Mapping[str, FieldInfo] = {
    **{name: info for name, info in Request.model_fields.items() if name not in (*NOT_ASKED, "loras")},
    **INIT_FIELDS,
    **GROUP_FIELDS,
    **LIST_FIELDS,
}
"""What can be varied by its name alone, besides a preset."""


@dataclass(frozen=True)
class Axis:
    """``field`` is one of ``FIELDS``, ``preset``, ``lora:NAME`` or ``prompt:WORD``; the values are text."""

    field: str
    values: tuple[str, ...]

    @property
    def kind(self) -> str:
        """``lora``, ``prompt``, ``preset``, or empty for a field."""
        kind, colon, _ = self.field.partition(":")
        return kind if colon or self.field == PRESET else ""

    @property
    def name(self) -> str:
        """The LoRA's, the word that is replaced, or the field's."""
        return self.field.partition(":")[2] if ":" in self.field else self.field

    @property
    def title(self) -> str:
        """What is varied, for people."""
        if self.kind in (LORA, WORD):
            return self.name
        if self.field not in FIELDS:
            return self.name.capitalize()
        group, dot, _ = self.field.partition(".")
        if self.field in SWITCHES:
            return str(Request.model_fields[self.field].title)
        return (
            f"{Request.model_fields[group].title}: {FIELDS[self.field].title}" if dot else str(FIELDS[self.field].title)
        )

    def label(self, k: int) -> str:
        """What people are told of value ``k``."""
        value = self.values[k]
        if self.kind == WORD:
            return value or f"without “{self.name}”"
        return f"{self.title}: {value or 'none'}"

    def to_json(self) -> dict[str, Any]:
        """As bodies and recipes have it."""
        return {"field": self.field, "values": list(self.values)}


def read_axis(place: str, field: Any, values: Any) -> Axis:
    """The axis that stands at ``place``, which is x, y or z; ``values`` are text or a list.

    Raises RequestError for a field that cannot be varied and values that cannot be read; what the field makes of the
    values is told when they are applied.
    """
    with_place = f"{place}: "
    if not isinstance(field, str) or not field.strip():
        raise RequestError(f"{with_place}the field is missing that is to be varied", field=place)
    try:
        name = _read_field(field.strip())
        read = tuple(_read_values(name, values))
    except RequestError as error:
        raise RequestError(f"{with_place}{error}", field=place) from None
    if not any(read) and len(read) < 2:
        raise RequestError(f"{with_place}{name} has no values", field=place)
    return Axis(name, read)


def split(text: str) -> tuple[str, str]:
    """The field and the values of ``FIELD=VALUES``; raises RequestError."""
    field, equals, values = text.partition("=")
    if not equals:
        raise RequestError(f"{text[:60]!r} must look like FIELD=VALUE,VALUE")
    return field, values


def _read_field(text: str) -> str:
    kind, colon, name = text.partition(":")
    if colon and fold(kind) in (LORA, WORD):
        if not name.strip():
            wanted = "a LoRA, as lora:NAME" if fold(kind) == LORA else "the word to replace, as prompt:WORD"
            raise RequestError(f"{show(text)} names nothing: it is {wanted}")
        return f"{fold(kind)}:{name.strip()}"
    if fold(text) in ("lora", "loras"):
        raise RequestError("a LoRA is varied by its name: lora:NAME")
    known = (*FIELDS, PRESET)
    if text not in known and f"init.{text}" in INIT_FIELDS:
        return f"init.{text}"
    return choose("field to vary called", text, known)


def _read_values(field: str, values: Any) -> Iterator[str]:
    if isinstance(values, str):
        try:
            entries: Iterable[Any] = [*csv.reader(StringIO(values), skipinitialspace=True)]
        except csv.Error as error:
            raise RequestError(f"the values of {field} cannot be read: {error}") from None
        entries = [entry for row in entries for entry in row]
    elif isinstance(values, Sequence) and not isinstance(values, bytes):
        entries = [_to_text(field, entry) for entry in values]
    else:
        raise RequestError(f"the values of {field} must be a list or text")
    number = _number_of(field)
    count = 0
    for entry in entries:
        found = RANGE.fullmatch(entry) if number else None
        for value in _expand(field, found, number is int) if found else (entry.strip(),):
            count += 1
            if count > MAX_VALUES:
                raise RequestError(f"{field} has more than {MAX_VALUES} values, which is the limit for an axis")
            yield value


def _to_text(field: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    try:
        if not isinstance(value, list | tuple) or not value:
            raise TypeError
        return write_points(tuple((float(place), float(weight)) for place, weight in value))
    except (TypeError, ValueError):
        raise RequestError(f"a value of {field} must be a number or text, not {repr(value)[:60]}") from None


def _number_of(field: str) -> type[int] | type[float] | None:
    """What its ranges count in; None where a value may have a dash in it."""
    if field.startswith(f"{LORA}:"):
        return float
    annotation = FIELDS[field].annotation if field in FIELDS else None
    kinds = {annotation, *get_args(annotation)}
    return int if int in kinds and bool not in kinds else float if float in kinds else None


def _expand(field: str, found: re.Match[str], whole: bool) -> Iterator[str]:
    """``1-5``, ``1-10 (+2)`` and ``1-10 [5]``, both ends counted where they are reached."""
    first, last = (Decimal(found[k].replace(" ", "")) for k in (1, 2))
    if found[4]:
        count = int(found[4])
        if not count:
            raise RequestError(f"{field}: {found[0].strip()!r} has no values")
        step = (last - first) / (count - 1) if count > 1 else Decimal(0)
    else:
        step = Decimal(found[3].replace(" ", "")) if found[3] else Decimal(1 if last >= first else -1)
        if not step or (last - first) * step < 0:
            raise RequestError(f"{field}: {found[0].strip()!r} has no values: it never comes to its end")
        count = int((last - first) / step) + 1
    if count > MAX_VALUES:
        raise RequestError(f"{field}: {found[0].strip()!r} has {count:,} values; {MAX_VALUES} is the limit for an axis")
    for k in range(count):
        value = first + k * step
        is_whole = whole and (found[4] or value == value.to_integral_value())
        yield str(int(value)) if is_whole else f"{float(round(value, 8)):g}" if abs(value) < 10**5 else str(value)


# ---- values become requests ----


def apply(axis: Axis, k: int, request: Request, presets: Presets | None) -> Request:
    """The request with value ``k``; raises RequestError naming it and why it cannot be."""
    value = axis.values[k]
    if axis.kind == LORA:
        return _with_lora(request, axis.name, value)
    if axis.kind == WORD:
        return _with_word(request, axis.name, value)
    if axis.kind == PRESET:
        if presets is None:
            raise RequestError("preset: there are no presets here")
        return presets(value, request)
    return _with_field(request, axis.field, value)


def _with_field(request: Request, field: str, value: str) -> Request:
    given = given_values(request)
    group, _, inner = field.partition(".")
    if inner:
        held = getattr(request, group)
        if group in LISTS:
            given[group] = [given_values(entry) | {inner: value} for entry in held] or [{inner: value}]
            return Request.parse(given)
        if held is None and group == "init":
            raise RequestError(f"{field}: there is no start picture", field=field)
        given[group] = given_values(held) | {inner: value} if held is not None else {inner: value}
    elif field in SWITCHES:
        if fold(value) not in (*ON, *OFF):
            raise RequestError(f"{field} must be true or false, not {value[:60]!r}", field=field)
        given[field] = (getattr(request, field) or {}) if fold(value) in ON else None
    else:
        given[field] = value
    return Request.parse(given)


def given_values(value: Any) -> dict[str, Any]:
    """The fields of a request or a group that were given, as they are."""
    return {name: getattr(value, name) for name in type(value).model_fields if name in value.model_fields_set}


def _with_lora(request: Request, name: str, value: str) -> Request:
    try:
        ref = LoraRef.model_validate(f"{name}:{value}" if ":" in value else {"name": name, "weight": value})
    except ValidationError as error:
        raise RequestError(f"lora:{show(name)}: {explain(error)}", field="loras") from None
    given, refs = given_values(request), list(request.loras)
    if f"<lora:{fold(name)}" in fold(request.prompt) and request.syntax > 1:
        prompt, tagged, _ = split_constant_loras(request.prompt)
        if any(fold(tag.name) == fold(name) for tag in tagged):  # the axis counts more than its tag
            given["prompt"] = prompt
            refs += tagged
    places = [place for place, known in enumerate(refs) if fold(known.name) == fold(name)]
    for place in places[:1]:
        refs[place] = ref.model_copy(update={"name": refs[place].name})
    given["loras"] = tuple(refs if places else (*refs, ref))
    return Request.parse(given)


def _with_word(request: Request, word: str, value: str) -> Request:
    """In all prompts, those of its groups too."""

    def changed(held: Any) -> dict[str, str]:
        texts = {name: getattr(held, name, None) for name in PROMPTS}
        return {
            name: text.replace(word, value) for name, text in texts.items() if isinstance(text, str) and word in text
        }

    given, found = given_values(request) | changed(request), bool(changed(request))
    for group in GROUPS:
        held = getattr(request, group)
        several = held if isinstance(held, tuple) else (held,)
        if any(changed(each) for each in several):
            found = True
            parts = tuple(given_values(each) | changed(each) for each in several)
            given[group] = parts if isinstance(held, tuple) else parts[0]
    if not found:
        raise RequestError(f"prompt:{show(word)}: the word is in neither the prompt nor the negative prompt", "prompt")
    return Request.parse(given)
