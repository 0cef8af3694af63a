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


def to_text(requests: Iterable[Request], keep: Keep) -> str:
    """Requests as JSON, their pictures by hash; raises what ``keep`` raises."""
    return json.dumps([request.model_dump(mode="json", context={"keep": keep}) for request in requests])


def from_text(text: str, find: Find) -> tuple[Request, ...]:
    """The same requests again; raises RequestError naming what is not there any more or cannot be read."""
    try:
        return tuple(Request.model_validate(body, context={"find": find}) for body in json.loads(text))
    except ValidationError as error:
        raise RequestError(explain(error)) from None
