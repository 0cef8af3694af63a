"""What a file that is none of those wanted seems to be, told from its first bytes."""

import re
from collections.abc import Mapping


def recognize_bytes(start: bytes) -> str:
    """What a file that is no safetensors file seems to be, by its first bytes; empty where they say nothing."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, a note of where the file is; get the file itself, with 'git lfs pull'"
    if re.match(rb"<(!doctype|html|head|body|error|\?xml|!--)", text, re.IGNORECASE):
        return "it is a web page; the download may need a login"
    said = "".join(char if char.isprintable() else " " for char in text[:120].decode("utf-8", "ignore")).strip()
    if re.match(rb'[{\[]\s*["{\[\]}]', text):
        return f"it is JSON, maybe an error message of the download: {said}"
    for sign, name in _SIGNS.items():
        if start.startswith(sign):
            return f"it is {name}"
    if re.fullmatch(rb"[\t\n\r\x20-\x7e]{9,}", text):
        return f"it is text, maybe an error message of the download: {said}"
    return ""


_SIGNS: Mapping[bytes, str] = {
    b"PK": "a zip archive or a pickle",
    b"\x80\x02": "a pickle",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"GGUF": "a GGUF file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "a PDF",
}
