"""The texts in a picture's file, by name, wherever they stand: PNG's chunks, EXIF, XMP, comments. Pixels stay packed.

A text that is too long is left out with a line that says so. No count, length or packed size of a stranger's makes the
work more than linear in the bytes that are read.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any
from xml.etree import ElementTree

from PIL import Image as PilImages
from PIL.ExifTags import IFD, TAGS, Base
from PIL.Image import Image as PilImage
from PIL.ImageFile import ImageFile

from webui.interop.found import clean
from webui.interop.text_encoding import decode_comment, decode_latin

MAX_CHARACTERS = 50_000
MAX_JSON_CHARACTERS = 2_000_000
MAX_CHUNKS = 50_000
MAX_TEXT_CHUNKS = 200
MAX_ALL_CHARACTERS = 3 * MAX_JSON_CHARACTERS
MAX_BYTES = 4 * MAX_JSON_CHARACTERS
XMP_NAME = "XML:com.adobe.xmp"
XMP_PARTS = ("CreatorTool", "UserComment", "description")
RECIPE = "darkroom"
"""The name of our own recipe, wherever it stands."""
EXIF_PROFILE = "Raw profile type exif"
BROKEN_EXIF = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, struct.error)
XP_COMMENT = 0x9C9C


def read_texts(image: PilImage) -> tuple[dict[str, str], list[str]]:
    """Every text by its name, the first of each, and a line for each that was left out."""
    collected = _Collected()
    exif: bytes | None = image.info.get("exif")
    if image.format == "PNG" and isinstance(image, ImageFile) and image.fp is not None:
        exif = _add_chunks(collected, image.fp)
    if exif:
        _add_exif(collected, exif)
    elif image.format == "TIFF":
        _add_tags(collected, image.getexif())
    for name in ("comment", "Comment"):
        if isinstance(comment := image.info.get(name), bytes):
            collected.add("comment", decode_comment(comment))
    xmp = collected.texts.pop(XMP_NAME, None) or image.info.get("xmp")
    if xmp:
        _add_xmp(collected, xmp if isinstance(xmp, str) else xmp.decode("utf-8", "replace"))
    return collected.texts, collected.left_out


class _Collected:
    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.left_out: list[str] = []
        self.characters = 0

    def add(self, name: str, text: str) -> None:
        limit = MAX_JSON_CHARACTERS if text.lstrip()[:1] in ("{", "<") or name == RECIPE else MAX_CHARACTERS
        self.characters += len(text)
        if len(text) > limit:
            self.left_out.append(f"{name[:60]}: {len(text):,} characters are too many; the limit is {limit:,}")
        elif self.characters > MAX_ALL_CHARACTERS:
            self.left_out.append(f"{name[:60]}: all texts together are too long; this one is not read")
        elif text.strip() and self.texts.setdefault(clean(name)[:80], cleaned := clean(text)) != cleaned:
            self.left_out.append(f"{name[:60]}: stands in the file more than once; the first is read")


def _add_chunks(collected: _Collected, file: IO[bytes]) -> bytes | None:
    """PNG's text chunks before and behind its pixels; returns its EXIF."""
    exif, place, count = None, file.tell(), 0
    for kind, body in _chunks(file):
        if kind == b"eXIf":
            exif = body
            continue
        count += 1
        if count > MAX_TEXT_CHUNKS or collected.characters > MAX_ALL_CHARACTERS:
            collected.left_out.append("has too many texts, or too long ones; the others are not read")
            break
        name, text = _read_chunk(kind, body)
        if text is None:
            collected.left_out.append(f"{clean(name)[:60]}: cannot be unpacked, or is too long")
        elif name == EXIF_PROFILE:
            exif = exif or _read_profile(text)
        else:
            collected.add(name, text)
    file.seek(place)
    return exif


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the chunks with texts and with EXIF."""
    file.seek(8)
    for _ in range(MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"eXIf") and length <= MAX_BYTES:
            yield kind, file.read(length)
            file.seek(4, 1)
        else:
            file.seek(length + 4, 1)


def _read_chunk(kind: bytes, body: bytes) -> tuple[str, str | None]:
    """Keyword and text of a chunk; no text where it cannot be unpacked within bounds."""
    keyword, _, rest = body.partition(b"\0")
    name = keyword[:80].decode("latin-1")
    if kind == b"tEXt":
        return name, decode_latin(rest)
    if kind == b"zTXt":
        unpacked = unpack(rest[1:])
        return name, None if unpacked is None else decode_latin(unpacked)
    packed, (_, _, rest) = rest[:1] == b"\1", rest[2:].partition(b"\0")
    text = rest.partition(b"\0")[2]
    unpacked = unpack(text) if packed else text
    return name, None if unpacked is None else unpacked.decode("utf-8", "replace")


def unpack(data: bytes, bits: int = zlib.MAX_WBITS) -> bytes | None:
    """What zlib packed (gzip with 31 ``bits``); None where it is broken or longer than is read."""
    try:
        unpacked = zlib.decompressobj(bits).decompress(data, MAX_BYTES + 1)
    except zlib.error:
        return None
    return unpacked if len(unpacked) <= MAX_BYTES else None


def _read_profile(text: str) -> bytes | None:
    """ImageMagick's form: a name, a length, then hexadecimal digits."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return None


