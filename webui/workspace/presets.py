"""The presets there are: those that ship with the product, and people's own in ``<data-dir>/presets``.

A preset's name is a key of what was found and stands inside its file; the file's own name is made from it.
"""

import csv
import hashlib
import io
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from PIL.Image import Image as PilImage

from webui.core.disk import replace_file
from webui.core.errors import Mend, RequestError
from webui.core.filenames import slug
from webui.core.names import choose, fold, unknown
from webui.core.request import Request
from webui.workspace.preset import MAX_NAME_CHARACTERS, MAX_PRESET_BYTES, Preset, make_preset, read_preset

MAX_PRESETS = 1_000
MAX_STYLES_BYTES = 4 * 2**20
THUMBNAIL_PX = 192
_CHECKOUT = Path(__file__).resolve().parents[2] / "presets"
SHIPPED = _CHECKOUT if _CHECKOUT.is_dir() else Path(sys.prefix) / "share" / "darkroom" / "presets"


@dataclass(frozen=True)
class PresetFile:
    """A file that holds a preset, or None with the ``problem``.

    ``shipped`` ones came with the product, ``lent`` ones are the host's, for a guest to use; neither can be changed.
    """

    name: str
    path: Path
    preset: Preset | None = None
    problem: str = ""
    shipped: bool = False
    lent: bool = False

    @property
    def is_own(self) -> bool:
        """Whether it is for its visitor to change."""
        return not (self.shipped or self.lent)

    @property
    def thumbnail_path(self) -> Path:
        """Where its small picture is, if it has one."""
        return self.path.with_suffix(".png")


