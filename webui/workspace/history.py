"""The pictures that were made, to be looked through: an index that is only ever made from the files themselves.

The pictures, ``favourites.txt``, ``boards.json`` and ``.trash`` in the folder of outputs are the truth. The index
(SQLite) may be lost at any time, and several processes may share it.
"""

import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from webui.core.disk import move_file
from webui.workspace import marks
from webui.workspace.index import WRITE, Index
from webui.workspace.marks import FAVOURITE, Marks
from webui.workspace.picture_files import MAX_INTEGER, describe, identify, plain_text, scan
from webui.workspace.reader import KNOWN, Reader
from webui.workspace.search import BY_TIME, ORDERS, Filter, conditions, look_up

MAX_PAGE = 500
MAX_OFFSET = 10**9
BY_ID = "SELECT pictures.* FROM json_each(?) AS asked JOIN pictures ON pictures.id = asked.value ORDER BY asked.key"
BY_PATH = "SELECT path, id FROM pictures WHERE path IN (SELECT value FROM json_each(?))"
IS_FAVOURITE = "EXISTS (SELECT 1 FROM marked WHERE mark = '' AND marked.path = pictures.path) AS favourite"


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
    except marks.MarksError as error:
        raise HistoryError(str(error)) from None


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
        """Where a page of the newest that begins after this picture begins."""
        return f"{self.mtime_ns}-{self.id}"


@dataclass(frozen=True)
class Page:
    """Some of those that fit, in their order. ``total`` fit in all, ``unread`` files are not in the index yet, ``next``
    begins the next page of the newest.

    First pages say more: on which days pictures were made, in the order of the page, and how many on each; all models
    and LoRAs that there are.
    """

    pictures: tuple[Picture, ...]
    total: int
    unread: int
    next: str | None
    models: tuple[str, ...] = field(default=())
    loras: tuple[str, ...] = field(default=())
    days: tuple[tuple[str, int], ...] = field(default=())


@dataclass(frozen=True)
class Overview:
    """How many pictures there are: in all, of the favourites, of grids, and by the sorted names of boards, with why
    these cannot be read."""

    pictures: int
    favourites: int
    grids: int
    boards: Mapping[str, int]
    problem: str = ""


