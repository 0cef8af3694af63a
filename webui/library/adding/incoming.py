"""A file on its way in: known by its first bytes, written beside its place, and there once it is whole."""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from webui.core.control_file import control_of
from webui.core.disk import open_temporary, place_file, sync
from webui.core.errors import RequestError, show
from webui.core.file_kinds import recognize
from webui.core.filenames import check_name
from webui.core.files import AnnotatorFile
from webui.core.finder_file import read_head
from webui.core.kinds import kinds_with
from webui.core.maps.networks import FOLDER, check_annotator, is_annotator
from webui.core.pickles import check_weights_alone
from webui.core.settings import Settings
from webui.core.tensor_file import (
    LENGTH_BYTES,
    PICKLE_ENDINGS,
    START_BYTES,
    BadFile,
    check_gguf,
    header_length,
    parse_gguf_header,
    parse_header,
    read_header,
)
from webui.core.upscaler_file import check_network
from webui.library.checkpoint import check_header, part_of, read_checkpoint
from webui.library.library import NO_PICKLES

Kind = Literal["model", "LoRA", "VAE", "embedding", "upscaler", "finder", "text encoder", "control", "preprocessor"]

FOLDERS: dict[Kind, str] = {
    "model": "models/Stable-diffusion",
    "LoRA": "models/Lora",
    "VAE": "models/VAE",
    "embedding": "embeddings",
    "upscaler": "models/ESRGAN",
    "finder": "models/adetailer",
    "text encoder": "models/text_encoders",
    "control": "models/ControlNet",
    "preprocessor": FOLDER,
}
UPSCALER_PICKLES = (".pt", ".pth")
GGUF_HEAD_BYTES = 2**23
"""In these the header of a model's GGUF file is, which does not tell its own length."""
RESERVE_BYTES = 2**30
"""So much of a disk is left free."""


class NoRoom(RequestError):
    """The disk is too full for a file."""


class Taken(RequestError):
    """There is a file of that name already."""


@dataclass(frozen=True)
class Place:
    """What a file is, in a word (``kind``) and for people (``about``: "an SDXL model"), and the ``path`` it gets."""

    kind: Kind
    about: str
    path: Path
    size_bytes: int


class Shelves:
    """The folders of one data folder, by kind. ``pickles`` says whether upscalers may be some."""

    def __init__(self, settings: Settings) -> None:
        self.folders = {kind: settings.data_dir / below for kind, below in FOLDERS.items()}
        self._pickles = not settings.has_guests

    def check_name(self, name: str) -> str:
        """The name of a file that could be added; raises RequestError."""
        try:
            name = check_name(name)
        except ValueError as error:
            raise RequestError(f"The name “{show(name)}” {error}.", field="name") from None
        ending = Path(name).suffix.lower()
        if ending in UPSCALER_PICKLES and not self._pickles:
            raise RequestError(f"{show(name)} {NO_PICKLES}.", field="name")
        if ending in PICKLE_ENDINGS and ending not in UPSCALER_PICKLES:
            reason = "is a pickle, and opening a pickle can run any program; get it as .safetensors"
            raise RequestError(f"{show(name)} {reason}.", field="name")
        if ending not in (".safetensors", ".gguf", ".onnx", *UPSCALER_PICKLES):
            kinds = (
                "models, LoRAs, VAEs, embeddings, upscalers and controls are .safetensors files (models .gguf too),"
                " finders and networks of preprocessors .onnx"
            )
            raise RequestError(f"{show(name)} cannot be added: {kinds}.", field="name")
        return name

    def needed_bytes(self, name: str, start: bytes, size_bytes: int) -> int:
        """How many of its first bytes tell what a file is; ``start`` are its first, ``START_BYTES`` or all of them."""
        if not name.lower().endswith((".safetensors", ".gguf")):
            return min(START_BYTES, size_bytes)
        try:
            if name.lower().endswith(".gguf"):
                check_gguf(start)
                return min(GGUF_HEAD_BYTES, size_bytes)
            return LENGTH_BYTES + header_length(start, size_bytes)
        except BadFile as error:
            raise refusal(name, error) from None

    def find_place(self, name: str, start: bytes, size_bytes: int) -> Place:
        """What the file is and where it goes, by as many of its first bytes as are needed.

        Raises RequestError for what cannot be used here.
        """
        try:
            kind, about = _what_is(name, start, size_bytes)
        except BadFile as error:
            raise refusal(name, error) from None
        return Place(kind, about, self.folders[kind] / name, size_bytes)

    def check_free(self, place: Place, left_bytes: int | None = None) -> None:
        """Raises Taken or NoRoom; ``left_bytes`` are still to come, all of them where nothing is said."""
        if os.path.lexists(place.path):
            raise Taken(f"There is a file of that name already: {place.path}. Give this one another name.", "name")
        free, needed = free_bytes(place.path.parent), place.size_bytes if left_bytes is None else left_bytes
        if free < needed + RESERVE_BYTES:
            raise NoRoom(
                f"There is no room for {show(place.path.name)}: {size_words(needed)} are needed,"
                f" {size_words(free)} are free in {place.path.parent}, and {size_words(RESERVE_BYTES)} must stay free."
            )

    def check_whole(self, place: Place, path: Path) -> None:
        """Raises RequestError where all of the file, which is at ``path`` now, shows that it cannot be used."""
        try:
            if place.kind == "model":
                read_checkpoint(path)
            elif place.kind == "finder":
                read_head(path)
            elif place.kind == "preprocessor":
                check_annotator(AnnotatorFile(place.path.stem, path))
            elif place.kind == "upscaler" and place.path.suffix.lower() in PICKLE_ENDINGS:
                check_network(check_weights_alone(path))
            elif place.kind == "upscaler":
                check_network(read_header(path).shapes)
        except BadFile as error:
            raise refusal(place.path.name, error) from None


