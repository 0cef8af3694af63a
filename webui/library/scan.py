"""Folders as they were when they were walked, and what was found there, kept until something changes."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Generic, TypeVar

LOOK_S = 1.0
"""For so long nobody looks whether something has changed."""
WALK_S = 60.0
"""After so long folders are walked again whatever their times say: some network disks do not tell all changes."""

COARSE_S = 2.5
"""Longer than the steps of the coarsest times that disks keep: two seconds on FAT, one on some network disks."""
FINE_S = 0.05
"""Longer than the steps of the times of all others, which are ticks of the system's clock."""
SKEW_S = 60
"""By how much the clock of a network disk may be ahead of ours."""

T = TypeVar("T")
Stamp = tuple[int, int, int, int]


class Scan:
    """What was read of the disk, by path, with times and sizes as they were before it was read."""

    def __init__(self) -> None:
        self._stamps: dict[str, Stamp | None] = {}
        self._walked: set[object] = set()
        self._settled = True

    @property
    def changed(self) -> bool:
        """Whether anything may be different now; asks for times and sizes alone.

        Also true as long as something had only just been changed when it was noted: another change right after it
        might have left the same time.
        """
        return not self._settled or any(_stamp(path) != stamp for path, stamp in self._stamps.items())

    def note(self, path: str | Path) -> bool:
        """Remembers the file or folder as it is now, which must be before it is read; false where there is none.

        A folder's time changes with the names in it, a file's with its content.
        """
        stamp = self._stamps.setdefault(str(path), _stamp(path))
        if stamp is None:
            return False
        age_s = time.time() - stamp[0] / 1e9
        self._settled &= not -SKEW_S < age_s < (FINE_S if stamp[0] % 10**9 else COARSE_S)
        return True

    def walk(self, root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
        """(folder, names of folders in it, names of files in it) from ``root`` down, in the order of their names.

        Links are followed, and no folder is walked twice, whatever leads to it. Hidden names and those that are no
        text are left out; what is taken out of the list of folders is not walked.
        """
        waiting = [str(root)] if _is_text(str(root)) else []
        while waiting:
            folder = waiting.pop()
            if not self.note(folder) or self._is_known(folder):
                continue
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:
                continue
            names: dict[bool, list[str]] = {True: [], False: []}
            for entry in entries:
                if not entry.name.startswith(".") and _is_text(entry.name):
                    names[_is_folder(entry)].append(entry.name)
            yield Path(folder), names[True], names[False]
            waiting += [os.path.join(folder, name) for name in reversed(names[True])]

    def children(self, folder: Path) -> list[Path]:
        """What is in the folder itself, each noted too, in the order of their names, as ``walk`` would tell it."""
        self.note(folder)
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            return []
        paths = [folder / name for name in names if not name.startswith(".") and _is_text(str(folder / name))]
        return [path for path in paths if self.note(path)]

    def _is_known(self, folder: str) -> bool:
        """Whether the folder was walked already, under any of its names."""
        stamp = self._stamps[folder]
        identity = stamp[2:] if stamp and stamp[2] else os.path.realpath(folder)  # some network disks do not number
        if identity in self._walked:
            return True
        self._walked.add(identity)
        return False


class ScanCache(Generic[T]):
    """What ``find`` finds in folders, by name; found anew only when something there has changed. For many threads."""

    def __init__(self, find: Callable[[Scan], Mapping[str, T]], clock: Callable[[], float]) -> None:
        self._find, self._clock = find, clock
        self._lock = threading.Lock()
        self._found: Mapping[str, T] | None = None
        self._scan = Scan()
        self._looked_at = self._walked_at = 0.0
        self._looks = 0

    def get(self, max_age_s: float = LOOK_S) -> Mapping[str, T]:
        """What was there ``max_age_s`` ago or later.

        While another thread looks, whoever may have an older answer gets the one before; others wait.
        """
        now, looks = self._clock(), self._looks
        found = self._found
        if found is not None and now - self._looked_at < max_age_s:
            return found
        if not self._lock.acquire(blocking=found is None or max_age_s <= 0):
            assert found is not None
            return found
        try:
            if self._found is None or self._looks == looks:  # else somebody began to look after we were asked
                self._look(now)
            assert self._found is not None
            return self._found
        finally:
            self._lock.release()

    def invalidate(self) -> None:
        """Whoever asks next looks, and walks the folders."""
        with self._lock:
            self._walked_at = self._looked_at = float("-inf")

    def _look(self, now: float) -> None:
        self._looks += 1
        if self._found is None or now - self._walked_at >= WALK_S or self._scan.changed:
            scan = Scan()
            self._found = MappingProxyType(dict(self._find(scan)))
            self._scan, self._walked_at = scan, now
        self._looked_at = now


def _stamp(path: str | Path) -> Stamp | None:
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino, state.st_dev


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_text(name: str) -> bool:
    """Whether a name can be shown and sent; disks hold any bytes."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
