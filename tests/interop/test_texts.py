"""Texts wherever they stand in a file, in every encoding, and files whose texts mean harm."""

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImages
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

from webui.core import images
from webui.core.catalog import Catalog
from webui.interop.picture_info import NO_SETTINGS, read_info
from webui.interop.text_encoding import decode_comment
from webui.interop.texts import MAX_TEXT_CHUNKS, read_texts

LINE = "Steps: 24, Sampler: Euler a, CFG scale: 6.5, Seed: 987, Size: 256x128"
CAT = f"窗边的猫, é, 🌟 star\nNegative prompt: 雾\n{LINE}"
SMALL = PilImages.new("RGB", (8, 8))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*behind: bytes, before: tuple[bytes, ...] = ()) -> bytes:
    """A PNG with chunks before and behind its pixels."""
    buffer = io.BytesIO()
    SMALL.save(buffer, "PNG")
    data = buffer.getvalue()
    head, end = 33, len(data) - 12
    return data[:head] + b"".join(before) + data[head:end] + b"".join(behind) + data[end:]


def saved(file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    SMALL.save(buffer, file_format, **options)
    return buffer.getvalue()


def with_comment(comment: bytes | str, inner: bool = True) -> PilImages.Exif:
    exif = PilImages.Exif()
    (exif.get_ifd(IFD.Exif) if inner else exif)[Base.UserComment] = comment
    return exif


def xmp(name: str, text: str) -> bytes:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", "&#10;")
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f'<{name}><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt></{name}>'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


UTF8 = CAT.encode()
BIG, LITTLE = CAT.encode("utf-16-be"), CAT.encode("utf-16-le")
FILES: dict[str, Callable[[], bytes]] = {
    "tEXt": lambda: png(before=(chunk(b"tEXt", b"parameters\0" + UTF8),)),
    "tEXt behind the pixels": lambda: png(chunk(b"tEXt", b"parameters\0" + UTF8)),
    "zTXt": lambda: png(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(UTF8))),
    "iTXt": lambda: png(chunk(b"iTXt", b"parameters\0\0\0\0\0" + UTF8)),
    "iTXt, packed": lambda: png(chunk(b"iTXt", b"parameters\0\1\0en\0parameters\0" + zlib.compress(UTF8))),
    "eXIf": lambda: png(chunk(b"eXIf", with_comment(b"UNICODE\0" + BIG).tobytes().removeprefix(b"Exif\0\0"))),
    "ImageMagick's profile": lambda: png(
        chunk(
            b"tEXt", b"Raw profile type exif\0\nexif\n  9\n" + with_comment(b"UNICODE\0" + BIG).tobytes().hex().encode()
        )
    ),
    "JPEG": lambda: saved("JPEG", exif=with_comment(b"UNICODE\0" + BIG)),
    "WebP": lambda: saved("WEBP", exif=with_comment(b"UNICODE\0" + LITTLE)),
    "AVIF": lambda: saved("AVIF", exif=with_comment(b"UNICODE\0" + BIG).tobytes()),
    "TIFF": lambda: saved("TIFF", exif=with_comment(b"UNICODE\0" + BIG, inner=False)),
    "Fooocus' EXIF": lambda: saved("JPEG", exif=with_comment(UTF8, inner=False)),
    "JPEG's comment": lambda: saved("JPEG", comment=UTF8),
    "GIF's comment": lambda: saved("GIF", comment=UTF8),
    "XMP in JPEG": lambda: saved("JPEG", xmp=xmp("exif:UserComment", CAT)),
    "XMP in PNG": lambda: png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp("dc:description", CAT))),
}


@pytest.mark.parametrize("place", FILES)
def test_wherever_the_text_stands(catalog: Catalog, place: str) -> None:
    info = read_info(FILES[place](), catalog)
    assert (info.values.get("prompt"), info.values.get("negative")) == ("窗边的猫, é, 🌟 star", "雾"), info
    assert info.values["seed"] == 987


CJK = f"猫\nNegative prompt: 雾\n{LINE}"


@pytest.mark.parametrize("text", [CAT, CJK, f"кот\n{LINE}", f"🌟🌟\n{LINE}", f"a fox\n{LINE}", '{"prompt": "猫"}'])
@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"UNICODE\0" + text.encode("utf-16-be"),
        lambda text: b"UNICODE\0" + text.encode("utf-16-le"),
        lambda text: b"UNICODE\0\xfe\xff" + text.encode("utf-16-be"),
        lambda text: b"UNICODE\0\xff\xfe" + text.encode("utf-16-le") + b"\0",
        lambda text: b"UNICODE\0" + text.encode(),
        lambda text: b"Unicode\0" + text.encode("utf-16-le"),
        lambda text: b"ASCII   " + text.encode(),
        lambda text: b"ASCII\0\0\0" + text.encode(),
        lambda text: bytes(8) + text.encode(),
        lambda text: bytes(8) + text.encode("utf-16-le"),
        lambda text: text.encode() + bytes(20),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
    ],
)
def test_comments_in_every_encoding(encode: Callable[[str], bytes], text: str) -> None:
    assert decode_comment(encode(text)) == text


def test_comfyuis_place_in_webp(catalog: Catalog) -> None:
    from .graphs import as_text, graph

    exif = PilImages.Exif()
    exif[Base.Model], exif[Base.Make] = f"prompt:{as_text(graph())}", 'workflow:{"nodes": [], "links": []}'
    info = read_info(saved("WEBP", exif=exif), catalog)
    assert (info.program, info.values["prompt"], info.values["seed"]) == ("ComfyUI", "a fox", 77)


