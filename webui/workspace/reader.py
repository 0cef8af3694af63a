"""How the index of pictures is brought up to date with their folder."""

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from webui.core.disk import COARSE_S
from webui.workspace.index import WRITE, Index
from webui.workspace.marks import Marks
from webui.workspace.picture_files import (
    Listing,
    changed_folders,
    describe,
    folder_of,
    identify_all,
    list_folders,
)

log = logging.getLogger(__name__)

BATCH = 50  # files a transaction: what is read shows soon, and no other process waits long
LOOK_S = 0.08  # what a search may spend on reading new files
KNOWN = "SELECT path, mtime_ns, size_bytes FROM pictures"
OF_FOLDERS = f"{KNOWN} WHERE folder IN (SELECT value FROM json_each(?))"


class Reader:
    """Of the pictures and marks below ``folder``, into ``index``. Raises sqlite3.Error and OSError."""

    def __init__(self, folder: Path, index: Index, marks: Marks) -> None:
        self._folder, self._index, self._marks = folder, index, marks
        self._worker = threading.Lock()

    def look(self) -> int:
        """What is new and soon read; a thread goes on with the rest. Returns how many are still to be read."""
        unread = self.refresh(LOOK_S)
        if unread and self._worker.acquire(blocking=False):
            threading.Thread(target=self._read_behind, name="history", daemon=True).start()
        return unread

    def _read_behind(self) -> None:
        try:
            while self.refresh(1.0):
                time.sleep(0.02)  # whoever draws comes first
        except (sqlite3.Error, OSError) as error:
            log.warning("the pictures could not all be read: %s", error)
        finally:
            self._worker.release()

    def refresh(self, budget_s: float = float("inf"), thorough: bool = False) -> int:
        """Brings the index up to date, newest files first, and returns how many are still to be read.

        Folders are looked into where something came or went since; ``thorough`` looks at every file, and finds those
        that were written over in their places. ``budget_s`` is for reading new files. Others may do the same at the
        same time: what was known is asked before a folder is listed, so that nobody takes a file for gone that has
        come since.
        """
        seen, whole = self._index.read(_read_folders)
        changed, gone = changed_folders(self._folder, {} if thorough else whole, seen)
        known: dict[str, dict[str, tuple[int, int]]] = {}
        asked = [json.dumps(changed)]
        for path, mtime_ns, size_bytes in self._index.read(lambda db: [*map(tuple, db.execute(OF_FOLDERS, asked))]):
            known.setdefault(folder_of(path), {})[path] = (mtime_ns, size_bytes)
        listings = list_folders(self._folder, changed, seen)
        if gone:
            self._index.write(lambda db: _forget_folders(db, gone))
        if take_over := self._index.read(self._marks.take_over):
            self._index.write(take_over)
        deadline = time.monotonic() + budget_s
        unread = 0
        for listing in listings:
            rows = known.get(listing.path, {})
            if unread:  # it is late
                unread += len(set(listing.pictures) - rows.keys())
            else:
                unread = self._read_folder(listing, rows, deadline)
        return unread

    def _read_folder(self, listing: Listing, known: Mapping[str, tuple[int, int]], deadline: float) -> int:
        """Reads new files of a folder until it is late, and returns how many are left."""
        is_settled = time.time_ns() - listing.mtime_ns > COARSE_S * 10**9  # else more may have come at the same time
        files = identify_all(self._folder, listing.pictures)
        new = sorted((path for path in files if known.get(path) != files[path]), key=lambda path: -files[path][0])
        if gone := [[path] for path in known if path not in files]:
            self._index.write(lambda db: db.executemany("DELETE FROM pictures WHERE path = ?", gone))
        rows: list[dict[str, Any]] = []
        for unread, path in zip(reversed(range(len(new))), new, strict=True):
            rows.append(describe(self._folder, path, *files[path]))
            is_late = time.monotonic() >= deadline
            if len(rows) == BATCH or is_late or not unread:
                self._add(rows)
                rows = []
            if is_late and unread:
                return unread
        if is_settled:
            self._index.write(lambda db: _note_whole(db, listing))
        return 0

    def _add(self, rows: list[dict[str, Any]]) -> None:
        self._index.write(lambda db: db.executemany(WRITE, rows))


def _read_folders(db: sqlite3.Connection) -> tuple[list[str], dict[str, int]]:
    """All that were seen, and the times of those that are in the index as a whole."""
    times = {path: mtime_ns for path, mtime_ns in map(tuple, db.execute("SELECT path, mtime_ns FROM folders"))}
    seen = {folder for (folder,) in map(tuple, db.execute("SELECT DISTINCT folder FROM pictures"))}
    return [*(seen | times.keys())], {path: mtime_ns for path, mtime_ns in times.items() if mtime_ns is not None}


def _note_whole(db: sqlite3.Connection, listing: Listing) -> None:
    """It is not listed again until it changes; folders in it are known from now on."""
    inner = [(path, None) for path in listing.folders]
    db.executemany("INSERT OR IGNORE INTO folders VALUES (?, ?)", inner)
    db.execute("INSERT OR REPLACE INTO folders VALUES (?, ?)", [listing.path, listing.mtime_ns])


def _forget_folders(db: sqlite3.Connection, gone: list[str]) -> None:
    for table, column in (("pictures", "folder"), ("folders", "path")):
        db.executemany(f"DELETE FROM {table} WHERE {column} = ?", [[path] for path in gone])
