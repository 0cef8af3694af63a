"""Errors as JSON: ``{"error": ..., "detail": ...}``, 4xx for the caller's fault, never a traceback.

Below ``/sdapi`` and ``/controlnet`` they have A1111's further keys ``body`` and ``errors`` too. Gradio's own
routes keep Gradio's answers, which its front end and its clients read.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from webui.core.disk import NO_ROOM
from webui.core.errors import RequestError, explain_problem
from webui.jobs.protocols import OverBudget, QueueFull

log = logging.getLogger(__name__)

A1111_PATHS = ("/sdapi/", "/controlnet/")
"""Where programs of A1111's world ask."""
OUR_PATHS = ("/api/", *A1111_PATHS)
SHORT = {
    401: "not logged in",
    404: "not found",
    405: "method not allowed",
    408: "too slow",
    413: "too large",
    429: "too much",
    503: "busy",
    507: "no room",
}


def route_of(scope: Scope) -> str:
    """The path of a request as the routes know it: below the root path, without a slash at its end."""
    path, root = scope["path"], scope.get("root_path", "")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path.removeprefix(root)
    return path.rstrip("/") or "/"


def answer(scope: Scope, status: int, error: str, detail: str, headers: Any = None) -> JSONResponse:
    """An error's answer to the request of ``scope``."""
    further = {"body": "", "errors": detail} if route_of(scope).startswith(A1111_PATHS) else {}
    return JSONResponse({"error": error, "detail": detail} | further, status_code=status, headers=headers)


def _is_ours(request: Request) -> bool:
    return route_of(request.scope).startswith(OUR_PATHS)


async def _bad_input(request: Request, error: Exception) -> Response:
    return answer(request.scope, 422, "bad input", str(error))


async def _bad_body(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if not _is_ours(request):  # without what was sent, which may be no JSON: a number without end, half a letter
        told = [{name: each[name] for name in ("type", "loc", "msg")} for each in error.errors()]
        return JSONResponse({"detail": told}, status_code=422)
    return answer(request.scope, 422, "bad input", _explain(error.errors()[0]))


def _explain(problem: Any) -> str:
    """In our words: FastAPI's place of it begins with ``body``, ``query`` or ``path``."""
    part, *field = problem["loc"]
    if problem["type"] == "json_invalid":
        return f"body is not JSON: {problem['ctx']['error']} (at character {field[0]})"
    if isinstance(problem["input"], bytes):
        return "body must be JSON, with Content-Type: application/json"
    return explain_problem(problem | {"loc": field or [part]})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if not _is_ours(request):
        return await http_exception_handler(request, error)
    short = SHORT.get(error.status_code, "refused")
    return answer(request.scope, error.status_code, short, str(error.detail), error.headers)


async def _queue_full(request: Request, error: Exception) -> Response:
    assert isinstance(error, QueueFull)
    status = 429 if isinstance(error, OverBudget) else 503
    again = {"Retry-After": str(error.again_s)} if error.again_s else None
    return answer(request.scope, status, SHORT[status], str(error), again)


async def _disk_trouble(request: Request, error: Exception) -> Response:
    """A file that somebody sent could not be kept."""
    assert isinstance(error, OSError)
    if (reason := NO_ROOM.get(error.errno or 0)) is None:
        raise error
    log.warning("%s %s: %s", request.method, request.url.path, error)
    detail = f"the server's disk is {reason}, so nothing was kept"
    if not _is_ours(request):
        return PlainTextResponse(detail, status_code=507)
    return answer(request.scope, 507, "no room", detail)


async def _gone(_request: Request, _error: Exception) -> Response:
    """Nobody is there to read it: a client that hangs up in its own body is no news for the log."""
    return Response(status_code=400)


async def _unexpected(request: Request, _error: Exception) -> Response:
    """Starlette writes the traceback to the server's log after this answer."""
    if not _is_ours(request):
        return PlainTextResponse("Internal Server Error", status_code=500)
    return answer(request.scope, 500, "internal error", "this is a fault in the server; its log says more")


# For the application's constructor: handlers added to one that has answered a request already are never asked.
ERROR_ANSWERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    RequestError: _bad_input,
    RequestValidationError: _bad_body,
    HTTPException: _refused,
    QueueFull: _queue_full,
    OSError: _disk_trouble,
    ClientDisconnect: _gone,
    Exception: _unexpected,
}
