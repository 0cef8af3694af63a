"""What a prompt leaves to chance: ``{a|b}``, ``{2$$ and $$a|b|c}`` and ``__name__``.

The forms are those of the library dynamicprompts. Left alone it would also eat what stands behind a ``#``, stop at a
``$`` and take ``{thing}`` for ``thing``; so its marks are found here first, and it sees all other signs in disguise.
Braces are a choice where a bar or ``2$$`` stands in them. A bar counts for the innermost bracket around it, so that
``{[a|b]|c}`` chooses between ``[a|b]`` and ``c``. A backslash takes the meaning from the sign behind it.

A name between underscores is a wildcard's. One that touches letters or digits, stands in a tag such as ``<lora:...>``
or has blanks in it may be meant as it is (``my__style__2``), and is taken for one only where there is one.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from webui.core.errors import RequestError, show

MAX_FORMS = 250
"""In one text: each takes its time, and again for each picture."""
MAX_DEPTH = 10
"""Of choices within each other, and of wildcards that name wildcards."""

_MARK = re.compile(
    r"\\.|__(?P<method>[~!@]?)(?P<name>[^\s_{}#$|()<>:\[\]\\][^{}#$|()<>:\[\]\\\n]{0,99}?)__|[{}\[\]()|]", re.DOTALL
)
_HEAD = re.compile(r"\s*([~!@]?)\s*(?:(\d{1,6}-\d{1,6}|-\d{1,6}|\d{1,6}-?)\s*\$\$(?:([^${}]*)\$\$)?)?")
_TAG = re.compile(r"<\w+:[^<>]*>")
_PLAIN_NAME = re.compile(r"[\w/.*?-]+")
_OPENINGS = {"}": "{", "]": "[", ")": "("}
_SURROGATES = 0xD800  # which no text has in it
_DISGUISE = {ord(sign): chr(_SURROGATES + ord(sign)) for sign in "{}|$#%/_~*\t"}  # what means something to the library
_UNDISGUISE = {ord(other): chr(sign) for sign, other in _DISGUISE.items()}
_SEPARATOR = re.compile(r"~([0-9a-f.]*)~")  # in the library's own form there are none but English letters


@dataclass(frozen=True)
class Name:
    """A wildcard's name or a glob, where it stands, and how it is drawn.

    ``certain`` is false where it may be meant as words, and ``in_tag`` true where it is a part of a LoRA's name then.
    """

    name: str
    start: int
    stop: int
    method: str
    certain: bool
    in_tag: bool


@dataclass(frozen=True)
class Choice:
    """Braces: their places, those of the bars between its parts, where the first part begins, and how deep it goes.

    Before that part stands how it is drawn, how many parts are, and what is put between them, None for a comma.
    """

    start: int
    stop: int
    bars: tuple[int, ...]
    body: int
    depth: int
    method: str
    bound: str
    separator: str | None


@dataclass(frozen=True)
class Template:
    """A text and what is left to chance in it. ``words`` are names that no wildcard has."""

    text: str
    names: tuple[Name, ...]
    choices: tuple[Choice, ...]
    words: tuple[str, ...] = ()

    @property
    def forms(self) -> int:
        """How many things are left to chance."""
        return len(self.names) + len(self.choices)

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines for people: what could have been meant otherwise."""
        lines = [f"There is no wildcard “{show(name)}”; “__{show(name)}__” is read as words." for name in self.words]
        if "!" in {*(name.method for name in self.names), *(choice.method for choice in self.choices)}:
            lines.append("With “!” a choice is all that it can be, one after the other; here one of them is drawn.")
        return tuple(dict.fromkeys(lines))

    def disguised(self) -> str:
        """As the library is shown it."""
        marks: dict[int, tuple[int, str]] = {}
        for choice in self.choices:
            marks[choice.start] = choice.body, _write_head(choice)
            marks[choice.stop - 1] = choice.stop, "}"
            marks |= {bar: (bar + 1, "|") for bar in choice.bars}
        for name in self.names:
            marks[name.start] = name.stop, f"__{_sign(name.method)}{name.name.translate(_DISGUISE)}__"
        parts: list[str] = []
        place = 0
        for start, (stop, mark) in sorted(marks.items()):
            parts += [self.text[place:start].translate(_DISGUISE), mark]
            place = stop
        return "".join([*parts, self.text[place:].translate(_DISGUISE)])


def undisguised(text: str) -> str:
    """What was drawn, as people wrote it."""
    separated = _SEPARATOR.sub(lambda found: "".join(chr(int(code, 16)) for code in found[1].split(".") if code), text)
    return separated.translate(_UNDISGUISE)


def may_be_dynamic(text: str) -> bool:
    """Whether it is worth a closer look."""
    return "__" in text or "{" in text and ("|" in text or "$$" in text)


