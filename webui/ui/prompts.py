"""The prompt boxes and what helps below them; ``static/prompt.js`` counts tokens and changes weights."""

from typing import Any

import gradio as gr

from webui.core.executor import Catalog
from webui.core.request import MAX_PROMPT_CHARACTERS
from webui.ui import form

FIELDS = ("prompt", "negative")
HELP = """
<p class="prompt-help" data-page="{page}" data-field="{field}" data-limit="{limit}" aria-live="polite">
  <span class="prompt-trouble"></span> <span class="prompt-count" title="Tokens that the model reads">0/75</span>
</p>
"""


def build_prompt(page: str, field: str, catalog: Catalog, **overrides: Any) -> gr.Textbox:
    """Lays out a prompt's box with its help in the open page."""
    box: gr.Textbox = form.make_control(page, field, catalog, **overrides)
    gr.HTML(HELP.format(page=page, field=field, limit=MAX_PROMPT_CHARACTERS), elem_classes="prompt-below")
    return box


def wire(page: str, controls: dict[str, Any], chosen: gr.Textbox) -> None:
    """The help follows the boxes and the model, whoever changes them."""
    gr.on(
        [*(controls[field].change for field in FIELDS), chosen.change],
        None,
        None,
        None,
        js=f"() => darkroomPrompt.count('{page}')",
        queue=False,
        api_visibility="private",
        show_progress="hidden",
    )
