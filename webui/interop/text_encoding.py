"""Bytes to text where the file does not say, or says wrongly, how they are encoded."""

UNICODE = b"UNICODE\0"
MARKS = (UNICODE, b"ASCII\0\0\0", b"ASCII   ", b"JIS\0\0\0\0\0", bytes(8))
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


def decode_latin(data: bytes) -> str:
    """PNG's and EXIF's texts are Latin-1 or ASCII by their standards, and UTF-8 by what many programs write."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def decode_comment(data: bytes) -> str:
    """EXIF's user comment and the like: eight bytes may name an encoding, and programs put any other behind them.

    A byte order mark decides; then zeros among the bytes, which UTF-8 has none of, and which of UTF-16's two orders
    gives more of the characters that settings are written in; big-endian, as A1111 has it, where both give as many.
    """
    mark = data[:8].upper() if data[7:8] == b"\0" else data[:8]
    body = data[8:] if mark in MARKS else data
    for order, encoding in BYTE_ORDER_MARKS.items():
        if body.startswith(order):
            return _strip(body[len(order) :].decode(encoding, "replace"))
    if b"\0" not in body.rstrip(b"\0") and (mark != UNICODE or _is_utf_8(body)):
        return _strip(decode_latin(body.rstrip(b"\0")))
    readings = [body.decode(encoding, "replace") for encoding in ("utf-16-be", "utf-16-le")]
    return _strip(max(readings, key=_count_plain))


def _is_utf_8(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _count_plain(text: str) -> int:
    return len(text.encode("ascii", "ignore").translate(None, bytes(range(9)) + bytes(range(14, 32))))


def _strip(text: str) -> str:
    return text.rstrip("\0\ufffd").removeprefix("\ufeff")