class PresetStore:
    """All presets by name, and what people do with theirs. The folder is made when the first one is saved.

    A guest's are those that the ``host`` shows, then their own. Where it is not ``writable``, all that would change
    something raises RequestError. Of shipped and own presets, ``shown`` are the names of those that are there at all.
    """

    def __init__(
        self,
        folder: Path,
        host: "PresetStore | None" = None,
        writable: bool = True,
        shown: Iterable[str] | None = None,
    ) -> None:
        self.folder, self.writable, self._host = folder, writable, host
        self._shown = None if shown is None else frozenset(map(fold, shown))

    def only(self, names: Iterable[str] | None) -> "PresetStore":
        """The same presets, but only those of these names; None for all. It is for reading."""
        return PresetStore(self.folder, writable=False, shown=names)

    def files(self) -> Mapping[str, PresetFile]:
        """Every preset on disk now, the shipped ones first; those that cannot be used are there with their problem."""
        found: dict[str, PresetFile] = {}
        for name, file in self._host.files().items() if self._host else ():
            found[name] = replace(file, lent=not file.shipped)
        folders = ((SHIPPED, True), (self.folder, False))
        for folder, shipped in folders[1:] if self._host else folders:
            for path in sorted(_toml_files(folder))[:MAX_PRESETS]:
                name, preset, problem = _read(path)
                name = f"{name} ({path.stem})" if name in found else name
                found.setdefault(name, PresetFile(name, path, preset, problem, shipped))
        if self._shown is None:
            return found
        return {name: file for name, file in found.items() if {fold(name), fold(file.path.stem)} & self._shown}

    def choose(self, name: str) -> PresetFile:
        """The preset of this name, or in the file of this name (``flat-sticker``).

        Raises RequestError with near names, or with what is wrong with the file.
        """
        if not isinstance(name, str):
            raise RequestError("preset must be text", field="preset")
        files = self.files()
        if name not in files:
            name = {file.path.stem: other for other, file in files.items()}.get(name, name)
        file = files[choose("preset", name, files, listed=False)]
        if file.preset is None:
            raise RequestError(f"preset {file.name!r}: {file.path.name} {file.problem}", field="preset")
        return file

    def get(self, name: str) -> Preset:
        """The preset of this name; raises as ``choose`` does."""
        preset = self.choose(name).preset
        assert preset
        return preset

    def over(self, name: str, request: Request) -> Request:
        """The request with the preset of this name laid over it, as in a grid; raises RequestError."""
        return self.get(name).over(request)

    def all_styles(self) -> list[Preset]:
        """Those that only add to what is asked for."""
        return [file.preset for file in self.files().values() if file.preset and file.preset.is_style]

    def styles(self, names: Any) -> tuple[Preset, ...]:
        """The styles of these names, each once; raises as ``choose`` does, and for a preset that is no style."""
        if not isinstance(names, list | tuple):
            raise RequestError("styles must be a list of names", field="styles")
        found = {}
        for name in names:
            try:
                preset = self.get(name)
            except RequestError as error:
                raise RequestError(str(error), "styles", Mend("remove", str(name))) from None
            if not preset.is_style:
                reason = "it sets more than words around the prompt. Use it as a preset"
                raise RequestError(
                    f"preset {preset.name!r} is not a style: {reason}", "styles", Mend("remove", str(name))
                )
            found[preset.name] = preset
        return tuple(found.values())

    def save(self, preset: Preset, thumbnail: PilImage | bytes | None = None, replace: bool = False) -> None:
        """Keeps it with a small copy of the picture, or its PNG bytes as they are; raises RequestError.

        A name that is taken is refused, one's own unless ``replace``.
        """
        self._check_writable()
        files = self.files()
        taken = next((file for name, file in files.items() if name.casefold() == preset.name.casefold()), None)
        if taken and not taken.is_own:
            raise RequestError(
                f"preset {preset.name!r} cannot be replaced: it {_origin(taken)}; choose another name", field="preset"
            )
        if taken and not replace:
            raise RequestError(f"preset {preset.name!r} is there already", field="preset")
        if not taken:
            _check_room(sum(file.is_own for file in files.values()) + 1)
        _write(preset, taken.path if taken else self.folder / _file_name(preset.name), thumbnail)

    def rename(self, name: str, new_name: str) -> str:
        """Gives one's own preset another name, and returns that; raises RequestError."""
        file = self._own(name)
        assert file.preset
        renamed = make_preset(**file.preset.model_dump() | {"name": new_name})
        if renamed.name == name:
            return name
        if renamed.name.casefold() == name.casefold():
            self.save(renamed, replace=True)
            return renamed.name
        self.save(renamed, read_thumbnail(file))
        _remove(file)
        return renamed.name

    def delete(self, name: str) -> None:
        """Removes one's own preset; raises RequestError."""
        _remove(self._own(name, broken=True))

    def add(self, file_name: str, data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Takes in a preset's TOML or A1111's ``styles.csv``: the new names, and notices. Raises RequestError.

        A name that is taken gets a number behind it.
        """
        path = Path(file_name)
        try:
            is_csv = path.suffix.lower() == ".csv"
            presets = list(_read_styles(data)) if is_csv else [read_preset(data, _tame(path.stem))]
        except RequestError as error:
            raise RequestError(f"{path.name[:80]!r} {error}", field="preset") from None
        self._check_writable()
        files, names = self.files(), []
        _check_room(sum(file.is_own for file in files.values()) + len(presets))
        taken = {name.casefold() for name in files}
        for preset in presets:
            numbered = (f"{preset.name[: MAX_NAME_CHARACTERS - 5]} {number}" for number in range(2, 2 * MAX_PRESETS))
            free = next(name for name in chain([preset.name], numbered) if name.casefold() not in taken)
            taken.add(free.casefold())
            _write(preset.model_copy(update={"name": free}), self.folder / _file_name(free))
            names.append(free)
        return tuple(names), tuple(notice for preset in presets for notice in preset.notices)

    def _check_writable(self) -> None:
        if not self.writable:
            raise RequestError("presets are kept only for visitors who keep their cookie", field="preset")

    def _own(self, name: str, broken: bool = False) -> PresetFile:
        self._check_writable()
        file = self.files().get(name) if broken else self.choose(name)
        if file is None:
            raise unknown("preset", name, self.files())
        if not file.is_own:
            raise RequestError(
                f"preset {file.name!r} cannot be changed: it {_origin(file)}; save a copy instead", field="preset"
            )
        return file


def read_thumbnail(file: PresetFile) -> bytes | None:
    """Its small picture as PNG, or None."""
    try:
        data = file.thumbnail_path.read_bytes()
    except OSError:
        return None
    return data if data.startswith(b"\x89PNG\r\n") else None


def _check_room(own: int) -> None:
    if own > MAX_PRESETS:
        raise RequestError(f"there would be {own} presets; {MAX_PRESETS} is the limit. Delete some", field="preset")


def _write(preset: Preset, path: Path, thumbnail: PilImage | bytes | None = None) -> None:
    data = preset.text.encode()
    if len(data) > MAX_PRESET_BYTES:
        raise RequestError(f"preset: its file would be larger than {MAX_PRESET_BYTES // 1024} KiB", field="preset")
    picture = _shrink(thumbnail) if isinstance(thumbnail, PilImage) else thumbnail
    try:
        if picture:
            replace_file(path.with_suffix(".png"), picture, 0o644)
        replace_file(path, data, 0o644)
    except OSError as error:
        raise RequestError(f"preset cannot be saved: {error.strerror}", field="preset") from None


def _origin(file: PresetFile) -> str:
    """Why it stays as it is. Languages find what is called ``reason``."""
    reason = "ships with the product" if file.shipped else "is the host's"
    return reason


def _toml_files(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if entry.suffix == ".toml" and not entry.name.startswith(".")]
    except OSError:
        return []


def _tame(name: str) -> str:
    """Any text as a name, for files that give none."""
    kept = "".join(character for character in name if character.isprintable())
    return kept.strip()[:MAX_NAME_CHARACTERS] or "unnamed"


def _read(path: Path) -> tuple[str, Preset | None, str]:
    """Name, preset, problem; kept until the file changes."""
    try:
        stat = path.stat()
        return _read_once(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        return _tame(path.stem), None, f"cannot be read: {error.strerror}"


@lru_cache(maxsize=2 * MAX_PRESETS)
def _read_once(path: Path, _size_bytes: int, _mtime_ns: int) -> tuple[str, Preset | None, str]:
    try:
        with path.open("rb") as file:
            preset = read_preset(file.read(MAX_PRESET_BYTES + 1), _tame(path.stem))
    except RequestError as error:
        return _tame(path.stem), None, str(error)
    return preset.name, preset, ""


def _read_styles(data: bytes) -> Iterator[Preset]:
    """A1111's styles: text without ``{prompt}`` in it goes behind the prompt."""
    if len(data) > MAX_STYLES_BYTES:
        raise RequestError(f"is larger than {MAX_STYLES_BYTES // 2**20} MiB")
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise RequestError("cannot be read as CSV text in UTF-8") from None
    if not rows or not {"name", "prompt"} <= rows[0].keys():
        raise RequestError("has no styles: its first line must be name,prompt,negative_prompt")
    if len(rows) > MAX_PRESETS:
        raise RequestError(f"has {len(rows)} styles; the limit is {MAX_PRESETS}")
    for row in rows:
        name, prompt = row["name"] or "", row["prompt"] or ""
        negative = (row.get("negative_prompt") or "").replace("{prompt}", "").strip(" ,")
        if not name.strip() or not (prompt or negative):
            continue  # A1111 keeps separators and empty rows in this file
        template = prompt if "{prompt}" in prompt else ", ".join(["{prompt}", *([prompt] if prompt else [])])
        fields = {"prompt": template} | ({"negative": negative} if negative else {})
        try:
            yield make_preset(name=_tame(name), fields=fields, variables={"prompt": ""})
        except RequestError as error:
            raise RequestError(f"style {name[:60]!r}: {error}") from None


def _file_name(name: str) -> str:
    """A name that any disk takes; the digits keep apart what looks alike without its accents and signs."""
    return f"{slug(name)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.toml"


def _shrink(picture: PilImage) -> bytes:
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()


def _remove(file: PresetFile) -> None:
    try:
        file.path.unlink(missing_ok=True)
        file.thumbnail_path.unlink(missing_ok=True)
    except OSError as error:
        raise RequestError(f"preset {file.name!r} cannot be deleted: {error.strerror}", field="preset") from None
