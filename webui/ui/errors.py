"""What went wrong, as the page's message."""

import html

import gradio as gr


def page_error(message: str) -> gr.Error:
    """The message to raise. Gradio shows messages as HTML, and they hold people's words: here they are text."""
    return gr.Error(html.escape(message, quote=False), print_exception=False)
