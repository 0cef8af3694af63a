"""Gradio's web application, with something of ours in front of it."""

from collections.abc import Callable
from typing import Any

from gradio.routes import App, ORJSONResponse
from starlette.types import ASGIApp


class Application(App):
    """``wrap(app, application)`` gives what stands before all middleware, Gradio's own too, from the first request on.

    Gradio 6.31 puts what its ``launch`` is given behind its own middleware, which answers other sites.
    """

    def __init__(self, wrap: Callable[[ASGIApp, "Application"], ASGIApp], **options: Any) -> None:
        self._wrap = wrap
        super().__init__(default_response_class=ORJSONResponse, **options)

    def build_middleware_stack(self) -> ASGIApp:
        return self._wrap(super().build_middleware_stack(), self)
