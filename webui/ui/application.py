"""Gradio's web application, with something of ours in front of it."""

import functools
import secrets
import threading
from collections import ChainMap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cachetools import LRUCache, TTLCache
from fastapi import Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from gradio import Blocks, route_utils
from gradio.route_utils import API_PREFIX, FnIndexInferError
from gradio.routes import App, ORJSONResponse, templates
from gradio.state_holder import SessionState, StateHolder
from jinja2 import BaseLoader, Environment
from starlette.types import ASGIApp

from webui import languages
from webui.compat import with_light_walks
from webui.core.visitor import asking
from webui.ui.page_files import KeptFiles
from webui.workspace.served import served_dir

LOGIN = Path(__file__).resolve().parent / "static" / "login.js"
MANIFEST = ('href="/manifest.json"', 'href="manifest.webmanifest"')
"""Gradio's own names the root of the server, also where the page is below a path, and is empty."""
THEME = "<link rel='preload' as='style' fetchpriority='high' href='theme.css?v={{ config.get('theme_hash') }}'>"
"""Gradio's script asks for it late, and shows nothing before it has come."""
OWN_HEAD = "{{% if not config.get('auth_required') %}}{{{{ request.app.{} | safe }}}}{{% endif %}}"
"""Gradio's ``head`` comes with the page's configuration, and so twice: its script puts it in place."""
VALUES = "{{{{ {} | toorjson }}}}"
PARSED = "JSON.parse({{{{ {} | toorjson | string | toorjson }}}})"
"""Half a megabyte of values takes a browser a fraction as a text of JSON of what it takes as a program."""
FOR_PROGRAMS = ("api_info", "api_info_as_input", "api_info_as_output", "example_inputs")
MOST_SESSIONS = 10_000
MOST_PAGES = 16


class Application(App):
    """``session_s`` is how long a login lasts, in seconds.

    ``wrap(app, application)`` gives what stands before all middleware, Gradio's own too, from the first request on.

    Gradio 6.31 puts what its ``launch`` is given behind its own middleware, which answers other sites.
    """

    def __init__(
        self, wrap: Callable[[ASGIApp, "Application"], ASGIApp], session_s: float = 3600.0, **options: Any
    ) -> None:
        self._wrap = wrap
        self._sessions: TTLCache[str, str] = TTLCache(MOST_SESSIONS, session_s)
        if not isinstance(templates.env.loader, WithNonces):
            templates.env.filters["for_page"] = _for_page
            templates.env.loader = WithNonces(templates.env.loader)
        handlers = NOT_CALLED | options.pop("exception_handlers", {})
        super().__init__(default_response_class=ORJSONResponse, exception_handlers=handlers, **options)
        self.first, self.last = "", ""  # what the document's head begins and ends with
        self.state_holder = Visitors()

    @property
    def tokens(self) -> Any:
        """Who has logged in, by what their cookie says. Gradio's own would last until the server's end."""
        return self._sessions

    @tokens.setter
    def tokens(self, _value: object) -> None: ...

    @property
    def uploaded_file_dir(self) -> str:
        """Where Gradio puts uploads and serves files from: the part of whoever asks."""
        return str(served_dir(Path(self._uploads), asking()))

    @uploaded_file_dir.setter
    def uploaded_file_dir(self, folder: str) -> None:
        self._uploads = folder

    def get(self, path: str, *args: Any, **options: Any) -> Any:
        """The page itself is kept ready: making it takes Gradio a quarter of a second of Python each time."""
        decorate = super().get(path, *args, **options)
        return (lambda make: decorate(_kept(make, self))) if path == "/" else decorate

    def build_middleware_stack(self) -> ASGIApp:
        return self._wrap(KeptFiles(super().build_middleware_stack()), self)


async def _not_called(request: Request, error: Exception) -> Response:
    """Gradio 6.31 looks functions and their inputs up by what it was sent, and has no answer where there are none."""
    if not any(f"{API_PREFIX}/{route}" in request.url.path for route in ("run/", "call/", "queue/join")):
        raise error
    return JSONResponse({"detail": "There is no such function, or none with these values."}, status_code=404)


NOT_CALLED: dict[Any, Any] = dict.fromkeys((FnIndexInferError, KeyError, TypeError), _not_called)


def name_no_host() -> None:
    """Addresses of files that pages show begin with the root path alone.

    Gradio 6.31 puts a host before it, the one that the proxy said, which mostly is the server's own: browsers that
    came through the proxy do not reach it, or take it for another site.
    """
    route_utils.get_root_url = lambda request, route_path, root_path: str(root_path)


def _kept(make: Callable[..., Any], app: App) -> Callable[..., Any]:
    """The page as ``make`` makes it, once for each address that it is asked under and each name that is logged in.

    The nonce of its scripts is another one each time. Who asks while it is made waits for it.
    """
    ready: LRUCache[tuple[str, str | None], list[bytes]] = LRUCache(MOST_PAGES)
    mark, making = secrets.token_urlsafe(16), threading.Lock()

    @functools.wraps(make)
    def page(request: Request, user: str | None = None, **_others: str) -> Any:
        nonce = request.state.nonce
        key = route_utils.get_root_url(request, "/", app.root_path or request.scope.get("root_path")), user
        with making:
            if (parts := ready.get(key)) is None:
                scope = {**request.scope, "query_string": b"", "state": {**request.scope["state"], "nonce": mark}}
                with with_light_walks():
                    document = make(Request(scope, request.receive), user).body
                parts = ready[key] = document.split(mark.encode())
        return HTMLResponse(nonce.encode().join(parts))

    return page


def _for_page(config: dict[str, Any]) -> dict[str, Any]:
    """The page's configuration without what programs alone read of components, a quarter of it."""
    components = [{key: part[key] for key in part if key not in FOR_PROGRAMS} for part in config["components"]]
    return {**config, "components": components}


class WithNonces(BaseLoader):
    """Gradio's pages, whose inline scripts carry the nonce that the policy of the answer names, with our own head."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def get_source(self, environment: Environment, template: str) -> Any:
        source, *rest = self._loader.get_source(environment, template)
        login = f"{{% if config.get('auth_required') %}}<script>{LOGIN.read_text('utf-8')}</script>{{% endif %}}</head>"
        source = source.replace("</head>", f"{OWN_HEAD.format('last')}{login}", 1).replace(*MANIFEST)
        source = source.replace("<style>", f"{THEME}{OWN_HEAD.format('first')}<style>", 1)
        for name, said in (("config", "config | for_page"), ("gradio_api_info", "gradio_api_info")):
            source = source.replace(VALUES.format(name), PARSED.format(said), 1)
        source = source.replace("window.gradio_api_info", f"{languages.choose()}\nwindow.gradio_api_info", 1)
        return source.replace("<script", '<script nonce="{{ request.state.nonce }}"'), *rest


class Visitor(SessionState):
    """What is kept of one visitor: not what they sent, which Gradio 6.31 keeps for links that the guard refuses, and of
    the page only the controls that are others for them, where Gradio keeps two lists of all (50 KB)."""

    def __init__(self, blocks: Blocks) -> None:
        without_values: Any = SimpleNamespace(default_config=blocks.default_config, blocks=())
        super().__init__(without_values)
        own: Any = self.blocks_config
        own.blocks = ChainMap({}, blocks.default_config.blocks)
        own.fns = blocks.default_config.fns

    def __setitem__(self, key: int, value: Any) -> None:
        super().__setitem__(key, value)
        self.config_values = {}

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


class Visitors(StateHolder):
    """All visitors, by the name that their browser made up."""

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = Visitor(self.blocks)
        return super().__getitem__(session_id)
