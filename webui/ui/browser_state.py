"""What the browser keeps of a page: its fields, and the pictures that it starts from (``static/pictures.js``)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from webui.core.catalog import Catalog
from webui.ui import form


def recall(text: str, fields: Sequence[str], controls: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Updates by field from what the browser kept; what the control could not hold is left as it is.

    Lists of files are brought up to date on the way.
    """
    try:
        kept = json.loads(text or "{}")
    except ValueError:
        kept = {}
    if not isinstance(kept, dict):
        kept = {}
    updates = {}
    for field in fields:
        choices = getattr(controls[field], "choices", [])
        update: dict[str, Any] = {}
        if field in form.FILES and (known := form.choices(field, catalog)) != choices:
            update["choices"] = choices = known
        is_free = field not in form.FILES and getattr(controls[field], "allow_custom_value", False)
        if field in kept and (_fits(kept[field], controls[field], choices) or is_free and isinstance(kept[field], str)):
            update["value"] = kept[field]
        elif field == "model" and choices and not _fits(controls[field].value, controls[field], choices):
            update["value"] = choices[0][1]  # the page's own is not there for this visitor
        updates[field] = gr.update(**update)
    return updates


def wire_fields(page: str, kept: Mapping[str, gr.components.Component]) -> gr.Button:
    """The browser keeps what these fields hold whenever ``static/fields.js`` presses the button that is laid out here.

    An event of each field would do it too, but the page looks through all that is on it for each, twice when it opens.
    """
    button = gr.Button("Remember the fields", elem_id=f"{page}-remember", elem_classes="unseen")
    button.click(
        None,
        [*kept.values()],
        None,
        js=f"(...values) => darkroom.remember('{page}', {json.dumps([*kept])}, values)",
        queue=False,
        api_visibility="private",
        show_progress="hidden",
    )
    return button


def wire_pictures(page: str, pictures: Mapping[str, gr.Image]) -> None:
    """The browser keeps the pictures of these fields."""
    for field, control in pictures.items():
        keep = f"(file) => darkroomPictures.keep('{page}', '{field}', file)"
        control.change(None, control, None, js=keep, api_visibility="private", show_progress="hidden")


def _fits(value: Any, control: Any, choices: Sequence[tuple[str, Any]]) -> bool:
    if isinstance(control, gr.Dropdown):
        return value in [choice for _, choice in choices]
    if isinstance(control, gr.Checkbox):
        return isinstance(value, bool)
    if isinstance(control, gr.Slider | gr.Number):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str)
