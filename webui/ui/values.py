"""Values on their way between the browser and the page's functions: what cannot be one is refused, and no control is
made anew where nothing of it has changed."""

import inspect
from typing import Any

import gradio as gr
from gradio.components import _Keywords

from webui.core.disk import NO_ROOM
from webui.ui import form
from webui.ui.errors import page_error

UNFIT = "A value that was sent does not fit its field. If the page sent it, load the page again."
PLAIN = (gr.Textbox, gr.Number, gr.Slider, gr.Checkbox, gr.Dropdown)


def pass_values(blocks: gr.Blocks) -> None:
    """Gradio 6.31 takes whatever fails in a control for a fault of the server, with a traceback in its log.

    And for each update that a function gives it makes a control, 0.5 to 1 ms on the event loop, and keeps it for the
    session: also where only the value is another, or nothing at all, as in most of those that a page is opened with.
    """
    preprocess, postprocess = blocks.preprocess_data, blocks.postprocess_data

    async def take(block_fn: Any, inputs: list[Any], *rest: Any, **options: Any) -> list[Any]:
        for control, value in zip(block_fn.inputs, inputs, strict=False):
            several = isinstance(control, gr.Dropdown) and control.multiselect
            if isinstance(control, PLAIN) and not several and isinstance(value, dict | list):
                raise page_error(f"{control.label or 'A field'}: a single value is wanted, not a list or an object.")
        try:
            values: list[Any] = await preprocess(block_fn, inputs, *rest, **options)
        except gr.Error as error:
            raise error if not error.print_exception else page_error(str(error.message)) from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            raise page_error(UNFIT) from None
        return [_as_text(control, value) for control, value in zip(block_fn.inputs, values, strict=True)]

    async def give(block_fn: Any, predictions: Any, state: Any) -> list[Any]:
        if not isinstance(predictions, list | tuple) or len(block_fn.outputs) < 2:
            return await postprocess(block_fn, predictions, state)
        skipped = [_is_update(value, {"__type__"}) for value in predictions]
        lightened = [
            _Keywords.FINISHED_ITERATING  # what is left out
            if is_skipped
            else value["value"]
            if _is_update(value, {"__type__", "value"})
            else value
            for is_skipped, value in zip(skipped, predictions, strict=True)
        ]
        told = await postprocess(block_fn, lightened, state)
        return [gr.skip() if is_skipped else value for is_skipped, value in zip(skipped, told, strict=True)]

    blocks.preprocess_data = take  # type: ignore[method-assign]
    blocks.postprocess_data = give  # type: ignore[method-assign]


def check_event(fn: Any, event: Any) -> None:
    """Raises the page's error where the function is to be told what was selected, and that was not sent."""
    wanted = [parameter.annotation for parameter in inspect.signature(fn).parameters.values()]
    told = getattr(event, "_data", None)
    if gr.SelectData in wanted and not (isinstance(told, dict) and {"index", "value"} <= told.keys()):
        raise page_error(UNFIT)


def _as_text(control: Any, value: Any) -> Any:
    """What a control for text holds is text. What is checked as a request says itself what it must be."""
    if value is None:
        return "" if isinstance(control, gr.Textbox) else None
    holds_text = isinstance(control, gr.Textbox) or (
        isinstance(control, gr.Dropdown) and all(isinstance(choice, str) for _, choice in control.choices)
    )
    is_checked = type(control).__module__ == form.__name__
    return str(value) if holds_text and not is_checked and isinstance(value, bool | int | float) else value


def _is_update(value: Any, names: set[str]) -> bool:
    return isinstance(value, dict) and value.get("__type__") == "update" and value.keys() == names
