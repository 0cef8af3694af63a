"""Finished pictures as files: which there are, and what each says of itself, as a row of the index."""

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from webui.core import images
from webui.core.recipe import RecipeError, read_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_INTEGER = 2**63 - 1  # SQLite's
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # in a name: no line of favourites.txt could hold it


def plain_text(text: str) -> str:
    """Without the halves of characters that JSON can carry and SQLite cannot."""
    return text.encode("utf-8", "replace").decode()


def scan(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """(path below the folder, (time in ns, bytes)) of all pictures; no links, nothing hidden, no name of two lines."""
    folders = [""]
    while folders:
        below = folders.pop()
        try:
            entries = list(os.scandir(folder / below))
        except OSError:
            continue
        for entry in entries:
            name = below + entry.name
            if entry.name.startswith(".") or UNSPEAKABLE.search(name):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{name}/")
            elif entry.name.lower().endswith(SUFFIXES) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):  # it went meanwhile
                    yield name, identify(entry.stat(follow_symlinks=False))


def identify(state: os.stat_result) -> tuple[int, int]:
    """A file's time in ns, as near as the index can hold it (1677 to 2262), and its bytes."""
    return max(-MAX_INTEGER, min(state.st_mtime_ns, MAX_INTEGER)), state.st_size


def local_time(mtime_ns: int) -> datetime:
    """When that was here, in whole seconds; in UTC where the system knows no local time that far away."""
    try:
        return datetime.fromtimestamp(mtime_ns // 10**9)
    except (OSError, OverflowError, ValueError):
        return datetime(1970, 1, 1) + timedelta(seconds=mtime_ns // 10**9)


def describe(folder: Path, path: str, mtime_ns: int, size_bytes: int) -> dict[str, Any]:
    """The file as a row of the index, with a new id."""
    row: dict[str, Any] = {"path": path, "id": secrets.token_hex(12), "mtime_ns": mtime_ns, "size_bytes": size_bytes}
    row |= {"day": local_time(mtime_ns).date().isoformat(), "width": 0, "height": 0}
    recipe = None
    try:
        with images.opened(folder / path) as image:
            row["width"], row["height"] = image.size
            with suppress(RecipeError):
                recipe = read_picture(image)
    except images.ImageError:
        row["width"] = 0
    request = recipe.request if recipe else None
    row["prompt"] = plain_text(request.prompt) if request else ""
    row["words"] = f"{row['prompt']}\n{path.rpartition('/')[2]}".casefold()
    row["model"] = plain_text(request.model) if request and not request.only_enlarges else ""
    # Those in the prompt's brackets are among the hashes alone.
    loras = [*(ref.name for ref in recipe.request.loras), *recipe.lora_hashes] if recipe else []
    row["loras"] = json.dumps([*dict.fromkeys(map(plain_text, loras))])
    return row
