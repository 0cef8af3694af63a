"""Settings pasted into a prompt's box, as civitai and A1111 copy them: noticed, and applied when asked."""

import html
from collections.abc import Mapping
from typing import Any

import gradio as gr

from webui.interop.picture_info import read_text
from webui.jobs.protocols import Executor
from webui.ui import fills, passing

NOTICE = """
<p class="pasted" data-page="{page}" data-field="{field}" role="status" hidden>
  This looks like settings. <button type="button">Apply them</button>
</p>
"""


def build_notice(page: str, field: str) -> None:
    """Lays the notice out below a box, for ``static/pasted.js``."""
    gr.HTML(NOTICE.format(page=page, field=field), label="Pasted settings", padding=False, elem_classes="pasted-place")


def wire(page: str, fields: Mapping[str, Any], chosen: gr.Textbox, size: gr.Dropdown, executor: Executor) -> None:
    """The button of the notice fills the page's fields with what the text says, with the seed, which is in sight."""
    apply = gr.Button("Apply the pasted settings", elem_id=f"{page}-pasted", elem_classes="unseen")

    def apply_text(field: str, text: str) -> list[Any]:
        info = read_text(text, executor.catalog())
        for line in info.unmapped:
            gr.Warning(html.escape(line))
        if not info.values:
            return [gr.skip()] * (len(fields) + 2)
        values = {field: "", **info.values}  # the text goes out of its box in any case
        return fills.from_picture(values, fields, executor.catalog(), with_seed=True)

    asked = [passing.box(), passing.box()]
    filled = [*fields.values(), chosen, size]
    js = f"() => darkroomPasted.take('{page}')"
    fills.wire(page, "pasted", apply.click, apply_text, asked, filled, js=js, all_fields=True)
