"""Files that are written whole or not at all, and moved without anything being overwritten."""

import errno
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # on Windows nobody can delete a file that another program has open
    fcntl = None  # type: ignore[assignment]

NO_ROOM = {errno.ENOSPC: "full", errno.EDQUOT: "full", errno.EROFS: "read-only"}
"""What is wrong with a disk that takes nothing, by the number of the error."""

log = logging.getLogger(__name__)

PREFIX, SUFFIX = ".saving-", ".tmp"
COARSE_S = 2.0  # FAT keeps even seconds
STARTED_AT_S = time.time()


@contextmanager
def temporary_file(folder: Path, data: bytes, mode: int = 0o600) -> Iterator[Path]:
    """A new hidden file with these bytes, on the disk for certain, to be linked or moved to its place.

    It is gone when the block ends, and where the process is killed before, ``sweep`` removes it. Raises OSError.
    """
    file, path = open_temporary(folder)
    try:
        with file:
            file.write(data)
            sync(file)
        os.chmod(path, mode)
        yield path
    finally:
        path.unlink(missing_ok=True)


def open_temporary(folder: Path) -> tuple[IO[bytes], Path]:
    """A new hidden file, open to be written, which whoever asks removes, or else ``sweep``. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=SUFFIX, dir=folder)
    file = os.fdopen(handle, "wb")
    lock(file)
    return file, Path(name)


def sync(file: IO[bytes]) -> None:
    """All that was written is on the disk for certain; raises OSError."""
    file.flush()
    os.fsync(file.fileno())


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Writes the file in one step, over what was there; raises OSError."""
    with temporary_file(path.parent, data, mode) as temporary:
        os.replace(temporary, path)


def sweep(folders: Iterable[Path]) -> None:
    """Removes what processes that were killed left of files they were writing, in these folders and below.

    What is younger than this process, or is being written by another one, stays.
    """
    for folder in folders:
        for below, _, names in os.walk(folder):
            for name in names:
                if name.startswith(PREFIX) and name.endswith(SUFFIX):
                    with suppress(OSError):
                        _remove_left_over(Path(below, name))


def _remove_left_over(path: Path) -> None:
    if path.lstat().st_mtime > STARTED_AT_S - COARSE_S:
        return
    with path.open("rb") as file:
        if not lock(file):
            return
    path.unlink()
    log.info("removed %s, which a process that was killed had left", path)


def lock(file: IO[bytes]) -> bool:
    """Marks the file as in use until it is closed; false where it is in use already."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        pass
    return True


def move_file(source: Path, target: Path) -> Path:
    """Moves a file within a file system and returns its new path, which has a number where the name was taken.

    Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = target if number == 1 else target.with_stem(f"{target.stem} ({number})")
        with suppress(FileExistsError):
            place_file(source, path)
            return path
    raise AssertionError("count() does not end")


def place_file(source: Path, target: Path) -> None:
    """Moves a file within a file system to a name that is free; raises OSError, FileExistsError where it is taken."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        os.rename(source, target)
    else:
        source.unlink()


def is_below(path: object, folder: Path) -> bool:
    """Whether it is the whole path of something in the folder, there or not. No other place is looked at to tell.

    A relative path is none: ``https://x/../../folder/y`` would be one too, and others take it for an address.
    """
    if not isinstance(path, str) or not os.path.isabs(path):
        return False
    try:
        named = Path(os.path.abspath(path))
        if not any(named.is_relative_to(root) for root in (folder.absolute(), folder.resolve())):
            return False
        return folder.resolve() in named.resolve().parents
    except (ValueError, OSError, RuntimeError):  # what no path can be; links in a circle
        return False
