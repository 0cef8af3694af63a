"""Who asks, for the page's functions: Gradio runs them away from the request that asked for them."""

from typing import Any

import gradio as gr

from webui.core.visitor import NOBODY, Visitor, asked_by


def pass_on(blocks: gr.Blocks) -> None:
    """Whatever a function of the page does, it does for the visitor whose request it came with."""
    process: Any = blocks.process_api

    async def process_for_visitor(*args: Any, request: Any = None, **options: Any) -> dict[str, Any]:
        with asked_by(_visitor_of(request)):
            answer: dict[str, Any] = await process(*args, request=request, **options)
            return answer

    blocks.process_api = process_for_visitor  # type: ignore[method-assign]


def _visitor_of(request: Any) -> Visitor:
    """Of Gradio's request, which holds the one that came over HTTP."""
    scope = getattr(getattr(request, "request", None), "scope", {})
    visitor: Visitor = scope.get("visitor", NOBODY)
    return visitor
