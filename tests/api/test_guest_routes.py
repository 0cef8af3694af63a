"""Every route and every function of the page is decided on: whether guests have it. What is new here fails."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from gradio.routes import App

from webui.api.guests import GUESTS_MAY, may_ask
from webui.api.host import Host
from webui.api.login import Login
from webui.api.seen import Seen
from webui.app import routers
from webui.core.hosting import Hosting
from webui.core.settings import Settings
from webui.jobs.executor import LocalExecutor
from webui.ui import asking, layout
from webui.ui.application import Application
from webui.workspace.preferences import PreferenceStore
from webui.workspace.workspace import Workspaces

OWNERS = {
    *("GET /openapi.json", "GET /api/openapi.json", "GET /api/metrics", "GET /api/models/hash", "GET /sdapi/v1/memory"),
    "GET /api/models/memory",
    *(f"POST /sdapi/v1/refresh-{what}" for what in ("vae", "embeddings", "loras", "checkpoints")),
    *(f"{method} /sdapi/v1/{{path:path}}" for method in ("GET", "POST", "PUT", "DELETE")),
    *("GET /monitoring", "GET /monitoring/summary", "GET /monitoring/{key}"),
    *("GET /host", "GET /host/static/{name}", "GET /api/host", "PATCH /api/host", "POST /api/host/stop"),
    *("POST /api/host/guests/{guest}/stop", "PUT /api/host/guests/{guest}/ban", "DELETE /api/host/guests/{guest}/ban"),
    *("GET /api/models/files", "PUT /api/models/files", "POST /api/models/files/check"),
    *("GET /api/models/additions", "POST /api/models/additions", "DELETE /api/models/additions/{addition_id}"),
    "POST /api/models/additions/{addition_id}/again",
    *("GET /api/settings", "PATCH /api/settings"),
    # Gradio's own, which no page of ours asks for
    *("GET /gradio_api/deep_link", "GET /gradio_api/token", "GET /gradio_api/dev/reload", "GET /gradio_api/runs"),
    *("POST /gradio_api/run-history/connect", "GET /gradio_api/run-history/buckets"),
    *("GET /gradio_api/run-history/records", "GET /gradio_api/openapi.json", "GET /gradio_api/proxy={url_path:path}"),
    "GET /gradio_api/run-history/records/{endpoint}/{record_id}/assets/{asset_id}",
    "GET /gradio_api/custom_component/{id}/{environment}/{type}/{file_name}",
    *("POST /gradio_api/stream/{event_id}", "POST /gradio_api/stream/{event_id}/close"),
    "GET /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8",
    "GET /gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}",
    "GET /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file",
    *("POST /gradio_api/api/{api_name}", "POST /gradio_api/component_server"),
    *("GET /gradio_api/queue/status", "POST /gradio_api/process_recording", "POST /gradio_api/vibe-edit"),
    *("POST /gradio_api/undo-vibe-edit", "GET /gradio_api/vibe-code", "POST /gradio_api/vibe-code"),
    "POST /gradio_api/vibe-starter-queries",
}
"""Routes that are not there for guests."""
OWNERS_FUNCTIONS: frozenset[str] = frozenset()
"""Functions of the page that are not there for guests."""


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Iterator[Application]:
    """The whole server, but for the sockets."""
    settings = Settings(device="cpu", data_dir=tmp_path_factory.mktemp("data"))
    executor = LocalExecutor(settings)
    workspaces = Workspaces(settings.data_dir, preferences=PreferenceStore(settings))
    host = Host(Hosting(), executor, Seen(), workspaces.sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("shown")))
        app = Application(lambda inner, _: inner)
        for router in routers(settings, executor, workspaces, Login(app), host):
            app.include_router(router)
        App.create_app(layout.build_page(executor, workspaces.here), app=app)
        yield app
    executor.close()


def routes(found: Any, prefix: str = "") -> Iterator[str]:
    """``METHOD path`` of each route, without a slash at the end, as the guard sees it."""
    for route in found:
        if hasattr(route, "original_router"):
            yield from routes(route.original_router.routes, prefix + route.include_context.prefix)
        else:
            path = (prefix + route.path if not route.path.startswith(prefix) else route.path).rstrip("/") or "/"
            yield from (f"{method} {path}" for method in route.methods - {"HEAD"})


def example(route: str) -> tuple[str, str]:
    """A request that this route is for."""
    method, path = route.split(" ")
    return method, re.sub(r"{[^}]*}", "x", path)


def test_each_route_is_for_guests_or_for_the_owner_alone(app):
    found = set(routes(app.routes))
    guests = {f"{method} {path}" for method, paths in GUESTS_MAY.items() for path in paths}
    assert len(found) > 90
    assert found - guests == OWNERS, "decide on new routes: webui/api/guests.py, or OWNERS here"
    assert guests - found == set(), "gone"
    for route in guests:
        assert may_ask(*example(route)), route
    for route in OWNERS:
        assert not may_ask(*example(route)), route
    for method, path in (("GET", "/docs"), ("GET", "/api/new"), ("PATCH", "/api/jobs"), ("", "/"), ("GET", "")):
        assert not may_ask(method, path)


def test_each_function_of_the_page_is_for_guests_or_for_the_owner_alone(app):
    functions = [entry.fn for entry in app.get_blocks().fns.values() if entry.fn]
    names = {asking.name_of(function) for function in functions}
    assert len(functions) > 40 and not any("lambda" in name for name in names)
    assert names - asking.GUESTS_MAY == OWNERS_FUNCTIONS, "decide on new functions: webui/ui/asking.py"
    assert asking.GUESTS_MAY - names == set(), "gone"
