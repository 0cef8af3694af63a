"""A file from an address: begun, broken off, gone on with, also by a later process, and checked.

What has come lies beside the file's place as ``.NAME.part``, with what is known of it in ``.NAME.part.json``.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from webui.core.disk import lock, replace_file
from webui.core.errors import RequestError, show
from webui.core.tensor_file import START_BYTES
from webui.library.adding.incoming import Incoming, NoRoom, Place, Shelves, Taken
from webui.library.adding.sites import SHA256, TOKENS, Source, find_source
from webui.library.adding.web import Answer, Cut, Web, WebError, host_of

PART, NOTE = ".part", ".part.json"
CHUNK_BYTES = 2**20
MOST_TRIES = 6
"""In a row without a byte."""


class Stopped(Exception):
    """Somebody ended it."""


@dataclass(frozen=True)
class Note:
    """What is kept of a file that has come in part: its address, name and size, and by what the server knows it."""

    url: str
    name: str
    size_bytes: int
    version: str = ""


@dataclass(frozen=True)
class LeftOver:
    """A file of which a part has come."""

    note: Note
    part: Path

    @property
    def received(self) -> int:
        with suppress(OSError):
            return self.part.stat().st_size
        return 0

    def drop(self) -> None:
        """It is gone; raises OSError."""
        self.part.unlink(missing_ok=True)
        _note_path(self.part).unlink(missing_ok=True)


def find_left_over(shelves: Shelves) -> Iterator[LeftOver]:
    """All files of which a part has come."""
    for folder in shelves.folders.values():
        for path in sorted(folder.glob(f".*{NOTE}")):
            part = path.with_name(path.name.removesuffix(NOTE) + PART)
            with suppress(OSError, ValueError, TypeError):
                note = Note(**json.loads(path.read_text("utf-8")))
                if part.is_file():
                    yield LeftOver(note, part)


class Fetching:
    """One file from the address ``url``; ``name`` and ``sha256`` are what it is to be called and to be, where given.

    ``pause_s`` says how long to wait before a further try, by its number.
    """

    def __init__(
        self,
        shelves: Shelves,
        web: Web,
        url: str,
        name: str = "",
        sha256: str = "",
        pause_s: Callable[[int], float] = lambda tries: min(2.0**tries, 30.0),
    ) -> None:
        self._shelves, self._web, self._url, self._name, self._sha256 = shelves, web, url, name, sha256
        self._pause_s, self._stopped = pause_s, threading.Event()
        self._version = self._linked = ""
        self._answer: Answer | None = None
        self.incoming: Incoming | None = None
        self.checked_by = ""

    def stop(self) -> None:
        """``run`` raises Stopped soon, and what has come is gone; from any thread."""
        self._stopped.set()
        if answer := self._answer:
            answer.close()

    def run(self) -> tuple[Place, str]:
        """The file's place and its SHA-256 when it is there; raises WebError, RequestError, OSError and Stopped."""
        try:
            self._check_stopped()
            source = find_source(self._url, self._web)
            self._take_left_over()
            tries = 0
            while self._is_to_come():
                before = self._received
                try:
                    self._receive(source)
                except Cut:
                    self._check_stopped()
                    tries = 1 if self._received > before else tries + 1
                    if tries > (MOST_TRIES if self._received else 1):
                        raise
                    self._stopped.wait(self._pause_s(tries))
                self._check_stopped()
            return self._finish(source)
        except (NoRoom, Taken):
            raise
        except (RequestError, Stopped):
            self._drop()
            raise
        finally:
            if self.incoming:
                self.incoming.close()

    @property
    def _received(self) -> int:
        return self.incoming.received if self.incoming else 0

    def _is_to_come(self) -> bool:
        return self.incoming is None or self.incoming.received < self.incoming.size_bytes

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise Stopped

    def _take_left_over(self) -> None:
        """Goes on with what an earlier try has left of the same address."""
        for left in find_left_over(self._shelves):
            if left.note.url != self._url or self._name not in ("", left.note.name) or not left.received:
                continue
            file = _open_locked(left.part)
            start = file.read(START_BYTES)
            try:
                needed = self._shelves.needed_bytes(left.note.name, start, left.note.size_bytes)
                start += file.read(max(0, needed - len(start)))
                place = self._shelves.find_place(left.note.name, start[:needed], left.note.size_bytes)
            except RequestError:  # damaged: all of it comes again
                file.close()
                left.drop()
                continue
            file.seek(0)
            self.incoming = self._make_incoming(left.note.name, left.note.size_bytes)
            self.incoming.resume(file, left.part, place)
            self._version = left.note.version
            self._shelves.check_free(place, left.note.size_bytes - self.incoming.received)
            return

    def _receive(self, source: Source) -> None:
        """Writes what comes of one answer; raises Cut where that is not all."""
        headers = {}
        if self._received and self._version:
            headers = {"Range": f"bytes={self._received}-", "If-Range": self._version}
        self._answer = answer = self._web.open(source.url, headers)
        try:
            self._check_stopped()
            self._check_answer(answer)
            linked = next((head["x-linked-etag"].strip('"') for head in answer.passed if "x-linked-etag" in head), "")
            self._linked = linked if SHA256.fullmatch(linked) else ""
            if not self._goes_on(answer):
                self._begin(answer)
            assert self.incoming
            while data := answer.read(CHUNK_BYTES):
                self._check_stopped()
                self.incoming.write(data)
        finally:
            answer.close()
        if self._is_to_come():
            raise Cut(f"{host_of(source.url)} ended the connection early.")

    def _check_answer(self, answer: Answer) -> None:
        host = host_of(answer.url)
        if answer.status == 416:  # what has come is more than there is: it is another file now
            self._drop()
            raise Cut(f"{host} has another file there now.")
        if answer.status in (401, 403):
            names = next((name for name, hosts in TOKENS.items() if host in hosts), "")
            hint = f" Accept the model's terms on its page, and start Darkroom with {names}." if names else ""
            raise WebError(f"{host} wants a login for this file (status {answer.status}).{hint}")
        if answer.status in (404, 410):
            raise WebError(f"There is no such file at {host} (status {answer.status}).")
        if answer.status == 429 or answer.status >= 500:
            raise Cut(f"{host} cannot send the file now (status {answer.status}).")
        if answer.status not in (200, 206):
            raise WebError(f"{host} answers with status {answer.status}.")
        if answer.headers.get("content-type", "").startswith("text/html"):
            raise WebError(f"{host} sent a web page and no file; the download may need a login.")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise WebError(f"{host} sent the file packed, so that its size is not known.")

    def _goes_on(self, answer: Answer) -> bool:
        """Whether the answer is the rest of what has come: of the same version, from the same place on."""
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("content-range", ""))
        is_rest = answer.status == 206 and found is not None and self.incoming is not None
        if is_rest and (int(found[1]), int(found[2])) == (self._received, self.incoming.size_bytes):  # type: ignore
            return True
        if answer.status == 206:
            self._drop()
            raise Cut(f"{host_of(answer.url)} sent another part than was asked for.")
        return False

    def _begin(self, answer: Answer) -> None:
        """Makes ready for all of the file."""
        self._drop()
        size = answer.headers.get("content-length", "")
        if not size.isdecimal():
            raise WebError(f"{host_of(answer.url)} does not say how large the file is.")
        etag = answer.headers.get("etag", "")
        self._version = etag if etag and not etag.startswith("W/") else answer.headers.get("last-modified", "")
        name = self._shelves.check_name(self._name or _name_of(self._url, answer))
        self.incoming = self._make_incoming(name, int(size))

    def _make_incoming(self, name: str, size_bytes: int) -> Incoming:
        return Incoming(self._shelves, name, size_bytes, self._open_part)

    def _open_part(self, place: Place) -> tuple[IO[bytes], Path]:
        part = place.path.with_name(f".{place.path.name}{PART}")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        file = _open_locked(part)
        file.truncate(0)
        note = Note(self._url, place.path.name, place.size_bytes, self._version)
        replace_file(_note_path(part), json.dumps(asdict(note)).encode())
        return file, part

    def _finish(self, source: Source) -> tuple[Place, str]:
        assert self.incoming
        ways = ((self._sha256, "you"), (self._linked, "Hugging Face"), (source.sha256(self.incoming.name), "Civitai"))
        wanted, by = next((way for way in ways if way[0]), ("", ""))
        place, sha256 = self.incoming.finish(wanted)
        self.checked_by = by
        if self.incoming.part:
            _note_path(self.incoming.part).unlink(missing_ok=True)
        return place, sha256

    def _drop(self) -> None:
        """Nothing of what has come is left."""
        if self.incoming:
            if self.incoming.part:
                with suppress(OSError):
                    _note_path(self.incoming.part).unlink(missing_ok=True)
            self.incoming.drop()
            self.incoming = None


def _note_path(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(PART) + NOTE)


def _open_locked(part: Path) -> IO[bytes]:
    """The part, to be read and written; RequestError where something else writes it. Raises OSError."""
    file = part.open("r+b")
    if not lock(file):
        file.close()
        raise Busy(f"{show(part.name[1:].removesuffix(PART))} is on its way already.")
    return file


class Busy(WebError):
    """Another download writes the file."""


def _name_of(url: str, answer: Answer) -> str:
    """What the server calls the file, else what the address does; without what no disk takes."""
    message = Message()
    message["content-disposition"] = answer.headers.get("content-disposition", "")
    ways = (urlsplit(address).path for address in (url, answer.url))
    names = (message.get_filename() or "", *(unquote(way.rpartition("/")[2]) for way in ways))
    cleaned = [re.sub(r"[/\\:*?\"<>|\x00-\x1f\x7f-\x9f]", "_", name).strip(" .") for name in names]
    return next((name for name in cleaned if Path(name).suffix.lower() in ENDINGS), next(filter(None, cleaned), ""))


ENDINGS = (".safetensors", ".gguf", ".onnx", ".pt", ".pth")
