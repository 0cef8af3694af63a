"""Keeps an executor's jobs on disk, as long as there is one to keep them on, and says where there is none."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from webui.core.events import Cancelled, Event, Failed, Image, to_json
from webui.core.visitor import Visitor
from webui.core.weight_files import stamps
from webui.core.work import to_text
from webui.jobs.job import LocalJob
from webui.jobs.protocols import State
from webui.jobs.store import Kept, KeptPicture, Store, Taken
from webui.workspace.workspace import Workspaces

LISTED = 500
WAIT_FOR_OTHER_S = 6.0  # as long as a server may take to end
REASONS = {
    "full": "the disk is full",
    "readonly": "it cannot be written to",
    "unable to open": "it cannot be opened",
    "I/O error": "the disk takes nothing",
}

log = logging.getLogger(__name__)


@dataclass
class _Note:
    """What the disk is to know of a job besides what the job itself says."""

    job: LocalJob
    text: str = ""
    files: Mapping[str, int] = field(default_factory=dict)
    begun: bool = False
    end: Mapping[str, Any] | None = None
    is_over: bool = False
    pictures: dict[int, KeptPicture] = field(default_factory=dict)
    unclean: int = 0
    unclean_at: int = 0

    @property
    def state(self) -> State:
        if self.end:
            state: State = self.end["event"]
            return state
        return "running" if self.begun else "queued"


class Keeper:
    """Thread-safe. Nothing here raises for a disk: what could not be written is, once that is possible again.

    Without a store nothing is kept.
    """

    def __init__(self, store: Store | None, workspaces: Workspaces) -> None:
        self._store, self._workspaces = store, workspaces
        self._notes: dict[str, _Note] = {}  # of jobs that have not ended, or whose end is not written yet
        self._lock = threading.RLock()
        self._is_taken = self._is_behind = False
        self.warning = ""
        """For people, where jobs are not kept on disk; empty where they are."""

    def open(self, closed: threading.Event) -> Sequence[Kept]:
        """What an earlier server has left unfinished. A server that is just ending is waited for."""
        pause_s = 0.25
        for _ in range(int(WAIT_FOR_OTHER_S / pause_s)):
            self._is_taken = False
            found = self._read(Store.unfinished)
            if not self._is_taken or closed.wait(pause_s):
                self.check()
                return found
        return ()

    @property
    def start(self) -> int:
        """Which of the starts of servers on this disk this one is."""
        return self._store.start if self._store else 0

    # ---- what happens to a job ----

    def accept(self, job: LocalJob) -> None:
        """Keeps a job that is queued now."""
        if self._store is None:
            return
        note = _Note(job)
        with suppress(OSError):  # the disk is asked again below, and says why not
            note.text, note.files = self._describe(job)
        self._change(note)

    def take_back(self, job: LocalJob, kept: Kept) -> None:
        """Keeps a job that an earlier server has left."""
        pictures = {picture.index: picture for picture in kept.pictures}
        self._change(
            _Note(job, kept.work, kept.files, pictures=pictures, unclean=kept.unclean, unclean_at=kept.unclean_at)
        )

    def begin(self, job: LocalJob) -> None:
        """The job is drawn from now on."""
        self._update(job, begun=True)

    def step(self, job: LocalJob) -> None:
        """A step is finished."""
        if (note := self._notes.get(job.id)) and note.unclean:
            self._update(job, unclean=0)

    def claim(self, job: LocalJob, picture: Image, path: Path) -> None:
        """A picture is to appear under this name now."""
        if note := self._notes.get(job.id):
            claimed = KeptPicture(picture.index, str(path), picture.pixels_sha256)
            self._update(job, pictures=note.pictures | {picture.index: claimed})

    def skip(self, job: LocalJob) -> None:
        """Pictures of the job are left out."""
        self._update(job)

    def cancel(self, job: LocalJob) -> None:
        """The job was told to end, and is not drawn any more if the server ends first."""
        self._update(job, end=to_json(Cancelled()))

    def end(self, job: LocalJob, last: Event) -> None:
        """The job ends so."""
        self._update(job, end=to_json(last), is_over=True)

    def pause(self, job: LocalJob) -> bool:
        """The server ends: the job waits for the next one. False where it is not on the disk."""
        return job.id in self._notes and self._update(job, begun=False)

    def reorder(self, jobs: Sequence[LocalJob]) -> None:
        """These wait in this order."""
        with self._lock:
            ids = [job.id for job in jobs if job.id in self._notes]
            moved = iter(ids)
            order = [next(moved) if job_id in set(ids) else job_id for job_id in self._notes]
            self._notes = {job_id: self._notes[job_id] for job_id in order}
            if ids:
                self._try(lambda store: store.reorder(ids))

    def forget(self, job: LocalJob) -> None:
        """The job was not accepted."""
        with self._lock:
            if self._notes.pop(job.id, None):
                self._try(lambda store: store.drop(job.id))

    def forget_visitor(self, visitor: Visitor) -> None:
        """Nothing is known of a visitor's jobs any more."""
        with self._lock:
            self._notes = {job_id: note for job_id, note in self._notes.items() if note.job.visitor.id != visitor.id}
            self._try(lambda store: store.drop_visitor(visitor.id))

    def fail(self, kept: Kept, message: str) -> None:
        """A job that an earlier server has left cannot be drawn."""
        failed = replace(kept, state="failed", end=to_json(Failed(message)))
        with self._lock:
            self._try(lambda store: store.put([failed]))

    # ---- what the disk knows ----

    def find(self, job_id: str) -> Sequence[Kept]:
        """The job of that id, where it has ended."""
        return [kept for kept in self._read(lambda store: store.find(job_id)) if kept.end]

    def of(self, visitor: Visitor) -> Sequence[Kept]:
        """The newest jobs that have ended, of the visitor, or of all for the owner."""
        whose = None if visitor.is_owner else visitor.id
        return [kept for kept in self._read(lambda store: store.of(whose, LISTED)) if kept.end]

    def check(self) -> None:
        """Writes what is not written yet, and notices a disk that is gone."""
        with self._lock:
            self._try(self._sync if self.warning or self._is_behind else self._open)

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            if self._store:
                self._store.close()

    # ---- the disk ----

    def _update(self, job: LocalJob, **changes: Any) -> bool:
        with self._lock:
            note = self._notes.get(job.id)
            return note is not None and self._change(replace(note, **changes))

    def _change(self, note: _Note) -> bool:
        with self._lock:
            self._notes[note.job.id] = note
            written = self._try(partial(self._write, note))
            self._is_behind = self._is_behind or not written
            if written and note.is_over:
                self._notes.pop(note.job.id, None)
            return written

    def _write(self, note: _Note, store: Store) -> None:
        if self._is_behind:
            self._sync(store)
        elif not self._open(store):
            store.put([self._row(note)])

    def _open(self, store: Store) -> bool:
        """Whether the file was opened anew, and has all that is known by now."""
        if is_new := store.open():
            self._sync(store)
        return is_new

    def _sync(self, store: Store) -> None:
        """Writes all that is known, in the order it was sent."""
        store.put([self._row(note) for note in self._notes.values()])
        self._notes = {job_id: note for job_id, note in self._notes.items() if not note.is_over}
        self._is_behind = False

    def _row(self, note: _Note) -> Kept:
        if not note.text:
            note.text, note.files = self._describe(note.job)
        pictures = tuple(note.pictures.values())
        return Kept(
            note.job.id,
            note.job.visitor,
            note.state,
            note.text,
            note.files,
            pictures,
            note.end,
            note.unclean,
            note.unclean_at,
            tuple(sorted(note.job.skipped)),
        )

    def _describe(self, job: LocalJob) -> tuple[str, Mapping[str, int]]:
        """Its requests, whose pictures are put where they are found again, and the files it draws with."""
        text = to_text(job.work, self._workspaces.of(job.visitor).start_pictures.put)
        return text, stamps(file for order in job.orders for file in order.files)

    def _read(self, ask: Callable[[Store], Sequence[Kept]]) -> Sequence[Kept]:
        found: list[Kept] = []
        with self._lock:
            self._try(lambda store: found.extend(ask(store)), is_read=True)
        return found

    def _try(self, act: Callable[[Store], object], is_read: bool = False) -> bool:
        """Whether the disk did it."""
        if (store := self._store) is None or self._is_taken:
            return False
        import sqlite3

        try:
            act(store)
        except Taken as error:
            self._is_taken = True
            self._warn(f"{error}, so the queue of this one ends with it")
        except (sqlite3.Error, OSError, ValueError, LookupError, TypeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            reason = next((words for part, words in REASONS.items() if part in reason), reason)
            self._warn(f"the queue is not kept in {store.path.name}: {reason}. Jobs end with the server")
        else:
            if self.warning and not is_read:  # a disk that is full can be read
                log.warning("the queue is kept on disk again")
                self.warning = ""
            return True
        return False

    def _warn(self, words: str) -> None:
        words = f"{words[0].upper()}{words[1:]}."
        if words != self.warning:
            log.warning("%s", words)
        self.warning = words
