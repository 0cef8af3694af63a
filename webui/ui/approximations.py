"""The fold with what makes pictures faster and less exact, and the note that says when something in it is on."""

import html
import json
from typing import Any

import gradio as gr

from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.notices import approximations
from webui.core.request import Request
from webui.jobs.protocols import Executor
from webui.ui import form

FIELDS = ("guidance_until", "reuse", "token_merging", "int8")
TOLD_BY = (*FIELDS, "guidance", "vae", "sampler", "loras")
EXPLANATION = (
    "Each of these saves time and changes the picture a little. So does a tiny VAE (under Settings), and the sampler"
    " LCM or TCD with a LoRA for few steps."
)


def build_fold(page: str, catalog: Catalog) -> dict[str, Any]:
    """Lays it out in the open page; returns its controls by name."""
    with gr.Accordion("Speed-ups", open=False, elem_id=f"{page}-shortcuts"):
        gr.Markdown(EXPLANATION)
        return {field: form.make_control(page, field, catalog) for field in FIELDS}


def build_note(page: str) -> gr.HTML:
    """The place of the note; empty while pictures are exact."""
    return gr.HTML("", label="Approximation", elem_id=f"{page}-approximate", padding=False)


def wire(page: str, remember: gr.Button, note: gr.HTML, controls: dict[str, Any], executor: Executor) -> None:
    """Keeps the note true whatever changes the controls; ``remember`` is pressed after each change of the page."""

    def tell(*values: Any) -> str:
        try:
            request = Request.parse(dict(zip(TOLD_BY, values, strict=True)))
        except RequestError:  # Generate will say so
            return ""
        words = ", ".join(approximations(request, executor.catalog().vaes if request.vae else {}))
        return f'<p class="approximate" role="status">Speed-ups on: {html.escape(words)}</p>' if words else ""

    told_by = [controls[field] for field in TOLD_BY]
    js = f"(...values) => darkroomFields.ifOther('{page}', {json.dumps(TOLD_BY)}, values)"
    remember.click(
        tell,
        told_by,
        note,
        js=js,
        queue=False,
        trigger_mode="multiple",
        show_progress="hidden",
        api_visibility="private",
    )
