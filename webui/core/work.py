"""What one click asks for: a ``Request``, or a ``Batch`` of them. Either is one job."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pydantic import ValidationError

from webui.core.errors import RequestError, explain
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


def to_text(requests: Iterable[Request], keep: Keep) -> str:
    """Requests as JSON, their pictures by hash; raises what ``keep`` raises."""
    return json.dumps([request.model_dump(mode="json", context={"keep": keep}) for request in requests])


def from_text(text: str, find: Find) -> tuple[Request, ...]:
    """The same requests again; raises RequestError naming what is not there any more or cannot be read."""
    try:
        return tuple(Request.model_validate(body, context={"find": find}) for body in json.loads(text))
    except ValidationError as error:
        raise RequestError(explain(error)) from None
