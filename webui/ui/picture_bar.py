"""What a page shows of its pictures, and the bar under them: what a script does by itself is here and in
``static/picture.js``, what the server does with the picture is a button of Gradio beside it."""

from collections.abc import Mapping

import gradio as gr

TOOLS = """
<h2 class="visually-hidden">The picture</h2>
<button type="button" data-act="large" data-page="{page}" title="Large view (F)">Large</button>
<button type="button" data-act="compare" data-page="{page}" title="Compare with the one before (C)">Compare</button>
<button type="button" data-act="favourite" data-page="{page}" aria-pressed="false">Favourite</button>
<button type="button" data-act="download" data-page="{page}">Download</button>
{fills}
"""
LAST_TOOLS = """
<button type="button" data-act="info" data-page="{page}" aria-expanded="false">Info</button>
<button type="button" data-act="delete" data-page="{page}">Delete</button>
<p class="picture-note" data-page="{page}" role="status"></p>
"""


FILL = '<button type="button" id="{page}-{name}">{label}</button>'
"""What fills a page's fields from the picture, by ``static/fills.js``."""
REUSE = {"reuse-settings": "Reuse", "reuse-seed": "With seed", "vary": "Vary"}


def build_gallery(page: str) -> gr.Gallery:
    """Lays it out in the open page. How high it is, the style says."""
    return gr.Gallery(
        label="Pictures",
        elem_id=f"{page}-gallery",
        show_label=False,
        interactive=False,
        preview=True,
        columns=4,
        object_fit="contain",
        height="100%",
        buttons=[],
    )


def build_infotext(page: str) -> gr.Textbox:
    """The settings of the chosen picture, which Info shows."""
    return gr.Textbox(
        label="Settings of this picture",
        elem_id=f"{page}-infotext",
        elem_classes="infotext",
        interactive=False,
        lines=3,
        max_lines=12,
        buttons=["copy"],
    )


def build_tools(page: str, fills: Mapping[str, str]) -> gr.Button:
    """The bar's buttons in the open row; ``fills`` are those that fill fields, by the ends of their ids. Returns
    Verify, the one that needs a function of the page."""
    buttons = "\n".join(FILL.format(page=page, name=name, label=label) for name, label in fills.items())
    tools = TOOLS.format(page=page, fills=buttons)
    gr.HTML(tools, label="The picture", padding=False, elem_classes="picture-tools")
    verify = gr.Button("Verify", size="sm", elem_id=f"{page}-verify", min_width=0)
    gr.HTML(LAST_TOOLS.format(page=page), label="The picture", padding=False, elem_classes="picture-tools")
    return verify
