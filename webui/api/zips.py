"""Pictures as one zip, made while it is sent: never all of it in memory."""

import threading
import weakref
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from fastapi import HTTPException
from fastapi.responses import StreamingResponse

from webui.core.visitor import Visitor

BLOCK_BYTES = 2**20
MOST_AT_ONCE = 2
AGAIN_S = 10


class Zips:
    """Those that are on their way, of which a guest has a few at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: Counter[str] = Counter()

    def answer(self, visitor: Visitor, files: Iterable[tuple[Path, str]], name: str) -> StreamingResponse:
        """The files under these names, as a download called ``name``; HTTPException 429 for one too many."""
        with self._lock:
            if not visitor.is_owner and self._sent[visitor.id] >= MOST_AT_ONCE:
                detail = f"{MOST_AT_ONCE} of your downloads are on their way; wait until one is done"
                raise HTTPException(429, detail, {"Retry-After": str(AGAIN_S)})
            self._sent[visitor.id] += 1
        pieces = zipped(files)
        weakref.finalize(pieces, self._end, visitor.id)  # also where nobody reads it to its end
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        return StreamingResponse(pieces, media_type="application/zip", headers=headers)

    def _end(self, visitor_id: str) -> None:
        with self._lock:
            self._sent[visitor_id] -= 1
            if not self._sent[visitor_id]:
                del self._sent[visitor_id]


class _Sink:
    """What a zip is written to, and taken from in pieces."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        self._held += data
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken = bytes(self._held)
        self._held.clear()
        return taken


def zipped(files: Iterable[tuple[Path, str]]) -> Iterator[bytes]:
    """The files under these names as a zip, in pieces; pictures are packed as they are. What went meanwhile is left
    out."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for path, name in files:
            try:
                with path.open("rb") as file, archive.open(zipfile.ZipInfo.from_file(path, name), "w") as entry:
                    while block := file.read(BLOCK_BYTES):
                        entry.write(block)
                        yield sink.take()
            except FileNotFoundError:
                continue
    yield sink.take()
