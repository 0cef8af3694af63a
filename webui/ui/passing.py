"""What a script hands the server with an event, instead of a field's value."""

from weakref import WeakKeyDictionary

import gradio as gr

_boxes: WeakKeyDictionary[gr.Blocks, gr.Textbox] = WeakKeyDictionary()


def box() -> gr.Textbox:
    """Stands among an event's inputs for what the event's script returns in its place.

    It is never shown and holds nothing, so that one does for all events of a page.
    """
    blocks = gr.context.Context.root_block
    assert blocks is not None
    if blocks not in _boxes:
        _boxes[blocks] = gr.Textbox(visible=False)
    return _boxes[blocks]
