"""Pictures in the bodies of A1111's HTTP API: base64, never an address or a path."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL.Image import Image as PilImage

from webui.core import images
from webui.core.errors import RequestError
from webui.core.images import ImageError


def read_file(field: str, text: Any) -> bytes:
    """The picture file in a field, base64 with or without ``data:...,`` before it; RequestError for anything else."""
    if not isinstance(text, str):
        raise RequestError(f"{field} must be a picture as base64", field=field)
    if re.match(r"\s*https?:", text[:20], re.IGNORECASE):
        raise RequestError(f"{field} must be a picture as base64; addresses are not fetched", field=field)
    with named(field):
        return images.decode_bytes(text)


def read_picture(field: str, text: Any) -> PilImage:
    """The picture in a field, upright; RequestError naming the field for anything else."""
    file = read_file(field, text)
    with named(field):
        picture = images.open_image(file)
        images.check_size(picture.size)
        return images.plain(picture)


@contextmanager
def named(field: str) -> Iterator[None]:
    """What is wrong with a picture, as bad input of that field."""
    try:
        yield
    except ImageError as error:
        raise RequestError(f"{field} {error}", field=field) from None
