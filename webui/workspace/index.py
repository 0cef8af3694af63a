"""The SQLite file behind the history: threads and processes share it, and it is made anew when it is lost."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")

SCHEMA = 2
PATIENCE_S = 10  # for another process that writes
RETRY_S = 60.0
CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
UNWRITABLE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)
COLUMNS = {
    **{"path": "TEXT PRIMARY KEY", "folder": "TEXT NOT NULL", "id": "TEXT NOT NULL UNIQUE"},
    **{"mtime_ns": "INTEGER NOT NULL", "size_bytes": "INTEGER NOT NULL", "day": "TEXT NOT NULL"},
    **{"width": "INTEGER NOT NULL", "height": "INTEGER NOT NULL", "prompt": "TEXT NOT NULL", "words": "TEXT NOT NULL"},
    **{"negative": "TEXT NOT NULL", "model": "TEXT NOT NULL", "loras": "TEXT NOT NULL", "kind": "TEXT NOT NULL"},
    **{"sampler": "TEXT NOT NULL", "schedule": "TEXT NOT NULL", "steps": "INTEGER", "guidance": "REAL"},
    **{"seed": "INTEGER", "strength": "REAL"},
}
"""Of the table of pictures. Settings that are numbers are NULL where a picture does not say them."""
TABLES = {
    "pictures": f"({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})",
    # ``mtime_ns`` of a folder all of whose files are in the index, as it was before they were listed; else NULL
    "folders": "(path TEXT PRIMARY KEY, mtime_ns INTEGER)",
    # what ``marks`` reads out of its files; a path may be of a picture that is not there now
    "marked": "(mark TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (path, mark)) WITHOUT ROWID",
    "marks_read": "(state TEXT NOT NULL)",
}
# Files that are no pictures have a width of 0: they are known, not shown.
INDEXES = {
    "newest": "pictures (mtime_ns, id) WHERE width > 0",
    "largest": "pictures (width * height, mtime_ns, id) WHERE width > 0",
    "alphabet": "pictures (prompt = '', substr(words, 1, 64), mtime_ns, id) WHERE width > 0",
    "days": "pictures (day) WHERE width > 0",
    "kinds": "pictures (kind) WHERE width > 0",
    **{"places": "pictures (folder)", "models": "pictures (model)", "adapters": "pictures (loras)"},
    "marks": "marked (mark)",
}
_KEPT = ("path", "id")  # of a file that was known under this path
WRITE = f"""
INSERT INTO pictures VALUES ({", ".join(f":{name}" for name in COLUMNS)})
ON CONFLICT (path) DO UPDATE SET {", ".join(f"{name} = :{name}" for name in COLUMNS if name not in _KEPT)}
"""


class Index:
    """The file at ``path``, or for as long as that cannot be written one in memory. Making one touches no file."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._memory: sqlite3.Connection | None = None
        self._retry_at = 0.0

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` returns, which may be asked twice; raises sqlite3.Error, and what ``work`` raises.

        An index that is corrupt is thrown away first. On a disk that is full or read-only, it goes on in memory.
        """
        if self._memory is None:
            try:
                return self._on_disk(work)
            except sqlite3.OperationalError as error:
                if _code(error) not in UNWRITABLE:
                    raise
                reason = error
        with self._lock:
            if self._memory is None:
                log.warning("the index of pictures cannot be written (%s) and is kept in memory", reason)
                self._memory, self._retry_at = self._copy(), self._clock() + RETRY_S
            elif self._clock() >= self._retry_at and self._write_back(self._memory):
                self._memory = None
                return self._on_disk(work)
            return work(self._memory)

    def write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """One transaction, which keeps other threads and processes from writing meanwhile; raises as ``read``."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            with db:
                work(db)

        self.read(write)

    def _on_disk(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._work(work)
        except sqlite3.DatabaseError as error:
            if _code(error) not in CORRUPT:
                raise
            log.warning("the index of pictures cannot be read (%s); it is made anew from the files", error)
        with suppress(OSError):
            for ending in ("", "-wal", "-shm"):
                Path(f"{self._path}{ending}").unlink(missing_ok=True)
        return self._work(work)

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with suppress(OSError):  # SQLite says what is wrong
            self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=PATIENCE_S, isolation_level=None)) as db:
            _prepare(db)
            db.execute("PRAGMA synchronous = OFF")  # what a crash of the machine loses is made anew
            if not _is_current(db):
                _begin_anew(db)
            return work(db)

    def _copy(self) -> sqlite3.Connection:
        """An index in memory with what can be read of the file, so that pictures keep their ids."""
        memory = sqlite3.connect("file::memory:", uri=True, isolation_level=None, check_same_thread=False)
        _prepare(memory)
        _begin_anew(memory)
        with suppress(sqlite3.Error):
            memory.execute("ATTACH ? AS disk", [f"{self._path.absolute().as_uri()}?immutable=1"])
            if memory.execute("PRAGMA disk.user_version").fetchone()[0] == SCHEMA:
                for table in TABLES:
                    memory.execute(f"INSERT INTO {table} SELECT * FROM disk.{table}")
            memory.execute("DETACH disk")
        return memory

    def _write_back(self, memory: sqlite3.Connection) -> bool:
        """Whether the file is now what the index in memory is."""
        kept = {table: [tuple(row) for row in memory.execute(f"SELECT * FROM {table}")] for table in TABLES}

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            with db:
                for table, rows in kept.items():
                    db.execute(f"DELETE FROM {table}")
                    if rows:
                        db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)

        try:
            self._on_disk(write)
        except sqlite3.Error:
            self._retry_at = self._clock() + RETRY_S
            return False
        return True


def _prepare(db: sqlite3.Connection) -> None:
    db.row_factory = sqlite3.Row
    db.create_function("folded", 1, str.casefold, deterministic=True)  # SQLite's lower() knows ASCII alone


def _code(error: sqlite3.Error) -> int:
    """SQLite's own, without its details."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_current(db: sqlite3.Connection) -> bool:
    return bool(db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA)


def _begin_anew(db: sqlite3.Connection) -> None:
    """An empty index, unless another process has just made it."""
    with suppress(sqlite3.OperationalError):  # that process holds it; then it does this
        db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    with db:
        if not _is_current(db):
            for table, columns in TABLES.items():
                db.execute(f"DROP TABLE IF EXISTS {table}")
                db.execute(f"CREATE TABLE {table} {columns}")
            for name, place in INDEXES.items():
                db.execute(f"CREATE INDEX {name} ON {place}")
            db.execute(f"PRAGMA user_version = {SCHEMA}")
