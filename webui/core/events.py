"""What happens to a job, as values: frozen, picklable, without tensors.

Every job's stream ends in exactly one of ``Done``, ``Failed``, ``Cancelled``.
"""

import base64
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from PIL.Image import Image as PilImage

from webui.core import images
from webui.core.disk import replace_file
from webui.core.errors import Mend, RequestError
from webui.core.filenames import FileFormat
from webui.core.images import Size
from webui.core.recipe import Recipe, save_options

SAVE_OPTIONS: Mapping[FileFormat, Mapping[str, Any]] = {
    "png": {"compress_level": 1},  # half the time of zlib's default level for about a seventh more bytes
    "jpeg": {"quality": 92},
    "webp": {"quality": 90},
}
ENDINGS: Mapping[str, FileFormat] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


@dataclass(frozen=True)
class Queued:
    """The job waits; ``position`` 1 is next."""

    position: int


@dataclass(frozen=True)
class Loading:
    """The model is being made ready; ``what`` says which part, ``fraction`` is 0..1 of the whole."""

    what: str
    fraction: float


@dataclass(frozen=True)
class Step:
    """Sampling went on: ``index`` of ``total`` steps are behind us, after ``seconds`` of sampling.

    ``preview`` is a small JPEG of what the picture is becoming, or None when none was due. ``stage`` is the name and
    number of the stage that went on, where there are several. ``share`` is how much of all the work is done then, 0..1,
    for a step of one stage may take longer than that of another.
    """

    index: int
    total: int
    seconds: float
    preview: bytes | None = None
    stage: tuple[str, int] | None = None
    share: float | None = None

    @property
    def done(self) -> float:
        """How much of all the work is done, 0..1."""
        if self.share is not None:
            return self.share
        return self.index / self.total if self.total else 0.0

    @property
    def left_s(self) -> float:
        """How long the rest will take at the pace so far; 0 where nothing is known of it."""
        return self.seconds * (1 - self.done) / self.done if self.done else 0.0


@dataclass(frozen=True)
class Image:
    """A finished picture: number ``index`` of the job, from 0. ``path`` is set once it is saved."""

    index: int
    image: PilImage
    recipe: Recipe
    path: Path | None = None
    warning: str = ""

    @property
    def seed(self) -> int:
        """The seed that makes this very picture."""
        return self.recipe.request.seed

    @cached_property
    def pixels_sha256(self) -> str:
        """SHA-256 of the RGB bytes, row by row: equal hashes mean equal pixels."""
        digest = hashlib.sha256()
        for strip in images.strips(self.image):
            digest.update(strip.convert("RGB").tobytes())
        return digest.hexdigest()

    @property
    def is_sheet(self) -> bool:
        """Whether it is a grid's sheet and not one of its pictures."""
        return self.recipe.grid is not None

    @property
    def size(self) -> Size:
        """Its width and height in px."""
        return self.image.size

    def encode(self, file_format: FileFormat = "png", quality: int | None = None, with_recipe: bool = True) -> bytes:
        """A file of it with its recipe inside, or without; raises RecipeError where a JPEG cannot hold that.

        ``quality`` is that of a JPEG or WebP, 1..100.
        """
        recipe, name = replace(self.recipe, pixels_sha256=self.pixels_sha256), file_format.upper()
        options = dict(SAVE_OPTIONS[file_format]) | (save_options(recipe, name) if with_recipe else {})
        if quality is not None and "quality" in options:
            options["quality"] = quality
        buffer = io.BytesIO()
        self.image.save(buffer, name, **options)
        return buffer.getvalue()

    def save(self, path: Path | str) -> None:
        """Writes it with its recipe inside, in the format of the path's ending, whole or not at all.

        Raises RequestError for another ending, RecipeError as ``encode``, and OSError.
        """
        ending = Path(path).suffix.lower()
        if ending not in ENDINGS:
            raise RequestError(f"{str(path)!r} does not end in one of {', '.join(ENDINGS)}", field="path")
        replace_file(Path(path), self.encode(ENDINGS[ending]), 0o644)