def _add_exif(collected: _Collected, data: bytes) -> None:
    exif = PilImages.Exif()
    try:
        exif.load(data)
    except BROKEN_EXIF:
        collected.left_out.append("EXIF: cannot be read")
        return
    _add_tags(collected, exif)


def _add_tags(collected: _Collected, exif: PilImages.Exif) -> None:
    """The texts among EXIF's values, also those that ComfyUI puts as ``prompt:{...}`` wherever there is room."""
    try:
        values: dict[int, Any] = {**exif, **exif.get_ifd(IFD.Exif)}
    except BROKEN_EXIF:
        collected.left_out.append("EXIF: cannot be read")
        return
    for tag, value in values.items():
        if tag == Base.MakerNote:
            if isinstance(value, bytes) and value.startswith(b'{"schema":'):
                collected.add(RECIPE, value.decode("utf-8", "replace"))
            continue
        text = _as_text(tag, value)
        name, colon, rest = text.partition(":")
        if colon and name.strip().lower() in ("prompt", "workflow"):
            collected.add(name.strip().lower(), rest)
        elif tag in (Base.UserComment, Base.ImageDescription, Base.Software, XP_COMMENT) or text[:1] == "{":
            collected.add(TAGS.get(tag, str(tag)), text)


def _as_text(tag: int, value: Any) -> str:
    if tag == XP_COMMENT:
        raw = value if isinstance(value, bytes) else bytes(value) if _is_bytes(value) else b""
        return raw.decode("utf-16-le", "replace").rstrip("\0")
    if isinstance(value, bytes):
        return decode_comment(value) if tag in (Base.UserComment, Base.ImageDescription) else ""
    try:
        return decode_latin(value.encode("latin-1")) if isinstance(value, str) else ""  # what Pillow took for Latin-1
    except UnicodeEncodeError:
        return str(value)


def _is_bytes(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(part, int) and 0 <= part < 256 for part in value)


def _add_xmp(collected: _Collected, packet: str) -> None:
    """The parts of an XMP packet that programs put their texts into."""
    if len(packet) > MAX_JSON_CHARACTERS or "<!DOCTYPE" in packet or "<!ENTITY" in packet:
        collected.left_out.append("XMP: is too long, or not plain")
        return
    try:
        root = ElementTree.fromstring(packet.strip("\0\ufeff \n\r\t"))
    except (ElementTree.ParseError, ValueError):
        collected.left_out.append("XMP: cannot be read")
        return
    for element in root.iter():
        parts: Mapping[str, str] = {**element.attrib, str(element.tag): ""}
        for key in parts:
            name = key.rpartition("}")[2]
            if name in XMP_PARTS and f"XMP {name}" not in collected.texts:
                collected.add(f"XMP {name}", parts[key] or "".join(element.itertext()).strip())
