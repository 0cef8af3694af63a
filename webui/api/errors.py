"""Errors as JSON: ``{"error": ..., "detail": ...}``, 4xx for the caller's fault, never a traceback."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from webui.core.executor import QueueFull
from webui.core.request import RequestError


def _answer(status: int, error: str, detail: str) -> JSONResponse:
    return JSONResponse({"error": error, "detail": detail}, status_code=status)


async def _bad_input(_request: Request, error: Exception) -> JSONResponse:
    return _answer(422, "bad input", str(error))


async def _bad_body(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return _answer(422, "bad input", f"{where}: {first['msg']}")


async def _queue_full(_request: Request, error: Exception) -> JSONResponse:
    return _answer(503, "busy", str(error))


def add_error_answers(app: FastAPI) -> None:
    """Gives the whole application these answers."""
    app.add_exception_handler(RequestError, _bad_input)
    app.add_exception_handler(RequestValidationError, _bad_body)
    app.add_exception_handler(QueueFull, _queue_full)
