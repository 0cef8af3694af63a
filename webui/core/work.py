"""What one click asks for: a ``Request``, a ``Batch`` of them, or a ``Grid``. Each is one job."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from webui.core.axes import Axis
from webui.core.differences import apply, difference
from webui.core.errors import RequestError, explain
from webui.core.grid import PLACES, Grid
from webui.core.picture import Find, Keep
from webui.core.request import Request


class Work(Protocol):
    """Anything that comes down to requests, which are drawn one after the other."""

    @property
    def requests(self) -> tuple[Request, ...]: ...


@dataclass(frozen=True)
class Batch:
    """Requests that were sent together, at least one."""

    requests: tuple[Request, ...]


MAX_BATCH = 50
MAX_BATCH_PIXELS = 150_000_000  # all start pictures of a batch wait decoded, at 4 bytes a pixel


def make_batch(requests: Iterable[Request]) -> Batch:
    """Requests with a start picture each, of which no more are made once they are too many; raises RequestError."""
    taken: list[Request] = []
    pixels = 0
    for request in requests:
        taken.append(request)
        pixels += request.init.image.width * request.init.image.height if request.init else 0
        if len(taken) > MAX_BATCH:
            raise RequestError(f"files: there are too many pictures for one batch; the limit is {MAX_BATCH}")
        if pixels > MAX_BATCH_PIXELS:
            limit = MAX_BATCH_PIXELS // 10**6
            raise RequestError(f"files: together they have more than {limit} megapixels; give fewer", field="files")
    return Batch(tuple(taken))


def to_text(work: Work, keep: Keep) -> str:
    """What is asked for as JSON, its pictures by hash; raises what ``keep`` raises.

    A grid's requests are the first one and what is other in the rest, for there may be thousands.
    """
    try:
        bodies = [request.model_dump(mode="json", context={"keep": keep}) for request in work.requests]
    except PydanticSerializationError as error:  # so is whatever goes wrong on the way called
        raise error.__cause__ or error from None
    if not isinstance(work, Grid):
        return json.dumps(bodies)
    grid = {"axes": work.to_json(), "cells": [len(cell) for cell in work.cells]}
    return json.dumps(grid | {"first": bodies[0], "others": [difference(bodies[0], body) for body in bodies[1:]]})


def from_text(text: str, find: Find) -> Work:
    """The same again; raises RequestError naming what is not there any more or cannot be read."""
    body = json.loads(text)
    is_grid = isinstance(body, dict)
    bodies = [body["first"], *(apply(body["first"], other) for other in body["others"])] if is_grid else body
    try:
        requests = tuple(Request.model_validate(each, context={"find": find}) for each in bodies)
    except ValidationError as error:
        raise RequestError(explain(error)) from None
    if not is_grid:
        return Batch(requests)
    held = (body["axes"].get(place) for place in PLACES)
    x, y, z = (Axis(axis["field"], tuple(axis["values"])) if axis else None for axis in held)
    left = iter(requests)
    return Grid((x, y, z), tuple(tuple(islice(left, count)) for count in body["cells"]), confirmed=True)
