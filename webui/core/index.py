"""The SQLite file behind the history: threads and processes share it, and it is made anew when it is lost."""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")

SCHEMA = 1
PATIENCE_S = 10  # for another process that writes
CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
TABLE = """
CREATE TABLE pictures (
    path TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, mtime_ns INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
    day TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, prompt TEXT NOT NULL, words TEXT NOT NULL,
    model TEXT NOT NULL, loras TEXT NOT NULL, favourite INTEGER NOT NULL)
"""
WRITE = """
INSERT INTO pictures VALUES (
    :path, :id, :mtime_ns, :size_bytes, :day, :width, :height, :prompt, :words, :model, :loras, :favourite)
ON CONFLICT (path) DO UPDATE SET mtime_ns = :mtime_ns, size_bytes = :size_bytes, day = :day, width = :width,
    height = :height, prompt = :prompt, words = :words, model = :model, loras = :loras
"""


class Index:
    """The file at ``path``. Making one touches no file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` returns. An index that is corrupt is thrown away first, once; raises sqlite3.Error, OSError."""
        try:
            return self._work(work)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in CORRUPT:
                raise
            log.warning("the index of pictures cannot be read (%s); it is made anew from the files", error)
        for ending in ("", "-wal", "-shm"):
            Path(f"{self._path}{ending}").unlink(missing_ok=True)
        return self._work(work)

    def write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """One transaction, which keeps other threads and processes from writing meanwhile; raises as ``read``."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            with db:
                work(db)

        self.read(write)

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=PATIENCE_S, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = OFF")  # what a crash of the machine loses is made anew
            if not _is_current(db):
                _begin_anew(db)
            return work(db)


def _is_current(db: sqlite3.Connection) -> bool:
    return bool(db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA)


def _begin_anew(db: sqlite3.Connection) -> None:
    """An empty index, unless another process has just made it."""
    with suppress(sqlite3.OperationalError):  # that process holds it; then it does this
        db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    with db:
        if not _is_current(db):
            db.execute("DROP TABLE IF EXISTS pictures")
            db.execute(TABLE)
            db.execute("CREATE INDEX newest ON pictures (mtime_ns, id)")
            db.execute(f"PRAGMA user_version = {SCHEMA}")
