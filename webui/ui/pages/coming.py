"""A tab that says what it will hold."""

import html
from collections.abc import Callable

import gradio as gr

from webui.core.executor import Executor


def build(name: str, purpose: str) -> Callable[[Executor], None]:
    """A page whose only content is the notice."""

    def build_notice(_executor: Executor) -> None:
        gr.HTML(
            f'<div class="preview-empty"><strong>{html.escape(name)}</strong>{html.escape(purpose)} Coming next.</div>'
        )

    return build_notice
