"""What a host does not want drawn for guests: words, and what functions of theirs say of texts and pictures.

``words.txt`` in the folder has a word or phrase a line. ``filters.py``, where there is one, may have
``check_text(prompt: str) -> str`` and ``check_picture(picture: PIL.Image.Image) -> str``: a reason to refuse, or "".
The host's own file is run as it is, with the server's rights. Where it fails, nothing is drawn for guests.
"""

import importlib.util
import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from webui.core.disk import replace_file
from webui.core.errors import RequestError
from webui.core.events import Done, Event, Failed, Image, Step
from webui.core.request import Request
from webui.core.visitor import Visitor

WORDS = """# Words and phrases that guests may not ask for, one a line, whatever their case.
# A prompt that has one of them as a whole word is refused before it is queued.
# This list is empty, and no list of words knows what a picture shows: filters.py beside it may look at pictures.
"""
BROKEN = "The host's filter does not work, so nothing is drawn for guests."

REASON_LETTERS = 300
UNSEEN = {chr(0x34F), chr(0x115F), chr(0x1160), chr(0x3164), chr(0xFFA0), *map(chr, range(0xFE00, 0xFE10))}
FROM_NEGATIVE = 1.0
"""Below this guidance a picture shows what the negative prompt says."""

log = logging.getLogger(__name__)


class Filters:
    """Those in the folder; none of them is about the owner."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """Puts an empty list of words there, which says how to write one, where there is none."""
        with suppress(OSError):
            if not (self._folder / "words.txt").exists():
                replace_file(self._folder / "words.txt", WORDS.encode(), 0o644)

    def check(self, requests: Iterable[Request], visitor: Visitor) -> None:
        """Raises RequestError for a text that is refused."""
        if visitor.is_owner:
            return
        words = self._words()
        for prompt in dict.fromkeys(text for request in requests for text in _shown(request.model_dump())):
            plain = f" {_plain(prompt)} "
            if word := next((word for word in words if f" {word} " in plain), None):
                raise RequestError(f"prompt: this server does not draw “{word}” for guests", field="prompt")
            if reason := self._ask("check_text", prompt):
                raise RequestError(f"prompt: {reason}", field="prompt")

    def sift(self, event: Event, visitor: Visitor, refused: list[str]) -> Event | None:
        """The event; None for a picture that is refused, whose reason is ``refused`` then.

        Where pictures are looked at, there are no previews, and the end says what was refused.
        """
        if visitor.is_owner or not self._has("check_picture"):
            return event
        if isinstance(event, Image):
            try:
                reason = self._ask("check_picture", event.image.copy())
            except RequestError as error:
                return Failed(str(error))
            refused += [reason] if reason else []
            return None if reason else event
        if isinstance(event, Step):
            return replace(event, preview=None)
        if isinstance(event, Done) and refused:
            count = "A picture was" if len(refused) == 1 else f"{len(refused)} pictures were"
            said = f"{count} refused by this server's filter: {'; '.join(dict.fromkeys(refused))}."
            return replace(event, warnings=(*event.warnings, said))
        return event

    def _words(self) -> list[str]:
        """The list as it is now."""
        try:
            lines = (self._folder / "words.txt").read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            log.error("words.txt cannot be read: %s", error)
            raise RequestError(BROKEN) from None
        return [word for line in lines if not line.startswith("#") and (word := _plain(line))]

    def _has(self, name: str) -> bool:
        return self._broken or name in self._functions

    def _ask(self, name: str, what: object) -> str:
        if self._broken:
            raise RequestError(BROKEN)
        try:
            reason = " ".join(str(self._functions[name](what) or "").split()) if name in self._functions else ""
            return reason if len(reason) <= REASON_LETTERS else f"{reason[:REASON_LETTERS]}..."
        except (Exception, SystemExit):  # which would end the thread that draws
            log.exception("filters.py: %s failed", name)
            raise RequestError(BROKEN) from None

    @property
    def _broken(self) -> bool:
        return self._loaded is None

    @property
    def _functions(self) -> dict[str, Callable[[Any], Any]]:
        return self._loaded or {}

    @cached_property
    def _loaded(self) -> dict[str, Callable[[Any], Any]] | None:
        """The functions of ``filters.py``, read once; None where it cannot be run."""
        path = self._folder / "filters.py"
        if not path.exists():
            return {}
        try:
            spec = importlib.util.spec_from_file_location("darkroom_filters", path)
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        except (Exception, SystemExit):
            log.exception("filters.py cannot be run")
            return None
        names = ("check_text", "check_picture")
        return {name: getattr(module, name) for name in names if callable(getattr(module, name, None))}


def _shown(values: Any) -> Iterator[str]:
    """All that is to be seen, in a request and its groups. What a negative prompt says is to be left out, but where
    there is so little guidance that it leads."""
    found = list(_named(values))
    leads = any(name == "guidance" and value < FROM_NEGATIVE for name, value in found if isinstance(value, int | float))
    names = ("prompt", "negative") if leads else ("prompt",)
    yield from (value for name, value in found if name in names and isinstance(value, str))


def _named(values: Any) -> Iterator[tuple[str, Any]]:
    """All fields with their values, those of groups too."""
    inner = values.items() if isinstance(values, dict) else ()
    yield from inner
    for value in values.values() if isinstance(values, dict) else values if isinstance(values, list | tuple) else ():
        yield from _named(value)


def _plain(text: str) -> str:
    """Its words in one form, with one blank between them: letters and digits apart, as the tokenizer takes them, and
    without what nobody sees."""
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", text) if not _is_unseen(letter))
    return " ".join(re.findall(r"[^\W\d_]+|\d+", seen.casefold()))


def _is_unseen(letter: str) -> bool:
    return unicodedata.category(letter) == "Cf" or letter in UNSEEN
