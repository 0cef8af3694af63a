"""Text hidden in the lowest bits of a picture's alpha channel, as NovelAI and ``sd-webui-stealth-pnginfo`` write it.

Column by column, highest bit of a byte first: 15 letters that say how, 32 bits for the length in bits, the text.
"""

from contextlib import suppress

import numpy as np
from PIL.Image import Image as PilImage

from webui.core.images import MAX_PIXELS
from webui.interop.found import Unreadable, clean, read_object
from webui.interop.texts import MAX_CHARACTERS, unpack

PLAIN, PACKED = b"stealth_pnginfo", b"stealth_pngcomp"
HEAD_BYTES = len(PLAIN) + 4
GZIP = 31


def read_hidden_texts(image: PilImage) -> dict[str, str]:
    """The hidden texts by name; none where there are none within bounds. Decodes a picture that has an alpha channel.

    NovelAI hides all its PNG texts as one JSON object, the extension A1111's text.
    """
    if image.mode not in ("RGBA", "LA") or image.width * image.height > MAX_PIXELS:
        return {}
    head = _read_bytes(image, HEAD_BYTES)
    length = int.from_bytes(head[len(PLAIN) :], "big") // 8
    if head[: len(PLAIN)] not in (PLAIN, PACKED) or not 0 < length <= MAX_CHARACTERS:
        return {}
    body: bytes | None = _read_bytes(image, HEAD_BYTES + length)[HEAD_BYTES:]
    if head.startswith(PACKED) and body:
        body = unpack(body, GZIP)
    text = clean((body or b"").decode("utf-8", "replace"))
    if not text.strip() or len(text) > MAX_CHARACTERS:
        return {}
    with suppress(Unreadable):
        texts = {name: value for name, value in read_object(text, "the hidden text").items() if isinstance(value, str)}
        if "Comment" in texts:
            return texts
    return {"parameters": text}


def _read_bytes(image: PilImage, count: int) -> bytes:
    """Of the columns alone that hold them: Pillow takes a channel apart without letting other threads run."""
    columns = min(-(-count * 8 // image.height), image.width)
    alpha = np.asarray(image.crop((0, 0, columns, image.height)).getchannel("A"))
    return np.packbits(alpha.T.reshape(-1)[: count * 8] & 1).tobytes()
