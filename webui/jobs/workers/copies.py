"""Files on their way to another machine: known by their SHA-256, sent in chunks where they are not there, kept within a
bound."""

import glob
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import psutil

from webui.core.errors import RequestError
from webui.core.files import File, LoraFile, ModelFile, VaeFile
from webui.core.lora_files import find_adapter_config
from webui.core.order import Order
from webui.core.weight_files import hash_whole, stamp, weight_files

CHUNK_BYTES = 8 * 2**20
IN_USE_S = 600
"""What a worker drew with so lately is not deleted for another's files."""
TEXTS = (".json", ".txt", ".model")
"""What of a diffusers folder is sent beside its weights."""


@dataclass(frozen=True)
class Entry:
    """A file of a tree: where it lies in it, its size, its SHA-256."""

    place: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Tree:
    """A ``File`` with all that is read beside it, as they lie below ``root`` here; ``main`` is its own place there."""

    root: Path
    main: str
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """The same for the same files, wherever they lie."""
        return hashlib.sha256(json.dumps([self.main, *map(repr, self.entries)]).encode()).hexdigest()[:32]


def tree_of(file: File) -> Tree:
    """What another machine needs of it. Raises RequestError where it was changed after it was asked for, or is gone."""
    try:
        if isinstance(file, ModelFile) and stamp(file.path) != file.stamp:
            raise RequestError(
                f"model {file.name!r}: {file.path.name} was changed after this was asked for; ask again", "model"
            )
        root = file.path.parent
        paths = sorted(set(_needed(file)))
        entries = (Entry(path.relative_to(root).as_posix(), path.stat().st_size, hash_whole(path)) for path in paths)
        return Tree(root, file.path.name, tuple(entries))
    except OSError as error:
        raise RequestError(f"{file.name!r}: {file.path.name} cannot be read: {error.strerror}") from None


def _needed(file: File) -> Iterator[Path]:
    if file.path.is_dir():
        yield from (path for part in weight_files(file.path).values() for path in part)
        yield from (path for path in file.path.rglob("*") if path.suffix in TEXTS and path.is_file())
        return
    yield file.path
    if isinstance(file, LoraFile) and (config := find_adapter_config(file.path)):
        yield config
    elif isinstance(file, VaeFile):
        encoder = file.path.with_name(file.path.name.replace("decoder", "encoder"))
        yield from [encoder] if encoder.is_file() else []


def moved(order: Order, find: Callable[[File], File]) -> Order:
    """The order with its files elsewhere."""
    known = {file: find(file) for file in order.files}
    return replace(order, stages=_replaced(order.stages, known))


