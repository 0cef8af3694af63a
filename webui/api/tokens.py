"""``/api/tokens``: how long a prompt is for a model, what is wrong with it, and what it says where it leaves that to
chance; asked while people type."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Body

from webui.core.errors import RequestError
from webui.core.prompt import split_loras, unbalanced, unsupported
from webui.core.request import Request
from webui.core.stages import steps_to_take
from webui.jobs.protocols import Executor
from webui.workspace.styles import with_styles
from webui.workspace.workspace import Workspace

FIELDS = ("model", "prompt", "negative", "steps", "seed")
DRAWS = 3


def tokens_router(executor: Executor, here: Callable[[], Workspace]) -> APIRouter:
    """The route over one executor, and the workspace ``here`` of whoever asks.

    A body has one prompt, as ``prompt`` or ``negative``; the words that its ``styles`` lay around it count too.
    """
    router = APIRouter(prefix="/api/tokens")

    @router.post("")
    def count(values: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        asked = Request.parse({field: values[field] for field in FIELDS if field in values})
        request = with_styles(asked, here().presets.styles(values.get("styles", [])))
        prompt = request.negative if "negative" in values else request.prompt
        steps = steps_to_take(request.steps, _strength(values.get("strength", 1.0)))
        first = max(request.seed, 0)  # without one, examples that stay the same while people type
        draws, trouble = _draw(executor, prompt, range(first, first + DRAWS))
        texts = draws or (prompt,)
        tokens, room = max(executor.count_tokens(request.model, text, max(steps, 1)) for text in texts)
        return {
            "tokens": tokens,
            "room": room,
            "unbalanced": unbalanced(_without_loras(prompt)),
            "unsupported": (*trouble, *unsupported(prompt)),
            **({"draws": draws} if draws else {}),
        }

    return router


def _draw(executor: Executor, prompt: str, seeds: Iterable[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What it says with these seeds, or why it cannot be drawn: it is still being typed."""
    try:
        return executor.draw_texts(prompt, seeds), ()
    except RequestError as error:
        return (), (str(error),)


def _strength(value: Any) -> float:
    """The share of the steps that are taken; raises RequestError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RequestError(f"strength must be a number from 0 to 1, not {str(value)[:20]}", field="strength")
    return value


def _without_loras(prompt: str) -> str:
    try:
        return split_loras(prompt)[0]
    except RequestError:
        return prompt
