"""Finished pictures as files: which there are, and what each says of itself, as a row of the index."""

import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from webui.core import images
from webui.core.recipe import Recipe, RecipeError, read_picture

KINDS = ("txt2img", "img2img", "inpaint", "upscale", "grid")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_INTEGER = 2**63 - 1  # SQLite's
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # in a name: no line of favourites.txt could hold it


def plain_text(text: str) -> str:
    """Without the halves of characters that JSON can carry and SQLite cannot."""
    return text.encode("utf-8", "replace").decode()


def scan(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """(path below the folder, (time in ns, bytes)) of all pictures, by the rules of ``list_folder``."""
    folders = [""]
    while folders:
        if (listing := list_folder(folder, folders.pop())) is None:
            continue
        folders += listing.folders
        for name in listing.pictures:
            with suppress(OSError):  # it went meanwhile
                yield name, identify((folder / name).lstat())


def identify(state: os.stat_result) -> tuple[int, int]:
    """A file's time in ns, as near as the index can hold it (1677 to 2262), and its bytes."""
    return max(-MAX_INTEGER, min(state.st_mtime_ns, MAX_INTEGER)), state.st_size


def local_time(mtime_ns: int) -> datetime:
    """When that was here, in whole seconds; in UTC where the system knows no local time that far away."""
    try:
        return datetime.fromtimestamp(mtime_ns // 10**9)
    except (OSError, OverflowError, ValueError):
        return datetime(1970, 1, 1) + timedelta(seconds=mtime_ns // 10**9)


@dataclass(frozen=True)
class Listing:
    """A folder below that of all pictures, "" or with a slash at its end: its time before it was listed, and what is
    in it, by whole paths."""

    path: str
    mtime_ns: int
    folders: tuple[str, ...]
    pictures: tuple[str, ...]


def folder_time(folder: Path, below: str) -> int | None:
    """When something came into the folder or went out of it last, in ns; None for what is no folder, or a link."""
    try:
        state = (folder / below).lstat() if below else folder.stat()
    except OSError:
        return None
    return state.st_mtime_ns if stat.S_ISDIR(state.st_mode) else None


def list_folder(folder: Path, below: str) -> Listing | None:
    """Folders and pictures right in it: no links, nothing hidden, no name of two lines. None if unreadable."""
    mtime_ns = folder_time(folder, below)
    if mtime_ns is None:
        return None
    folders, pictures = [], []
    try:
        with os.scandir(folder / below) as entries:
            for entry in entries:
                name = below + entry.name
                if entry.name.startswith(".") or UNSPEAKABLE.search(name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{name}/")
                elif entry.name.lower().endswith(SUFFIXES) and entry.is_file(follow_symlinks=False):
                    pictures.append(name)
    except OSError:
        return None
    return Listing(below, mtime_ns, tuple(folders), tuple(pictures))


def changed_folders(folder: Path, known: Mapping[str, int], seen: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of all that were ``seen`` before, those whose times are not as ``known``, and those that are gone."""
    times = {below: folder_time(folder, below) for below in {"", *seen}}
    changed = [below for below, mtime_ns in times.items() if mtime_ns is not None and known.get(below) != mtime_ns]
    return changed, [below for below, mtime_ns in times.items() if mtime_ns is None]


def list_folders(folder: Path, changed: Iterable[str], seen: Iterable[str]) -> list[Listing]:
    """These, and folders in them that were never seen; those that changed last first."""
    waiting, known = [*changed], {"", *seen}
    found: dict[str, Listing] = {}
    while waiting:
        below = waiting.pop()
        if below in found or (listing := list_folder(folder, below)) is None:
            continue
        found[below] = listing
        waiting += [inner for inner in listing.folders if inner not in known]
    return sorted(found.values(), key=lambda listing: -listing.mtime_ns)


def folder_of(path: str) -> str:
    """The folder of a picture, as listings name it."""
    return f"{path.rpartition('/')[0]}/".lstrip("/")


def identify_all(folder: Path, paths: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Time and bytes of those files that are there."""
    found = {}
    for path in paths:
        with suppress(OSError):  # it went meanwhile
            found[path] = identify((folder / path).lstat())
    return found


def describe(folder: Path, path: str, mtime_ns: int, size_bytes: int) -> dict[str, Any]:
    """The file as a row of the index, with a new id."""
    row: dict[str, Any] = {"path": path, "id": secrets.token_hex(12), "mtime_ns": mtime_ns, "size_bytes": size_bytes}
    row |= {"day": local_time(mtime_ns).date().isoformat(), "folder": folder_of(path)}
    row |= {"width": 0, "height": 0}
    recipe = None
    try:
        with images.opened(folder / path) as image:
            row["width"], row["height"] = image.size
            with suppress(RecipeError):
                recipe = read_picture(image)
    except images.ImageError:
        row["width"] = 0
    return row | _settings(recipe, path.rpartition("/")[2])


def _settings(recipe: Recipe | None, name: str) -> dict[str, Any]:
    """What a picture says of how it was made, and by which words it is found."""
    request = recipe.request if recipe else None
    prompt = plain_text(request.prompt) if request else ""
    # Those in the prompt's brackets are among the hashes alone.
    loras = [*(ref.name for ref in recipe.request.loras), *recipe.lora_hashes] if recipe else []
    drawn = request if request and not request.only_enlarges else None
    start = (recipe.start if recipe else None) or {}
    return {
        "prompt": prompt,
        "words": f"{prompt}\n{name}".casefold(),
        "negative": plain_text(drawn.negative).casefold() if drawn else "",
        "model": plain_text(drawn.model) if drawn else "",
        "loras": json.dumps([*dict.fromkeys(map(plain_text, loras))]),
        "kind": _kind(recipe) if recipe else "",
        "sampler": plain_text(drawn.sampler) if drawn else "",
        "schedule": plain_text(drawn.schedule) if drawn else "",
        "steps": drawn.steps if drawn else None,
        "guidance": drawn.guidance if drawn else None,
        "seed": drawn.seed if drawn else None,
        "strength": start.get("strength") if drawn else None,
    }


def _kind(recipe: Recipe) -> str:
    """One of ``KINDS``."""
    if recipe.grid:
        return "grid"
    if recipe.request.only_enlarges or recipe.start is None:
        return recipe.request.task
    return "inpaint" if "mask" in recipe.start or any(recipe.start.get("outpaint") or ()) else "img2img"
