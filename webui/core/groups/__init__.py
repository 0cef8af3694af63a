"""Optional parts of a request: one that is left out is off. Each says which stages it makes of those before it."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from webui.core.groups.base import Group
from webui.core.groups.control import Control
from webui.core.groups.detail import Detail
from webui.core.groups.hires import Hires
from webui.core.groups.init import Init
from webui.core.groups.listed import Listed
from webui.core.groups.nag import Nag
from webui.core.groups.pag import Pag
from webui.core.groups.region import Region
from webui.core.groups.upscale import Upscale
from webui.core.groups.variation import Variation

GROUPS: Mapping[str, type[Group]] = {
    "init": Init,
    "variation": Variation,
    "controls": Control,
    "pag": Pag,
    "nag": Nag,
    "hires": Hires,
    "regions": Region,
    "detail": Detail,
    "upscale": Upscale,
}
"""The request's fields that are groups, in the order in which they change the stages."""
LISTS = {group: made_of for group, made_of in GROUPS.items() if issubclass(made_of, Listed)}
"""Those of which a request has a list: a field like any other, whose value is made of groups."""
SWITCHES = tuple(group for group, made_of in GROUPS.items() if made_of.switch)
"""Groups that are on or off by a value of their own, under their name alone."""


def _fields(group: str, made_of: type[Group]) -> Iterator[tuple[str, FieldInfo]]:
    if made_of.switch:
        yield group, FieldInfo(annotation=bool, default=False, title="On", description=made_of.switch)
    for field, info in made_of.model_fields.items():
        if field not in made_of.set_by_programs:
            yield f"{group}.{field}", info


GROUP_FIELDS: Mapping[str, FieldInfo] = {
    name: info
    for group, made_of in GROUPS.items()
    if group not in ("init", *LISTS)  # it has pictures, and controls and flags of its own
    for name, info in _fields(group, made_of)
}
"""Controls, flags, and values of pictures and presets by these names are made from the fields alone."""


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as a request takes them: those of groups, named ``group.field``, in an object under the group's name.

    A group is on where one of its fields is given, unless its switch says that it is off.
    """
    nested = {name: value for name, value in values.items() if name not in GROUP_FIELDS}
    for name in filter(values.__contains__, GROUP_FIELDS):
        group, _, field = name.partition(".")
        if field:
            nested[group] = {**nested.get(group, {}), field: values[name]}
        elif values[name] is True:
            nested.setdefault(group, {})
    return nested | {group: None for group in SWITCHES if values.get(group, True) is False}


def group_values(request: BaseModel, as_json: bool = False) -> dict[str, Any]:
    """A request's values of these fields, without those of groups that are off, and in JSON without what is none."""
    groups = {name: group for name in GROUPS if (group := getattr(request, name)) is not None}
    held = {
        name: group.model_dump(mode="json", exclude_none=True) if as_json else vars(group)
        for name, group in groups.items()
        if isinstance(group, Group) and name != "init"
    }
    places = {name: name.partition(".") for name in GROUP_FIELDS}
    return {
        name: held[group][field] if field else True
        for name, (group, _, field) in places.items()
        if group in held and (not field or field in held[group])
    }


def groups_of(request: BaseModel) -> Iterator[Group]:
    """A request's groups that are on, in the order in which they change the stages."""
    for name in GROUPS:
        held = getattr(request, name)
        yield from held if isinstance(held, tuple) else (held,) if held is not None else ()


def naming_pictures(request: BaseModel, hashes: Mapping[str, str]) -> dict[str, tuple[dict[str, Any], ...]]:
    """A request's lists that have pictures, as JSON has them: the pictures by their ``hashes``, by their places
    (``Request.pictures``)."""
    return {
        group: tuple(
            entry.said
            | {
                field: {"sha256": sha256}
                for field in made_of.pictures
                if (sha256 := hashes.get(f"{group}.{number}.{field}"))
            }
            for number, entry in enumerate(getattr(request, group), start=1)
        )
        for group, made_of in LISTS.items()
        if made_of.pictures
    }
