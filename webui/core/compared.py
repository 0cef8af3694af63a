"""Two pictures' settings beside each other, for people: those that differ, by the names that the page has for them."""

from collections.abc import Iterator, Mapping
from typing import Any

from webui.core.groups import GROUP_FIELDS, GROUPS, LISTS
from webui.core.groups.init import Init
from webui.core.recipe import Recipe
from webui.core.request import NOT_ASKED, Request

ABSENT = "–"
APART = ("loras", "width", "height", "count", "repeat", "model")
"""Fields that are told in another form, or say nothing of one picture."""
PLACES = {"image": "Start picture", "mask": "Mask"}


def differing(one: Recipe, other: Recipe) -> list[tuple[str, str, str]]:
    """(setting, in the one, in the other) for each that is not the same; ``ABSENT`` where one has none of it."""
    first, second = settings_told(one), settings_told(other)
    names = [*first, *(name for name in second if name not in first)]
    pairs = [(name, first.get(name, ABSENT), second.get(name, ABSENT)) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def settings_told(recipe: Recipe) -> Mapping[str, str]:
    """All that a picture's recipe says it was asked for, as text, by the names that people know."""
    return dict(_told(recipe))


def _told(recipe: Recipe) -> Iterator[tuple[str, str]]:
    request = recipe.request.in_newest_syntax()
    fields = Request.model_fields
    yield "Prompt", request.prompt
    yield "Negative prompt", request.negative
    yield "Model", _model(recipe)
    for ref in request.loras:
        yield f"LoRA {ref.name}", str(ref).removeprefix(f"{ref.name}:")
    if request.width and request.height:  # else nothing was drawn: a picture was enlarged
        yield "Size", f"{request.width} × {request.height}"
    for name, info in fields.items():
        if name not in (*NOT_ASKED, *APART, *GROUPS, "prompt", "negative"):
            yield info.title or name, _text(getattr(request, name))
    for group in GROUPS:
        held = getattr(request, group)
        title = fields[group].title or group
        if group in LISTS:
            for number, entry in enumerate(held, start=1):
                yield f"{title} {number}", ", ".join(f"{name} {_text(value)}" for name, value in entry.told.items())
        elif group != "init" and held is not None:
            for name in GROUPS[group].model_fields:
                if shown := GROUP_FIELDS.get(f"{group}.{name}"):
                    yield f"{title}: {(shown.title or name).lower()}", _text(getattr(held, name))
    for place, sha256 in recipe.pictures.items():
        group, _, rest = place.partition(".")
        thing = fields[group].title if group in fields else group
        yield f"{thing} {rest.replace('.', ': ')}", sha256[:12]
    for name, value in (recipe.start or {}).items():
        if name in PLACES:
            yield PLACES[name], str(value)[:12]
        elif name in Init.model_fields:
            yield Init.model_fields[name].title or name, _text(value)


def _model(recipe: Recipe) -> str:
    """With the beginning of its hash: two models may have one name."""
    return f"{recipe.request.model} ({recipe.model_hash[:10]})" if recipe.model_hash else recipe.request.model


def _text(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return ", ".join(map(_text, value)) or ABSENT
    return str(value)
