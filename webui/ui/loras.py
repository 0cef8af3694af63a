"""The LoRA panel of a page: its frame here, its life in ``static/loras.js``, its value in a field that is not shown."""

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from webui.core.request import LoraRef
from webui.ui import form

PANEL = """
<div class="loras" data-page="{page}">
  <ul class="loras-chosen" aria-label="LoRAs in use"></ul>
  <div class="loras-tools">
    <input type="search" placeholder="Search LoRAs" aria-label="Search LoRAs">
    <button type="button" data-act="refresh">Refresh</button>
  </div>
  <ul class="loras-found" aria-label="LoRAs to choose from"></ul>
  <p class="loras-note" role="status"></p>
</div>
"""


def build_panel(page: str) -> gr.Textbox:
    """Lays it out in the open page; returns the field with the choice, as JSON or as ``name:weight, name:weight``."""
    with gr.Accordion("LoRAs", open=False, elem_id=f"{page}-lora-panel"):
        gr.HTML(PANEL.format(page=page))
    choice = form.Textbox("", label="LoRAs", elem_id=f"{page}-loras", elem_classes="loras-value", interactive=True)
    choice.change(
        None, None, None, js=f"() => darkroomLoras.show('{page}')", api_visibility="private", show_progress="hidden"
    )
    return choice


def to_text(loras: Sequence[LoraRef]) -> Any:
    """The field's value for these LoRAs."""
    return json.dumps([ref.model_dump(exclude_none=True) for ref in loras]) if loras else ""
