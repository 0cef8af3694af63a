"""Filling a page's fields from elsewhere: from a picture's settings, a preset, the choice of a model.

``static/fills.js`` asks, and holds Generate back until what was asked for has come.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gradio as gr
from pydantic import ConfigDict, ValidationError, validate_call

from webui.core.catalog import Catalog
from webui.core.groups import GROUP_FIELDS, LISTS
from webui.core.request import template_of
from webui.ui import form, loras, passing, rows
from webui.ui.errors import page_error
from webui.ui.values import UNFIT

Update = Any
Way = Callable[..., Mapping[str, Update]]
TEXTS = ("prompt", "negative")
LORAS = ("loras", "hires.loras")
OFF = {field: "" if field in LORAS else info.default for field, info in GROUP_FIELDS.items()}
"""The groups that a picture's settings do not name."""
SEEDS = ("seed", *(field for field in GROUP_FIELDS if field.endswith(".seed")))
NUMBERS = ("count", "repeat")  # how many to draw, which the settings of one picture do not say
NEAR = 0.1  # the variation strength of pictures near one that has none


@dataclasses.dataclass(frozen=True)
class Fills:
    """The ways of filling one page's fields, by name, and the one event that they share.

    ``places`` are the controls that can be filled, by name. A way gets what the browser asks with, by name and each of
    the type that its signature says, and returns updates by place; what they leave out stays.
    """

    page: str
    places: dict[str, Any]
    ways: dict[str, Way] = dataclasses.field(default_factory=dict)

    def add(self, name: str, way: Way) -> None:
        """One more way, for ``darkroomFills.ask(page, name, asked)``."""
        self.ways[name] = validate_call(config=ConfigDict(strict=True))(way)

    def fill(self, text: str) -> list[Update]:
        """The updates of all places; ``text`` is the name of a way and what it is asked with, as JSON."""
        try:
            name, asked = json.loads(text)
            way, asked = self.ways[name], dict(asked)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise page_error(UNFIT) from None
        try:
            return self.updates(way(**asked))
        except ValidationError:
            raise page_error(UNFIT) from None

    def updates(self, told: Mapping[str, Update]) -> list[Update]:
        """One for each place, from what a way returned."""
        return [told.get(place, gr.skip()) for place in self.places]

    def wire(self, press: gr.Button) -> None:
        """The event, once all ways and places are there; ``press`` is what the script presses."""
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        filled = press.click(
            self.fill,
            [passing.box()],
            [*self.places.values()],
            js=f"() => darkroomFills.take('{self.page}')",
            trigger_mode="multiple",
            concurrency_limit=None,
            **quiet,
        )
        for after, failed in ((filled.then, "false"), (filled.failure, "true")):
            after(None, None, None, js=f"() => darkroomFills.end('{self.page}', {failed})", **quiet)


def build_press(page: str) -> gr.Button:
    """What the script presses for a page, wherever it is laid out."""
    return gr.Button("Fill the fields", elem_id=f"{page}-fill", elem_classes="unseen")


def from_picture(
    values: Mapping[str, Any],
    fields: Iterable[str],
    catalog: Catalog,
    *,
    with_seed: bool,
    keep_texts: bool = False,
    as_start: bool = False,
) -> dict[str, Update]:
    """Updates for these fields and the chosen model, from the settings of a picture, by field.

    Without its seed new ones are drawn, as many as the page says, and their words anew from its templates.
    ``keep_texts``: the picture itself is sent, and its words are; an empty prompt leaves the page's own. ``as_start``:
    the page begins from it, so a second pass is behind it, and one that was enlarged is drawn at its first size. What
    is not said, and files that are not here, leave their fields as they are.
    """
    values = (OFF | dict.fromkeys(LISTS, ()) if "steps" in values else {}) | dict(values)
    if not (with_seed or keep_texts):
        places = ("prompt", "negative", "hires.prompt", "hires.negative")
        values |= {place: text for place in places if (text := values.get(template_of(place)))}
    for field in LORAS:
        if isinstance(refs := values.get(field), tuple):
            values[field] = loras.to_text(refs)
    for group in LISTS:
        if isinstance(details := values.get(group), tuple):
            values[group] = rows.to_text(details, not (with_seed or keep_texts))
    for field in form.FILES:
        if field in values and values[field] not in [choice for _, choice in form.choices(field, catalog)]:
            if "." not in field or values.get(field.partition(".")[0]):  # a group that is off says nothing
                gr.Warning(f"The {form.FIELDS[field].title} of this picture is not here.")
            del values[field]
    values |= of_the_file(values, catalog)
    if as_start:
        values |= {"hires": False} | ({"keep_size": False} if values.get("upscale") else {})
    if not with_seed:
        values = {field: value for field, value in values.items() if field not in NUMBERS}
        values |= dict.fromkeys(SEEDS, -1)
    for field in TEXTS if keep_texts else ():
        if not values.get(field):
            values.pop(field, None)
    if "prompt" in values:
        values["styles"] = ""  # the words of a picture's styles are in its prompt
    return {field: values[field] for field in fields if field in values} | settle_model(values.get("model"))


def near(values: Mapping[str, Any]) -> dict[str, Any]:
    """A picture's settings, by field, for new ones near it: its seed stays, and the other noise is drawn anew."""
    values = {field: value for field, value in values.items() if field not in NUMBERS}
    return values | {"variation.seed": -1, "variation.strength": values.get("variation.strength") or NEAR}


def of_the_file(values: Mapping[str, Any], catalog: Catalog) -> dict[str, str]:
    """``auto`` in place of the prediction and the form that a model says of itself: the next model may say another."""
    if "model" not in values and "prediction" not in values:
        return {}
    file = catalog.models.get(values.get("model", ""))
    found = file.checkpoint if file else None
    own = {"prediction": found and found.prediction_name, "form": found and found.formed and found.formed.name}
    return {name: "auto" for name, said in own.items() if not found or values.get(name) in (None, said)}


def settle_model(model: str | None) -> dict[str, Update]:
    """For the place ``chosen``, where the settings came together with their model."""
    return {"chosen": model} if model else {}
