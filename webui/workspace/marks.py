"""What people say of their pictures, in files beside them: favourites, and boards, which are named collections.

``favourites.txt`` has one path a line, ``boards.json`` the paths of each board by its name. They are the truth; the
index has a copy of them, in its table ``marked``. A deleted picture keeps its marks, under its path in the trash.
"""

import json
import logging
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from webui.core.disk import replace_file
from webui.core.errors import RequestError
from webui.workspace.picture_files import UNSPEAKABLE, plain_text

log = logging.getLogger(__name__)

FAVOURITE = ""
"""The mark of favourites; all others are names of boards."""
FAVOURITES_FILE, BOARDS_FILE = "favourites.txt", "boards.json"
MAX_BOARDS = 500
MAX_ON_BOARDS = 200_000  # pictures, counted once for each board that they are on: all of it is written at every change
MAX_NAME_CHARACTERS = 60


class MarksError(Exception):
    """Boards that cannot be read; the message says which file is to be mended."""


Marked = Mapping[str, frozenset[str]]
"""The paths below the folder of pictures that have each mark."""
Change = Callable[[Marked], Marked]


class Marks:
    """The files in ``folder``, and their copy in an index, which callers hand in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> tuple[Marked, str]:
        """As the files say it now, and why boards cannot be read, which are left out then; raises OSError."""
        marked = {FAVOURITE: frozenset(_text(self._folder / FAVOURITES_FILE).split("\n")) - {""}}
        try:
            return marked | _boards(_text(self._folder / BOARDS_FILE)), ""
        except MarksError as error:
            return marked, str(error)

    def take_over(self, db: sqlite3.Connection) -> Callable[[sqlite3.Connection], object] | None:
        """What brings the copy up to date with what another process or a person wrote; None where nothing did."""
        state = self._state()
        if [tuple(row) for row in db.execute("SELECT state FROM marks_read")] == [(state,)]:
            return None
        marked, problem = self.read()
        if problem:
            log.warning("%s", problem)

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM marked")
            _insert(db, marked)
            _note(db, state)

        return write

    def edit(self, db: sqlite3.Connection, change: Change) -> None:
        """Reads, changes and writes the files and their copy, while the caller holds the index's write lock.

        Raises OSError, what ``change`` raises, and MarksError where boards are to change that cannot be read: their
        file stays as it is.
        """
        before, problem = self.read()
        try:
            after = change(before)
        except RequestError:
            if problem:
                raise MarksError(problem) from None
            raise
        if problem and boards_of(after):
            raise MarksError(problem)
        if after[FAVOURITE] != before[FAVOURITE]:
            text = "".join(f"{name}\n" for name in sorted(after[FAVOURITE]))
            replace_file(self._folder / FAVOURITES_FILE, text.encode())
        if boards_of(after) != boards_of(before):
            boards = {name: sorted(paths) for name, paths in boards_of(after).items()}
            text = json.dumps(boards, ensure_ascii=False, indent=1)
            replace_file(self._folder / BOARDS_FILE, text.encode("utf-8"))
        for mark in {*before, *after}:
            had, has = before.get(mark, frozenset()), after.get(mark, frozenset())
            db.executemany("DELETE FROM marked WHERE mark = ? AND path = ?", [(mark, path) for path in had - has])
            _insert(db, {mark: has - had})
        _note(db, self._state())

    def _state(self) -> str:
        """Another one after every change of the files."""
        states = []
        for name in (FAVOURITES_FILE, BOARDS_FILE):
            with suppress(OSError):
                file = (self._folder / name).stat()
                states.append((name, file.st_mtime_ns, file.st_size))
        return json.dumps(states)


def boards_of(marked: Marked) -> Marked:
    """Without the favourites."""
    return {mark: paths for mark, paths in marked.items() if mark != FAVOURITE}


def marking(mark: str, paths: Iterable[str], has_it: bool) -> Change:
    """The change that gives these pictures the mark, or takes it away; it raises RequestError for no such board."""
    changed = frozenset(paths)

    def change(marked: Marked) -> Marked:
        before = marked[_known(mark, marked)] if mark else marked[FAVOURITE]
        after = {**marked, mark: before | changed if has_it else before - changed}
        if mark and has_it and sum(map(len, boards_of(after).values())) > MAX_ON_BOARDS:
            raise RequestError(f"boards hold up to {MAX_ON_BOARDS:,} pictures in all", field="pictures")
        return after

    return change


def moving(moved: Mapping[str, str]) -> Change:
    """The change that keeps the marks of files that have other paths now, from old to new."""

    def change(marked: Marked) -> Marked:
        return {mark: frozenset(moved.get(path, path) for path in paths) for mark, paths in marked.items()}

    return change


def adding_board(name: str) -> Change:
    """The change that makes an empty board; it raises RequestError for a name that is taken, or one board too many."""

    def change(marked: Marked) -> Marked:
        _check_free(name, marked)
        if len(marked) > MAX_BOARDS:
            raise RequestError(f"there are {MAX_BOARDS} boards already; that is the most", field="name")
        return {**marked, name: frozenset()}

    return change


def renaming_board(name: str, new_name: str) -> Change:
    """The change of a board's name; it raises RequestError for no such board and for a name that is taken."""

    def change(marked: Marked) -> Marked:
        _known(name, marked)
        _check_free(new_name, {mark: paths for mark, paths in marked.items() if mark != name})
        return {new_name if mark == name else mark: paths for mark, paths in marked.items()}

    return change


