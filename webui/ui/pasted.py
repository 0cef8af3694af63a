"""Settings pasted into a prompt's box, as civitai and A1111 copy them: noticed, and applied when asked."""

import html
from collections.abc import Sequence
from typing import Any

import gradio as gr

from webui.interop.picture_info import read_text
from webui.jobs.protocols import Executor
from webui.ui import fills

NOTICE = """
<p class="pasted" data-page="{page}" data-field="{field}" role="status" hidden>
  This looks like settings. <button type="button">Apply them</button>
</p>
"""
"""Below a box, for ``static/pasted.js``."""


def apply_text(executor: Executor, fields: Sequence[str], field: str, text: str) -> dict[str, Any]:
    """What the text in the box ``field`` says for the page's ``fields``, with the seed, which is in sight."""
    info = read_text(text, executor.catalog())
    for line in info.unmapped:
        gr.Warning(html.escape(line))
    if not info.values:
        return {}
    values = {field: "", **info.values}  # the text goes out of its box in any case
    return fills.from_picture(values, fields, executor.catalog(), with_seed=True)
