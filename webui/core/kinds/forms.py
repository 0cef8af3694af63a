"""The forms in which a kind of models is published, which shapes do not tell apart: one for many steps, one for few."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from webui.core.kinds.kind import Defaults, Source

SAID_IN = ("modelspec.architecture", "modelspec.title", "modelspec.implementation", "modelspec.description")
"""A file's own words that name its form, the surest first."""


@dataclass(frozen=True)
class Form:
    """One form, whose ``name`` stands for it in a request and in what a file says of itself.

    ``scheduler`` is what diffusers' configuration of its noise says, for a file that has none. ``is_distilled`` marks
    one that needs few steps and no guidance.
    """

    name: str
    defaults: Defaults
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    is_distilled: bool = False


def told_form(forms: tuple[Form, ...], source: Source) -> str:
    """The name of the form that a folder's configurations or a file's own words tell; empty where nothing does.

    The pipeline's ``is_distilled`` is the surest, then a shift that one form alone has, then a word: ``Turbo``.
    """
    return next(_told(forms, source), "")


def _told(forms: tuple[Form, ...], source: Source) -> Iterator[str]:
    index, scheduler = (source.configs.get(name, {}) for name in ("index", "scheduler"))
    if isinstance(said := index.get("is_distilled"), bool):
        yield from _only([form for form in forms if form.is_distilled is said])
    if "shift" in scheduler and not scheduler.get("use_dynamic_shifting"):
        yield from _only([form for form in forms if form.scheduler.get("shift") == scheduler["shift"]])
    for key in SAID_IN:
        words = set(re.split(r"[^a-z0-9]+", source.header.metadata.get(key, "").casefold()))
        yield from _only([form for form in forms if form.name.casefold() in words])


def _only(found: list[Form]) -> Iterator[str]:
    if len(found) == 1:
        yield found[0].name
