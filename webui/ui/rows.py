"""Groups of the request that are lists: their frame here, their rows in ``static/rows.js``, their value in a field that
is not shown."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import gradio as gr

from webui.core.errors import RequestError
from webui.core.groups import LISTS
from webui.core.groups.detail import Detail
from webui.core.groups.listed import Listed
from webui.core.groups.region import Region
from webui.core.picture import Find
from webui.core.prompt import join_loras
from webui.core.request import Request
from webui.ui import form, regions
from webui.ui.painting import painter

FRAME = """
<div class="panel rows" data-page="{page}" data-group="{group}" data-thing="{thing}" data-most="{most}"
  data-fields="{fields}">
  <ol aria-label="{title}"></ol>
  <button type="button" data-act="add">Add</button>
  <p class="panel-note">{note}</p>
</div>
"""
URLS = {
    "detail.finder": "./api/finders",
    "controls.model": "./api/controls",
    "controls.preprocessor": "./api/controls/preprocessors",
}
"""What lists the names that a row's field is chosen from."""
OF_MODEL = ("controls.model",)
"""Those of them that tell what fits the page's model."""
FRAMES = {"controls": FRAME, "regions": regions.FRAME, "detail": FRAME}
"""Of the lists that have a fold here."""
STEPS = {
    "padding": 8,
    "dilate": 4,
    **dict.fromkeys(("strength", "threshold", "weight", "start", "end"), 0.05),
    "feather": 0.01,
}


def build_lists(page: str) -> dict[str, gr.Textbox]:
    """Lays a fold out for each in the open page; gives the fields with the lists, as JSON, by name, which are still to
    be laid out."""
    return {group: _build(page, group, made_of) for group, made_of in LISTS.items()}


def _build(page: str, group: str, made_of: type[Listed]) -> gr.Textbox:
    info = Request.model_fields[group]
    if group not in FRAMES:
        return form.unseen(page, group, info.title or group)
    most = next(entry.max_length for entry in info.metadata if hasattr(entry, "max_length"))
    told = {
        "page": page,
        "group": group,
        "thing": (made_of.flag or group).capitalize(),
        "title": info.title,
        "fields": json.dumps(_fields(group, made_of)),
        "most": most,
        "note": info.description,
    }
    with gr.Accordion(info.title, open=False, elem_id=f"{page}-{group}-panel"):
        words = {name: html.escape(str(value)) for name, value in told.items()}
        gr.HTML(FRAMES[group].format(**words, painter=painter(f"{page}-{group}", of_its_own=True)))
    return form.unseen(page, group, info.title or group)


def _fields(group: str, made_of: type[Listed]) -> list[dict[str, Any]]:
    """What the rows are made of: name, words, kind and bounds of each field; of choices what they are, or where those
    are listed. The first says what an entry is, and is ``always`` in it."""
    told: list[dict[str, Any]] = []
    for name, info in made_of.model_fields.items():
        if name in (*made_of.set_by_programs, *made_of.by_hand):
            continue
        bounds = {
            limit: getattr(entry, limit) for entry in info.metadata for limit in ("ge", "le") if hasattr(entry, limit)
        }
        default = None if info.is_required() else info.default
        words = {"name": name, "title": info.title, "description": info.description, "default": default}
        place = f"{group}.{name}"
        if place in URLS:
            kind: dict[str, Any] = {"kind": "choice", "url": URLS[place], "of_model": place in OF_MODEL}
        elif get_origin(info.annotation) is Literal:
            kind = {"kind": "choice", "choices": get_args(info.annotation)}
        elif bounds:
            kind = {"kind": "number", "least": bounds["ge"], "most": bounds["le"], "step": STEPS.get(name, 1)}
        else:
            kind = {"kind": "text"}
        told.append({**words, **kind, "always": not told})
    return told


def to_text(entries: Sequence[Listed | Mapping[str, Any]], anew: bool = False) -> str:
    """The field's value for these entries, LoRAs as tags in their prompts again; ``anew`` where their words are to be
    drawn again, from the templates."""
    return json.dumps([_entry(entry, anew) for entry in entries]) if entries else ""


def with_pictures(values: Mapping[str, Any], find: Find) -> dict[str, Any]:
    """The lists among a page's values that name pictures by their hashes, with these; raises RequestError."""
    told: dict[str, Any] = {}
    for group, made_of in LISTS.items():
        if made_of.pictures and values.get(group):
            try:
                entries = made_of.read_all(values[group])
            except ValueError as error:
                raise RequestError(f"{group} {error}", field=group) from None
            told[group] = [
                _with_pictures(group, number, entry, made_of, find) for number, entry in enumerate(entries, 1)
            ]
    return told


def _with_pictures(group: str, number: int, entry: Any, made_of: type[Listed], find: Find) -> Any:
    held = dict(entry) if isinstance(entry, Mapping) else {}
    for field in made_of.pictures:
        if isinstance(named := held.get(field), Mapping):
            held[field] = find(str(named.get("sha256")))
            if held[field] is None:
                place, thing = f"{group}.{number}.{field}", made_of.flag or group
                raise RequestError(f"{thing} {number}: its picture is no longer here; choose it again", place)
    return held or entry


def _entry(detail: Listed | Mapping[str, Any], anew: bool) -> dict[str, Any]:
    if isinstance(detail, Mapping):
        return dict(detail)
    if isinstance(detail, Region):
        prompt = detail.template if anew and detail.template else detail.prompt
        return detail.model_copy(update={"prompt": prompt, "template": ""}).said
    if not isinstance(detail, Detail):
        return detail.said
    prompt = detail.template if anew and detail.template else join_loras(detail.prompt, detail.loras)
    negative = detail.negative_template if anew and detail.negative_template else detail.negative
    own = {"prompt": prompt, "negative": negative, "loras": (), "template": "", "negative_template": ""}
    return detail.model_copy(update=own).said
