"""Bounds on the parts that a picture's file is made of, counted before Pillow reads it.

What Pillow does with a file's head grows with its parts, and not always linearly: each block of a GIF's comment is
added to the text so far, each entry of EXIF's or TIFF's directories copies what it points to, which may be the same
megabyte each time. So a small file could take hours, or all memory. Here every part is passed over once.
"""

import io
import os
import zlib
from collections.abc import Iterator
from typing import IO

MAX_PARTS = 20_000  # chunks of a PNG (one of 64 MB has 8,000 of the usual size), segments of a JPEG
MAX_GIF_BLOCKS = 4_000  # before the first picture, of 255 bytes
MAX_ENTRIES = 1_000  # of a directory
MAX_EXIF_BYTES = 4 * 2**20
SPARE_BYTES = 2**16
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
DIRECTORIES = (0x8769, 0x8825, 0xA005)  # EXIF's own, GPS, interoperability
EXIF_HEAD = b"Exif\0\0"
RAW_PROFILE = b"Raw profile type exif\0"


class TooManyParts(ValueError):
    """A file that would take far more work or memory than its size says; the message says of what it has too much."""


def check_parts(file: IO[bytes]) -> None:
    """Raises TooManyParts; leaves the file at its beginning."""
    head = file.read(16)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(file)
    elif head.startswith(b"\xff\xd8"):
        _check_jpeg(file)
    elif head[:3] == b"GIF":
        _check_gif(file)
    elif head[:4] == b"RIFF":
        _check_riff(file)
    elif head[:2] in (b"II", b"MM"):
        _check_directories(file, file.seek(0, os.SEEK_END))
    file.seek(0)


def check_exif(data: bytes) -> None:
    """Raises TooManyParts for EXIF whose entries would copy far more than it holds."""
    if len(data) > MAX_EXIF_BYTES:
        raise TooManyParts(f"has {len(data):,} bytes of EXIF; the limit is {MAX_EXIF_BYTES:,}")
    data = data.removeprefix(EXIF_HEAD)
    _check_directories(io.BytesIO(data), len(data))


def _check_png(file: IO[bytes]) -> None:
    file.seek(8)
    for _ in _count(MAX_PARTS, "parts"):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length = int.from_bytes(head[:4], "big")
        body = file.read(min(length, MAX_EXIF_BYTES + 1)) if head[4:] in (b"eXIf", b"tEXt", b"zTXt") else b""
        if head[4:] == b"eXIf":
            check_exif(body)
        elif body.startswith(RAW_PROFILE):
            check_exif(_read_profile(body[len(RAW_PROFILE) :], packed=head[4:] == b"zTXt"))
        file.seek(length - len(body) + 4, os.SEEK_CUR)


def _read_profile(text: bytes, packed: bool) -> bytes:
    """ImageMagick's form: a name, a length, then hexadecimal digits."""
    try:
        text = zlib.decompressobj().decompress(text[1:], 2 * MAX_EXIF_BYTES + 200) if packed else text
        return bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))
    except (ValueError, zlib.error):
        return b""


def _check_jpeg(file: IO[bytes]) -> None:
    file.seek(2)
    exif = bytearray()
    for _ in _count(MAX_PARTS, "segments"):
        head = file.read(2)
        if len(head) < 2 or head[1] == 0xDA:
            break
        if head[0] != 0xFF or head[1] == 0xFF:
            file.seek(-1, os.SEEK_CUR)  # a byte that fills
            continue
        if head[1] in (0x01, *range(0xD0, 0xDA)):
            continue
        length = max(0, int.from_bytes(file.read(2), "big") - 2)
        body = file.read(length) if head[1] == 0xE1 else b""
        if body.startswith(EXIF_HEAD):
            exif += body[len(EXIF_HEAD) :]
        file.seek(length - len(body), os.SEEK_CUR)
    check_exif(bytes(exif))


def _check_gif(file: IO[bytes]) -> None:
    file.seek(10)
    flags = file.read(3)[:1]
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), os.SEEK_CUR)
    in_blocks = False
    for _ in _count(MAX_GIF_BLOCKS, "blocks before its picture"):
        mark = file.read(1)
        if not mark or not in_blocks and mark not in (b"!", b"\0"):
            return
        if in_blocks:
            file.seek(mark[0], os.SEEK_CUR)
            in_blocks = mark != b"\0"
        elif mark == b"!":
            file.seek(1, os.SEEK_CUR)
            in_blocks = True


def _check_riff(file: IO[bytes]) -> None:
    file.seek(12)
    for _ in _count(MAX_PARTS, "parts"):
        head = file.read(8)
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:], "little")
        body = file.read(min(length, MAX_EXIF_BYTES + 1)) if head[:4] == b"EXIF" else b""
        if body:
            check_exif(body)
        file.seek(length + length % 2 - len(body), os.SEEK_CUR)


def _check_directories(file: IO[bytes], length: int) -> None:
    """The first directory of a TIFF or of EXIF, and those below it."""
    file.seek(0)
    head = file.read(16)
    order = "little" if head[:2] == b"II" else "big"
    is_big = head[2:4] in (b"+\0", b"\0+")
    number = 8 if is_big else 4
    waiting, copied = [_number(head[8:16] if is_big else head[4:8], order)], 0
    for _ in range(len(DIRECTORIES) + 1):
        if not waiting or not 0 < (place := waiting.pop()) < length:
            continue
        file.seek(place)
        count = _number(file.read(8 if is_big else 2), order)
        if count > MAX_ENTRIES:
            raise TooManyParts(f"has {count:,} entries in its EXIF or TIFF directory; the limit is {MAX_ENTRIES:,}")
        entries = file.read(count * (4 + 2 * number))
        for at in range(0, len(entries), 4 + 2 * number):
            tag, kind = _number(entries[at : at + 2], order), _number(entries[at + 2 : at + 4], order)
            copied += TYPE_BYTES.get(kind, 0) * _number(entries[at + 4 : at + 4 + number], order)
            if tag in DIRECTORIES:
                waiting.append(_number(entries[at + 4 + number : at + 4 + 2 * number], order))
    if copied > length + SPARE_BYTES:
        raise TooManyParts(f"has EXIF or TIFF entries of {copied:,} bytes in {length:,}")


def _number(data: bytes, order: str) -> int:
    return int.from_bytes(data, "little" if order == "little" else "big")


def _count(limit: int, what: str) -> Iterator[int]:
    yield from range(limit)
    raise TooManyParts(f"has more than {limit:,} {what}")
