"""Groups of the request that are lists: their frame here, their rows in ``static/rows.js``, their value in a field that
is not shown."""

import html
import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from webui.core.groups import LISTS
from webui.core.groups.detail import Detail
from webui.core.groups.listed import Listed
from webui.core.prompt import join_loras
from webui.core.request import Request
from webui.ui import form

FRAME = """
<div class="panel rows" data-page="{page}" data-group="{group}" data-thing="{thing}" data-most="{most}"
  data-url="{url}" data-fields="{fields}">
  <ol aria-label="{title}"></ol>
  <button type="button" data-act="add">Add</button>
  <p class="panel-note">{note}</p>
</div>
"""
URLS = {"detail": "./api/finders"}
"""What lists the names that a row's first field is chosen from."""
STEPS = {"padding": 8, "dilate": 4, "strength": 0.05, "threshold": 0.05}


def build_lists(page: str) -> dict[str, gr.Textbox]:
    """Lays a fold out for each in the open page; gives the fields with the lists, as JSON, by name, which are still to
    be laid out."""
    return {group: _build(page, group, made_of) for group, made_of in LISTS.items()}


def _build(page: str, group: str, made_of: type[Listed]) -> gr.Textbox:
    info = Request.model_fields[group]
    if group not in URLS:
        return form.unseen(page, group, info.title or group)
    most = next(entry.max_length for entry in info.metadata if hasattr(entry, "max_length"))
    told = {
        "page": page,
        "group": group,
        "thing": group.capitalize(),
        "title": info.title,
        "fields": json.dumps(_fields(made_of)),
        "most": most,
        "url": URLS[group],
        "note": info.description,
    }
    with gr.Accordion(info.title, open=False, elem_id=f"{page}-{group}-panel"):
        gr.HTML(FRAME.format(**{name: html.escape(str(value)) for name, value in told.items()}))
    return form.unseen(page, group, info.title or group)


def _fields(made_of: type[Listed]) -> list[dict[str, Any]]:
    """What the rows are made of: name, words, kind and bounds of each field."""
    told: list[dict[str, Any]] = []
    for name, info in made_of.model_fields.items():
        if name in made_of.set_by_programs:
            continue
        bounds = {
            limit: getattr(entry, limit) for entry in info.metadata for limit in ("ge", "le") if hasattr(entry, limit)
        }
        kind = "number" if bounds else "text" if told else "choice"
        limits = {"least": bounds["ge"], "most": bounds["le"], "step": STEPS.get(name, 1)} if bounds else {}
        words = {"name": name, "title": info.title, "description": info.description, "default": info.default}
        told.append({**words, "kind": kind, **limits})
    return told


def to_text(entries: Sequence[Listed], anew: bool = False) -> str:
    """The field's value for these entries, LoRAs as tags in their prompts again; ``anew`` where their words are to be
    drawn again, from the templates."""
    return json.dumps([_entry(entry, anew) for entry in entries]) if entries else ""


def _entry(detail: Listed, anew: bool) -> dict[str, Any]:
    if not isinstance(detail, Detail):
        return detail.said
    prompt = detail.template if anew and detail.template else join_loras(detail.prompt, detail.loras)
    negative = detail.negative_template if anew and detail.negative_template else detail.negative
    own = {"prompt": prompt, "negative": negative, "loras": (), "template": "", "negative_template": ""}
    return detail.model_copy(update=own).said