def hide(text: bytes, mark: bytes) -> bytes:
    """A PNG with the text in the lowest bits of its alpha channel, column by column."""
    bits = np.unpackbits(np.frombuffer(mark + struct.pack(">I", len(text) * 8) + text, np.uint8))
    columns = np.full(64 * 64, 254, np.uint8)
    columns[: bits.size] += bits
    picture = PilImages.new("RGB", (64, 64))
    picture.putalpha(PilImages.fromarray(np.ascontiguousarray(columns.reshape(64, 64).T)))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_text_hidden_in_the_alpha_channel(catalog: Catalog) -> None:
    info = read_info(hide(CAT.encode(), b"stealth_pnginfo"), catalog)
    assert info.values["prompt"] == "窗边的猫, é, 🌟 star" and "hidden" not in info.raw
    comment = '{\\"prompt\\": \\"a fox\\", \\"uc\\": \\"ugly\\", \\"scale\\": 5, \\"sampler\\": \\"k_euler\\"}'
    packed = gzip.compress(f'{{"Software": "NovelAI", "Comment": "{comment}"}}'.encode())
    info = read_info(hide(packed, b"stealth_pngcomp"), catalog)
    assert (info.program, info.values["prompt"], info.values["negative"]) == ("NovelAI", "a fox", "ugly")
    for harm in (gzip.compress(b"x" * 20_000_000)[:400], b"\xff" * 100):
        assert read_info(hide(harm, b"stealth_pngcomp"), catalog).unmapped == (NO_SETTINGS,)


def test_settings_are_read_without_the_pixels(catalog: Catalog) -> None:
    """A picture whose pixels are broken still says how it was made."""
    data = png(before=(chunk(b"tEXt", b"parameters\0" + UTF8),))
    at = data.index(b"IDAT") + 6
    assert read_info(data[:at] + bytes(20) + data[at + 20 :], catalog).values["seed"] == 987


@given(data=st.data(), place=st.sampled_from([*FILES]))
def test_a_file_with_wrong_bytes_is_read_or_refused(catalog: Catalog, data: Any, place: str) -> None:
    content = bytearray(FILES[place]())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[at] = data.draw(st.integers(0, 255))
    try:
        info = read_info(bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))]), catalog)
    except images.ImageError:
        return
    assert info.values or info.unmapped


def test_no_text_is_no_text(catalog: Catalog) -> None:
    assert read_info(png(), catalog).unmapped == (NO_SETTINGS,)
    tagged = PngInfo()
    tagged.add_text("Software", "GIMP")
    assert read_info(saved("PNG", pnginfo=tagged), catalog).unmapped == (NO_SETTINGS,)


def test_what_is_not_understood_is_named_and_shown(catalog: Catalog) -> None:
    texts = PngInfo()
    texts.add_text("Software", "Midjourney")
    texts.add_text("Description", "a boat --v 6")
    info = read_info(saved("PNG", pnginfo=texts), catalog)
    assert info.program == "Midjourney" and not info.values and "a boat --v 6" in info.raw
    assert info.unmapped == ("Description: its text has no line of settings (Steps, Sampler, Seed ...)",)


HARMFUL: dict[str, tuple[Callable[[], bytes], str]] = {
    "a bomb in zTXt": (
        lambda: png(chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(50_000_000)))),
        "prompt: cannot be unpacked, or is too long",
    ),
    "no zlib in zTXt": (lambda: png(chunk(b"zTXt", b"prompt\0\0nothing")), "prompt: cannot be unpacked"),
    "many texts": (
        lambda: png(*(chunk(b"tEXt", b"a%d\0x" % k) for k in range(MAX_TEXT_CHUNKS + 5))),
        "has too many texts",
    ),
    "many long texts": (
        lambda: png(*(chunk(b"zTXt", b"a%d\0\0" % k + zlib.compress(b"{" * 1_900_000)) for k in range(9))),
        "has too many texts, or too long ones",
    ),
    "one text twice": (
        lambda: png(chunk(b"tEXt", b"parameters\0" + UTF8), chunk(b"tEXt", b"parameters\0other")),
        "parameters: stands in the file more than once",
    ),
    "a chunk without its end": (lambda: png()[:-12] + struct.pack(">I", 2**31 - 1) + b"tEXt", NO_SETTINGS),
    "EXIF that is none": (lambda: saved("JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), ""),
    "XMP with entities": (
        lambda: saved("JPEG", xmp=b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>'),
        "XMP: is too long, or not plain",
    ),
    "XMP that is none": (lambda: saved("JPEG", xmp=b"<x"), "XMP: cannot be read"),
    "XMP within XMP": (
        lambda: png(
            chunk(
                b"iTXt",
                b"XML:com.adobe.xmp\0\0\0\0\0" + b"<description>" * 9000 + b"x" + b"</description>" * 9000,
            )
        ),
        "",
    ),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_files_that_mean_harm_are_answered_in_lines(catalog: Catalog, name: str) -> None:
    make, reason = HARMFUL[name]
    info = read_info(make(), catalog)
    assert any(reason in line for line in info.unmapped) or not reason, info


def test_texts_behind_the_pixels_leave_the_picture_to_be_decoded(tmp_path: Path) -> None:
    with images.opened(png(chunk(b"tEXt", b"parameters\0x"))) as image:
        assert read_texts(image) == ({"parameters": "x"}, [])
        assert image.convert("L").getpixel((0, 0)) == 0
