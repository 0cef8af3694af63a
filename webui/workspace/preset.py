"""A named set of settings, as a value and as TOML text: any fields of a request, with ``{variables}`` in its prompts.

What a file holds that this version does not know becomes a notice; what it holds that is wrong, an error.
"""

import re
import tomllib
from collections.abc import Mapping
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tomli_w
from PIL import Image as PilImages
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from webui.core.catalog import Catalog
from webui.core.errors import RequestError, explain
from webui.core.files import LoraFile, ModelFile
from webui.core.groups import GROUP_FIELDS, LISTS, SWITCHES, group_values, nest
from webui.core.groups.init import Init
from webui.core.groups.listed import Listed
from webui.core.kinds import KINDS
from webui.core.names import find_file
from webui.core.request import MAX_PROMPT_CHARACTERS, NOT_ASKED, PROMPTS, Request
from webui.core.tensor_file import hash_file
from webui.core.weight_files import content_hash

VERSION = 1
MAX_NAME_CHARACTERS, MAX_NOTE_CHARACTERS = 80, 1_000
MAX_VARIABLES = 8
MAX_PRESET_BYTES = 64 * 2**10
REQUEST_FIELDS = frozenset(Request.model_fields).difference(NOT_ASKED) | GROUP_FIELDS.keys()
GROUP_TABLES = tuple(dict.fromkeys(name.partition(".")[0] for name in GROUP_FIELDS))
INIT_FIELDS = frozenset(Init.model_fields) - {"image", "mask"}  # a preset holds no pictures
STYLE_FIELDS = frozenset({*PROMPTS, "loras"})
_VARIABLE = re.compile(r"\{([A-Za-z_]\w{0,39})\}")
_LONG_KEY = re.compile(r"(?:[^.\s]{1,40}[ \t]{0,40}\.[ \t]{0,40}){20}")  # tomllib's time goes with its square
_NO_PICTURE = PilImages.new("RGB", (8, 8))


