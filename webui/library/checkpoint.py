"""What a model file is, read from the names and shapes of its tensors; never from what the file is called.

Each kind of model is asked in turn (``core.kinds``). Nothing here imports torch.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from webui.core.checkpoint import Checkpoint
from webui.core.file_kinds import LOADABLE, recognize
from webui.core.kinds import KINDS
from webui.core.kinds.forms import told_form
from webui.core.kinds.kind import Kind, Source, Traits
from webui.core.kinds.parts import NETWORKS
from webui.core.quantization import check_quantization
from webui.core.tensor_file import BadFile, Header, read_header
from webui.core.weight_files import INDEXES, weight_files

BACKBONES = tuple(dict.fromkeys(kind.folder("backbone") for kind in KINDS))
CONFIGS = (*(f"{part}/config.json" for part in (*BACKBONES, "vae")), *INDEXES, "scheduler/scheduler_config.json")


def read_checkpoint(path: Path) -> Checkpoint:
    """What the single file or the diffusers folder at ``path`` is; kept until it changes. Raises BadFile."""
    files = [file for part in weight_files(path).values() for file in part]
    files += [file for file in _words_about(path) if file.is_file()]
    try:
        stats = [(file, file.stat()) for file in files]
        stamps = tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)
        return _read(path, stamps)
    except OSError as error:
        raise BadFile(f"cannot be read: {error.strerror}") from None


def _words_about(path: Path) -> list[Path]:
    """The small files that say what the weights do not."""
    if path.is_dir():
        return [path / name for name in CONFIGS]
    return [path.with_suffix(".yaml")]


@lru_cache(maxsize=1024)
def _read(path: Path, _stamps: tuple[tuple[Path, int, int], ...]) -> Checkpoint:
    return _read_folder(path) if path.is_dir() else _read_single(path, read_header(path))


def read_part(path: Path) -> Checkpoint | None:
    """What a part of a model in a file of its own is; None for one that kinds do not share. Raises BadFile."""
    header = read_header(path)
    check_quantization(path, header)
    return part_of(header)


def part_of(header: Header) -> Checkpoint | None:
    """The same by its header; none of a whole model, also of a kind that cannot be loaded here."""
    known = recognize(header.shapes)
    if (known and known.role == "checkpoint") or any(_look(kind, header) for kind in KINDS):
        return None
    for network in NETWORKS:
        with _with_shapes_of(network.name):
            if (prefix := network.find(header.shapes)) is None:
                continue
            return Checkpoint(
                family=network.name,
                names="",
                parts=(network.role,),
                in_channels=0,
                context_width=network.width(header.shapes, prefix),
                native_px=0,
                dtype=_dtype(header, prefix),
                nbytes=_nbytes(header),
                prefixes=((network.role, prefix),),
            )
    return None


def check_header(header: Header) -> Checkpoint:
    """What a single file is as far as its header tells, before the rest of it is there; raises BadFile."""
    return _read_single(Path(), replace(header, places={}))


def _read_single(path: Path, header: Header) -> Checkpoint:
    check_quantization(path, header)
    return _describe(Source(path, header))


def _describe(source: Source) -> Checkpoint:
    """What the first kind that knows it says of it; raises BadFile."""
    header = source.header
    is_whole = any(key.startswith(("model.", "diffusion_model.")) for key in header.shapes)
    if not is_whole and (known := recognize(header.shapes)) and known.role in ("other", "control"):
        raise BadFile(known.reason)
    for kind in KINDS:
        if traits := _look(kind, header):
            found = kind.settle(_make(kind, traits, header), source)
            form = told_form(kind.forms, source)
            return replace(found.in_form(form), form_chosen=False) if form else found
    raise BadFile(_what_else(header.shapes))


def _look(kind: Kind, header: Header) -> Traits | None:
    with _with_shapes_of(kind.name):
        return kind.recognise(header)


@contextmanager
def _with_shapes_of(name: str) -> Iterator[None]:
    """A file with tensors of fewer sides than those of this kind or network is an error of its own: BadFile."""
    try:
        yield
    except LookupError:
        raise BadFile(f"is damaged: its tensors have not the shapes of {name}") from None


def _make(kind: Kind, traits: Traits, header: Header) -> Checkpoint:
    prefixes = dict(traits.prefixes)
    return Checkpoint(
        family=kind.name,
        names=traits.names,
        parts=tuple(part for part in kind.parts if part in prefixes),
        in_channels=traits.in_channels,
        context_width=traits.context_width,
        native_px=kind.native_px,
        prediction=kind.prediction,
        guides_itself=traits.guides_itself,
        defaults=kind.forms[0].defaults if kind.forms else kind.defaults,
        dtype=_dtype(header, prefixes.get("backbone", "")),
        nbytes=_nbytes(header),
        prefixes=traits.prefixes,
        widths=traits.widths,
    )


def _nbytes(header: Header) -> int:
    return sum(place.nbytes for place in header.places.values())


def _what_else(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Why a file that is none of our kinds cannot be used."""
    kind = recognize(shapes)
    if kind is None or (kind.role == "checkpoint" and not kind.is_foreign):
        return f"holds no model of {LOADABLE}"
    return kind.reason


def _dtype(header: Header, prefix: str) -> str:
    """The format that most of the backbone's bytes are in."""
    sizes: dict[str, int] = {}
    for key, place in header.places.items():
        if key.startswith(prefix):
            sizes[place.dtype] = sizes.get(place.dtype, 0) + place.nbytes
    return max(sizes, key=lambda dtype: sizes[dtype], default="F32")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        raise BadFile(f"has no {path.parent.name}/{path.name} that can be read") from None
    if not isinstance(found, dict):
        raise BadFile(f"has no {path.parent.name}/{path.name} that can be read")
    return found


def _read_inner(folder: Path, file: Path) -> Header:
    try:
        return read_header(file)
    except BadFile as error:
        raise BadFile(f"holds {file.relative_to(folder).as_posix()}, which {error}") from None


def _without_weights(folder: Path, part: str) -> str:
    if any((folder / part).glob("*.bin")):
        return f"has its {part} only as a pickle, and opening a pickle can run any program; get it as safetensors"
    return f"has no weights in {part} as safetensors"


def _read_folder(path: Path) -> Checkpoint:
    """A diffusers folder: its small JSON files are the word, its tensors the proof."""
    backbone = next((name for name in BACKBONES if (path / name).is_dir()), BACKBONES[0])
    words = {"backbone": f"{backbone}/config.json", "vae": "vae/config.json", "scheduler": CONFIGS[-1]}
    configs = {role: _read_json(path / name) for role, name in words.items()}
    index = next((path / name for name in INDEXES if (path / name).is_file()), None)
    configs |= {"index": _read_json(index)} if index else {}
    headers = {part: [_read_inner(path, file) for file in found] for part, found in weight_files(path).items()}
    if backbone not in headers:
        raise BadFile(_without_weights(path, backbone))
    own = headers[backbone]
    shapes = {key: shape for header in own for key, shape in header.shapes.items()}
    places = {key: place for header in own for key, place in header.places.items()}
    found = _describe(Source(path, Header({}, shapes, places), configs))
    there = tuple(role for role in found.row.parts if found.row.folder(role) in headers)
    for role in found.row.parts:
        if role not in there and role not in found.row.optional:
            raise BadFile(_without_weights(path, found.row.folder(role)))
    nbytes = sum(_nbytes(header) for part in headers.values() for header in part)
    return replace(found, parts=there, nbytes=nbytes)
