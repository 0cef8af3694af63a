"""The fold with what guides beside guidance itself."""

from typing import Any

import gradio as gr

from webui.core.catalog import Catalog
from webui.core.groups import GROUP_FIELDS
from webui.core.request import Request
from webui.ui import form

GROUPS = ("pag", "nag")


def build_fold(page: str, catalog: Catalog) -> dict[str, Any]:
    """Lays it out in the open page; returns its controls by name. A model that lacks a group hides it by its id."""
    with gr.Accordion("More guidance", open=False, elem_id=f"{page}-guiding"):
        controls = {"guidance_rescale": form.make_control(page, "guidance_rescale", catalog)}
        for group in GROUPS:
            with gr.Column(elem_id=f"{page}-{group}"), gr.Group():  # Gradio writes a group's own id twice
                for name in (name for name in GROUP_FIELDS if name.partition(".")[0] == group):
                    named = {"label": Request.model_fields[group].title} if name == group else {}
                    controls[name] = form.make_control(page, name, catalog, **named)
    return controls
