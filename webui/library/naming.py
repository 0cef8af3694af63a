"""Which name each file gets, where several could have the same."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TypeVar

from webui.core.files import File
from webui.core.names import MAX_CHARACTERS, fold

F = TypeVar("F", bound=File)


@dataclass(frozen=True)
class FoundFile:
    """A file that is to be named by its ``path``, unless it brings a name; ``place`` as in ``File``."""

    path: Path
    place: str
    usable: bool = True
    name: str = ""

    @cached_property
    def whole(self) -> str:
        """The whole path with slashes, without the ending; folders have none."""
        folder = os.path.dirname(self.path).replace(os.sep, "/")
        return f"{folder}/{self.place.rpartition('/')[2]}"

    def names(self, with_ending: bool) -> Iterator[str]:
        """What it could be called, best first: more and more of its path, then numbers."""
        *folders, last = self.whole.split("/")
        if self.name:
            yield self.name
        else:
            last = self.path.name if with_ending else last
            for first in range(len(folders), 0, -1):
                yield "/".join((*folders[first:], last))
        for number in count(2):
            yield f"{(self.name or last)[: MAX_CHARACTERS - 10]} ({number})"


def give_names(found: Iterable[FoundFile]) -> dict[str, FoundFile]:
    """Every file by a name of its own, usable ones first and otherwise in the given order.

    The first has its plain name, without its ending; a further one of that name has as much of its path before it as
    tells it apart. Of files in one folder that differ in their endings alone, the further ones keep these.
    """
    names: dict[str, FoundFile] = {}
    known: set[str] = set()
    for entry in sorted(found, key=lambda entry: not entry.usable):
        offers = entry.names(with_ending=entry.whole in known)
        name = next(name for name in offers if name not in names and len(name) <= MAX_CHARACTERS)
        names[name] = entry
        known.add(entry.whole)
    return names


def namesakes(names: Mapping[str, FoundFile]) -> dict[str, tuple[str, ...]]:
    """For each name that the paths of several usable files end in, the names of the others."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, entry in names.items():
        if entry.usable and not entry.name:
            whole = f"/{fold(entry.whole)}"
            groups.setdefault(whole.rpartition("/")[2], []).append((name, whole))
    found: dict[str, tuple[str, ...]] = {}
    for group in groups.values():
        for name, _ in group if len(group) > 1 else ():
            end = f"/{fold(name)}"
            if others := tuple(other for other, whole in group if other != name and whole.endswith(end)):
                found[name] = others
    return found


def make_files(found: Iterable[FoundFile], make: Callable[..., F]) -> dict[str, F]:
    """Each of them by its name, made of name, path, ``place`` and ``namesakes``."""
    names = give_names(found)
    others = namesakes(names)
    return {
        name: make(name, entry.path, place=entry.place, namesakes=others.get(name, ())) for name, entry in names.items()
    }
