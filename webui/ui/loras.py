"""The LoRA panel of a page: its frame here, its life in ``static/loras.js``, its value in a field that is not shown."""

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from webui.core.request import LoraRef
from webui.ui import form, panel


def build_panel(page: str) -> gr.Textbox:
    """Lays it out in the open page; returns the field with the choice, as JSON or as ``name:weight, name:weight``,
    which is still to be laid out."""
    panel.build_panel(page, "loras", "LoRAs", above='<ul class="loras-chosen" aria-label="LoRAs in use"></ul>')
    return form.unseen(page, "loras", "LoRAs")


def to_text(loras: Sequence[LoraRef]) -> Any:
    """The field's value for these LoRAs."""
    return json.dumps([ref.model_dump(exclude_none=True) for ref in loras]) if loras else ""
