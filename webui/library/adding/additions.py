"""All files that are on their way in, from addresses and from other places of this machine, and how far each is."""

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256 as hash_bytes
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal
from urllib.parse import urlsplit

from webui.core.disk import NO_ROOM
from webui.core.errors import RequestError
from webui.core.settings import Settings
from webui.core.tensor_file import START_BYTES
from webui.library.adding.fetching import CHUNK_BYTES, Fetching, LeftOver, Stopped, find_left_over
from webui.library.adding.incoming import Incoming, Place, Shelves
from webui.library.adding.sites import SHA256, tokens_from
from webui.library.adding.web import Web, WebError, check_address

State = Literal["running", "done", "failed", "stopped"]

AT_ONCE = 3
MOST_KEPT = 50
SPEED_S = 10.0
"""Over so long the speed is taken."""
OFFLINE = "Nothing is fetched: this server was started with --offline or HF_HUB_OFFLINE. Give a file on this machine."


@dataclass
class Addition:
    """One file on its way; ``act`` brings it and gives its place and its SHA-256, "" where that was not taken.

    ``source`` is for people: an address without what may be secret in it, or a path.
    """

    source: str
    asked: tuple[str, str, str]
    id: str = field(default_factory=lambda: token_hex(16))
    state: State = "running"
    incoming: Callable[[], Incoming | None] = lambda: None
    stop: Callable[[], None] = lambda: None
    place: Place | None = None
    sha256: str = ""
    checked_by: str = ""
    problem: str = ""
    field_: str = ""
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))


