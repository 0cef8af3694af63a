"""How large the body of a request may be, by route, and how slow; counted as it comes, whatever its head says."""

import asyncio
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

MB = 2**20
UPLOAD_BYTES = 256 * MB  # of all files of a batch; Gradio sees to each file's own limit, on its way to the disk
PICTURES_BYTES = 32 * MB  # as text a picture takes a third more
OTHER_BYTES = 64 * 2**10
PATIENCE_S = 20.0  # what a body may take beside its bytes
LEAST_BYTES_S = 4096  # of a slow line; slower ones would hold their places for hours
MAX_VALUES = 100_000  # a body of nothing but brackets would hold the server for seconds and fill its memory


@dataclass(frozen=True)
class Limit:
    """Of bytes, and of values where the body is JSON."""

    max_bytes: int
    max_values: int | None = MAX_VALUES


PICTURES = Limit(PICTURES_BYTES)
LIMITS = {
    "/gradio_api/upload": Limit(UPLOAD_BYTES, None),
    "/gradio_api/queue/join": PICTURES,  # painted masks
    "/gradio_api/call": PICTURES,
    "/gradio_api/run": PICTURES,
    "/api/info": Limit(20 * MB, None),  # the picture itself, as large as the page takes it
    "/api/jobs": PICTURES,
    "/api/controls": PICTURES,
    "/api/models/files": Limit(2**50, None),  # the owner's models; the disk is their limit
    "/api/presets": Limit(4 * MB),  # A1111's styles.csv
    "/api/history": Limit(4 * MB, 2 * MAX_VALUES),  # ids of pictures
    "/controlnet": PICTURES,
    "/sdapi": PICTURES,
}
OTHERS = Limit(OTHER_BYTES)


def limit_of(path: str) -> Limit:
    """The limit for a route and what is below it."""
    return next((limit for route, limit in LIMITS.items() if path == route or path.startswith(f"{route}/")), OTHERS)


def refusal(headers: Headers, limit: Limit) -> str | None:
    """Why a body whose head tells its length is too large, or None."""
    told = headers.get("content-length", "")
    return _too_large(limit) if told.isdecimal() and int(told) > limit.max_bytes else None


def counted(receive: Receive, limit: Limit) -> Receive:
    """``receive`` that raises HTTPException, 413 once more has come than may, 408 where it comes too slowly.

    Only the time counts in which somebody waits for it.
    """
    size = values = 0
    waited_s = 0.0
    is_whole = False

    async def receive_counted() -> Message:
        nonlocal size, values, waited_s, is_whole
        clock = asyncio.get_running_loop().time
        began_s = clock()
        try:
            async with asyncio.timeout(None if is_whole else PATIENCE_S + size / LEAST_BYTES_S - waited_s):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, "the rest of the request came too slowly, or not at all") from None
        waited_s += clock() - began_s
        if message["type"] == "http.request":
            part: bytes = message.get("body", b"")
            is_whole = not message.get("more_body", False)
            size += len(part)
            if size > limit.max_bytes:
                raise HTTPException(413, _too_large(limit))
            if limit.max_values is not None:
                values += part.count(b",") + part.count(b"[") + part.count(b"{")
                if values > limit.max_values:
                    raise HTTPException(413, f"the request has too many values; the limit is {limit.max_values}")
        return message

    return receive_counted


def _too_large(limit: Limit) -> str:
    size = f"{limit.max_bytes // MB} MB" if limit.max_bytes >= MB else f"{limit.max_bytes // 2**10} kB"
    return f"the request is too large; the limit is {size}"
