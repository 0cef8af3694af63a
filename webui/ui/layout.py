"""The page around the tabs: theme, header, script."""

from pathlib import Path

import gradio as gr

from webui.core.executor import Executor
from webui.ui.pages import PAGES

STATIC = Path(__file__).resolve().parent / "static"
TITLE = "Darkroom"
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
HEADER = """
<header class="darkroom-header">
  <h1>Darkroom</h1>
  <span id="darkroom-engine" class="engine" data-status="loading" role="status">Starting ...</span>
  <button id="darkroom-theme" type="button" aria-label="Switch between dark and light">◐</button>
</header>
<div id="darkroom-announcer" class="visually-hidden" aria-live="polite"></div>
"""


def theme() -> gr.themes.Base:
    """Built-in fonts and colours only: nothing is fetched from elsewhere."""
    return gr.themes.Base(
        primary_hue="orange",
        neutral_hue="stone",
        radius_size="lg",
        font=FONTS,
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )


def build_page(executor: Executor) -> gr.Blocks:
    """The whole page over one executor; the caller launches it."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as blocks:
        gr.HTML(HEADER)
        with gr.Tabs(elem_id="darkroom-tabs"):
            for page in PAGES:
                with gr.Tab(page.name, id=page.name, elem_id=f"tab-{page.name}"):
                    page.build(executor)
    return blocks


def head() -> str:
    """Script and style for the document's head: keys, memory of the fields, the engine's status, our own look."""
    script, style = ((STATIC / name).read_text("utf-8") for name in ("page.js", "style.css"))
    return (
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<script>{script}</script><style>{style}</style>"
    )
