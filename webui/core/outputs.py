"""Finished pictures -> files, written whole or not at all."""

import io
import os
import re
import string
import tempfile
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

from webui.core.events import Image
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
MAX_STEM_CHARACTERS = 160


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
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".saving-", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        return _publish(Path(temporary), folder, filename, _name_values(picture.recipe.request), f".{file_format}")
    finally:
        Path(temporary).unlink(missing_ok=True)


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
    """The prompt as part of a file name: ASCII letters, digits and dashes, at most 48 characters."""
    plain = unicodedata.normalize("NFKD", prompt[:400]).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:48].strip("-") or "picture"


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
        stem = filename.format(counter=f"{number:05d}", **values)[:MAX_STEM_CHARACTERS]
        path = folder / f"{stem}{ending}"
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


def _next_number(folder: Path, filename: str) -> int:
    """One above the highest counter in the folder."""
    pattern = "".join(
        re.escape(literal) + {"counter": r"(\d{5,})", None: ""}.get(name, ".*?")
        for literal, name, _, _ in string.Formatter().parse(filename)
    )
    numbers = (re.match(pattern, entry.name) for entry in os.scandir(folder))
    return max((int(match[1]) for match in numbers if match), default=0) + 1
