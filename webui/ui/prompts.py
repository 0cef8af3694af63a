"""The prompt boxes and what helps below them; ``static/prompt.js`` counts tokens and changes weights."""

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from webui.core.catalog import Catalog
from webui.core.request import MAX_PROMPT_CHARACTERS
from webui.ui import form, pasted

FIELDS = ("prompt", "negative", "hires.prompt", "hires.negative")
HELP = """
<p class="prompt-help" data-page="{page}" data-field="{field}" data-limit="{limit}" aria-live="polite">
  <span class="prompt-trouble"></span>
</p>
<details class="prompt-draws" data-page="{page}" data-field="{field}" open hidden>
  <summary></summary>
  <ol></ol>
</details>
<p class="prompt-unknown" data-page="{page}" data-field="{field}" role="status" hidden></p>
"""
WORDS = '<div class="prompt-words" data-page="{page}" hidden></div>'
"""What the embedded model draws, for ``static/vocabulary.js``."""


def build_prompt(page: str, field: str, catalog: Catalog, **overrides: Any) -> gr.Textbox:
    """Lays out a prompt's box with its help in the open page."""
    box: gr.Textbox = form.make_control(page, field, catalog, **overrides)
    place = field.replace(".", "-")
    below = HELP + (WORDS if field == "prompt" else "") + (pasted.NOTICE if field == place else "")
    gr.HTML(below.format(page=page, field=place, limit=MAX_PROMPT_CHARACTERS), elem_classes="prompt-below")
    return box


def build_examples(page: str, texts: Sequence[str], box: gr.Textbox) -> None:
    """Prompts to begin with. A click writes one into the box within the browser, before Generate can be pressed."""
    samples = [[text] for text in texts]
    examples = gr.Dataset(components=[box], samples=samples, type="index", label="Try one", elem_id=f"{page}-examples")
    js = f"(index) => {json.dumps(texts)}[index]"
    examples.click(None, examples, box, js=js, api_visibility="private", show_progress="hidden")
