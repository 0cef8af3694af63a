"""The frame of a fold with cards to choose from; ``static/panel.js`` fills it."""

import gradio as gr

FRAME = """
<div class="panel {kind}" data-page="{page}">
  {above}
  <div class="panel-tools">
    <input type="search" placeholder="Search {things}" aria-label="Search {things}">
    <button type="button" data-act="reload">{reload}</button>
  </div>
  <ul class="panel-found {kind}-found" aria-label="{title} to choose from"></ul>
  <p class="panel-note {kind}-note" role="status"></p>
</div>
"""


def build_panel(page: str, kind: str, things: str, above: str, reload: str = "Refresh") -> None:
    """Lays it out in the open page; ``above`` is our own HTML over the search box."""
    title = things[:1].upper() + things[1:]
    with gr.Accordion(title, open=False, elem_id=f"{page}-{kind.removesuffix('s')}-panel"):
        gr.HTML(FRAME.format(page=page, kind=kind, things=things, title=title, above=above, reload=reload))
