"""Files of so many parts, or of parts copied so often, that opening them would cost far more than their size."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PilImages

from webui.core.images import ImageError, open_image, opened


def saved(file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PilImages.new("P" if file_format == "GIF" else "RGB", (8, 8)).save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def directory(entries: int, count: int = 20_000, kind: int = 2, spare: int = 0) -> bytes:
    """A TIFF directory whose entries all point to the same bytes."""
    place = 8 + 2 + 12 * entries + 4
    body = b"II*\0" + struct.pack("<IH", 8, entries)
    body += b"".join(struct.pack("<HHII", 0xC000 + k, kind, count, place) for k in range(entries))
    return body + bytes(4) + b"a" * (20_000 + spare)


def put(data: bytes, at: int, parts: bytes) -> bytes:
    return data[:at] + parts + data[at:]


PNG, JPEG = saved("PNG"), saved("JPEG")
GIF = saved("GIF")
GIF_AT = GIF.index(b",", 13)
PROFILE = b"Raw profile type exif\0"
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "chunks": (lambda: put(PNG, 33, chunk(b"abCd") * 20_001), "more than 20,000 parts"),
    "chunks behind the pixels": (lambda: put(PNG, len(PNG) - 12, chunk(b"abCd") * 20_001), "more than 20,000 parts"),
    "segments": (lambda: put(JPEG, 2, b"\xff\xe5\0\2" * 20_001), "more than 20,000 segments"),
    "bytes that fill": (lambda: put(JPEG, 2, b"\xff" * 20_001), "more than 20,000 segments"),
    "comments": (lambda: put(GIF, GIF_AT, b"!\xfe\1a\0" * 4_000), "more than 4,000 blocks"),
    "one comment of many blocks": (
        lambda: put(GIF, GIF_AT, b"!\xfe" + b"\1a" * 4_000 + b"\0"),
        "more than 4,000 blocks",
    ),
    "EXIF in PNG": (lambda: put(PNG, 33, chunk(b"eXIf", directory(900))), "entries of 18,000,000 bytes"),
    "EXIF behind the pixels": (
        lambda: put(PNG, len(PNG) - 12, chunk(b"eXIf", directory(900))),
        "entries of 18,000,000",
    ),
    "EXIF as a profile": (
        lambda: put(PNG, 33, chunk(b"tEXt", PROFILE + b"\nexif\n1\n" + directory(900).hex().encode())),
        "entries of 18,000,000",
    ),
    "EXIF as a packed profile": (
        lambda: put(
            PNG, 33, chunk(b"zTXt", PROFILE + b"\0" + zlib.compress(b"\nexif\n1\n" + directory(900).hex().encode()))
        ),
        "entries of 18,000,000",
    ),
    "EXIF in JPEG": (lambda: saved("JPEG", exif=b"Exif\0\0" + directory(900)), "entries of 18,000,000"),
    "EXIF in WebP": (lambda: saved("WEBP", exif=b"Exif\0\0" + directory(900)), "entries of 18,000,000"),
    "EXIF in AVIF": (lambda: saved("AVIF", exif=b"Exif\0\0" + directory(900)), "entries of 18,000,000"),
    "EXIF of whole numbers": (
        lambda: saved("JPEG", exif=b"Exif\0\0" + directory(900, 10_000, 3)),
        "entries of 18,000,000",
    ),
    "many entries": (lambda: saved("WEBP", exif=b"Exif\0\0" + directory(1_001, 1)), "1,001 entries"),
    "long EXIF": (lambda: put(PNG, 33, chunk(b"eXIf", directory(1, spare=2**22))), "bytes of EXIF"),
    "TIFF": (lambda: directory(900), "entries of 18,000,000"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_they_are_refused_before_they_are_read(tmp_path: Path, name: str) -> None:
    make, reason = BOMBS[name]
    content = make()
    (tmp_path / "x").write_bytes(content)
    for source in (content, tmp_path / "x"):
        with pytest.raises(ImageError, match=reason):
            open_image(source)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_usual_pictures_are_opened(file_format: str) -> None:
    exif = PilImages.Exif()
    exif[0x010E], exif[0x0112] = "a fox" * 1000, 1
    options = {} if file_format in ("GIF", "BMP") else {"exif": exif.tobytes() if file_format != "TIFF" else exif}
    comment = {"comment": b"a fox" * 2_000} if file_format in ("GIF", "JPEG") else {}
    with opened(saved(file_format, **options, **comment)) as image:
        assert image.size == (8, 8)