def _what_is(name: str, start: bytes, size_bytes: int) -> tuple[Kind, str]:
    """By the ending where that says it, else by the header of a safetensors file; raises BadFile."""
    if not name.lower().endswith((".safetensors", ".gguf")):
        if name.lower().endswith(".onnx"):
            return ("preprocessor", "a preprocessor's network") if is_annotator(name) else ("finder", "a finder")
        return "upscaler", "an upscaler"
    if name.lower().endswith(".gguf"):
        header = parse_gguf_header(start, size_bytes)
        if header is None:
            raise BadFile(f"has a header of more than {GGUF_HEAD_BYTES // 2**20} MiB, as no model has")
    else:
        header = parse_header(start[LENGTH_BYTES:], size_bytes)
    if part := part_of(header):
        role: Kind = "VAE" if part.parts == ("vae",) else "text encoder"
        return role, f"a {role} for {' and '.join(kinds_with(part.family))}"
    kind = recognize(header.shapes)
    if kind is None or kind.role == "checkpoint":
        found = check_header(header)
        article = "an" if found.family.startswith(("A", "SD")) else "a"
        return "model", f"{article} {found.family} model{' for inpainting' if found.inpaints else ''}"
    if kind.is_foreign or kind.role == "other" or kind.role == "nothing":
        raise BadFile(kind.reason)
    if kind.role == "control":
        found_control = control_of(header)
        return "control", f"{'an' if found_control.form == 'IP-Adapter' else 'a'} {found_control.title}"
    return kind.role, kind.name


class Incoming:
    """Bytes of one file, in order, which ``write`` takes until they are all there and ``finish`` puts it in its place.

    ``open_part`` opens what they are written to, once it is known where the file goes; its path is ``part`` then.
    """

    def __init__(
        self,
        shelves: Shelves,
        name: str,
        size_bytes: int,
        open_part: Callable[[Place], tuple[IO[bytes], Path]] = lambda place: open_temporary(place.path.parent),
    ) -> None:
        self._shelves, self.name, self.size_bytes, self._open_part = shelves, name, size_bytes, open_part
        self.place: Place | None = None
        self.part: Path | None = None
        self.received = 0
        self._start = bytearray()
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Takes the next bytes; raises RequestError as soon as they show that the file cannot be used, and OSError."""
        self.received += len(data)
        if self.received > self.size_bytes:
            raise RequestError(f"More bytes came than the {self.size_bytes:,} that were announced.")
        if self._file is None:
            self._start += data
            if not self._knows():
                return
            data = bytes(self._start)
            self._start.clear()
        assert self._file
        self._file.write(data)
        self._digest.update(data)

    def resume(self, file: IO[bytes], part: Path, place: Place) -> None:
        """Goes on behind the bytes that are in ``file``, of which the first have told the ``place``."""
        self._file, self.place, self.part = file, place, part
        while data := file.read(2**20):
            self._digest.update(data)
            self.received += len(data)

    def finish(self, sha256: str = "") -> tuple[Place, str]:
        """The file is in its place now, whole; gives that and its SHA-256. Raises RequestError and OSError.

        ``sha256`` is what it has to be, where that is known.
        """
        if self.received < self.size_bytes or self.place is None or self._file is None or self.part is None:
            raise RequestError(f"{show(self.name)} is cut short: {self.received:,} of {self.size_bytes:,} bytes came.")
        sync(self._file)
        self._file.close()
        found = self._digest.hexdigest()
        if sha256 and found != sha256.lower():
            raise RequestError(
                f"{show(self.name)} is not the file that was meant: its SHA-256 is {found}, not {sha256.lower()}."
            )
        self._shelves.check_whole(self.place, self.part)
        os.chmod(self.part, 0o644)
        try:
            place_file(self.part, self.place.path)
        except FileExistsError:
            raise Taken(f"There is a file of that name already: {self.place.path}.", "name") from None
        return self.place, found

    def close(self) -> None:
        """Lets go of what was written, and leaves it."""
        if self._file:
            self._file.close()

    def drop(self) -> None:
        """Nothing is left of it, except of what is in its place."""
        self.close()
        if self.part:
            with suppress(OSError):
                self.part.unlink(missing_ok=True)

    def _knows(self) -> bool:
        """Whether the bytes are enough to tell what the file is; it has a place and is open then."""
        if len(self._start) < min(START_BYTES, self.size_bytes):
            return False
        needed = self._shelves.needed_bytes(self.name, bytes(self._start[:START_BYTES]), self.size_bytes)
        if len(self._start) < needed:
            return False
        place = self._shelves.find_place(self.name, bytes(self._start[:needed]), self.size_bytes)
        self._shelves.check_free(place)
        self._file, self.part = self._open_part(place)
        self.place = place
        return True


def refusal(name: str, error: BadFile) -> RequestError:
    """The error that says of a file by name why it is not taken."""
    return RequestError(f"{show(name)} {error}.", field="name")


def free_bytes(folder: Path) -> int:
    """On the disk that the folder is, or would be, on."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def size_words(size_bytes: int) -> str:
    """As people read it."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
