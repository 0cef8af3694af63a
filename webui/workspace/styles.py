"""Styles: presets that add to what is asked for, several at a time."""

from collections.abc import Iterable

from webui.core.errors import RequestError
from webui.core.names import fold
from webui.core.request import MAX_PROMPT_CHARACTERS, Request
from webui.workspace.preset import Preset

ALWAYS = ("prompt", "negative")
WHERE_GIVEN = ("hires.prompt", "hires.negative")  # left out, they are the first pass's


def with_styles(request: Request, styles: Iterable[Preset]) -> Request:
    """The request in these styles, one laid around the other in their order. What comes of it needs no style any more.

    The words stand around its prompt and behind its negative prompt, also those of a hires pass that has its own. A
    LoRA that the request names already keeps its weight. Raises RequestError.
    """
    for style in styles:
        texts = {
            place: _around(style, place, text)
            for place, text in request.texts.items()
            if place in ALWAYS or text and place in WHERE_GIVEN
        }
        for place, text in texts.items():
            if len(text) > MAX_PROMPT_CHARACTERS:
                reason = (
                    f"{len(text):,} characters with the style {style.name!r}; {MAX_PROMPT_CHARACTERS:,} is the limit"
                )
                raise RequestError(f"{place} would have {reason}", field="styles")
        known = {fold(ref.name) for ref in request.loras}
        added = Request.parse({"loras": style.fields.get("loras", ())}).loras
        loras = (*request.loras, *(ref for ref in added if fold(ref.name) not in known))
        request = request.with_texts(texts).model_copy(update={"loras": loras})
    return request


def _around(style: Preset, place: str, text: str) -> str:
    if place.endswith("prompt"):
        return str(style.values({"prompt": text}).get("prompt", text))
    return ", ".join(filter(None, (text, style.values().get("negative", ""))))
