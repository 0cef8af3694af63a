"""A1111's HTTP API: the bodies of ``extra-single-image`` and ``extra-batch-images`` as requests, and what they are
answered with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL.Image import Image as PilImage

from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.groups.init import Init
from webui.core.names import LANCZOS
from webui.core.request import Request
from webui.core.work import Batch, make_batch
from webui.interop.a1111.pictures import read_picture
from webui.interop.a1111.refusals import check_text, flag, is_other_than, refuse
from webui.interop.a1111.requests import NO_FILE

REFUSED = {
    "gfpgan_visibility": is_other_than(0),
    "codeformer_visibility": is_other_than(0),
    "extras_upscaler_2_visibility": is_other_than(0),
}
THEIRS = {"upscale.scale": "upscaling_resize", "upscale.width": "upscaling_resize_w"}
THEIRS |= {"upscale.height": "upscaling_resize_h", "upscale.upscaler": "upscaler_1"}


def read_extras(body: Mapping[str, Any], single: bool) -> tuple[Batch | None, list[PilImage]]:
    """What to do, or where no upscaler is named, nothing, and the pictures as they came.

    Raises RequestError naming the body's field.
    """
    check_text({key: value for key, value in body.items() if key not in ("image", "imageList")})
    given = {key: value for key, value in body.items() if value not in (None, "")}
    refuse(given, REFUSED)
    pictures = _pictures(body, single)
    name = given.get("upscaler_1", "None")
    if not isinstance(name, str):
        raise RequestError("upscaler_1 must be text", field="upscaler_1")
    if name.casefold() in NO_FILE:
        started = make_batch(Request(init=Init(image=picture)) for picture in pictures)
        return None, [request.init.image for request in started.requests if request.init]
    try:
        return make_batch(_request(picture, name, given) for picture in pictures), []
    except RequestError as error:
        raise in_their_words(error) from None


def in_their_words(error: RequestError) -> RequestError:
    """The same with the names that A1111 has for the fields."""
    message = str(error)
    for ours, theirs in THEIRS.items():
        message = message.replace(ours, theirs)
    return RequestError(message, field=error.field)


def _pictures(body: Mapping[str, Any], single: bool) -> Iterator[PilImage]:
    """One after the other, so that too many are never decoded together."""
    if single:
        yield read_picture("image", body.get("image"))
        return
    entries = body.get("imageList")
    if not isinstance(entries, list) or not entries:
        raise RequestError("imageList must be a list of objects with data and name", field="imageList")
    for entry in entries:
        yield read_picture("imageList", entry.get("data") if isinstance(entry, Mapping) else None)


def _request(picture: PilImage, upscaler: str, given: Mapping[str, Any]) -> Request:
    """By a factor, or to a size, which the picture fills and where ``upscaling_crop`` says so is cut to."""
    asked: dict[str, Any] = {"upscaler": upscaler, "only": True}
    if str(given.get("resize_mode", 0)).strip() == "0":
        asked["scale"] = given.get("upscaling_resize", 2)
    else:
        asked |= {side: given.get(f"upscaling_resize_{side[0]}", 512) for side in ("width", "height")}
    request = Request.parse({"init": {"image": picture}, "upscale": asked})
    upscale = request.upscale
    if upscale and upscale.width and upscale.height and not flag(given.get("upscaling_crop", True)):
        wide = upscale.width * picture.height > upscale.height * picture.width
        kept = upscale.model_copy(update={"height" if wide else "width": None})
        request = request.model_copy(update={"upscale": kept})
    return request


def upscalers(catalog: Catalog) -> list[dict[str, Any]]:
    """The answer of ``GET upscalers``: nothing, the filter, and every network."""
    nothing = {"model_name": None, "model_path": None, "model_url": None, "scale": 4}
    plain = [{"name": name} | nothing for name in ("None", LANCZOS)]
    return plain + [
        {"name": name} | nothing | {"model_name": name, "model_path": file.path.name}
        for name, file in catalog.upscalers.items()
    ]


def answer(images: Sequence[str], html: str, single: bool) -> dict[str, Any]:
    """With base64 PNGs, and lines for people."""
    return {"html_info": html} | ({"image": images[0]} if single else {"images": list(images)})
