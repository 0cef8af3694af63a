"""What a picture's own texts say of how it was made: ours exactly, other programs' as far as they mean something here.

All of it is a stranger's text: bounded before anything reads it, checked field by field against the request's bounds.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image as PilImages
from PIL.ExifTags import IFD, Base
from PIL.Image import Image as PilImage
from pydantic import ValidationError

from webui.core import foreign_texts, images, model_lookup
from webui.core.executor import Catalog
from webui.core.names import File, find_file
from webui.core.prompt import split_loras
from webui.core.recipe import Recipe, RecipeError, read_picture
from webui.core.request import Init, Request, RequestError, explain
from webui.core.sampler_names import translate

MAX_RAW_CHARACTERS = 100_000
MAX_REASONS = 60
MAX_REASON_CHARACTERS = 300
STAND_IN = PilImages.new("L", (64, 64))  # settings of a start picture are checked where there is none
NO_SETTINGS = "No settings were found in this picture."
UNMARKED = (b"UNICODE\0", b"ASCII\0\0\0")


@dataclass(frozen=True)
class PictureInfo:
    """``values`` are for fields of Request and Init by name; ``program`` is "" where nothing was found.

    ``raw`` is the text as it stands in the file, ``unmapped`` a line for each thing that is not among the values.
    """

    program: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    raw: str = ""
    unmapped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        loras = [ref.model_dump(exclude_none=True) for ref in self.values.get("loras", ())]
        values = dict(self.values) | ({"loras": loras} if "loras" in self.values else {})
        return asdict(self) | {"values": values, "unmapped": list(self.unmapped)}


def read_info(source: Path | bytes, catalog: Catalog) -> PictureInfo:
    """What is known of a picture, a file or its content; raises ImageError for no picture."""
    with images.opened(source) as image:
        texts, reasons = _read_texts(image)
        try:
            recipe = read_picture(image)
        except RecipeError as error:  # the text for other programs may still be good
            recipe, reasons = None, [*reasons, str(error)]
    if recipe is not None:
        return _describe_ours(recipe, texts, catalog)
    found = foreign_texts.parse(texts)
    reasons += found.unmapped
    values = _check(found.values, catalog, reasons) if found.values else {}
    if not (texts or reasons):
        reasons = [NO_SETTINGS]
    return PictureInfo(found.program, values, _show_raw(texts), _bounded(reasons))


def _read_texts(image: PilImage) -> tuple[dict[str, str], list[str]]:
    """The texts that some program may have written, by the name that programs look for them, and what was left out."""
    texts = {
        name: value for name, value in image.info.items() if name in foreign_texts.LIMITS and isinstance(value, str)
    }
    exif = image.getexif()
    comment = exif.get_ifd(IFD.Exif).get(Base.UserComment)
    if isinstance(comment, bytes) and len(comment) <= 4 * foreign_texts.LIMITS["parameters"]:
        texts.setdefault("parameters", _decode_comment(comment))
    for tag in (Base.Make, Base.Model, Base.ImageDescription):  # ComfyUI's place in WebP files: "prompt:{...}"
        name, colon, value = str(exif.get(tag, "")).partition(":")
        if colon and name.lower() in ("prompt", "workflow"):
            texts.setdefault(name.lower(), value)
    reasons = []
    for name, text in list(texts.items()):
        if len(text) > foreign_texts.LIMITS[name]:
            reasons.append(
                f"{name}: {len(text):,} characters are too many; the limit is {foreign_texts.LIMITS[name]:,}"
            )
            del texts[name]
    return {name: clean(text) for name, text in texts.items() if text.strip()}, reasons


def _decode_comment(comment: bytes) -> str:
    """EXIF's user comment: eight bytes name the encoding, and programs disagree on the order of UTF-16's bytes."""
    mark, body = comment[:8], comment[8:]
    if mark not in UNMARKED:
        return comment.decode("utf-8", "replace")
    if mark == UNMARKED[0]:
        return body.decode("utf-16-le" if body[1:2] == b"\0" else "utf-16-be", "replace")
    return body.decode("utf-8", "replace")


def clean(text: str) -> str:
    """The text without what is no character, or steers a terminal."""
    text = text.encode("utf-8", "replace").decode().replace("\r\n", "\n")
    return "".join(char for char in text if char in "\n\t" or not (char < " " or "\x7f" <= char < "\xa0"))


def _describe_ours(recipe: Recipe, texts: Mapping[str, str], catalog: Catalog) -> PictureInfo:
    request = recipe.request
    values = {name: getattr(request, name) for name in Request.model_fields if name != "init"}
    start = {**(recipe.start or {})}
    reasons = []
    if start:
        reasons.append(f"start picture: not in this file (pixels {str(start.get('image'))[:12]})")
    values |= {name: value for name, value in start.items() if name not in ("image", "mask", "outpaint")}
    if any(start.get("outpaint") or ()):
        reasons.append(f"outpaint: {', '.join(map(str, start['outpaint']))} px")
    if find_file(request.model, catalog.models) is None:
        reasons.append(f"model: {request.model!r} is not here (hash {recipe.model_hash[:10] or 'unknown'})")
    wanted: tuple[tuple[str, list[str], Mapping[str, File]], ...] = (
        ("LoRA", [ref.name for ref in request.loras], catalog.loras),
        ("VAE", [request.vae], catalog.vaes),
        ("refiner", [request.refiner], catalog.models),
    )
    for kind, names, known in wanted:
        reasons += [f"{kind}: {name!r} is not here" for name in names if name and find_file(name, known) is None]
    return PictureInfo("Darkroom", values, _show_raw(texts) or clean(recipe.infotext()), _bounded(reasons))


def _check(found: Mapping[str, Any], catalog: Catalog, reasons: list[str]) -> dict[str, Any]:
    """The values that mean something here; of each other one, ``reasons`` gets a line that says why."""
    found = dict(found)
    named, model_hash = found.pop("model", None), found.pop("model_hash", None)
    values, sampler_reasons = translate(found.pop("sampler", None), found.pop("schedule", None), catalog.samplers)
    reasons += sampler_reasons
    if named or model_hash:
        model = model_lookup.find(named, model_hash, catalog.models)
        if model:
            values["model"] = model
        else:
            hashed = f" (hash {str(model_hash)[:12]})" if model_hash else ""
            reasons.append(f"model: {str(named or '')[:100]!r}{hashed} is not here")
    for name, value in found.items():
        if value is None:
            continue
        try:
            values[name] = _check_one(name, value)
        except RequestError as error:
            reasons.append(str(error))
    reasons += _missing_loras(values.get("prompt", ""), catalog)
    return {name: values[name] for name in (*Request.model_fields, *Init.model_fields) if name in values}


def _check_one(name: str, value: Any) -> Any:
    value = clean(value).strip() if isinstance(value, str) else value
    if name in Request.model_fields:
        return getattr(Request.parse({name: value}), name)
    try:
        return getattr(Init.model_validate({"image": STAND_IN, name: value}), name)
    except ValidationError as error:
        raise RequestError(explain(error), field=name) from None


def _missing_loras(prompt: str, catalog: Catalog) -> list[str]:
    try:
        _, loras = split_loras(prompt)
    except RequestError as error:
        return [str(error)]
    return [f"LoRA: {ref.name!r} is not here" for ref in loras if find_file(ref.name, catalog.loras) is None]


def _show_raw(texts: Mapping[str, str]) -> str:
    raw = texts["parameters"] if [*texts] == ["parameters"] else "\n\n".join(f"{k}:\n{v}" for k, v in texts.items())
    rest = len(raw) - MAX_RAW_CHARACTERS
    return raw if rest <= 0 else f"{raw[:MAX_RAW_CHARACTERS]}\n... and {rest:,} more characters"


def _bounded(reasons: list[str]) -> tuple[str, ...]:
    lines = [" ".join(clean(reason).split())[:MAX_REASON_CHARACTERS] for reason in dict.fromkeys(reasons)]
    rest = len(lines) - MAX_REASONS
    return tuple(lines) if rest <= 0 else (*lines[:MAX_REASONS], f"... and {rest} more")
