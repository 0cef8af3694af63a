"""The seed in sight: a line beside Generate while it is fixed, and the buttons that set it."""

import gradio as gr

NOTE = """
<div class="seed-note" data-page="{page}" hidden>
  <span role="status"></span> <button type="button">New seed</button>
</div>
"""


def build_note(page: str) -> gr.Button:
    """Lays the line out in the open page, for ``static/seed.js``; returns what its button presses."""
    gr.HTML(NOTE.format(page=page), label="Seed", padding=False)
    return gr.Button("New seed", elem_id=f"{page}-seed-new", elem_classes="unseen")


def wire(new: gr.Button, random: gr.Button, seed: gr.Number) -> None:
    """Both buttons make the seed of the next picture a new one."""
    clicks = [new.click, random.click]
    gr.on(clicks, None, None, seed, js="() => -1", api_visibility="private", show_progress="hidden")