def _read_digest(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{8,64}", value):
        return value.lower()
    raise ValueError("must be 8 to 64 hexadecimal digits of a SHA-256")


Digest = Annotated[str, BeforeValidator(_read_digest)]

if TYPE_CHECKING:
    FamilyName = str
else:
    FamilyName = Literal["", "demo", *(kind.name for kind in KINDS)]


class Pins(BaseModel):
    """What the preset was made with: SHA-256 as ``Recipe`` has them, or their beginnings; of the LoRAs by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Digest | None = None
    loras: dict[str, Digest] = Field(default_factory=dict, max_length=32)


class Preset(BaseModel):
    """``fields`` are those of Request that it holds, ``init`` those of Init; all others are left alone.

    Fields of other groups are among the ``fields`` as ``group.field``; in TOML each group is a table.

    ``family`` is the kind of model that it is for, where it has to be said (``preset_family.family_of``).

    ``expected`` is the SHA-256 of the first picture's RGB bytes in float32 on a CPU, with the variables' own values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=MAX_NAME_CHARACTERS)
    note: str = Field(default="", max_length=MAX_NOTE_CHARACTERS)
    variables: dict[str, Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]] = Field(
        default_factory=dict, max_length=MAX_VARIABLES
    )
    fields: dict[str, Any] = Field(default_factory=dict)
    init: dict[str, Any] = Field(default_factory=dict)
    family: FamilyName = ""
    pins: Pins = Pins()
    expected: Digest | None = None
    notices: tuple[str, ...] = Field(default=(), exclude=True)

    @field_validator("name", mode="before")
    @classmethod
    def _read_name(cls, name: Any) -> Any:
        return name.strip() if isinstance(name, str) else name

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("must be made of printable characters")
        return name

    @field_validator("variables")
    @classmethod
    def _check_variables(cls, variables: dict[str, str]) -> dict[str, str]:
        for name in variables:
            if not _VARIABLE.fullmatch(f"{{{name}}}"):
                raise ValueError(f"variables: {name[:60]!r} must be at most 40 letters, digits and _, a letter first")
        return variables

    @model_validator(mode="after")
    def _check_settings(self) -> "Preset":
        """Holds the fields to the request's own bounds, and brings them into their plain form."""
        request = Request.parse(self._filled({}))
        try:
            init = Init.model_validate({"image": _NO_PICTURE} | self.init)
        except ValidationError as error:
            raise ValueError(f"init.{explain(error)}") from None
        plain = request.model_dump(mode="json", include=set(self.fields), exclude_none=True)
        plain |= group_values(request, as_json=True)
        plain |= {group: False for group in SWITCHES if self.fields.get(group) is False}
        plain |= {
            group: [
                _as_given(entry, given)
                for entry, given in zip(getattr(request, group), _listed(group, held), strict=True)
            ]
            for group in LISTS
            if (held := self.fields.get(group)) is not None
        }
        templates = {prompt: self.fields[prompt] for prompt in PROMPTS if prompt in self.fields}
        self.__dict__["fields"] = {field: (plain | templates)[field] for field in self.fields if field in plain}
        self.__dict__["init"] = init.model_dump(mode="json", include=set(self.init))
        return self

    @property
    def is_style(self) -> bool:
        """Whether it only adds to what is asked for: words around the prompt, words behind the negative one, LoRAs."""
        adds = self.fields.keys() <= STYLE_FIELDS and not self.init and self.variables.keys() == {"prompt"}
        return adds and "{prompt}" in self.fields.get("prompt", "{prompt}")

    def warnings(self, catalog: Catalog) -> tuple[str, ...]:
        """What people should know before they use it. Reads the files that are pinned."""
        return self.notices + compare_pins(self.pins, self.request(), catalog.models, catalog.loras)

    def _filled(self, variables: Mapping[str, str]) -> dict[str, Any]:
        texts = self.variables | dict(variables)
        values = dict(self.fields)
        listed = {
            group: [dict(entry) for entry in _listed(group, values[group])] for group in LISTS if values.get(group)
        }
        for held in (values, *(entry for entries in listed.values() for entry in entries)) if texts else ():
            for prompt in PROMPTS:
                if isinstance(text := held.get(prompt), str):
                    filled = _VARIABLE.sub(lambda found: texts.get(found[1], found[0]), text)
                    held[prompt] = filled if all(texts.values()) else filled.strip(" ,")
        return nest(values | listed)

    def values(self, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The request's fields with the variables filled in; RequestError for a variable that it does not have."""
        for name, text in (variables or {}).items():
            if name not in self.variables:
                known = f"it has {', '.join(self.variables)}" if self.variables else "it has none"
                raise RequestError(f"preset {self.name!r} has no variable {name[:60]!r}; {known}", field="variables")
            if not isinstance(text, str):
                raise RequestError(f"variable {name!r} must be text", field="variables")
        return self._filled(variables or {})

    def request(
        self, variables: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
    ) -> Request:
        """The request that it stands for; ``overrides`` are fields that count more than its own. Raises RequestError.

        What ``init`` holds counts where the overrides have a start picture. A given prompt fills the variable
        ``{prompt}`` of a preset that has one, which is what A1111's styles do.
        """
        given, texts = dict(overrides or {}), dict(variables or {})
        if "prompt" in self.variables and isinstance(given.get("prompt"), str):
            texts.setdefault("prompt", given.pop("prompt"))
        values = self.values(texts)
        for group, held in ({"init": self.init} | {table: values.get(table, {}) for table in GROUP_TABLES}).items():
            if isinstance(given.get(group), Mapping):
                given[group] = held | dict(given[group])
        given |= {group: self._over_own(group, values.get(group), given[group]) for group in LISTS if group in given}
        return Request.parse(values | given)

    @staticmethod
    def _over_own(group: str, held: Any, given: Any) -> Any:
        """A list that was given, in which entries without a name go over the preset's at their places."""
        made_of = LISTS[group]
        if not made_of.pictures or not isinstance(given, list | tuple) or not isinstance(held, list | tuple):
            return given
        named = next(iter(made_of.model_fields))
        return [
            dict(held[place]) | entry if place < len(held) and isinstance(entry, dict) and named not in entry else entry
            for place, entry in enumerate(given)
        ]

    def over(self, request: Request) -> Request:
        """The request with what the preset holds laid over it, as on a page; raises RequestError.

        The request's prompt goes where the preset has ``{prompt}``, and the pictures of its lists to the preset's
        entries at their places, which have none.
        """
        texts = {"prompt": request.prompt} if "prompt" in self.variables and request.prompt else {}
        held = {name: getattr(request, name) for name in Request.model_fields if name in request.model_fields_set}
        values = self.values(texts)
        for group in GROUP_TABLES:
            if isinstance(values.get(group), Mapping) and held.get(group) is not None:
                values[group] = held[group].model_dump(exclude_unset=True) | values[group]
        for group, made_of in LISTS.items():
            if made_of.pictures and values.get(group):
                pairs = zip_longest(values[group], held.get(group, ())[: len(values[group])])
                values[group] = [_pictures(own, made_of) | entry for entry, own in pairs]
        if self.init and request.init is not None:
            given = {name: getattr(request.init, name) for name in request.init.model_fields_set}
            values["init"] = given | self.init
        return Request.parse(held | values)

    @cached_property
    def text(self) -> str:
        """As TOML, without what is empty."""
        held = self.model_dump(mode="json", exclude_none=True)
        held = {"version": VERSION, "name": held.pop("name"), "note": held.pop("note")} | held
        held["pins"] = {name: pin for name, pin in held["pins"].items() if pin}
        nested = nest(held["fields"])
        tables = {table: nested.pop(table) for table in GROUP_TABLES if nested.get(table) is not None}
        tables |= {table: nested.pop(table) for table in LISTS if table in nested}
        held |= tables | {"fields": {name: False if value is None else value for name, value in nested.items()}}
        order = sorted(held, key=lambda name: isinstance(held[name], dict | list))
        return tomli_w.dumps({name: held[name] for name in order if held[name] or name in tables})


def _pictures(entry: Listed | None, made_of: type[Listed]) -> dict[str, Any]:
    return {name: held for name in made_of.pictures if (held := getattr(entry, name, None)) is not None}


def _listed(group: str, held: Any) -> list[dict[str, Any]]:
    """The entries of a group that is a list, as they are given; raises ValueError."""
    read = LISTS[group].read_all(held)
    if not isinstance(read, list | tuple) or not all(isinstance(entry, Mapping) for entry in read):
        raise ValueError("must be a list of tables")
    return [dict(entry) for entry in read]


def _as_given(entry: Listed, given: Mapping[str, Any]) -> dict[str, Any]:
    """One of them in its plain form, its prompts with their variables."""
    return entry.said | {prompt: given[prompt] for prompt in PROMPTS if prompt in given}


def make_preset(**values: Any) -> Preset:
    """A preset from untrusted values; raises RequestError in words for people."""
    try:
        return Preset.model_validate(values)
    except ValidationError as error:
        raise RequestError(explain(error), field="preset") from None


def read_preset(data: bytes, fallback_name: str) -> Preset:
    """The preset of a TOML file, called ``fallback_name`` where the file gives no name; raises RequestError."""
    if len(data) > MAX_PRESET_BYTES:
        raise RequestError(f"is larger than {MAX_PRESET_BYTES // 1024} KiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RequestError("is not UTF-8 text") from None
    if _LONG_KEY.search(text):
        raise RequestError("is nested too deep")
    try:
        held = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"is not TOML: {str(error)[:200]}") from None
    except (RecursionError, ValueError):  # nested too deep, or a number of too many digits
        raise RequestError("is not TOML that can be read") from None
    version = held.pop("version", VERSION)
    if type(version) is not int or version < 1:
        raise RequestError(f"version must be {VERSION}, not {str(version)[:60]!r}")
    if version > VERSION:
        raise RequestError(f"is of version {version}; this program reads versions up to {VERSION}")
    notices = _drop_unknown(held, frozenset((*Preset.model_fields, *GROUP_TABLES, *LISTS)) - {"notices"}, "")
    _take_groups(held)
    for table, known in (("fields", REQUEST_FIELDS), ("init", INIT_FIELDS), ("pins", frozenset(Pins.model_fields))):
        if isinstance(held.get(table), dict):
            notices += _drop_unknown(held[table], known, f"{table}.")
    return make_preset(**({"name": fallback_name} | held | {"notices": notices}))


def _take_groups(held: dict[str, Any]) -> None:
    """The tables of groups become fields, ``group.field``, and lists of tables fields of their own; raises RequestError
    for what is no table."""
    for table in filter(held.__contains__, LISTS):
        values, fields = held.pop(table), held.setdefault("fields", {})
        if not isinstance(values, list):
            raise RequestError(f"{table} must be tables, [[{table}]]")
        if isinstance(fields, dict):
            fields[table] = values
    for table in filter(held.__contains__, GROUP_TABLES):
        values, fields = held.pop(table), held.setdefault("fields", {})
        if not isinstance(values, dict):
            raise RequestError(f"{table} must be a table")
        if isinstance(fields, dict):
            fields |= {table: True} if table in SWITCHES else {}
            fields |= {f"{table}.{name}": value for name, value in values.items()}


def _drop_unknown(held: dict[str, Any], known: frozenset[str], prefix: str) -> tuple[str, ...]:
    unknown = [name for name in held if name not in known]
    for name in unknown:
        del held[name]
    return tuple(f"{prefix}{name[:60]} is not a known setting and is ignored" for name in unknown[:20])


def compare_pins(
    pins: Pins, request: Request, models: Mapping[str, ModelFile], loras: Mapping[str, LoraFile]
) -> tuple[str, ...]:
    """One line for each pinned file that is another one on disk; what is missing there is told when it is drawn."""
    found: list[str] = []
    model = models.get(request.model)
    try:
        if pins.model and model and model.checkpoint and not content_hash(model).startswith(pins.model):
            found.append(f"model {model.name!r} is not the file that the preset was made with")
        for name, pin in pins.loras.items():
            if (file := loras.get(find_file(name, loras) or "")) and not hash_file(file.path).tensors.startswith(pin):
                found.append(f"LoRA {name!r} is not the file that the preset was made with")
    except OSError as error:
        found.append(f"a pinned file cannot be read: {error.strerror}")
    return tuple(found)