def _replaced(value: Any, known: dict[File, File]) -> Any:
    if isinstance(value, File):
        return known.get(value, value)
    if isinstance(value, tuple):
        return tuple(_replaced(each, known) for each in value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changed = {}
    for field in fields(value):
        now = getattr(value, field.name)
        if (new := _replaced(now, known)) is not now and field.init:
            changed[field.name] = new
    return replace(value, **changed) if changed else value


class Copies:
    """Files that came from elsewhere, in ``folder``, at most ``bound_bytes`` of them; whoever of this machine's workers
    has the same folder shares them. What was used longest ago goes first.
    """

    def __init__(self, folder: Path, bound_bytes: int | None = None) -> None:
        self._files, self._trees = folder / "files", folder / "trees"
        mine = f"coming-{socket.gethostname()}-"
        self._coming = folder / f"{mine}{os.getpid()}"
        for each in (self._files, self._trees, self._coming):
            each.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{glob.escape(mine)}*"):  # of processes that ended while a file came
            pid = left.name.removeprefix(mine)
            if pid.isdecimal() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(left, ignore_errors=True)
        taken = sum(stat.st_size for _, stat in self._kept())
        self.bound_bytes = bound_bytes or (shutil.disk_usage(folder).free + taken) // 2

    def lacks(self, trees: Collection[Tree]) -> list[str]:
        """Which files' SHA-256 are to be sent."""
        missing = [tree for tree in trees if not _is_there(tree)]
        wanted = dict.fromkeys(entry.sha256 for tree in missing for entry in tree.entries)
        return [digest for digest in wanted if not (self._files / digest).is_file()]

    def begin(self, entry: Entry, trees: Collection[Tree]) -> None:
        """Makes room for a file that is sent now, without those in ``trees``; RequestError where there is none."""
        shutil.rmtree(self._coming, ignore_errors=True)  # of a file whose sending was given up
        self._coming.mkdir()
        needed = {each.sha256 for tree in trees for each in tree.entries}
        files = sorted(self._kept(), key=lambda each: each[1].st_atime_ns)
        taken = sum(stat.st_size for _, stat in files)
        for path, stat in files:
            if taken + entry.size_bytes <= self.bound_bytes:
                break
            if path.name not in needed and time.time() - stat.st_atime > IN_USE_S:
                taken -= stat.st_size
                self._forget(path, stat)
        if taken + entry.size_bytes > self.bound_bytes:
            name, have = PurePosixPath(entry.place).name, self.bound_bytes / 2**30
            raise RequestError(
                f"{name} of {entry.size_bytes / 2**30:.1f} GiB finds no room: files from elsewhere may take"
                f" {have:.1f} GiB there (--ray-files SIZE)"
            )
        (self._coming / entry.sha256).write_bytes(b"")

    def add(self, entry: Entry, chunk: bytes) -> None:
        """The next bytes of a file; with its last ones it is there. Raises RequestError where it is not the one."""
        coming = self._coming / entry.sha256
        with coming.open("ab") as file:
            file.write(chunk)
            size = file.tell()
        if size < entry.size_bytes:
            return
        with coming.open("rb") as file:
            arrived = hashlib.file_digest(file, "sha256").hexdigest()
        if arrived != entry.sha256:
            coming.unlink()
            raise RequestError(f"{PurePosixPath(entry.place).name} arrived as another file than was sent")
        coming.replace(self._files / entry.sha256)

    def find(self, file: File, tree: Tree) -> File:
        """The file as it is here; all that it ``lacks`` has come."""
        path = tree.root / tree.main if _is_there(tree) else self._lay(tree) / tree.main
        if isinstance(file, ModelFile):
            return replace(file, path=path, stamp=stamp(path))
        return replace(file, path=path)

    def _lay(self, tree: Tree) -> Path:
        """The tree made of its files, as links: its weights are on the disk once."""
        laid = self._trees / tree.name
        if not laid.is_dir():
            making = self._coming / tree.name
            shutil.rmtree(making, ignore_errors=True)
            for entry in tree.entries:
                place = PurePosixPath(entry.place)
                if place.is_absolute() or ".." in place.parts:
                    raise RequestError(f"{entry.place!r} is not a place within a folder")
                (making / place).parent.mkdir(parents=True, exist_ok=True)
                os.link(self._files / entry.sha256, making / place)
            try:
                making.rename(laid)
            except OSError:
                if not laid.is_dir():  # another worker was as quick
                    raise
        for entry in tree.entries:
            path = self._files / entry.sha256
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # the newest used
        return laid

    def _forget(self, path: Path, stat: os.stat_result) -> None:
        """A file, with the trees that have it."""
        for tree in self._trees.iterdir():
            if any(os.path.samestat(own, stat) for _, own in _stats(tree.rglob("*"))):
                shutil.rmtree(tree, ignore_errors=True)
        path.unlink(missing_ok=True)

    def _kept(self) -> list[tuple[Path, os.stat_result]]:
        return list(_stats(self._files.iterdir()))


def _stats(paths: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Without those that another worker takes away meanwhile."""
    for path in paths:
        with suppress(FileNotFoundError):
            yield path, path.stat()


def _is_there(tree: Tree) -> bool:
    """Whether all of it lies here where it lies there, as on one machine or a disk that both have."""
    try:
        return all(
            (path := tree.root / entry.place).stat().st_size == entry.size_bytes and hash_whole(path) == entry.sha256
            for entry in tree.entries
        )
    except OSError:
        return False


def chunks(path: Path) -> Iterator[bytes]:
    """A file's bytes."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def places_of_files(trees: Sequence[Tree]) -> dict[str, tuple[Entry, Path]]:
    """By their SHA-256, where the files lie here."""
    return {entry.sha256: (entry, tree.root / entry.place) for tree in trees for entry in tree.entries}