def removing_board(name: str) -> Change:
    """The change that takes a board away, not its pictures; it raises RequestError for no such board."""

    def change(marked: Marked) -> Marked:
        _known(name, marked)
        return {mark: paths for mark, paths in marked.items() if mark != name}

    return change


def read_name(text: str) -> str:
    """A board's name as it is kept: in one line, without spaces at its ends; raises RequestError."""
    name = " ".join(plain_text(text).split())
    if not name:
        raise RequestError("a board needs a name", field="name")
    if len(name) > MAX_NAME_CHARACTERS:
        raise RequestError(f"a board's name has up to {MAX_NAME_CHARACTERS} characters, not {len(name)}", field="name")
    if UNSPEAKABLE.search(name):
        raise RequestError("a board's name is plain text, without control characters", field="name")
    return name


def _known(name: str, marked: Marked) -> str:
    if name == FAVOURITE or name not in marked:
        raise RequestError(f"there is no board {name[:MAX_NAME_CHARACTERS]!r}", field="board")
    return name


def _check_free(name: str, marked: Marked) -> None:
    taken = next((mark for mark in boards_of(marked) if mark.casefold() == name.casefold()), None)
    if taken is not None:
        raise RequestError(f"there is a board {taken!r} already", field="name")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _boards(text: str) -> dict[str, frozenset[str]]:
    try:
        found = json.loads(text or "{}")
        if not isinstance(found, dict) or not all(isinstance(paths, list) for paths in found.values()):
            raise ValueError
    except (ValueError, RecursionError):
        raise MarksError(f"{BOARDS_FILE} beside the pictures is not as it was written; mend or remove it") from None
    return {
        name: frozenset(path for path in paths if isinstance(path, str) and not re.search(r"[\ud800-\udfff]", path))
        for name, paths in found.items()
        if name != FAVOURITE and not UNSPEAKABLE.search(name)
    }


def _insert(db: sqlite3.Connection, marked: Marked) -> None:
    rows = [(mark, path) for mark, paths in marked.items() for path in paths]
    db.executemany("INSERT OR IGNORE INTO marked VALUES (?, ?)", rows)


def _note(db: sqlite3.Connection, state: str) -> None:
    db.execute("DELETE FROM marks_read")
    db.execute("INSERT INTO marks_read VALUES (?)", [state])
