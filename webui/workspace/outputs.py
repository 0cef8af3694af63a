"""Finished pictures -> files, written whole or not at all."""

import errno
import os
import re
import string
import time
import unicodedata
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

from webui.core.disk import temporary_file
from webui.core.events import Image
from webui.core.filenames import FILENAME, FileFormat, make_stem, slug
from webui.core.recipe import RecipeError
from webui.core.request import Request

UNNAMEABLE = (errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG)
"""Errors of disks that do not take a name."""


def save_picture(
    picture: Image,
    folder: Path,
    file_format: FileFormat = "png",
    filename: str = FILENAME,
    claim: Callable[[Path], None] = lambda _: None,
    quality: int | None = None,
    with_recipe: bool = True,
) -> Path:
    """Writes the picture into the folder, named by the pattern ``filename``, and returns its path; raises OSError.

    ``quality`` and ``with_recipe`` are those of ``Image.encode``.
    ``claim`` is told each name before the picture may appear under it.

    The bytes go to a temporary file first and appear under the final name in one step, which fails where the
    name is taken: neither a crash nor a second process leaves half a picture or overwrites one. A picture whose texts
    are too long for a JPEG becomes a PNG.
    """
    try:
        data = picture.encode(file_format, quality, with_recipe)
    except RecipeError:
        data, file_format = picture.encode(with_recipe=with_recipe), "png"
    values, ending = _name_values(picture.recipe.request), f".{file_format}"
    if picture.is_sheet:
        values["slug"] = slug(f"grid {picture.recipe.request.prompt}")
    with temporary_file(folder, data, 0o644) as temporary:
        try:
            return _publish(temporary, folder, filename, values, ending, claim)
        except (OSError, UnicodeEncodeError) as error:
            if getattr(error, "errno", errno.EINVAL) not in UNNAMEABLE:
                raise
            plain = {name: _to_ascii(value) for name, value in values.items()}
            return _publish(temporary, folder, filename, plain, ending, claim)


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


def _publish(
    temporary: Path,
    folder: Path,
    filename: str,
    values: Mapping[str, object],
    ending: str,
    claim: Callable[[Path], None],
) -> Path:
    for number in count(_next_number(folder, filename)):
        path = folder / f"{make_stem(filename, number, values)}{ending}"
        if path.exists():
            continue
        claim(path)
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
