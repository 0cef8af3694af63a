"""What makes one JSON object of another: of many that are nearly the same the first is kept, and differences."""

from collections.abc import Mapping
from typing import Any


def difference(base: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """What makes ``body`` of ``base``, key by key: ``[value]`` is a new one, ``[]`` none any more, and an object is the
    difference of two objects."""
    found: dict[str, Any] = {key: [] for key in base if key not in body}
    for key, value in body.items():
        if key not in base:
            found[key] = [value]
        elif base[key] != value or type(base[key]) is not type(value):
            both = isinstance(base[key], Mapping) and isinstance(value, Mapping)
            found[key] = difference(base[key], value) if both else [value]
    return found


def apply(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``body`` again; raises ValueError for what is no difference."""
    body = dict(base)
    for key, change in changes.items():
        if isinstance(change, Mapping):
            below = body.get(key)
            if not isinstance(below, Mapping):
                raise ValueError(f"{key[:60]!r} is not an object")
            body[key] = apply(below, change)
        elif isinstance(change, list | tuple) and len(change) == 1:
            body[key] = change[0]
        elif isinstance(change, list | tuple) and not change:
            body.pop(key, None)
        else:
            raise ValueError(f"{key[:60]!r} is not a difference")
    return body
