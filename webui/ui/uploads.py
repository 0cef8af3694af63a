"""What the page's functions get of this machine's files: what their visitor has uploaded or is shown, nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from webui.core.disk import is_below
from webui.core.visitor import asking
from webui.ui.errors import page_error
from webui.workspace.served import served_dir


def take_only_uploads(blocks: gr.Blocks) -> None:
    """Every function of the page refuses files that are not the visitor's uploads, before anything opens them.

    Gradio 6.31 looks at the paths of some components only, and fetches addresses. The refusal is the same whether
    there is such a file or not.
    """
    preprocess, folder = blocks.preprocess_data, Path(blocks.GRADIO_CACHE)

    async def check(block_fn: Any, inputs: list[Any], *rest: Any, **options: Any) -> list[Any]:
        for control, value in zip(block_fn.inputs, inputs, strict=False):
            for path in _paths(value):
                check_upload(path, folder, control.label)
        values: list[Any] = await preprocess(block_fn, inputs, *rest, **options)
        return values

    blocks.preprocess_data = check  # type: ignore[method-assign]


def check_upload(path: object, folder: Path, label: str | None) -> None:
    """Raises the page's error where it is no file that the visitor has uploaded or is shown, in their part of
    ``folder``."""
    if not is_below(path, served_dir(folder, asking())):
        raise page_error(f"{label or 'The file'}: only an uploaded file is taken; upload it here first.")


def _paths(value: Any) -> Iterator[object]:
    """The paths of all files that were sent for one control, however they are nested; None for one without a path."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            if found.get("path") is not None or found.get("url") is not None:
                yield found.get("path")
            waiting += found.values()
        elif isinstance(found, list | tuple):
            waiting += found
