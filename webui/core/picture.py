"""A picture as a field of a request: base64 where it is given, the hash of its pixels where the request is kept."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from PIL.Image import Image as PilImage
from pydantic import BeforeValidator, PlainSerializer, SerializationInfo, ValidationInfo, WithJsonSchema

from webui.core import images

Find = Callable[[str], PilImage | None]
"""The picture of a hash; None where it is not there."""
Keep = Callable[[PilImage], str]
"""Puts a picture where ``Find`` finds it, and returns its hash."""


def _read(value: Any, info: ValidationInfo) -> Any:
    """A hash is understood only where somebody gives a ``find`` for it: no stranger names a picture that is kept."""
    find: Find | None = (info.context or {}).get("find")
    if find and isinstance(value, Mapping):
        sha256 = str(value.get("sha256"))
        if (found := find(sha256)) is None:
            raise images.ImageError(f"is no longer here (pixels {sha256[:12]})")
        return found
    if isinstance(value, str):
        value = images.decode_text(value)
    elif isinstance(value, bytes):
        value = images.open_image(value)
    if not isinstance(value, PilImage):
        raise no_picture(value)
    images.check_size(value.size)
    return images.plain(value)


def no_picture(value: Any) -> images.ImageError:
    """Why a value is no picture, to be put behind its field's name."""
    if isinstance(value, Mapping) and "sha256" in value:
        return images.ImageError("is the hash of a picture, not a picture: send the picture itself, as base64")
    return images.ImageError("is not a picture: send it as base64")


def _write(image: PilImage, info: SerializationInfo) -> Any:
    keep: Keep | None = (info.context or {}).get("keep")
    return {"sha256": keep(image)} if keep else images.encode_text(image)


_AS_TEXT = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}
Picture = Annotated[
    PilImage,
    BeforeValidator(_read),
    PlainSerializer(_write, when_used="json"),
    WithJsonSchema(_AS_TEXT),
]
