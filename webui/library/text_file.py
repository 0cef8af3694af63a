"""Files of text that people write or download: read whole, in the encodings that they have."""

from pathlib import Path

from webui.core.tensor_file import BadFile

ENCODINGS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
"""By the marks that files begin with."""


def read_text(path: Path, most_bytes: int) -> str:
    """What a file says, in UTF-8 or with a mark that says its encoding; raises BadFile."""
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise BadFile(f"cannot be read: {error.strerror}") from None
    if len(data) > most_bytes:
        raise BadFile(f"is larger than {most_bytes // 2**20} MiB")
    encoding = next((name for mark, name in ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise BadFile("is not text in UTF-8; save its file in that encoding") from None
    if "\0" in text:
        raise BadFile("is not text")
    return text
