"""Who asks, for the page's functions: Gradio runs them away from the request that asked for them."""

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr

from webui.core.errors import BAD_INPUT
from webui.core.visitor import NOBODY, Visitor, asked_by
from webui.ui.errors import page_error
from webui.ui.values import check_event

GUESTS_MAY = frozenset(
    {
        "approximations.wire.tell",
        "fills.Fills.fill",
        "jobs.Handlers.cancel",
        "jobs.Handlers.follow",
        "jobs.Handlers.look_back",
        "jobs.Handlers.send",
        "jobs.wire.draw",
        "layout._wire_opening.restore",
        "models.wire_reload.reload",
        "png_info.build_tab.check_picture",
        "png_info.build_tab.show",
        "workbench._wire_pictures.select",
        "workbench.wire_verify.check_picture",
        "pages.upscale._wire_gallery.compare",
        "pages.upscale._wire_gallery.select",
    }
)
"""The functions that guests may call, as ``name_of`` names them: a new one is the owner's until it stands here."""


def name_of(function: Callable[..., Any]) -> str:
    """Module and name of a function of the page, below ``webui.ui``."""
    while isinstance(function, functools.partial):
        function = function.func
    name = f"{function.__module__}.{function.__qualname__}".replace(".<locals>", "")
    return name.removeprefix("webui.ui.")


def pass_on(blocks: gr.Blocks) -> None:
    """Whatever a function of the page does, it does for the visitor whose request it came with, if they may have it."""
    process: Any = blocks.process_api

    async def process_for_visitor(block_fn: Any, *args: Any, request: Any = None, **options: Any) -> dict[str, Any]:
        first = request[0] if isinstance(request, list) and request else request
        scope = getattr(getattr(first, "request", None), "scope", {})
        visitor: Visitor = scope.get("visitor", NOBODY)
        called = blocks.fns[block_fn] if isinstance(block_fn, int) else block_fn
        try:
            if called.fn is None or not (visitor.is_owner or name_of(called.fn) in GUESTS_MAY):
                raise page_error("There is no such function.")
            check_event(called.fn, options.get("event_data"))
            with asked_by(visitor):
                answer: dict[str, Any] = await process(block_fn, *args, request=request, **options)
        except gr.Error:
            scope.setdefault("state", {})[BAD_INPUT] = True
            raise
        return answer

    blocks.process_api = process_for_visitor  # type: ignore[method-assign]
