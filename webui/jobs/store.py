"""The jobs of a server on disk, in SQLite: what waits outlives the process, and what ended can be asked for.

A job is one row, and every change of it one transaction: whenever the process is killed, the row says what was true
just before. The file is this process's alone; another server that comes to the same folder is told so.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webui.core.visitor import Visitor
from webui.jobs.protocols import State

if TYPE_CHECKING:
    import sqlite3

KEPT_ENDED = 1000
"""Jobs that ended; the oldest beyond them are forgotten."""
LAYOUT = 1
SCHEMA = """
create table if not exists jobs (
    number integer primary key, id text unique not null, visitor text not null, state text not null, job text not null
);
create index if not exists by_state on jobs (state, number);
create index if not exists by_visitor on jobs (visitor, number);
create table if not exists starts (number integer not null);
insert into starts select 0 where not exists (select 1 from starts);
update starts set number = number + 1;
"""
PUT = """
insert into jobs (id, visitor, state, job) values (?, ?, ?, ?)
on conflict (id) do update set state = excluded.state, job = excluded.job
"""
NUMBERS = """
select jobs.id, jobs.number from json_each(?) as asked join jobs on jobs.id = asked.value order by asked.key
"""
FORGET = """
delete from jobs where state in ('done', 'failed', 'cancelled') and number <= coalesce((
    select number from jobs where state in ('done', 'failed', 'cancelled') order by number desc limit 1 offset ?
), 0)
"""


log = logging.getLogger(__name__)


class Taken(OSError):
    """Another server has the file."""


@dataclass(frozen=True)
class KeptPicture:
    """Where picture ``index`` of a job is, or was about to be when the process ended; ``sha256`` is of its pixels."""

    index: int
    path: str
    sha256: str


@dataclass(frozen=True)
class Kept:
    """A job as the disk has it.

    ``work`` are its resolved requests as JSON (``core.work.to_text``), ``files`` what it draws with by path, each with
    its stamp. ``end`` is the event that ended it, as JSON has it. ``unclean`` is how many times in a row the process
    ended without a word while the picture behind ``unclean_at`` others was drawn, with no step finished since.
    ``skipped`` are the numbers of pictures that are left out.
    """

    id: str
    visitor: Visitor
    state: State
    work: str
    files: Mapping[str, int] = field(default_factory=dict)
    pictures: tuple[KeptPicture, ...] = ()
    end: Mapping[str, Any] | None = None
    unclean: int = 0
    unclean_at: int = 0
    skipped: tuple[int, ...] = ()

    def to_row(self) -> tuple[str, str, str, str]:
        """The values of ``PUT``."""
        values = asdict(self)
        del values["visitor"]["origin"]  # of no use to the next server
        return self.id, self.visitor.id, self.state, json.dumps(values)

    @classmethod
    def from_text(cls, text: str) -> "Kept":
        """What ``to_row`` has made text of; raises ValueError, LookupError or TypeError for any other."""
        body = json.loads(text)
        pictures = tuple(KeptPicture(**picture) for picture in body.pop("pictures"))
        skipped = tuple(body.pop("skipped", ()))
        return cls(**{**body, "visitor": Visitor(**body["visitor"]), "pictures": pictures, "skipped": skipped})


def _parse(rows: Iterable[tuple[str, str]]) -> Iterator[Kept]:
    """Those that can be read: a row of another version takes no other with it."""
    for job_id, text in rows:
        try:
            yield Kept.from_text(text)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            log.error("job %s cannot be read: %s", job_id, error)


class Store:
    """One file. Not thread-safe: whoever has it calls from one thread at a time.

    What touches the disk raises OSError or ``sqlite3.Error``, and the next call begins anew with opening the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._since_forgotten = 0
        self.start = 0
        """How many times the file was opened."""

    def open(self) -> bool:
        """Makes sure that it is open; whether it was not before, or another file has come into its place.

        Raises Taken where another server has it.
        """
        if self._connection and self._file == self._identity():
            return False
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connect()
        return True

    def put(self, jobs: Iterable[Kept]) -> None:
        """Writes these jobs as they are now, all or none."""
        rows = [job.to_row() for job in jobs]
        self._since_forgotten += len(rows)
        with self._write() as connection:
            connection.execute("update starts set number = number")  # so that a disk that is full is noticed always
            connection.executemany(PUT, rows)
            if self._since_forgotten > KEPT_ENDED // 10:
                connection.execute(FORGET, (KEPT_ENDED,))
                self._since_forgotten = 0

    def reorder(self, ids: Sequence[str]) -> None:
        """These jobs come in this order, in the places that they have among the others."""
        asked = json.dumps(ids)
        with self._write() as connection:
            found = connection.execute(NUMBERS, (asked,)).fetchall()
            places = sorted(number for _, number in found)
            connection.executemany("update jobs set number = -number where id = ?", [(job_id,) for job_id, _ in found])
            moved = [(place, job_id) for place, (job_id, _) in zip(places, found, strict=True)]
            connection.executemany("update jobs set number = ? where id = ?", moved)

    def drop(self, job_id: str) -> None:
        """Forgets the job."""
        with self._write() as connection:
            connection.execute("delete from jobs where id = ?", (job_id,))

    def drop_visitor(self, visitor_id: str) -> None:
        """Forgets all jobs of a visitor."""
        with self._write() as connection:
            connection.execute("delete from jobs where visitor = ?", (visitor_id,))

    def find(self, job_id: str) -> Sequence[Kept]:
        """The job of that id, if there is one."""
        return self._read("where id = ?", job_id)

    def unfinished(self) -> Sequence[Kept]:
        """All that have not ended, in the order they were sent."""
        return self._read("where state not in ('done', 'failed', 'cancelled') order by number")

    def of(self, visitor_id: str | None, limit: int) -> Sequence[Kept]:
        """The newest jobs of a visitor, or of all, oldest first."""
        mine, whose = ("where visitor = ? ", [visitor_id]) if visitor_id is not None else ("", [])
        return self._read(f"{mine}order by number desc limit {limit:d}", *whose)[::-1]

    def close(self) -> None:
        """Lets go of the file."""
        if self._connection:
            self._connection.close()
        self._connection, self._file = None, None

    def _connect(self) -> None:
        import sqlite3

        self._connection = connection = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False
        )
        with self._guard():
            # exclusive: no second server gets in, and none needs shared memory, which network folders lack
            connection.executescript("pragma locking_mode = exclusive; pragma journal_mode = wal")
            connection.execute("pragma synchronous = normal")  # kill -9 loses nothing; a power cut, the last moment
            if (layout := connection.execute("pragma user_version").fetchone()[0]) > LAYOUT:
                raise OSError(f"{self.path.name} was written by a newer version (layout {layout})")
            connection.executescript(f"begin immediate; {SCHEMA} pragma user_version = {LAYOUT}; commit")
            self.start = connection.execute("select number from starts").fetchone()[0]
        self._file = self._identity()

    @contextmanager
    def _write(self) -> Iterator["sqlite3.Connection"]:
        """A transaction."""
        self.open()
        assert self._connection
        with self._guard():
            self._connection.execute("begin immediate")
            yield self._connection
            self._connection.execute("commit")

    def _read(self, where: str, *values: object) -> list[Kept]:
        self.open()
        assert self._connection
        with self._guard():
            rows = self._connection.execute(f"select id, job from jobs {where}", values).fetchall()
        return list(_parse(rows))

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """After any error the file is closed, which takes back what was half done; a damaged one is put aside."""
        import sqlite3

        try:
            yield
        except sqlite3.Error as error:
            self.close()
            if "locked" in str(error):
                raise Taken("another Darkroom uses this data folder") from None
            if type(error) is sqlite3.DatabaseError:  # no database, or one whose parts do not fit together
                self._put_aside()
            raise
        except BaseException:
            self.close()
            raise

    def _put_aside(self) -> None:
        """Keeps a file that cannot be read, for whoever can; a new one is begun."""
        log.error("%s is damaged, and was put aside: what waited in it is not drawn", self.path)
        for suffix in ("", "-wal", "-shm"):
            damaged = self.path.with_name(self.path.name + suffix)
            if damaged.exists():
                damaged.replace(self.path.with_name(f"{self.path.name}{suffix}.damaged"))

    def _identity(self) -> tuple[int, int] | None:
        """Which file lies there: a folder that vanished leaves a connection that writes to nowhere."""
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino
