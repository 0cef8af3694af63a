"""How a picture was made, and the text about it that travels inside the file.

There are two texts. A1111's infotext, which civitai, sd-parsers and most image viewers of the field read, says what
people ask about. Our own JSON says all: what it takes to draw the picture again and to tell whether it is the same.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from PIL import Image as PilImages
from PIL.ExifTags import IFD, Base
from PIL.Image import Image as PilImage
from PIL.PngImagePlugin import PngInfo
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from webui import __version__
from webui.core import images
from webui.core.axes import MAX_PICTURES, MAX_VALUES, Axis
from webui.core.errors import explain
from webui.core.found import Spot
from webui.core.groups import GROUPS, LISTS
from webui.core.groups.init import Init
from webui.core.infotext import (
    approximations,
    control_settings,
    detail_settings,
    guiding_settings,
    hashes_text,
    hires_settings,
    in_one_line,
    neutralise,
    refiner_settings,
    region_settings,
    start_settings,
    upscale_settings,
)
from webui.core.migrations import NEWEST, migrate
from webui.core.prompt import join_loras
from webui.core.request import LATER, MAX_PROMPT_CHARACTERS, TEMPLATES, Request

GRID_SINCE = 3
"""The first schema that knows sheets."""
MAX_JSON_CHARACTERS = 2**20
MAX_SHEET_CHARACTERS = 2**22
"""Of a recipe that has those of many pictures in it."""
MAX_PLACES = 32
"""Of the pictures of a request's lists."""
MAX_JPEG_EXIF_BYTES = 65_533 - 6  # a JPEG segment, without the word "Exif" at its start
UNICODE_COMMENT = b"UNICODE\0"
GUIDES = {field for made_of in LISTS.values() for field in made_of.pictures}
WITHOUT_PICTURES = {"image", "mask"}

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=1000)]
Names = Annotated[Mapping[Text, Text], Field(max_length=200)]


class RecipeError(ValueError):
    """A recipe that cannot be used; the message says why."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Batch:
    """Pictures drawn together: the first one's seed, how many they are, and which of them this one is, from 0."""

    seed: Annotated[int, Field(ge=0)]
    count: Annotated[int, Field(ge=1, le=16)] = 1
    index: Annotated[int, Field(ge=0, lt=16)] = 0


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AxisRecipe:
    """What a grid's axis varies, and its values."""

    field: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]
    values: Annotated[
        tuple[Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)], ...], Field(min_length=1, max_length=MAX_VALUES)
    ]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SheetCell:
    """One picture on a grid's sheet: the place of its cell, and what makes its recipe of the sheet's
    (``core.differences``)."""

    place: Annotated[int, Field(ge=0, lt=MAX_PICTURES)]
    changes: Mapping[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SheetRecipe:
    """What a grid's sheet says besides the recipe of its first picture, in which the sheet's hash is: its axes, all
    pictures, the ``schema`` of their recipes, and the fonts of its labels."""

    schema: Annotated[int, Field(ge=GRID_SINCE, le=NEWEST)]
    x: AxisRecipe | None
    y: AxisRecipe | None
    z: AxisRecipe | None
    cells: Annotated[tuple[SheetCell, ...], Field(max_length=MAX_PICTURES)] = ()
    fonts: Text = ""

    @property
    def axes(self) -> tuple[Axis | None, Axis | None, Axis | None]:
        """The same as a grid has them."""
        x, y, z = (Axis(axis.field, axis.values) if axis else None for axis in (self.x, self.y, self.z))
        return x, y, z


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """Everything that made one picture. ``request`` has the picture's own seed, its size, and a count of 1.

    ``hashes`` are SHA-256 by kind (model, lora, lora configuration, vae, refiner, embedding, lender, upscaler, finder)
    and name: of the tensors in a LoRA's file, of whole files otherwise. ``sampler`` is the scheduler's class and
    configuration. ``environment`` is what the pixels may depend on besides: device, number format, threads, versions.
    ``found`` are the parts that each detail found. ``pixels_sha256`` is that of the finished picture, "" where it is
    not written down. A recipe that was read has no start picture in its request, but ``start``: its settings, and the
    hashes of picture and mask, with which ``with_pictures`` fills it in; and ``pictures``, the hashes of those
    of its lists by their places (``Request.pictures``). ``grid`` makes it that of a sheet.
    """

    request: Request
    hashes: Annotated[Mapping[Text, Names], Field(max_length=20)] = Field(default_factory=dict)
    batch: Batch | None = None
    sampler: Annotated[Mapping[Text, Any], Field(max_length=100)] = Field(default_factory=dict)
    environment: Annotated[Mapping[Text, str | int | bool | None], Field(max_length=100)] = Field(default_factory=dict)
    pixels_sha256: Sha256 | Annotated[str, Field(max_length=0)] = ""
    start: Mapping[Text, Any] | None = None
    found: Annotated[tuple[Annotated[tuple[Spot, ...], Field(max_length=16)], ...], Field(max_length=16)] = ()
    pictures: Annotated[Mapping[Text, Sha256], Field(max_length=MAX_PLACES)] = Field(default_factory=dict)
    grid: SheetRecipe | None = None

    @property
    def schema(self) -> int:
        """The first schema that can say it."""
        return self.grid.schema if self.grid else self.request.recipe_schema

    @property
    def model_hash(self) -> str:
        """Of the model's files; "" where they could not be read."""
        return next(iter(self.hashes.get("model", {}).values()), "")

    @property
    def lora_hashes(self) -> Mapping[str, str]:
        """By name, in the order in which they are applied."""
        return self.hashes.get("lora", {})

    def to_json(self) -> str:
        """The recipe as one line, without pictures: ``from_json`` reads it back."""
        grid = {"grid": asdict(self.grid)} if self.grid else {}
        return json.dumps(self.body(self.schema) | grid, ensure_ascii=False, allow_nan=False)

    def body(self, schema: int) -> dict[str, Any]:
        """The same in this schema, without what a sheet has besides."""
        unknown = {"init"} | {group for group in GROUPS if not getattr(self.request, group)}
        unknown |= {"syntax"} if schema == 1 else set()
        unknown |= {*LATER} - self.request.says_later
        unknown |= {field for field in TEMPLATES.values() if not getattr(self.request, field)}
        no_pictures: dict[str, None] = dict.fromkeys(self.request.pictures)
        said = {"syntax": min(self.request.syntax, 2)} if schema > 1 else {}  # nothing in it is left to chance
        return {
            "schema": schema,
            "darkroom": __version__,
            "request": self.request.with_pictures(no_pictures).model_dump(mode="json", exclude=unknown) | said,
            "start": self.start or _start_values(self.request.init),
            **({"pictures": pictures} if (pictures := self.pictures or hash_pictures(self.request)) else {}),
            "hashes": self.hashes,
            "batch": asdict(self.batch) if self.batch else None,
            "sampler": self.sampler,
            "environment": self.environment,
            **({"found": [[asdict(spot) for spot in spots] for spots in self.found]} if self.found else {}),
            "pixels_sha256": self.pixels_sha256,
        }

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The recipe that was written, its start picture left out; raises RecipeError."""
        most = MAX_SHEET_CHARACTERS if '"grid":' in text else MAX_JSON_CHARACTERS
        if len(text) > most:
            raise RecipeError(f"its recipe has {len(text):,} characters; {most:,} are allowed")
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            raise RecipeError("its recipe cannot be read as JSON") from None
        if not isinstance(body, dict):
            raise RecipeError("its recipe is not a JSON object")
        return cls.from_body(body)

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> "Recipe":
        """The same of a JSON object; raises RecipeError."""
        schema, written_by = body.pop("schema", None), body.pop("darkroom", "?")
        if type(schema) is not int or not 1 <= schema <= NEWEST:
            writer = f"schema {str(schema)[:20]!r}, by Darkroom {str(written_by)[:20]!r}"
            newer = ": a newer Darkroom reads it" if type(schema) is int and schema > NEWEST else ""
            raise RecipeError(f"its recipe has {writer}; schemas 1 to {NEWEST} are read here{newer}")
        try:
            recipe = _RECIPE.validate_python(migrate(body, schema))
            if recipe.start is not None:  # its settings are checked with a picture that stands in
                Init.model_validate({**recipe.start, "image": PilImages.new("L", (64, 64)), "mask": None})
        except ValidationError as error:
            raise RecipeError(f"its recipe is not valid: {explain(error)[:300]}") from None
        except RecursionError:
            raise RecipeError("its recipe is nested too deeply") from None
        return replace(recipe, request=recipe.request.model_copy(update={"syntax": recipe.request.syntax_of_drawn}))

    def with_pictures(self, find: Callable[[str], PilImage | None]) -> "Recipe":
        """The same with its pictures in the request; raises RecipeError naming what ``find`` does not know."""
        whole = self._with_guides(find)
        return whole if whole.start is None else whole._with_start(find)

    def _with_guides(self, find: Callable[[str], PilImage | None]) -> "Recipe":
        found = {}
        for place, sha256 in self.pictures.items():
            if place.rpartition(".")[2] not in GUIDES or (picture := find(sha256)) is None:
                raise RecipeError(f"its picture {place[:40]} is not here (pixels {sha256[:12]})")
            found[place] = picture
        return replace(self, request=self.request.with_pictures(found), pictures={}) if found else self

    def _with_start(self, find: Callable[[str], PilImage | None]) -> "Recipe":
        assert self.start is not None
        pictures = {}
        for name, words in (("image", "start picture"), ("mask", "mask")):
            if name in self.start:
                sha256 = str(self.start[name])
                if (picture := find(sha256)) is None:
                    raise RecipeError(f"its {words} is not here (pixels {sha256[:12]})")
                pictures[name] = picture
        try:
            init = Init.model_validate({**self.start, **pictures})
        except ValidationError as error:
            raise RecipeError(f"its recipe is not valid: {explain(error)[:300]}") from None
        return replace(self, request=self.request.model_copy(update={"init": init}), start=None)

    @property
    def batch_index(self) -> int:
        """Which of the pictures of ``drawn_as`` it is."""
        return self.batch.index if self.batch else 0

    def drawn_as(self) -> Request:
        """What to ask for to draw it again as it was drawn: together with the others of its batch."""
        if self.batch is None:
            return self.request
        first = self.request.picture(-self.batch.index)
        return first.model_copy(update={"seed": self.batch.seed, "count": self.batch.count})

    def infotext(self) -> str:
        """The ``parameters`` text: prompt, negative prompt, one line of settings.

        Its readers know no other syntax than the newest.
        """
        request = self.request.in_newest_syntax()
        if request.only_enlarges:
            settings = {**upscale_settings(request.upscale), "Version": f"Darkroom {__version__}"}
            return ", ".join(f"{name}: {value}" for name, value in settings.items())
        settings = {
            "Steps": request.steps,
            "Sampler": request.sampler,
            "Schedule type": request.schedule,
            "CFG scale": f"{request.guidance:g}",
            "Seed": request.seed,
            "Size": f"{request.width}x{request.height}",
            "Model hash": self.model_hash[:10] or None,
            "Model": re.sub(r"[,:\n]", " ", request.model),
            "Form": None if request.form == "auto" else request.form,
            "Variation seed": request.varied.seed if request.varied else None,
            "Variation seed strength": f"{request.varied.strength:g}" if request.varied else None,
            **start_settings(request.init),
            "Clip skip": request.clip_skip if request.clip_skip > 1 else None,
            "VAE hash": next((digest[:10] for digest in self.hashes.get("vae", {}).values()), None),
            "VAE": re.sub(r"[,:\n]", " ", request.vae) or None,
            "Text encoder": re.sub(r"[,:\n]", " ", request.text_encoder) or None,
            **refiner_settings(request),
            **hires_settings(request),
            **control_settings(request.controls, self.hashes.get("control", {})),
            **region_settings(request.regions),
            **detail_settings(request.detail),
            **upscale_settings(request.upscale),
            **guiding_settings(request),
            **approximations(request),
            "Lora hashes": hashes_text(self.lora_hashes),
            "TI hashes": hashes_text(self.hashes.get("embedding", {})),
            **_grid_settings(self.grid),
            "Version": f"Darkroom {__version__}",
        }
        lines = [neutralise(join_loras(request.prompt, request.loras))]
        if request.negative:
            lines.append(f"Negative prompt: {neutralise(request.negative)}")
        lines.append(", ".join(f"{name}: {value}" for name, value in settings.items() if value is not None))
        templates = {"Template": request.template, "Negative Template": request.negative_template}
        lines += [f"{name}: {in_one_line(text)}" for name, text in templates.items() if text]
        return "\n".join(lines)


_RECIPE = TypeAdapter(Recipe)


def save_options(recipe: Recipe, file_format: str) -> dict[str, Any]:
    """What Pillow's ``save`` takes to put both texts into a PNG, JPEG or WEBP file.

    In PNG they are the text chunks ``parameters`` and ``darkroom``; elsewhere, in EXIF, the user comment (where A1111
    puts its own) and the maker's note. Raises RecipeError where they are too long for a JPEG.
    """
    if file_format == "PNG":
        texts = PngInfo()
        texts.add_text("parameters", recipe.infotext())
        texts.add_itxt("darkroom", recipe.to_json())
        return {"pnginfo": texts}
    exif = PilImages.Exif()
    fields = exif.get_ifd(IFD.Exif)
    fields[Base.UserComment] = UNICODE_COMMENT + recipe.infotext().encode("utf-16-be")
    fields[Base.MakerNote] = recipe.to_json().encode()
    data = exif.tobytes()
    if file_format == "JPEG" and len(data) > MAX_JPEG_EXIF_BYTES:
        raise RecipeError("its texts are too long for a JPEG")
    return {"exif": data}


def read_picture(source: Path | PilImage) -> Recipe | None:
    """The recipe in a picture; None where there is none of ours. Raises RecipeError, and ImageError for no picture.

    Of a file only the head is read, up to where its pixels begin.
    """
    if isinstance(source, Path):
        with images.opened(source) as image:
            text = _find_json(image)
    else:
        text = _find_json(source)
    return None if text is None else Recipe.from_json(text)


def _find_json(image: PilImage) -> str | None:
    if (text := image.info.get("darkroom")) is not None:
        return str(text)
    note = image.getexif().get_ifd(IFD.Exif).get(Base.MakerNote)
    return note.decode("utf-8", "replace") if isinstance(note, bytes) and note.startswith(b'{"schema":') else None


def _start_values(init: Init | None) -> dict[str, Any] | None:
    """The settings of a start picture, and in place of pictures their hashes."""
    if init is None:
        return None
    unsaid = set() if init.softness else {"softness"}
    return init.model_dump(mode="json", exclude={*WITHOUT_PICTURES, *unsaid}) | hash_start(init)


def _grid_settings(grid: SheetRecipe | None) -> dict[str, object]:
    """A1111's words for a sheet."""
    if grid is None:
        return {}
    settings: dict[str, object] = {"Script": "X/Y/Z plot"}
    for place, axis in (("X", grid.x), ("Y", grid.y), ("Z", grid.z)):
        if axis:
            settings[f"{place} Type"] = json.dumps(axis.field, ensure_ascii=False)
            settings[f"{place} Values"] = json.dumps(", ".join(axis.values)[:1000], ensure_ascii=False)
    return settings


def hash_start(init: Init) -> dict[str, str]:
    """The names under which a start picture and its mask are kept."""
    return {name: images.pixels_sha256(picture) for name, picture in start_pictures(init).items()}


def hash_pictures(request: Request) -> dict[str, str]:
    """The names under which the pictures of its lists are kept, by their places."""
    return {place: images.pixels_sha256(without_palette(picture)) for place, picture in request.pictures.items()}


def start_pictures(init: Init) -> dict[str, PilImage]:
    """Those of it that are kept."""
    return {"image": without_palette(init.image)} | ({"mask": images.to_mask(init.mask)} if init.mask else {})


def without_palette(image: PilImage) -> PilImage:
    """In a mode whose bytes are all that it shows: without a palette, and transparency only as alpha."""
    return image.convert("RGBA") if image.mode == "P" or "transparency" in image.info else image
