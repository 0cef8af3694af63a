"""What recipes of earlier schemas say, in the words of the next: one function a step, the oldest first.

A schema is a number. Whatever recipes of one cannot say, or say otherwise, is a new schema: a step here, and what is
new has it as its ``since`` (``core.groups.base``), so that a recipe without it is written as before and older
programs read it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from webui.core import schedule
from webui.core.request import MAX_PROMPT_CHARACTERS

Body = dict[str, Any]
"""A recipe's JSON, without its ``schema``. Strangers write it: what is not as it should be is refused later."""


def _keep_words(body: Body) -> Body:
    """The first schema knew plain words alone: a mark in its prompts is what its letters say."""
    request = body.get("request")
    if not isinstance(request, Mapping):
        return body
    said = {name: value for name, value in request.items() if name != "syntax"}
    prompt, negative = (_text(request.get(field)) for field in ("prompt", "negative"))
    marked = schedule.has_marks(prompt) or schedule.changes(negative)
    return {**body, "request": said | ({"syntax": 1} if marked else {})}


def _add_passes(body: Body) -> Body:
    """The third schema has passes, parts and sheets besides; what the second could say means the same."""
    return body


MIGRATIONS: tuple[Callable[[Body], Body], ...] = (_keep_words, _add_passes)
NEWEST = 1 + len(MIGRATIONS)


def migrate(body: Body, schema: int) -> Body:
    """A recipe of a schema from 1 to ``NEWEST`` as one of the newest."""
    for step in MIGRATIONS[schema - 1 :]:
        body = step(body)
    return body


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_PROMPT_CHARACTERS else ""