class SavedImage(Image):
    """The same, its pixels left in the lossless file that has them, and read whenever they are asked for: a job of
    thousands of pictures does not hold them. ``image`` raises ImageError where the file is gone."""

    def __init__(self, index: int, recipe: Recipe, path: Path, pixels_sha256: str, size: Size) -> None:
        held = {"index": index, "recipe": recipe, "path": path, "warning": ""}
        vars(self).update(held | {"pixels_sha256": pixels_sha256, "_size": size})

    @property
    def image(self) -> PilImage:
        """Read anew."""
        assert self.path
        return images.open_image(self.path, images.MAX_RESULT_PIXELS)

    @property
    def size(self) -> Size:
        """Known without the pixels."""
        size: Size = vars(self)["_size"]
        return size


@dataclass(frozen=True)
class LoraSwitch:
    """What it took to have these LoRAs (``name:weight``) in the model: nothing, a swap of pointers, or computing."""

    applied: tuple[str, ...]
    how: Literal["unchanged", "cached", "merged"]
    seconds: float


@dataclass(frozen=True)
class Done:
    """All pictures are made. ``seconds`` is the whole time, from an executor that of waiting and saving too.

    ``parts_s`` says where it went (``core.ledger.PARTS``), ``loras`` what was applied, None for none.
    """

    seconds: float
    parts_s: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    loras: LoraSwitch | None = None


@dataclass(frozen=True)
class Failed:
    """The work could not be done; ``message`` is for people. ``bad_input`` marks the caller's fault: ``place`` is the
    request's field and ``mend`` what makes it good, as in ``RequestError``, for the page alone.

    ``seconds`` and ``parts_s`` as in Done, until then.
    """

    message: str
    bad_input: bool = False
    seconds: float = field(default=0.0, compare=False)
    parts_s: Mapping[str, float] = field(default_factory=dict, compare=False)
    place: str = field(default="", compare=False)
    mend: Mend | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Cancelled:
    """Stopped on request, after ``index`` of ``total`` steps; ``seconds`` and ``parts_s`` as in Done, until then."""

    index: int = 0
    total: int = 0
    seconds: float = field(default=0.0, compare=False)
    parts_s: Mapping[str, float] = field(default_factory=dict, compare=False)


Event = Queued | Loading | Step | Image | Done | Failed | Cancelled
TERMINAL = (Done, Failed, Cancelled)


def to_json(event: Event, with_folders: bool = True) -> dict[str, Any]:
    """The event as the JSON object that ``generate --json`` and ``/api/jobs/{id}/events`` send.

    Without folders ``path`` is the name of the file.
    """
    body: dict[str, Any] = {"event": type(event).__name__.lower()}
    if isinstance(event, Image):
        body["event"] = "image"
        body |= {
            "index": event.index,
            "seed": event.seed,
            "path": str(event.path if with_folders else event.path.name) if event.path else None,
            "pixels_sha256": event.pixels_sha256,
            "infotext": event.recipe.infotext(),
        }
        body |= {"sheet": True} if event.is_sheet else {}
        return body | ({"warning": event.warning} if event.warning else {})
    for name, value in vars(event).items():
        if name in ("place", "mend"):
            continue
        if isinstance(value, float):
            body[name] = round(value, 4)
        elif name == "stage":
            body |= {"stage": value[0], "stage_index": value[1]} if value else {}
        elif isinstance(value, bytes):
            body[name] = base64.b64encode(value).decode("ascii")
        elif isinstance(value, Mapping):
            body[name] = {part: round(seconds, 4) for part, seconds in value.items()}
        elif isinstance(value, LoraSwitch):
            body[name] = {"applied": list(value.applied), "how": value.how, "seconds": round(value.seconds, 6)}
        elif value is not None:
            body[name] = value
    return body
