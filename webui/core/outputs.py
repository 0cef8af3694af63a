"""Finished pictures -> files, written whole or not at all."""

import errno
import io
import os
import re
import string
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from itertools import count, dropwhile
from pathlib import Path
from typing import Any, Literal

from webui.core.events import Image
from webui.core.files import temporary_file
from webui.core.recipe import RecipeError, save_options
from webui.core.request import Request

FileFormat = Literal["png", "jpeg", "webp"]
SAVE_OPTIONS: Mapping[FileFormat, Mapping[str, Any]] = {
    "png": {"compress_level": 1},  # half the time of zlib's default level for about a seventh more bytes
    "jpeg": {"quality": 92},
    "webp": {"quality": 90},
}
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
UNNAMEABLE = (errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG)
"""Errors of disks that do not take a name."""


def encode_png(picture: Image) -> bytes:
    """The picture as PNG with its recipe."""
    return _encode(picture, "png")


def _encode(picture: Image, file_format: FileFormat) -> bytes:
    """Raises RecipeError where the format cannot hold the recipe."""
    recipe = replace(picture.recipe, pixels_sha256=picture.pixels_sha256)
    options = save_options(recipe, file_format.upper())
    buffer = io.BytesIO()
    picture.image.save(buffer, file_format.upper(), **SAVE_OPTIONS[file_format], **options)
    return buffer.getvalue()


def save_picture(picture: Image, folder: Path, file_format: FileFormat = "png", filename: str = FILENAME) -> Path:
    """Writes the picture into the folder, named by the pattern ``filename``, and returns its path; raises OSError.

    The bytes go to a temporary file first and appear under the final name in one step, which fails where the
    name is taken: neither a crash nor a second process leaves half a picture or overwrites one. A picture whose texts
    are too long for a JPEG becomes a PNG.
    """
    try:
        data = _encode(picture, file_format)
    except RecipeError:
        data, file_format = encode_png(picture), "png"
    values, ending = _name_values(picture.recipe.request), f".{file_format}"
    with temporary_file(folder, data, 0o644) as temporary:
        try:
            return _publish(temporary, folder, filename, values, ending)
        except (OSError, UnicodeEncodeError) as error:
            if getattr(error, "errno", errno.EINVAL) not in UNNAMEABLE:
                raise
            plain = {name: _to_ascii(value) for name, value in values.items()}
            return _publish(temporary, folder, filename, plain, ending)


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


def slug(prompt: str) -> str:
    """The prompt as part of a file name on any disk: letters of any script, digits, and dashes for all else.

    It is composed (NFC) and has at most ``MAX_SLUG_CHARACTERS`` and ``MAX_SLUG_BYTES``.
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", prompt[:400]).lower())
    kept = (character if unicodedata.category(character) in KEPT else " " for character in UNSEEN.sub("", text))
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


def _name_values(request: Request) -> dict[str, object]:
    """What a file name's pattern may show of a picture."""
    return {
        "seed": request.seed,
        "slug": slug(request.prompt),
        "model": slug(request.model),
        "sampler": slug(request.sampler),
        "steps": request.steps,
        "guidance": f"{request.guidance:g}",
        "width": request.width,
        "height": request.height,
        "date": time.strftime("%Y-%m-%d"),
        "time": time.strftime("%H%M%S"),
    }


def _publish(temporary: Path, folder: Path, filename: str, values: Mapping[str, object], ending: str) -> Path:
    for number in count(_next_number(folder, filename)):
        path = folder / f"{_stem(filename, number, values)}{ending}"
        try:
            os.link(temporary, path)
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links
            if path.exists():
                continue
            os.rename(temporary, path)
        return path
    raise AssertionError("count() does not end")


def _stem(filename: str, number: int, values: Mapping[str, object]) -> str:
    """The file's name without its ending; words are cut where it would be too long, its number never."""
    for room in (MAX_SLUG_BYTES, 40, 20, 10):
        cut = {name: _cut(value, room, room) if isinstance(value, str) else value for name, value in values.items()}
        stem = filename.format(counter=f"{number:05d}", **cut)
        if len(stem.encode()) <= MAX_STEM_BYTES:
            break
    else:
        stem = f"{_cut(stem, MAX_STEM_BYTES, MAX_STEM_BYTES - 20)}-{number:05d}"
    return f"_{stem}" if stem.partition(".")[0].rstrip().casefold() in RESERVED else stem


def _to_ascii(value: object) -> object:
    """For disks that do not take every letter, or not so many."""
    if not isinstance(value, str):
        return value
    plain = unicodedata.normalize("NFKD", value).encode("ascii", "ignore").decode()
    return re.sub(r"[^\w.]+", "-", plain)[:20].strip("-") or "picture"


def _next_number(folder: Path, filename: str) -> int:
    """One above the highest counter in the folder."""
    pattern = "".join(
        re.escape(literal) + {"counter": "([0-9]{5,})", None: ""}.get(name, ".*?")
        for literal, name, _, _ in string.Formatter().parse(filename)
    )
    numbers = (re.match(pattern, entry.name) for entry in os.scandir(folder))
    return max((int(match[1]) for match in numbers if match), default=0) + 1
