"""Wildcards: what ``__name__`` stands for, by name, and what a name or a glob means among them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property

from webui.core.dynamic import MAX_DEPTH, Template, scan
from webui.core.errors import Mend, RequestError, show, show_some
from webui.core.names import fold, unknown
from webui.core.tensor_file import BadFile

_GLOB = re.compile(r"[*?]")


@dataclass(frozen=True)
class Entry:
    """One of the texts that a wildcard can be, and how often beside the others."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Wildcard:
    """Texts to draw one of. ``read`` gives them, once; it raises BadFile where they cannot be read."""

    name: str
    read: Callable[[], Iterable[Entry]] = field(compare=False)

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """As they stand in the file; raises BadFile."""
        return tuple(self.read())


class Wildcards:
    """All wildcards by name, and what of them a prompt asks for."""

    def __init__(self, known: Mapping[str, Wildcard]) -> None:
        self._known = known
        self._entries: dict[str, list[Entry]] = {}
        self._heights: dict[str, int] = {}

    @cached_property
    def _folded(self) -> dict[str, str]:
        return {fold(name): name for name in self._known}

    def is_wildcard(self, name: str) -> bool:
        """Whether there is one that it could mean."""
        return bool(self._names(name))

    def find(self, name: str, field: str = "prompt") -> list[Wildcard]:
        """The wildcards that a name, the end of one with its folders, or a glob means; raises RequestError for none.

        As with the library, what is not there by itself is looked for in all folders; where it is in several of them
        it is refused, because nobody could tell which one was meant.
        """
        names = self._names(name)
        if not names:
            error = unknown("wildcard", name, self._known, field=field, listed=False)
            raise RequestError(str(error), field, Mend("remove", name))
        if len(names) > 1 and not _GLOB.search(name):
            several = f"{len(names)} wildcards are called “{show(name)}”: {show_some(names)}"
            raise RequestError(f"{several}; name the folder too", field=field)
        return [self._known[found] for found in names]

    def entries(self, name: str, field: str = "prompt") -> list[Entry]:
        """All that they can be, each text once and in the order of the alphabet; raises RequestError."""
        if name not in self._entries:
            found: dict[str, Entry] = {}
            for wildcard in self.find(name, field):
                for entry in _read(wildcard, field):
                    found.setdefault(entry.text, entry)
            if not any(entry.weight for entry in found.values()):
                raise RequestError(f"Wildcard “{show(name)}” is empty: nothing can be drawn from it", field=field)
            self._entries[name] = sorted(found.values(), key=lambda entry: entry.text)
        return self._entries[name]

    def check(self, template: Template, field: str = "prompt") -> None:
        """Raises RequestError for what is not there, cannot be read, or names itself, whether it would be drawn or not.

        So whether a text can be drawn does not hang on the seed.
        """
        for name in template.names:
            self.entries(name.name, field)
            for wildcard in self.find(name.name, field):
                self._check(wildcard, (), field)

    def _check(self, wildcard: Wildcard, path: tuple[str, ...], field: str) -> int:
        """How many wildcards deep it goes. ``path`` are those that led to it."""
        name = wildcard.name
        if name in path:
            circle = " → ".join(show(each) for each in (*path[path.index(name) :], name))
            raise RequestError(f"Wildcard “{show(name)}” names itself: {circle}", field=field)
        height = self._heights.get(name, 1)
        if len(path) + height > MAX_DEPTH:
            raise RequestError(f"Wildcard “{show((*path, name)[0])}” is more than {MAX_DEPTH} deep", field=field)
        if name not in self._heights:
            for entry in _read(wildcard, field):
                for other in self._named_in(entry, name, field):
                    height = max(height, 1 + self._check(other, (*path, name), field))
            self._heights[name] = height
        return height

    def _named_in(self, entry: Entry, name: str, field: str) -> list[Wildcard]:
        if "__" not in entry.text:
            return []
        try:
            found = scan(entry.text, self.is_wildcard, "an entry").names
            return [other for named in found if self.entries(named.name) for other in self.find(named.name)]
        except RequestError as error:
            raise RequestError(f"Wildcard “{show(name)}”: {error}", field=field) from None

    def _names(self, name: str) -> list[str]:
        if name in self._known:
            return [name]
        wanted = fold(name)
        if _GLOB.search(wanted):
            matching = [known for folded, known in self._folded.items() if fnmatchcase(folded, wanted)]
            return matching or [known for folded, known in self._folded.items() if fnmatchcase(folded, f"*/{wanted}")]
        if wanted in self._folded:
            return [self._folded[wanted]]
        return [known for folded, known in self._folded.items() if folded.endswith(f"/{wanted}")]


def _read(wildcard: Wildcard, field: str) -> Sequence[Entry]:
    try:
        return wildcard.entries
    except BadFile as error:
        raise RequestError(f"Wildcard “{show(wildcard.name)}” {error}", field=field) from None
