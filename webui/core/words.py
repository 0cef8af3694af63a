"""Words that help to write prompts: tags as lists of them name them, and where they and wildcards are asked for."""

import gzip
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

from webui.core.tensor_file import BadFile
from webui.core.wildcards import Wildcard

log = logging.getLogger(__name__)


class Tag(NamedTuple):
    """A word or a few that models were trained on. ``category`` is a number of the site that the list is of; ``note``
    is how often it has the tag, or what the list's author says instead; ``aliases`` mean the same."""

    name: str
    category: int = 0
    note: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def uses(self) -> int:
        """How often the tag is used, 0 where nobody says."""
        return int(self.note) if self.note.isdecimal() else 0


class Lines(NamedTuple):
    """``packed`` are lines of text under gzip: category, note, name and aliases with tabs between, the tags that are
    used most first; ``tags`` is how many there are."""

    packed: bytes
    tags: int


@dataclass(frozen=True)
class TagList:
    """A file of tags. ``read`` gives them; it raises BadFile where they cannot be read. ``version`` changes with it."""

    name: str
    version: str
    read: Callable[[], Iterable[Tag]] = field(compare=False, repr=False)

    @cached_property
    def lines(self) -> Lines:
        """As they are sent: kept like this, which takes a tenth of the memory of the tags. Nothing where there is a
        problem."""
        return self._content[0]

    @cached_property
    def problem(self) -> str:
        """Why it cannot be used, for its owner; empty where it can."""
        return self._content[1]

    @cached_property
    def _content(self) -> tuple[Lines, str]:
        try:
            tags = sorted(self.read(), key=lambda tag: -tag.uses)
        except BadFile as error:
            log.warning("The list of tags %s %s. It is left out.", self.name, error)
            return Lines(gzip.compress(b""), 0), str(error)
        text = "\n".join("\t".join((str(tag.category), tag.note, tag.name, *tag.aliases)) for tag in tags)
        return Lines(gzip.compress(text.encode(), 5, mtime=0), len(tags)), ""


class Words(Protocol):
    """Each kind by name, looked for when it is first asked for."""

    @property
    def wildcards(self) -> Mapping[str, Wildcard]: ...
    @property
    def tag_lists(self) -> Mapping[str, TagList]: ...
