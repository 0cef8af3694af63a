"""Hostile files and texts, made here: bombs by size, frames, text chunks and EXIF, graphs and headers of any shape."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from PIL import Image as PilImages
from PIL import PngImagePlugin

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def picture(kind: str = "PNG", size: tuple[int, int] = (48, 32), **options: Any) -> bytes:
    buffer = io.BytesIO()
    mode = "P" if kind == "GIF" else "RGB"
    PilImages.new(mode, size, 1 if kind == "GIF" else (200, 30, 40)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, rows: bytes, *chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return PNG_HEAD + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def with_texts(texts: Mapping[str, str], compressed: bool = False) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text, zip=compressed)
    return picture(pnginfo=info)


def graph(nodes: int, fan: int = 1, ring: bool = False) -> str:
    """A ComfyUI prompt: a chain in which each node takes ``fan`` inputs of the one before."""
    made: dict[str, Any] = {}
    for number in range(nodes):
        link = [str(number - 1 if number else nodes - 1), 0] if number or ring else "text"
        kind = ("KSampler", "CLIPTextEncode", "LoraLoader", "SaveImage")[number % 4]
        made[str(number)] = {"class_type": kind, "inputs": {f"i{k}": link for k in range(fan)} | {"text": link}}
    made["sampler"] = {
        "class_type": "KSampler",
        "inputs": {"seed": 1, "steps": 5, "positive": [str(nodes - 1), 0], "model": [str(nodes - 1), 0]},
    }
    made["save"] = {"class_type": "SaveImage", "inputs": {"images": ["sampler", 0]}}
    return json.dumps(made)


def frames(count: int) -> bytes:
    buffer = io.BytesIO()
    first, *others = (PilImages.new("P", (8, 8), number % 250) for number in range(count))
    first.save(buffer, "GIF", save_all=True, append_images=others)
    return buffer.getvalue()


def bombs() -> dict[str, bytes]:
    """Pictures small to send and large to read."""
    small = b"\0" * 97
    text = with_texts({"parameters": "a " * 500_000}, compressed=True)
    return {
        "size in the head": png(30_000, 30_000, small),
        "24 megapixels, a row of them there": png(6000, 4000, small),
        "one by many": png(1, 20_000_000, small),
        "no size": png(0, 0, b""),
        "frames": frames(600),
        "a zipped text of 1 MB": text,
        "many texts": with_texts({f"key{number}": "x" * 50 for number in range(3000)}),
        "many chunks": png(32, 32, small * 32, *(chunk(b"teXt", b"a\0b") for _ in range(30_000))),
        "a chunk that says it is 2 GB": PNG_HEAD + b"\x7f\xff\xff\xffIHDR" + b"x" * 100,
        "a comment bomb": picture(pnginfo=_itxt(b"\0" * 4_000_000)),
        "EXIF": picture("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x0e\x01\x04\0\xff\xff\xff\xff" * 5000),
        "EXIF in a ring": picture(
            "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0"
        ),
        "graph: a chain": with_texts({"prompt": graph(3000)}),
        "graph: a fan": with_texts({"prompt": graph(300, fan=300)}, compressed=True),
        "graph: a ring": with_texts({"prompt": graph(500, ring=True)}),
        "graph: brackets": with_texts({"prompt": "[" * 60_000, "workflow": '{"a":' * 60_000}),
        "graph: numbers": with_texts(
            {"prompt": '{"1": {"class_type": "KSampler", "inputs": {"seed": ' + "9" * 5000 + "}}}"}
        ),
        "no picture": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://x'/></svg>",
        "nothing": b"",
    }


def _itxt(data: bytes) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add(b"zTXt", b"Comment\0\0" + zlib.compress(data))
    return info


TEXTS: dict[str, str] = {
    "brackets": "(" * 100_000,
    "closed brackets": "(" * 50_000 + ")" * 50_000,
    "square": "[a:b:" * 20_000,
    "braces": "{a|" * 30_000,
    "loras": "<lora:" * 16_000,
    "LoRA tags": "<lora:x:1>" * 10_000,
    "ands": "a AND " * 16_000,
    "breaks": "BREAK " * 16_000,
    "colons": "a: " * 33_000,
    "points": "<lora:x:" + "1@0;" * 20_000 + ">",
    "backslashes": "\\" * 100_000,
    "quotes": 'Steps: 20, a: "' + '\\"' * 40_000,
    "lines": "\n" * 100_000,
    "settings": "Steps: 20, " * 9_000,
    "negatives": "Negative prompt: " * 6_000,
    "hashes": 'Steps: 1, Hashes: {"a": ' + '{"b":' * 10_000,
    "size": "x\nSteps: 1, Size: " + "9" * 20_000 + "x1",
    "emoji": "\U0001f34e\u200d" * 30_000,
    "right to left": "\u202e" * 50_000,
    "nothing in it": "\0" * 10_000,
    "halves": "\ud800" * 10_000,
    "JSON": "[" * 50_000 + "]" * 50_000,
    "JSON objects": '{"a":' * 50_000,
    "numbers": "1" * 100_000,
    "markup": "<img src=x onerror=alert(1)>" * 3_000,
}
NAMES = (
    "../../x",
    "/etc/passwd",
    "C:\\x",
    "CON",
    "a\0b",
    "x" * 300,
    "\U0001f34e" * 100,
    "\ud800",
    "a/b",
    "..",
    "",
    ". ",
    "%2e%2e",
)


def headers() -> dict[str, bytes]:
    """safetensors files whose heads lie."""

    def file(head: bytes, length: int | None = None, body: bytes = b"") -> bytes:
        return struct.pack("<Q", len(head) if length is None else length) + head + body

    def entry(**values: Any) -> bytes:
        return json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | values}).encode()

    return {
        "a length beyond all": file(b"{}", 2**63),
        "a length of 100 MB": file(b"{}", 100 * 2**20),
        "brackets": file(b"[" * 200_000),
        "objects": file(b'{"a":' * 200_000),
        "many tensors": file(
            json.dumps({str(n): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(30_000)}).encode()
        ),
        "a shape beyond all": file(entry(shape=[2**62, 2**62]), body=b"\0" * 4),
        "a shape below nothing": file(entry(shape=[-1]), body=b"\0" * 4),
        "offsets outside": file(entry(data_offsets=[0, 2**40])),
        "offsets backwards": file(entry(data_offsets=[4, 0])),
        "another type": file(entry(dtype={"x": 1})),
        "metadata": file(json.dumps({"__metadata__": {"a": {"b": 1}}}).encode()),
        "long metadata": file(json.dumps({"__metadata__": {"a": "x" * 5_000_000}}).encode()),
        "no text": file(b"\xff\xfe\x00"),
        "nothing": b"",
        "a page": b"<!doctype html><html>" * 100,
    }


def presets() -> dict[str, bytes]:
    return {
        "brackets": b"prompt = " + b"[" * 20_000,
        "tables": b"".join(b"[a" + b".a" * number + b"]\n" for number in range(300)),
        "dotted": b"a" + b".a" * 20_000 + b" = 1",
        "many": b"".join(b"k%d = 1\n" % number for number in range(20_000)),
        "a long text": b'prompt = "' + b"x" * 100_000 + b'"',
        "numbers": b"steps = " + b"9" * 10_000,
        "a date": b"steps = 9999-99-99",
        "variables": b'prompt = "' + b"{{a}}" * 20_000 + b'"',
        "no text": b"\xff\xfe\0\0",
        "a picture": picture(),
    }


def as_json() -> dict[str, Any]:
    """Bodies of requests, each field of another kind or size than it should be."""
    large = {"prompt": "x" * 100_000, "seed": 10**40, "steps": -1, "guidance": float("1e300"), "model": "../x"}
    nested: Any = "x"
    for _ in range(500):
        nested = [nested]
    odd = {
        "loras": [[["a"] * 50] * 50],
        "init": {"image": base64.b64encode(picture("GIF")).decode()[:90]},
        "count": nested,
    }
    return {name: {name: value} for name, value in (large | odd).items()} | {
        "unknown": {"x" * 10_000: 1},
        "kinds": dict.fromkeys(("prompt", "steps", "seed", "width", "loras", "hires", "init"), nested),
        "halves": {"prompt": "\ud800", "negative": "\0"},
    }