class History:
    """The pictures below ``folder``, with their index in ``cache_dir``. Making one touches no file."""

    def __init__(self, folder: Path, cache_dir: Path) -> None:
        self._folder = folder
        self._index = Index(cache_dir / "history.sqlite")
        self._marks = Marks(folder)
        self._reader = Reader(folder, self._index, self._marks)

    # finding

    @_worded_errors()
    def search(self, wanted: Filter, before: str = "", limit: int = 60, offset: int = 0) -> Page:
        """The pictures that fit, from the first, after ``offset`` of them, or of the newest after a cursor on.

        A first page looks for new files. Where reading them would take long, a thread goes on with it. Raises
        HistoryError, and RequestError for a query that is not understood.
        """
        unread = 0
        terms, values = conditions(wanted)
        if not self._folder.is_dir():  # nothing was ever saved, and no index is made for that
            return Page((), 0, 0, None)
        is_first = not before and not offset
        if is_first:
            unread = self._reader.look()
        place: str = ""
        at: list[Any] = []
        if match := re.fullmatch(r"(-?[0-9]{1,19})-([0-9a-f]{24})", before):
            mtime_ns = max(-MAX_INTEGER, min(int(match[1]), MAX_INTEGER))
            place, at = " AND (mtime_ns, id) < (?, ?)", [mtime_ns, match[2]]
        limit = max(1, min(limit, MAX_PAGE))
        order = f"ORDER BY {ORDERS[wanted.order]} LIMIT ? OFFSET ?"

        def read(db: sqlite3.Connection) -> Page:
            days = _days(db, terms, values, wanted.order) if is_first else ()
            total = sum(count for _, count in days) if days else _count(db, terms, values)
            sql = f"SELECT *, {IS_FAVOURITE} FROM pictures WHERE {terms}{place} {order}"
            rows = db.execute(sql, [*values, *at, limit + 1, min(offset, MAX_OFFSET)])
            found = [self._picture(row) for row in rows]
            after = found[limit - 1].cursor if len(found) > limit and wanted.order == "newest" else None
            return Page(tuple(found[:limit]), total, unread, after, *(_names(db) if is_first else ((), ())), days=days)

        return self._index.read(read)

    @_worded_errors()
    def ids(self, wanted: Filter, offset: int = 0, limit: int = -1) -> list[str]:
        """Of the pictures that fit, in their order; all of them without a limit. Raises as ``search``."""
        terms, values = conditions(wanted)
        sql = f"SELECT id FROM pictures WHERE {terms} ORDER BY {ORDERS[wanted.order]} LIMIT ? OFFSET ?"
        if not self._folder.is_dir():
            return []
        return self._index.read(
            lambda db: [row["id"] for row in db.execute(sql, [*values, limit, min(offset, MAX_OFFSET)])]
        )

    @_worded_errors()
    def overview(self) -> Overview:
        """How many there are of what; raises HistoryError."""
        if not self._folder.is_dir():
            return Overview(0, 0, 0, {})
        marked, problem = self._marks.read()

        def read(db: sqlite3.Connection) -> Overview:
            sql = "SELECT mark, count(*) FROM marked JOIN pictures USING (path) WHERE width > 0 GROUP BY mark"
            counts = {mark: count for mark, count in map(tuple, db.execute(sql))}
            named = {name: counts.get(name, 0) for name in sorted(marks.boards_of(marked), key=str.casefold)}
            grids = _count(db, "width > 0 AND kind = 'grid'", [])
            return Overview(_count(db, "width > 0", []), counts.get(FAVOURITE, 0), grids, named, problem)

        return self._index.read(read)

    def find(self, picture_id: str) -> Picture | None:
        """The picture of this id; None where there is none, or its file is gone. Raises HistoryError."""
        return next(iter(self.find_all([picture_id])), None)

    @_worded_errors()
    def find_all(self, picture_ids: Iterable[str]) -> list[Picture]:
        """The pictures of these ids that are there, in this order; raises HistoryError."""
        if not self._folder.is_dir():
            return []
        asked = json.dumps([*dict.fromkeys(map(plain_text, picture_ids))])
        sql = BY_ID.replace("pictures.*", f"pictures.*, {IS_FAVOURITE}")
        found = self._index.read(lambda db: [self._picture(row) for row in db.execute(sql, [asked])])
        return [picture for picture in found if picture.path.is_file()]

    @_worded_errors()
    def ids_of(self, paths: Iterable[Path]) -> dict[Path, str]:
        """The ids of the pictures at these paths, for those that are here; raises HistoryError."""
        names = {path.relative_to(self._folder).as_posix(): path for path in paths if path.is_relative_to(self._folder)}
        if not names or not self._folder.is_dir():
            return {}
        self._reader.look()
        found = self._index.read(lambda db: [*map(tuple, db.execute(BY_PATH, [json.dumps([*names])]))])
        return {names[name]: picture_id for name, picture_id in found}

    @_worded_errors()
    def identities(self) -> list[tuple[Path, int, int]]:
        """Path, time in ns and bytes of every picture in the index; raises HistoryError."""
        return self._index.read(lambda db: [(self._folder / path, *rest) for path, *rest in db.execute(KNOWN)])

    def name_of(self, picture: Picture) -> str:
        """Its path below the folder."""
        return picture.path.relative_to(self._folder).as_posix()

    def refresh(self, budget_s: float = float("inf"), thorough: bool = False) -> int:
        """Brings the index up to date, and returns how many files are still to be read (``Reader.refresh``)."""
        with _worded_errors():
            return self._reader.refresh(budget_s, thorough)

    def _picture(self, row: Mapping[str, Any]) -> Picture:
        values = {name: row[name] for name in ("id", "mtime_ns", "size_bytes", "width", "height", "prompt", "model")}
        loras = tuple(json.loads(row["loras"]))
        return Picture(**values, path=self._folder / row["path"], loras=loras, favourite=bool(row["favourite"]))

    # what people say of pictures

    def set_favourite(self, picture: Picture, favourite: bool) -> None:
        """Writes it down beside the pictures; raises HistoryError."""
        self.mark([picture], FAVOURITE, favourite)

    def mark(self, pictures: Iterable[Picture], mark: str, has_it: bool) -> None:
        """Puts the pictures on the board of this name or takes them from it, or makes them favourites or not.

        Raises HistoryError, and RequestError where there is no such board.
        """
        self.change_marks(marks.marking(mark, map(self.name_of, pictures), has_it))

    @_worded_errors()
    def change_marks(self, change: marks.Change) -> None:
        """The index's write lock is the lock of the files; raises HistoryError, and what ``change`` raises."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._index.write(lambda db: self._marks.edit(db, change))

    # deleting

    def delete(self, picture: Picture) -> None:
        """Moves the file to ``.trash/<id>/<its path>``; raises HistoryError."""
        self.delete_all([picture])

    @_worded_errors()
    def delete_all(self, pictures: Iterable[Picture]) -> list[Picture]:
        """The same of many; those that are deleted, without files that went meanwhile. Raises HistoryError, after
        what was deleted is noted."""
        deleted: list[Picture] = []
        moved: dict[str, str] = {}
        try:
            for picture in pictures:
                name = self.name_of(picture)
                with suppress(FileNotFoundError):
                    move_file(picture.path, self._folder / ".trash" / picture.id / name)
                    moved[name] = f".trash/{picture.id}/{name}"
                    deleted.append(picture)
        finally:
            self._note_moved(moved, [])
        return deleted

    def restore(self, picture_id: str) -> Picture | None:
        """Moves a deleted file back, beside one that has taken its name; None where no such file was deleted.

        Raises HistoryError. The trash alone is asked, so that this works without an index too.
        """
        return next(iter(self.restore_all([picture_id])), None)

    @_worded_errors()
    def restore_all(self, picture_ids: Iterable[str]) -> list[Picture]:
        """The same of many, without those that are not in the trash; raises HistoryError, after what was restored is
        noted."""
        moved: dict[str, str] = {}
        rows: list[dict[str, Any]] = []
        try:
            for picture_id in dict.fromkeys(picture_ids):
                if (found := self._take_from_trash(picture_id)) is not None:
                    old, back = found
                    moved[old] = back
                    rows.append(describe(self._folder, back, *identify((self._folder / back).stat())))
                    rows[-1]["id"] = picture_id
        finally:
            self._note_moved(moved, rows)
        return self.find_all(row["id"] for row in rows)

    def _take_from_trash(self, picture_id: str) -> tuple[str, str] | None:
        """The old and the new path of a deleted file, below the folder."""
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
        return f".trash/{picture_id}/{name}", path.relative_to(self._folder).as_posix()

    def _note_moved(self, moved: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Files have other paths now; ``rows`` are those that are there again."""
        if not moved:
            return

        def write(db: sqlite3.Connection) -> None:
            paths = [[path] for path in (*moved, *moved.values())]
            db.executemany("DELETE FROM pictures WHERE path = ?", paths)  # one that was found already has another id
            db.executemany(WRITE, rows)
            self._marks.edit(db, marks.moving(moved))

        self._index.write(write)


def _count(db: sqlite3.Connection, terms: str, values: list[Any]) -> int:
    return int(db.execute(f"SELECT count(*) FROM pictures WHERE {terms}", values).fetchone()[0])


def _days(db: sqlite3.Connection, terms: str, values: list[Any], order: str) -> tuple[tuple[str, int], ...]:
    """On which days, in the order of the page, and how many; none where the order is not that of time."""
    if order not in BY_TIME:
        return ()
    sql = f"SELECT day, count(*) FROM pictures WHERE {terms} GROUP BY day ORDER BY day"
    days = [(str(day), int(count)) for day, count in map(tuple, db.execute(sql, values))]
    return tuple(reversed(days) if order == "newest" else days)


def _names(db: sqlite3.Connection) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of all models and all LoRAs."""
    models = look_up(db, "SELECT DISTINCT model FROM pictures WHERE model != ''", lambda text: [text])
    return models, look_up(db, "SELECT DISTINCT loras FROM pictures", json.loads)
