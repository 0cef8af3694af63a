"""Finished pictures -> PNG files, written whole or not at all."""

import io
import os
import re
import tempfile
import unicodedata
from itertools import count
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from webui.core.events import Image

PNG_LEVEL = 1  # half the time of zlib's default level for about a seventh more bytes


def encode_png(picture: Image) -> bytes:
    """The picture as PNG with its ``parameters`` text (tEXt, or iTXt where latin-1 does not reach)."""
    text = PngInfo()
    text.add_text("parameters", picture.recipe.infotext())
    buffer = io.BytesIO()
    picture.image.save(buffer, "PNG", pnginfo=text, compress_level=PNG_LEVEL)
    return buffer.getvalue()


def save_picture(picture: Image, folder: Path) -> Path:
    """Writes ``<counter>-<seed>-<slug>.png`` into the folder and returns its path; raises OSError.

    The bytes go to a temporary file first and appear under the final name in one step, which fails where the
    name is taken: neither a crash nor a second process leaves half a picture or overwrites one.
    """
    request = picture.recipe.request
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".saving-", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(encode_png(picture))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        return _publish(Path(temporary), folder, f"{request.seed}-{slug(request.prompt)}")
    finally:
        Path(temporary).unlink(missing_ok=True)


def slug(prompt: str) -> str:
    """The prompt as part of a file name: ASCII letters, digits and dashes, at most 48 characters."""
    plain = unicodedata.normalize("NFKD", prompt[:400]).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:48].strip("-") or "picture"


def _publish(temporary: Path, folder: Path, stem: str) -> Path:
    for number in count(_next_number(folder)):
        path = folder / f"{number:05d}-{stem}.png"
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


def _next_number(folder: Path) -> int:
    numbers = (re.match(r"(\d{5,})-", entry.name) for entry in os.scandir(folder))
    return max((int(match[1]) for match in numbers if match), default=0) + 1
