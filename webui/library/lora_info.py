"""What a LoRA's file and the files beside it tell people: trigger words, a usual weight, a preview picture."""

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from webui.core.file_kinds import recognize
from webui.core.files import LoraFile, ModelFile
from webui.core.lora_files import MAX_SIDECAR_BYTES, bundled_embeddings, made_for, noise_levels, short_text
from webui.core.tensor_file import BadFile, read_header

MAX_WORDS = 24
MAX_PREVIEW_BYTES = 8 * 2**20
PREVIEW_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


@dataclass(frozen=True)
class LoraInfo:
    """All text is a stranger's: shown as text, never as markup. ``problem`` says why it cannot be used, if so.

    ``noise`` is from which to which level, of 1000, it was trained, where that is not all of them.
    """

    name: str
    size_bytes: int = 0
    title: str = ""
    description: str = ""
    made_for: str = ""
    trigger_words: tuple[str, ...] = ()
    weight: float = 1.0
    noise: tuple[int, int] | None = None
    has_preview: bool = False
    problem: str = ""


def describe(file: LoraFile) -> LoraInfo:
    """What is known of it; never raises."""
    try:
        stat = file.path.stat()
        info = _from_header(file, stat.st_size, stat.st_mtime_ns)
    except (BadFile, OSError) as error:
        reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        return LoraInfo(file.name, problem=f"{file.path.name} {reason}")
    sidecars = list(_sidecars(file.path))
    return replace(
        info,
        description=_first(info.description, *(entry.get("description") for entry in sidecars)),
        trigger_words=_words_beside(sidecars) or info.trigger_words,
        weight=_usual_weight(sidecars),
        has_preview=find_preview(file.path) is not None or info.has_preview,
    )


@lru_cache(maxsize=4096)
def _from_header(file: LoraFile, size_bytes: int, _mtime_ns: int) -> LoraInfo:
    """The file's own part, kept until it changes; a large folder is listed again and again."""
    header = read_header(file.path)
    metadata, kind = header.metadata, recognize(header.shapes)
    is_other = kind is not None and (kind.role not in ("LoRA", "nothing") or kind.is_foreign)
    words = _split_words([metadata.get("modelspec.trigger_phrase", "")])
    return LoraInfo(
        name=file.name,
        size_bytes=size_bytes,
        title=short_text(metadata.get("modelspec.title", "")),
        description=short_text(metadata.get("modelspec.description", "")),
        made_for=made_for(metadata),
        trigger_words=_split_words(bundled_embeddings(header.shapes))
        or words
        or tuple(_frequent_tags(metadata.get("ss_tag_frequency", ""))),
        noise=noise_levels(metadata),
        has_preview=read_thumbnail(metadata) is not None,
        problem=f"{file.path.name} {kind.reason}" if kind and is_other else "",
    )


def read_preview(file: LoraFile | ModelFile) -> tuple[bytes, str] | None:
    """The preview picture's bytes and media type, from a file beside it (in it, for a folder) or from its metadata."""
    if path := find_preview(file.path):
        with suppress(OSError):
            return path.read_bytes(), PREVIEW_TYPES[path.suffix.lower()]
    with suppress(BadFile):
        return read_thumbnail(read_header(file.path).metadata)
    return None


def read_thumbnail(metadata: Mapping[str, str]) -> tuple[bytes, str] | None:
    """The picture that modelspec keeps as a data URL, if it is one."""
    kind, _, data = metadata.get("modelspec.thumbnail", "").partition(",")
    media_type = kind.removeprefix("data:").removesuffix(";base64")
    if media_type in PREVIEW_TYPES.values():
        with suppress(ValueError):  # binascii.Error is one
            return base64.b64decode(data, validate=True), media_type
    return None


def find_preview(path: Path) -> Path | None:
    """The picture beside a file, or the one called ``preview`` in a folder."""
    names = ["preview"] if path.is_dir() else [f"{path.stem}.preview", path.stem]
    folder = path if path.is_dir() else path.parent
    for name in (name + ending for name in names for ending in PREVIEW_TYPES):
        with suppress(OSError):
            found = folder / name
            if 0 < found.stat().st_size <= MAX_PREVIEW_BYTES:
                return found
    return None


def _sidecars(path: Path) -> Iterator[Mapping[str, Any]]:
    """A1111's ``name.json`` and the civitai helper's ``name.civitai.info``."""
    for ending in (".json", ".civitai.info"):
        with suppress(OSError, ValueError, RecursionError):
            found = path.with_name(path.stem + ending)
            if found.stat().st_size <= MAX_SIDECAR_BYTES:
                entry = json.loads(found.read_text("utf-8"))
                if isinstance(entry, dict):
                    yield entry


def _words_beside(sidecars: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """What people wrote beside the file counts before what is in it."""
    texts: list[Any] = []
    for entry in sidecars:
        trained = entry.get("trainedWords")
        texts += [entry.get("activation text"), *(trained if isinstance(trained, list) else [])]
    return _split_words(texts)


def _split_words(texts: Iterable[Any]) -> tuple[str, ...]:
    """Words or phrases between commas, each once."""
    words = (word.strip() for text in texts if isinstance(text, str) for word in short_text(text).split(","))
    return tuple(dict.fromkeys(word[:80] for word in words if word))[:MAX_WORDS]


def _frequent_tags(text: str) -> Iterator[str]:
    counts: Counter[str] = Counter()
    with suppress(ValueError, RecursionError, AttributeError, TypeError, OverflowError):
        for tags in json.loads(text).values():
            counts.update({str(tag).strip(): int(number) for tag, number in tags.items()})
    yield from (short_text(tag, 80) for tag, _ in counts.most_common(6) if tag)


def _usual_weight(sidecars: Iterable[Mapping[str, Any]]) -> float:
    for entry in sidecars:
        weight = entry.get("preferred weight")
        if isinstance(weight, int | float) and 0 < abs(weight) <= 10:
            return float(weight)
    return 1.0


def _first(*texts: Any) -> str:
    return next((short_text(text) for text in texts if isinstance(text, str) and text.strip()), "")
