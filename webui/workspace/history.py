"""The pictures that were made, to be looked through: an index that is only ever made from the files themselves.

The pictures, ``favourites.txt`` and ``.trash`` in the folder of outputs are the truth. The index (SQLite) may be lost
at any time, and several processes may share it.
"""

import json
import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from webui.core.disk import move_file, replace_file
from webui.workspace.index import WRITE, Index
from webui.workspace.picture_files import MAX_INTEGER, describe, identify, plain_text, scan

log = logging.getLogger(__name__)

MAX_PAGE = 500
BATCH = 50  # files a transaction: what is read shows soon, and no other process waits long
LOOK_S = 0.08  # what a search may spend on reading new files
KNOWN = "SELECT path, mtime_ns, size_bytes FROM pictures"


class HistoryError(Exception):
    """The index or a file cannot be used now; the message says why."""


@contextmanager
def _worded_errors() -> Iterator[None]:
    """What the index and the file system say, as a HistoryError."""
    try:
        yield
    except sqlite3.Error as error:
        raise HistoryError(f"the index of pictures cannot be used: {error}") from None
    except OSError as error:
        raise HistoryError(f"the pictures cannot be used: {error.strerror}") from None


@dataclass(frozen=True)
class Picture:
    """One file. ``id`` is random, ``mtime_ns`` is when it was made; without a recipe, prompt and model are ""."""

    id: str
    path: Path
    mtime_ns: int
    size_bytes: int
    width: int
    height: int
    prompt: str
    model: str
    loras: tuple[str, ...]
    favourite: bool

    @property
    def cursor(self) -> str:
        """Where a page that begins after this picture begins."""
        return f"{self.mtime_ns}-{self.id}"


@dataclass(frozen=True)
class Filter:
    """Which pictures: all words of ``query`` in the prompt or the file's name; exact names; both days count."""

    query: str = ""
    model: str = ""
    lora: str = ""
    first_day: date | None = None
    last_day: date | None = None
    favourites: bool = False


@dataclass(frozen=True)
class Page:
    """Newest first. ``total`` fit in all, ``unread`` files are not in the index yet, ``next`` begins the next page."""

    pictures: tuple[Picture, ...]
    total: int
    unread: int
    next: str | None
    models: tuple[str, ...] = field(default=())
    loras: tuple[str, ...] = field(default=())


