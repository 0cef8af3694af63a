"""What an interrupted installation left."""

import csv
import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def discard_damaged(sites: Iterable[Path]) -> None:
    """Forget packages that an interrupted install left incomplete in these folders: pip sees their dist-info folder and
    would call them satisfied. In a whole one RECORD exists, and each file it names has the size it names."""
    for site in sites:
        leftovers = list(site.glob("~*"))  # where pip keeps the old files while it replaces a package
        for folder in leftovers + [info for info in site.glob("*.dist-info") if not is_whole(info)]:
            shutil.rmtree(folder, ignore_errors=True)


def is_whole(info: Path) -> bool:
    """Whether a ``dist-info`` folder's package is all there."""
    try:
        with open(info / "RECORD", newline="", encoding="utf-8") as record:
            sizes = {info.parent / name: int(size) for name, _, size in csv.reader(record) if size}
        return all(os.path.getsize(path) == size for path, size in sizes.items())
    except (OSError, ValueError):
        return False
