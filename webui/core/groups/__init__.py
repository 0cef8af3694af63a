"""Optional parts of a request: one that is left out is off. Each says which stages it makes of those before it."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from webui.core.groups.base import Group
from webui.core.groups.init import Init
from webui.core.groups.variation import Variation

GROUPS: Mapping[str, type[Group]] = {"init": Init, "variation": Variation}
"""The request's fields that are groups, in the order in which they change the stages."""
GROUP_FIELDS: Mapping[str, FieldInfo] = {
    f"{group}.{field}": info
    for group, made_of in GROUPS.items()
    if group != "init"  # it has pictures, and controls and flags of its own
    for field, info in made_of.model_fields.items()
}
"""Controls, flags, and values of pictures and presets by these names are made from the fields alone."""


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as a request takes them: those of groups, named ``group.field``, in an object under the group's name."""
    nested = {name: value for name, value in values.items() if name not in GROUP_FIELDS}
    for name in filter(values.__contains__, GROUP_FIELDS):
        group, field = name.split(".")
        nested[group] = {**nested.get(group, {}), field: values[name]}
    return nested


def group_values(request: BaseModel) -> dict[str, Any]:
    """A request's values of these fields, without those of groups that are off."""
    places = {name: name.split(".") for name in GROUP_FIELDS}
    held = {name: (getattr(request, group), field) for name, (group, field) in places.items()}
    return {name: getattr(group, field) for name, (group, field) in held.items() if group is not None}
