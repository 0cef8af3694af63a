"""What the browser kept of a page's fields, brought back into them."""

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from webui.core.executor import Catalog
from webui.ui import form


def recall(text: str, fields: Sequence[str], controls: dict[str, Any], catalog: Catalog) -> list[Any]:
    """Updates for the fields from what the browser kept; what the control could not hold is left as it is.

    Lists of files are brought up to date on the way.
    """
    try:
        kept = json.loads(text or "{}")
    except ValueError:
        kept = {}
    if not isinstance(kept, dict):
        kept = {}
    updates = []
    for field in fields:
        update: dict[str, Any] = {"choices": form.choices(field, catalog)} if field in form.FILES else {}
        choices = update.get("choices") or getattr(controls[field], "choices", [])
        if field in kept and _fits(kept[field], controls[field], choices):
            update["value"] = kept[field]
        updates.append(gr.update(**update))
    return updates


def _fits(value: Any, control: Any, choices: Sequence[tuple[str, Any]]) -> bool:
    if isinstance(control, gr.Dropdown):
        return value in [choice for _, choice in choices]
    if isinstance(control, gr.Checkbox):
        return isinstance(value, bool)
    if isinstance(control, gr.Slider | gr.Number):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str)
