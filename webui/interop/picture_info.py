"""What a picture's own texts say of how it was made: ours exactly, other programs' as far as they mean something here.

All of it is a stranger's text: bounded before anything reads it, checked field by field against the request's bounds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from webui.core import images
from webui.core.catalog import Catalog
from webui.core.errors import show
from webui.core.files import File
from webui.core.grid import axes_json
from webui.core.groups import LISTS, group_values, naming_pictures, nest
from webui.core.names import find_file
from webui.core.prompt import split_constant_loras
from webui.core.recipe import Recipe, RecipeError, SheetRecipe
from webui.core.request import NOT_ASKED, Request
from webui.interop.checked import check
from webui.interop.found import Found, clean
from webui.interop.programs import parse
from webui.interop.stealth import read_hidden_texts
from webui.interop.texts import MAX_JSON_CHARACTERS, RECIPE, read_texts

MAX_RAW_CHARACTERS = 100_000
MAX_REASONS = 60
MAX_REASON_CHARACTERS = 300
NO_SETTINGS = "No settings were found in this picture."
NO_SETTINGS_IN_TEXT = "No settings were found in this text."


@dataclass(frozen=True)
class PictureInfo:
    """``values`` are for fields of Request and Init by name; ``program`` is "" where none is known.

    ``raw`` is the text as it stands in the file, ``unmapped`` a line for each thing that is not among the values.
    """

    program: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    raw: str = ""
    unmapped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        loras = [ref.model_dump(exclude_none=True) for ref in self.values.get("loras", ())]
        values = nest(self.values) | ({"loras": loras} if "loras" in self.values else {})
        values |= {
            group: [entry if isinstance(entry, dict) else entry.said for entry in self.values[group]]
            for group in LISTS
            if group in self.values
        }
        return asdict(self) | {"values": values, "unmapped": list(self.unmapped)}


def read_info(source: Path | bytes, catalog: Catalog) -> PictureInfo:
    """What is known of a picture, a file or its content; raises ImageError for no picture."""
    with images.opened(source) as image:
        texts, reasons = read_texts(image)
        if text := texts.pop(RECIPE, None):
            try:
                return _describe_ours(Recipe.from_json(text), texts, catalog)
            except RecipeError as error:  # the text for other programs may still be good
                reasons.append(str(error))
        found = parse(texts)
        if not found.is_complete and (hidden := read_hidden_texts(image)):
            texts |= hidden
            found = parse(texts)
    return _describe(found, texts, reasons, catalog, NO_SETTINGS)


def read_text(text: str, catalog: Catalog) -> PictureInfo:
    """The same for settings as text, such as civitai copies them, whichever program wrote them; never raises."""
    if len(text) > MAX_JSON_CHARACTERS:
        too_long = f"the text has {len(text):,} characters; up to {MAX_JSON_CHARACTERS:,} are read"
        return PictureInfo(raw=clean(text[:MAX_RAW_CHARACTERS]), unmapped=(too_long,))
    cleaned = clean(text).strip()
    texts = {"text": cleaned} if cleaned else {}
    return _describe(parse(texts), texts, [], catalog, NO_SETTINGS_IN_TEXT)


def _describe(
    found: Found, texts: Mapping[str, str], reasons: list[str], catalog: Catalog, nothing: str
) -> PictureInfo:
    values, lines = check(found, catalog)
    reasons = [*reasons, *lines]
    return PictureInfo(found.program, values, _show_raw(texts), _bounded(reasons or ([] if values else [nothing])))


def _describe_ours(recipe: Recipe, texts: Mapping[str, str], catalog: Catalog) -> PictureInfo:
    request = recipe.request.in_newest_syntax()
    values = {name: getattr(request, name) for name in Request.model_fields if name not in NOT_ASKED}
    values |= group_values(request)
    values |= request.templates
    values |= naming_pictures(request, recipe.pictures)
    start = {**(recipe.start or {})}
    reasons = [_describe_sheet(recipe.grid)] if recipe.grid else []
    if start:
        reasons.append(f"start picture: not in this file (pixels {str(start.get('image'))[:12]})")
    values |= {name: value for name, value in start.items() if name not in ("image", "mask", "outpaint")}
    if any(start.get("outpaint") or ()):
        reasons.append(f"outpaint: {', '.join(map(str, start['outpaint']))} px")
    reasons += [f"{place}: not in this file (pixels {sha256[:12]})" for place, sha256 in recipe.pictures.items()]
    if find_file(request.model, catalog.models) is None:
        reasons.append(f"model: “{show(request.model)}” is not here (hash {recipe.model_hash[:10] or 'unknown'})")
    wanted: tuple[tuple[str, list[str], Mapping[str, File]], ...] = (
        ("LoRA", [*_loras_of(request)], catalog.loras),
        ("VAE", [request.vae], catalog.vaes),
        ("text encoder", [request.text_encoder], catalog.text_encoders),
        ("refiner", [request.refiner], catalog.models),
        ("control", [control.model for control in request.controls], catalog.controls),
        ("hires model", [request.hires.model] if request.hires else [], catalog.models),
    )
    for kind, names, known in wanted:
        reasons += [f"{kind}: “{show(name)}” is not here" for name in names if name and find_file(name, known) is None]
    return PictureInfo("Darkroom", values, _show_raw(texts) or clean(recipe.infotext()), _bounded(reasons))


def _describe_sheet(grid: SheetRecipe) -> str:
    axes = (f"{place} is {axis['field']}: {', '.join(axis['values'])}" for place, axis in axes_json(grid.axes).items())
    count = len(grid.cells)
    return f"This is the sheet of a grid of {count} pictures; the settings are the first one's. {'; '.join(axes)}"


def _loras_of(request: Request) -> Iterator[str]:
    """The names of all that it uses."""
    hires = request.hires
    refs = (*request.loras, *(hires.loras if hires else ()))
    tagged = [split_constant_loras(text)[2] for text in (request.prompt, hires.prompt if hires else "")]
    yield from dict.fromkeys(ref.name for ref in chain(refs, *tagged))


def _show_raw(texts: Mapping[str, str]) -> str:
    alone = len(texts) == 1 and next(iter(texts)) in ("parameters", "text")
    raw = "".join(texts.values()) if alone else "\n\n".join(f"{name}:\n{text}" for name, text in texts.items())
    rest = len(raw) - MAX_RAW_CHARACTERS
    return raw if rest <= 0 else f"{raw[:MAX_RAW_CHARACTERS]}\n... and {rest:,} more characters"


def _bounded(reasons: list[str]) -> tuple[str, ...]:
    lines = [" ".join(clean(reason).split())[:MAX_REASON_CHARACTERS] for reason in dict.fromkeys(reasons)]
    rest = len(lines) - MAX_REASONS
    return tuple(lines) if rest <= 0 else (*lines[:MAX_REASONS], f"... and {rest} more")


def as_text(value: Any) -> str:
    """A setting for people, lists and what is in them too; of a picture the beginning of its hash."""
    if isinstance(value, Mapping):
        held = {name: as_text(one) for name, one in value.items()}
        return (
            held["sha256"][:12] if [*held] == ["sha256"] else ",".join(f"{name}={text}" for name, text in held.items())
        )
    return ", ".join(map(as_text, value)) if isinstance(value, tuple | list) else str(value)
