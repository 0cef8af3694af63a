"""Gradio's web application, with something of ours in front of it."""

from collections.abc import Callable
from typing import Any

from gradio import route_utils
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


def name_no_host() -> None:
    """Addresses of files that pages show begin with the root path alone.

    Gradio 6.31 puts a host before it, the one that the proxy said, which mostly is the server's own: browsers that
    came through the proxy do not reach it, or take it for another site.
    """
    route_utils.get_root_url = lambda request, route_path, root_path: str(root_path)
