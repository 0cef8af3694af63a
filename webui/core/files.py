"""Files that are written whole or not at all, and moved without anything being overwritten."""

import os
import tempfile
from itertools import count
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Writes the file in one step, over what was there; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".saving-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def move_file(source: Path, target: Path) -> Path:
    """Moves a file within a file system and returns its new path, which has a number where the name was taken.

    Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = target if number == 1 else target.with_stem(f"{target.stem} ({number})")
        try:
            os.link(source, path)
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links
            if path.exists():
                continue
            os.rename(source, path)
        else:
            source.unlink()
        return path
    raise AssertionError("count() does not end")