class Additions:
    """Those of one process. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        web: Web | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shelves, self.is_offline = Shelves(settings), settings.offline
        self._web, self._clock = web or Web(tokens_from(os.environ)), clock
        self._all: dict[str, Addition] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(AT_ONCE, "additions")

    def add(self, source: str, name: str = "", sha256: str = "") -> Addition:
        """Begins to bring a file from an address or a path; raises RequestError for what can be seen at once."""
        source, sha256 = source.strip().strip('"'), sha256.strip()
        if sha256 and not SHA256.fullmatch(sha256):
            raise RequestError("A SHA-256 has 64 digits from 0 to f.", field="sha256")
        if name:
            name = self.shelves.check_name(name)
        if not source:
            raise RequestError("Give the path of a file, or an https address.", field="source")
        addition = Addition(shown(source), (source, name, sha256.lower()))
        act = self._fetching(addition) if "://" in source else self._copying(addition)
        with self._lock:
            if any(other.asked[0] == source and other.state == "running" for other in self._all.values()):
                raise RequestError("This is on its way already.", field="source")
            self._all[addition.id] = addition
            for key in [key for key, one in self._all.items() if one.state != "running"][:-MOST_KEPT]:
                del self._all[key]
        self._threads.submit(self._run, addition, act)
        return addition

    def again(self, addition_id: str, name: str = "") -> Addition:
        """Once more what failed, under another name where one is given, or goes on with what another process left.

        Raises RequestError and LookupError.
        """
        if one := self._all.get(addition_id):
            if one.state == "running":
                raise RequestError("This is on its way already.")
            asked = one.asked
        else:
            note = self._left(addition_id).note
            asked = (note.url, note.name, "")
        new = self.add(asked[0], name or asked[1], asked[2])
        self._all.pop(addition_id, None)
        return new

    def remove(self, addition_id: str) -> None:
        """Stops it, and takes away what has come of it, but for a file that is in its place; raises LookupError."""
        if one := self._all.get(addition_id):
            if one.state == "running":
                one.stop()
                return
            del self._all[addition_id]
            for left in find_left_over(self.shelves):
                if left.note.url == one.asked[0]:
                    left.drop()
            return
        self._left(addition_id).drop()

    def show(self) -> list[dict[str, Any]]:
        """What is on its way, has come or failed, and what earlier processes left, each as JSON."""
        shown_ones = [self.describe(one) for one in list(self._all.values())]
        urls = {one.asked[0] for one in self._all.values()}
        return shown_ones + [_describe_left(left) for left in find_left_over(self.shelves) if left.note.url not in urls]

    def describe(self, one: Addition) -> dict[str, Any]:
        """One of them: bytes, speed in bytes a second, seconds left where they can be told."""
        incoming = one.incoming()
        place = one.place or (incoming.place if incoming else None)
        received = incoming.received if incoming else (place.size_bytes if place and one.state == "done" else 0)
        size = place.size_bytes if place else incoming.size_bytes if incoming else 0
        speed = self._speed(one, received) if one.state == "running" else 0.0
        return {
            "id": one.id,
            "source": one.source,
            "state": one.state,
            "name": place.path.name if place else incoming.name if incoming else one.asked[1],
            "kind": place.kind if place else "",
            "about": place.about if place else "",
            "path": str(place.path) if place else "",
            "received_bytes": received,
            "size_bytes": size,
            "bytes_s": round(speed),
            "left_s": round((size - received) / speed) if speed else None,
            "sha256": one.sha256,
            "checked_by": one.checked_by,
            "problem": one.problem,
            "field": one.field_,
        }

    def _speed(self, one: Addition, received: int) -> float:
        now_s = self._clock()
        one.samples.append((now_s, received))
        while len(one.samples) > 2 and now_s - one.samples[0][0] > SPEED_S:
            one.samples.popleft()
        first_s, first = one.samples[0]
        return (received - first) / (now_s - first_s) if now_s > first_s and received > first else 0.0

    def _run(self, one: Addition, act: Callable[[], tuple[Place, str]]) -> None:
        try:
            place, sha256 = act()
        except Stopped:
            self._all.pop(one.id, None)
            return
        except (RequestError, WebError) as error:
            one.problem, one.field_ = str(error), getattr(error, "field", "")
            one.state = "failed"
        except OSError as error:
            reason = NO_ROOM.get(error.errno or 0)
            one.problem = f"The disk is {reason}." if reason else f"It could not be written: {error.strerror or error}."
            one.state = "failed"
        else:
            one.place, one.sha256 = place, sha256
            one.state = "done"

    def _fetching(self, one: Addition) -> Callable[[], tuple[Place, str]]:
        if self.is_offline:
            raise RequestError(OFFLINE, field="source")
        try:
            check_address(one.asked[0])
        except WebError as error:
            raise RequestError(str(error), field="source") from None
        fetching = Fetching(self.shelves, self._web, *one.asked)
        one.incoming, one.stop = lambda: fetching.incoming, fetching.stop

        def act() -> tuple[Place, str]:
            found = fetching.run()
            one.checked_by = fetching.checked_by
            return found

        return act

    def _copying(self, one: Addition) -> Callable[[], tuple[Place, str]]:
        path = _existing(one.asked[0])
        copying = Copying(self.shelves, path, one.asked[1] or path.name, one.asked[2])
        one.incoming, one.stop = lambda: copying.incoming, copying.stopped.set
        return copying.run

    def _left(self, addition_id: str) -> LeftOver:
        found = next((left for left in find_left_over(self.shelves) if _left_id(left) == addition_id), None)
        if found is None:
            raise LookupError(addition_id)
        return found


class Copying:
    """A file of this machine: a second name for it on the same disk, which takes no room; a copy on another."""

    def __init__(self, shelves: Shelves, path: Path, name: str, sha256: str = "") -> None:
        self._shelves, self._path, self._sha256 = shelves, path, sha256
        self._name = shelves.check_name(name)
        self.stopped = threading.Event()
        self.incoming: Incoming | None = None

    def run(self) -> tuple[Place, str]:
        """The file's place, and its SHA-256 where it was read; raises RequestError, OSError and Stopped."""
        size = self._path.stat().st_size
        with self._path.open("rb") as file:
            start = file.read(START_BYTES)
            needed = self._shelves.needed_bytes(self._name, start, size)
            start += file.read(max(0, needed - len(start)))
        place = self._shelves.find_place(self._name, start[:needed], size)
        if not self._sha256 and self._link(place):
            return place, ""
        return self._copy(size)

    def _link(self, place: Place) -> bool:
        """Whether the disk could give the file a second name."""
        self._shelves.check_free(place, left_bytes=0)
        self._shelves.check_whole(place, self._path)
        place.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self._path, place.path)
        except OSError as error:
            if error.errno == errno.EEXIST:
                self._shelves.check_free(place, left_bytes=0)
            return False
        return True

    def _copy(self, size: int) -> tuple[Place, str]:
        incoming = self.incoming = Incoming(self._shelves, self._name, size)
        try:
            with self._path.open("rb") as file:
                while data := file.read(CHUNK_BYTES):
                    if self.stopped.is_set():
                        raise Stopped
                    incoming.write(data)
            return incoming.finish(self._sha256)
        finally:
            incoming.drop()


def shown(source: str) -> str:
    """A path, or an address without what may be secret in it."""
    if "://" not in source:
        return source
    with suppress(ValueError):
        parts = urlsplit(source)
        return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    return "an address"


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.is_absolute():
        raise RequestError("Give the whole path of the file, or an https address.", field="source")
    try:
        path = path.resolve(strict=True)
        is_folder, is_file = path.is_dir(), path.is_file()
        if is_file:
            path.open("rb").close()
    except (OSError, RuntimeError, ValueError) as error:
        raise RequestError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}.", "source") from None
    if is_folder:
        hint = "start Darkroom with --models-dir and this folder: what is in it is used where it is"
        raise RequestError(f"{path} is a folder; {hint}.", field="source")
    if not is_file:
        raise RequestError(f"{path} is not a file.", field="source")
    return path


def _left_id(left: LeftOver) -> str:
    return hash_bytes(str(left.part).encode()).hexdigest()[:32]


def _describe_left(left: LeftOver) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(("kind", "about", "sha256", "checked_by", "problem", "field"), "")
    path = left.part.with_name(left.note.name)
    return empty | {
        **{"id": _left_id(left), "source": shown(left.note.url), "state": "stopped", "name": left.note.name},
        **{"path": str(path), "received_bytes": left.received, "size_bytes": left.note.size_bytes},
        **{"bytes_s": 0, "left_s": None},
    }
