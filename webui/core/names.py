"""What files are called, and which one a name means. A name is a key of what was found; it never becomes a path."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain

from webui.core.errors import Mend, RequestError, show, show_some
from webui.core.files import File

MAX_CHARACTERS = 255  # of a name in a request
LANCZOS = "Lanczos"
"""The upscaler that is a filter and no file."""
SUBJECT = "demo-subject"
"""The finder that is arithmetic and no file."""
PAINTED, PREVIOUS = "painted-mask", "previous-mask"
"""Finders that find what was painted over the start picture, and what the detail before them found."""
FINDERS = (SUBJECT, PAINTED, PREVIOUS)
NEAR = 0.6
"""Of all characters of two names, the share that must be the same for the one to be meant by the other."""
_NOT_IN_TAGS = str.maketrans("<>:", "   ")


def choose(kind: str, name: str, names: Iterable[str], field: str = "", listed: bool = True) -> str:
    """The one of ``names`` that ``name`` means, whatever its case; RequestError with near names otherwise.

    ``field`` is the request's field that the error is about, where it is not called like the kind; ``listed`` is false
    where the error is not to list what there is instead of near names.
    """
    names = tuple(names)
    if name in names:
        return name
    wanted = fold(name)
    for known in names:
        if fold(known) == wanted:
            return known
    raise unknown(kind, name, names, field, listed)


def choose_file(kind: str, name: str, files: Mapping[str, File], field: str = "") -> str:
    """The name in ``files`` of the one that ``name`` means, as ``find_file`` finds it; raises as ``choose`` does."""
    if (found := find_file(name, files)) is None:
        raise unknown(kind, name, files, field)
    return found


def choose_lora(name: str, files: Mapping[str, File]) -> str:
    """The same for a LoRA; near names are told as tags can hold them."""
    if (found := find_file(name, files)) is None:
        error = unknown("LoRA", name, filter(None, map(tag_name, files)), field="loras")
        mend = replace(error.mend, instead_of=name) if error.mend else Mend("remove", name)
        raise RequestError(str(error), "loras", mend)
    return found


def choose_upscaler(name: str, files: Mapping[str, File], field: str, filters: Iterable[str] = ()) -> str:
    """The same for an upscaler; the filter is always there, and where ``filters`` are named they are, too."""
    always = (LANCZOS, *filters)
    for known in always:
        if fold(name) == fold(known):
            return known
    if (found := find_file(name, files)) is None:
        raise unknown("upscaler", name, (*always, *files), field)
    return found


def choose_finder(name: str, files: Mapping[str, File], field: str) -> str:
    """The same for a finder; some are no files. A pickle's name means the ONNX file of that name, where it is there."""
    for known in FINDERS:
        if fold(name) == fold(known):
            return known
    stem, _, ending = name.rpartition(".")
    is_pickle = ending.casefold() in ("pt", "pth")
    for wanted in (f"{stem}.onnx", name) if is_pickle else (name,):
        if (found := find_file(wanted, files)) is not None:
            return found
    error = unknown("finder", name, (*FINDERS, *files), field)
    if is_pickle:
        line = f"yolo export model={show(stem)}.pt format=onnx"
        error = RequestError(f"{error} Finders are ONNX files: `{line}` makes one of a .pt.", field=field)
    raise error


def find_file(name: str, files: Mapping[str, File]) -> str | None:
    """The name in ``files`` of the one that ``name`` means; None where there is none.

    Besides names, where a file lies below the folder of its kind is understood, and the end of that, with its ending
    or without and with either slash; and what a tag can hold of a name.
    """
    if name in files:
        return name
    wanted = fold(name)
    for forms in (_by_name, _by_place, _by_end, _by_tag):
        for known, file in files.items():
            if wanted in forms(file, wanted):
                return known
    return None


def _by_name(file: File, _wanted: str) -> tuple[str, ...]:
    return _with_ending(file.name, file)


def _by_place(file: File, _wanted: str) -> tuple[str, ...]:
    return _with_ending(file.place, file)


def _by_end(file: File, wanted: str) -> tuple[str, ...]:
    """The name of its kind's folder may stand before its place."""
    if "/" not in wanted:
        return ()
    return tuple(wanted for end in _with_ending(file.full_place, file) if f"/{end}".endswith(f"/{wanted}"))


def _by_tag(file: File, _wanted: str) -> tuple[str, ...]:
    return (fold(tag_name(file.name)),)


def _with_ending(text: str, file: File) -> tuple[str, ...]:
    return fold(text), fold(text + file.path.suffix)


def tag_name(name: str) -> str:
    """The name as a tag can hold it: with blanks for ``<``, ``>`` and ``:``, and none around it."""
    return name.translate(_NOT_IN_TAGS).strip()


def in_tags(name: str, files: Mapping[str, File]) -> str:
    """What a tag says to mean this one of ``files``; empty where no tag can, because that means another one."""
    held = tag_name(name)
    return held if held and find_file(held, files) == name else ""


def fold(name: str) -> str:
    """What two names have in common that mean the same file."""
    return unicodedata.normalize("NFC", name).casefold().replace("\\", "/")


def is_word(name: str, text: str) -> bool:
    """Whether the name stands in the text, whatever its case, and not only within a longer word."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None


def unknown(kind: str, name: str, names: Iterable[str], field: str = "", listed: bool = True) -> RequestError:
    """The error that says that ``name`` is none of ``names``, with near ones, or else with what there is."""
    names = tuple(names)
    error = f"There is no {kind} “{show(name)}”."
    if near := _near(name, names):
        error = f"There is no {kind} “{show(name)}”; did you mean {show_some(near, last=' or ')}?"
    elif listed and len(names) == 1:
        error += f" There is only {show_some(names)}."
    elif listed and names:
        error += f" There are {len(names)}: {show_some(names)}."
    return RequestError(error, field=field or kind, mend=Mend("use", near[0]) if near else None)


def _near(name: str, names: Iterable[str]) -> list[str]:
    """Names that are nearly the same, then those that begin like it or have it within them."""
    known: dict[str, str] = {}
    for other in names:
        known.setdefault(fold(other), other)
    wanted = fold(name)[:MAX_CHARACTERS]
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=NEAR)
    around = (other for other in known if len(wanted) >= 3 and wanted in other)
    return [known[other] for other in dict.fromkeys(chain(close, around))][:3]