class History:
    """The pictures below ``folder``, with their index in ``cache_dir``. Making one touches no file."""

    def __init__(self, folder: Path, cache_dir: Path) -> None:
        self._folder = folder
        self._index = Index(cache_dir / "history.sqlite")
        self._favourites_seen: object = None
        self._worker = threading.Lock()

    # finding

    @_worded_errors()
    def search(self, wanted: Filter, before: str = "", limit: int = 60) -> Page:
        """The pictures that fit, from the newest or after a cursor on; raises HistoryError.

        A first page looks for new files. Where reading them would take long, a thread goes on with it.
        """
        unread = 0
        if not self._folder.is_dir():  # nothing was ever saved, and no index is made for that
            return Page((), 0, 0, None)
        if not before:
            unread = self.refresh(LOOK_S)
            if unread:
                self._read_behind()
        terms, values = _conditions(wanted)
        place: str = ""
        at: list[Any] = []
        if match := re.fullmatch(r"(-?[0-9]{1,19})-([0-9a-f]{24})", before):
            mtime_ns = max(-MAX_INTEGER, min(int(match[1]), MAX_INTEGER))
            place, at = " AND (mtime_ns, id) < (?, ?)", [mtime_ns, match[2]]
        limit = max(1, min(limit, MAX_PAGE))

        def read(db: sqlite3.Connection) -> Page:
            total = db.execute(f"SELECT count(*) FROM pictures WHERE {terms}", values).fetchone()[0]
            order = "ORDER BY mtime_ns DESC, id DESC LIMIT ?"
            rows = db.execute(f"SELECT * FROM pictures WHERE {terms}{place} {order}", [*values, *at, limit + 1])
            found = [self._picture(row) for row in rows]
            after = found[limit - 1].cursor if len(found) > limit else None
            models = db.execute("SELECT DISTINCT model FROM pictures WHERE model != '' ORDER BY 1").fetchall()
            loras = db.execute("SELECT DISTINCT value FROM pictures, json_each(loras) ORDER BY 1").fetchall()
            names = (tuple(name for (name,) in map(tuple, rows)) for rows in (models, loras))
            return Page(tuple(found[:limit]), total, unread, after, *names)

        return self._index.read(read)

    @_worded_errors()
    def find(self, picture_id: str) -> Picture | None:
        """The picture of this id; None where there is none, or its file is gone."""
        row = self._index.read(lambda db: db.execute("SELECT * FROM pictures WHERE id = ?", [picture_id]).fetchone())
        picture = self._picture(row) if row else None
        return picture if picture and picture.path.is_file() else None

    @_worded_errors()
    def identities(self) -> list[tuple[Path, int, int]]:
        """Path, time in ns and bytes of every picture in the index; raises HistoryError."""
        return self._index.read(lambda db: [(self._folder / path, *rest) for path, *rest in db.execute(KNOWN)])

    # the index

    @_worded_errors()
    def refresh(self, budget_s: float = float("inf")) -> int:
        """Brings the index up to date, newest files first, and returns how many are still to be read.

        Others may do the same at the same time: what was known is asked before the folder is, so that nobody takes a
        file for gone that has come since.
        """
        deadline = time.monotonic() + budget_s
        known: dict[str, tuple[int, int]] = self._index.read(
            lambda db: {row[0]: (row[1], row[2]) for row in db.execute(KNOWN)}
        )
        files = dict(scan(self._folder))
        gone = [[path] for path in known if path not in files]
        new = sorted((path for path in files if known.get(path) != files[path]), key=lambda path: -files[path][0])
        if gone:
            self._index.write(lambda db: db.executemany("DELETE FROM pictures WHERE path = ?", gone))
        self._read_favourites()
        rows: list[dict[str, Any]] = []
        for unread, path in zip(reversed(range(len(new))), new, strict=True):
            rows.append(describe(self._folder, path, *files[path]))
            is_late = time.monotonic() >= deadline
            if len(rows) == BATCH or is_late or not unread:
                self._add(rows)
                rows = []
            if is_late:
                return unread
        return 0

    def _read_behind(self) -> None:
        """Reads what is unread in a thread, of which there is one at a time."""

        def work() -> None:
            try:
                while self.refresh(1.0):
                    time.sleep(0.02)  # whoever draws comes first
            except HistoryError as error:
                log.warning("the pictures could not all be read: %s", error)
            finally:
                self._worker.release()

        if self._worker.acquire(blocking=False):
            threading.Thread(target=work, name="history", daemon=True).start()

    def _add(self, rows: list[dict[str, Any]]) -> None:
        favourites = self._favourites()
        for row in rows:
            row["favourite"] = row["path"] in favourites
        self._index.write(lambda db: db.executemany(WRITE, rows))

    def _picture(self, row: Mapping[str, Any]) -> Picture:
        values = {name: row[name] for name in ("id", "mtime_ns", "size_bytes", "width", "height", "prompt", "model")}
        loras = tuple(json.loads(row["loras"]))
        return Picture(**values, path=self._folder / row["path"], loras=loras, favourite=bool(row["favourite"]))

    # favourites

    @_worded_errors()
    def set_favourite(self, picture: Picture, favourite: bool) -> None:
        """Writes it down beside the pictures; raises HistoryError."""
        name = picture.path.relative_to(self._folder).as_posix()
        self._edit_favourites(lambda names: names | {name} if favourite else names - {name})

    def _edit_favourites(self, edit: Callable[[set[str]], set[str]]) -> None:
        """Reads, edits and writes the file while nobody else does: the index's write lock is the lock of the file."""

        def write(db: sqlite3.Connection) -> None:
            before = self._favourites()
            after = edit(before)
            if after != before:
                text = "".join(f"{name}\n" for name in sorted(after))
                replace_file(self._folder / "favourites.txt", text.encode())
            for name in after ^ before:
                db.execute("UPDATE pictures SET favourite = ? WHERE path = ?", [name in after, name])

        self._index.write(write)

    def _favourites(self) -> set[str]:
        try:
            return set((self._folder / "favourites.txt").read_text("utf-8", "replace").split("\n")) - {""}
        except FileNotFoundError:
            return set()

    def _read_favourites(self) -> None:
        """Takes over what another process or a person wrote into the file since the last look."""
        seen = None
        with suppress(OSError):
            state = (self._folder / "favourites.txt").stat()
            seen = (state.st_mtime_ns, state.st_size)
        if seen == self._favourites_seen:
            return
        names = json.dumps(sorted(self._favourites()))
        self._index.write(
            lambda db: db.execute("UPDATE pictures SET favourite = path IN (SELECT value FROM json_each(?))", [names])
        )
        self._favourites_seen = seen

    # deleting

    @_worded_errors()
    def delete(self, picture: Picture) -> None:
        """Moves the file to ``.trash/<id>/<its path>``; raises HistoryError."""
        name = picture.path.relative_to(self._folder).as_posix()
        move_file(picture.path, self._folder / ".trash" / picture.id / name)
        self._edit_favourites(lambda names: _renamed(names, name, f".trash/{picture.id}/{name}"))
        self._index.write(lambda db: db.execute("DELETE FROM pictures WHERE path = ?", [name]))

    @_worded_errors()
    def restore(self, picture_id: str) -> Picture | None:
        """Moves a deleted file back, beside one that has taken its name; None where no such file was deleted.

        Raises HistoryError. The trash alone is asked, so that this works without an index too.
        """
        trash = self._folder / ".trash" / picture_id
        if not re.fullmatch(r"[0-9a-f]{24}", picture_id) or not trash.is_dir():
            return None
        name = next((name for name, _ in scan(trash)), None)
        if name is None:
            return None
        path = move_file(trash / name, self._folder / name)
        for folder, _, _ in os.walk(trash, topdown=False):
            with suppress(OSError):  # something else was put there
                os.rmdir(folder)
        back = path.relative_to(self._folder).as_posix()
        self._edit_favourites(lambda names: _renamed(names, f".trash/{picture_id}/{name}", back))
        row = describe(self._folder, back, *identify(path.stat())) | {"id": picture_id}
        row["favourite"] = back in self._favourites()

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM pictures WHERE path = ?", [back])  # where it was found already it has another id
            db.execute(WRITE, row)

        self._index.write(write)
        return self.find(picture_id)


def _conditions(wanted: Filter) -> tuple[str, list[Any]]:
    """The text after WHERE, and its values. Files that are no pictures have a width of 0: they are known, not shown."""
    terms: list[str] = ["width > 0"]
    values: list[Any] = []
    for term, value in (
        ("model = ?", wanted.model),
        ("EXISTS (SELECT 1 FROM json_each(loras) WHERE value = ?)", wanted.lora),
        ("day >= ?", wanted.first_day and wanted.first_day.isoformat()),
        ("day <= ?", wanted.last_day and wanted.last_day.isoformat()),
    ):
        if value:
            terms.append(term)
            values.append(plain_text(value))
    words = plain_text(wanted.query).casefold().split()[:32]
    terms += ["instr(words, ?) > 0"] * len(words)
    if wanted.favourites:
        terms.append("favourite")
    return " AND ".join(terms), values + words


def _renamed(names: set[str], old: str, new: str) -> set[str]:
    return names - {old} | {new} if old in names else names
