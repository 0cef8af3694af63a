"""What a file may be called on any disk: a finished picture, and one that somebody adds."""

import re
import string
import unicodedata
from collections.abc import Mapping
from itertools import dropwhile
from typing import Literal

FileFormat = Literal["png", "jpeg", "webp"]

FILENAME = "{counter}-{seed}-{slug}"
FILENAME_FIELDS = (
    "counter",
    "seed",
    "slug",
    "model",
    "sampler",
    "steps",
    "guidance",
    "width",
    "height",
    "date",
    "time",
)
MAX_STEM_BYTES = 200
MAX_SLUG_CHARACTERS, MAX_SLUG_BYTES = 48, 69
KEPT = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Nd"})  # letters, their marks, digits
UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Letters and marks that show nothing."""

RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(10))}
)
"""What no file of Windows may be called before its first dot."""


def check_filename(pattern: str) -> str:
    """The pattern, where it is one; ValueError saying what is wrong otherwise."""
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise ValueError(f"cannot be read: {error}") from None
    names = [name for _, name, _, _ in parts if name is not None]
    if any(spec or conversion for _, _, spec, conversion in parts) or not set(names) <= set(FILENAME_FIELDS):
        raise ValueError(f"may have {', '.join(f'{{{name}}}' for name in FILENAME_FIELDS)}")
    if names.count("counter") != 1:
        raise ValueError("must have {counter} once: it keeps two pictures from having one name")
    if not all(re.fullmatch(r"[\w .+=@()-]*", literal, re.ASCII) for literal, *_ in parts) or pattern[0] in " .-":
        raise ValueError("may have ASCII letters, digits and _.+=@()- besides, and begin with a letter, digit or field")
    return pattern


def check_name(name: str) -> str:
    """The name of a file alone, as every disk takes it; ValueError saying what is wrong otherwise."""
    name = unicodedata.normalize("NFC", name)
    if not name.strip(" ."):
        raise ValueError("must not be empty")
    if found := re.search(r"[/\\:*?\"<>|\x00-\x1f\x7f-\x9f]", name):
        raise ValueError(f"must be the name of a file alone, without {found[0]!r}")
    if any(unicodedata.category(character) in ("Cf", "Cs", "Co", "Cn", "Zl", "Zp") for character in name):
        raise ValueError("has characters that cannot be seen")
    if name[0] in " ." or name[-1] in " .":
        raise ValueError("must not begin or end with a dot or a blank")
    if name.partition(".")[0].rstrip().casefold() in RESERVED:
        raise ValueError("is a name that Windows keeps for itself")
    if len(name.encode()) > MAX_STEM_BYTES:
        raise ValueError(f"is longer than {MAX_STEM_BYTES} bytes")
    return name


def slug(prompt: str) -> str:
    """The prompt as part of a file name on any disk: letters of any script, digits, and dashes for all else.

    It is composed (NFC) and has at most ``MAX_SLUG_CHARACTERS`` and ``MAX_SLUG_BYTES``.
    """
    text = unicodedata.normalize("NFC", UNSEEN.sub("", unicodedata.normalize("NFC", prompt[:400]).lower()))
    kept = (character if unicodedata.category(character) in KEPT else " " for character in text)
    words = ("".join(dropwhile(_is_mark, word)) for word in "".join(kept).split())
    return _cut("-".join(filter(None, words)), MAX_SLUG_CHARACTERS, MAX_SLUG_BYTES) or "picture"


def _is_mark(character: str) -> bool:
    """Whether it is written over, under or around the letter before it."""
    return unicodedata.category(character).startswith("M")


def _cut(text: str, characters: int, size_bytes: int) -> str:
    """The text's beginning, which ends between two letters, not between one and its marks."""
    kept = text[:characters].encode()[:size_bytes].decode("utf-8", "ignore")
    if len(kept) < len(text) and _is_mark(text[len(kept)]):
        while kept and _is_mark(kept[-1]):
            kept = kept[:-1]
        kept = kept[:-1]
    return kept.strip("-")


def make_stem(filename: str, number: int, values: Mapping[str, object]) -> str:
    """The file's name without its ending; words are cut where it would be too long, its number never."""
    for room in (MAX_SLUG_BYTES, 40, 20, 10):
        cut = {name: _cut(value, room, room) if isinstance(value, str) else value for name, value in values.items()}
        stem = filename.format(counter=f"{number:05d}", **cut)
        if len(stem.encode()) <= MAX_STEM_BYTES:
            break
    else:
        stem = f"{_cut(stem, MAX_STEM_BYTES, MAX_STEM_BYTES - 20)}-{number:05d}"
    return f"_{stem}" if stem.partition(".")[0].rstrip().casefold() in RESERVED else stem