def scan(text: str, is_wildcard: Callable[[str], bool], field: str = "prompt") -> Template:
    """What is left to chance in a text; raises RequestError where that is too much.

    ``is_wildcard`` says of a name that may be meant as words whether it is one.
    """
    template = _scan(text, is_wildcard)
    check_forms(template.forms, field)
    if (depth := max((choice.depth for choice in template.choices), default=0)) > MAX_DEPTH:
        raise RequestError(f"{field}: choices are {depth} deep in each other; {MAX_DEPTH} is the limit", field=field)
    return template


def check_forms(count: int, field: str) -> None:
    """Raises RequestError for too much that is left to chance."""
    if count > MAX_FORMS:
        raise RequestError(
            f"{field}: it comes to more than {MAX_FORMS} choices and wildcards, which is the limit", field=field
        )


def as_words(text: str) -> str:
    """The same text with a backslash before each mark, so that it says its words alone."""
    while may_be_dynamic(text):
        template = _scan(text, lambda _: False)
        places = {place for choice in template.choices for place in choice.bars}
        places |= {choice.start for choice in template.choices if choice.bound}
        for name in template.names:
            places |= {name.start, name.start + 1, name.stop - 2, name.stop - 1}
        if not places:
            break
        bounds = [0, *sorted(places), len(text)]
        text = "\\".join(text[start:stop] for start, stop in pairwise(bounds))
    return text


@dataclass
class _Open:
    """A bracket that is not closed yet: the bars in it, and how deep the choices within it go."""

    sign: str
    place: int
    head: re.Match[str] | None
    bars: list[int]
    depth: int = 0


def _scan(text: str, is_wildcard: Callable[[str], bool]) -> Template:
    names: list[Name] = []
    words: list[str] = []
    choices: list[Choice] = []
    opened: list[_Open] = []
    braces = place = 0
    tags = [tag.span() for tag in _TAG.finditer(text)] if "__" in text else []
    while mark := _MARK.search(text, place):
        sign, start, place = mark[0], mark.start(), mark.end()
        if mark["name"]:
            name = _read_name(text, mark, tags)
            if name.certain or is_wildcard(name.name):
                names.append(name)
            else:
                place = start + 2  # another may begin where it ends
                words += [name.name] if _PLAIN_NAME.fullmatch(name.name) and not name.in_tag else []
        elif sign in ("{", "[", "("):
            head = _HEAD.match(text, place) if sign == "{" else None
            opened.append(_Open(sign, start, head, []))
            place, braces = head.end() if head else place, braces + (sign == "{")
        elif sign == "|" and opened:
            opened[-1].bars.append(start)
        elif sign == "}" and braces:
            braces -= 1
            choice = _close_braces(opened, place)
            if choice:
                choices.append(choice)
        elif sign in ("]", ")") and opened and opened[-1].sign == _OPENINGS[sign]:
            closed = opened.pop()
            if opened:
                opened[-1].depth = max(opened[-1].depth, closed.depth)
    return Template(text, tuple(names), tuple(choices), tuple(words))


def _close_braces(opened: list[_Open], stop: int) -> Choice | None:
    """The innermost braces that are open, with what was opened in them and never closed; None where they are text."""
    bars: list[int] = []
    depth = 0
    while True:
        last = opened.pop()
        bars, depth = last.bars + bars, max(depth, last.depth)
        if last.sign == "{":
            break
    assert last.head
    method, bound, separator = last.head.groups()
    is_choice = bool(bars or bound)
    if opened:
        opened[-1].depth = max(opened[-1].depth, depth + is_choice)
    if not is_choice:
        return None
    return Choice(last.place, stop, tuple(bars), last.head.end(), depth + 1, method, bound or "", separator)


def _read_name(text: str, mark: re.Match[str], tags: Sequence[tuple[int, int]]) -> Name:
    start, stop = mark.span()
    touches = text[max(start - 1, 0) : start].isalnum() or text[stop : stop + 1].isalnum()
    in_tag = any(first < start < last for first, last in tags)
    certain = not touches and not in_tag and _PLAIN_NAME.fullmatch(mark["name"]) is not None
    name = re.sub("/+", "/", mark["name"]).strip("/ ")
    return Name(name, start, stop, mark["method"], certain, in_tag)


def _write_head(choice: Choice) -> str:
    bound = f"{choice.bound}$$" if choice.bound else ""
    separator = "" if choice.separator is None else f"~{'.'.join(f'{ord(sign):x}' for sign in choice.separator)}~$$"
    return "{" + _sign(choice.method) + bound + separator


def _sign(method: str) -> str:
    """The library draws one of all as it draws any."""
    return "" if method == "!" else method
