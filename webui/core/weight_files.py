"""The files that a model's weights are in, and their hashes."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from webui.core.files import File, ModelFile
from webui.core.kinds import KINDS

INDEXES = ("model_index.json", "modular_model_index.json")
"""What marks diffusers' folders of whole models; newer families have the second."""
PARTS = tuple(sorted({kind.folder(role) for kind in KINDS for role in kind.parts}))
"""The folders of weights in diffusers' folders, in the order in which they are hashed."""


def weight_files(path: Path) -> dict[str, tuple[Path, ...]]:
    """The files of weights to read, by folder; one file is all of them under the name of ``""``, as are those of a
    folder of one network.

    Of a folder's variants the one without a name is taken, else the first by name; a file in shards is all of them.
    """
    if not path.is_dir():
        return {"": (path,)}
    if (path / "config.json").is_file() and not any((path / index).is_file() for index in INDEXES):
        return {"": files} if (files := _component_files(path)) else {}
    return {part: files for part in PARTS if (files := _component_files(path / part))}


def _component_files(folder: Path) -> tuple[Path, ...]:
    """``model.safetensors``, ``model.fp16.safetensors``, or the shards that an index names."""
    named = {file.name: file for file in sorted(folder.glob("*.safetensors")) if "non_ema" not in file.name}
    shard = re.compile(r"^(?P<stem>.+?)-\d{5}-of-\d{5}(?P<variant>\.\w+)?\.safetensors$|^(?P<all>.+)$")
    groups: dict[str, list[Path]] = {}
    for name, file in named.items():
        found = shard.match(name)
        assert found
        groups.setdefault(found["all"] or f"{found['stem']}{found['variant'] or ''}.safetensors", []).append(file)
    if not groups:
        return ()
    plain = min(groups, key=lambda name: (name.count("."), name))
    return tuple(groups[plain])


def stamp(path: Path) -> int:
    """A number that changes with a model's weight files: their names, sizes or times. Raises OSError."""
    files = [file for part in weight_files(path).values() for file in part]
    stats = [(file.relative_to(path).as_posix(), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    return int.from_bytes(hashlib.sha256(repr(stats).encode()).digest()[:6])


def stamps(files: Iterable[File]) -> Mapping[str, int]:
    """Files by their paths, each with a number that changes with it; raises OSError."""
    known = {file.path: file.stamp if isinstance(file, ModelFile) else 0 for file in files}
    return {str(path): number or stamp(path) for path, number in known.items()}


def content_hash(model: ModelFile) -> str:
    """SHA-256 over a model's weight files, one behind the other; kept until one of them changes.

    For a single file its first ten digits are what A1111 and civitai call the model hash.
    """
    return hash_whole(*(file for part in weight_files(model.path).values() for file in part))


def hash_whole(*files: Path) -> str:
    """SHA-256 over files, one behind the other; kept until one of them changes. Raises OSError."""
    stats = [file.stat() for file in files]
    return _hash_files(files, tuple((stat.st_size, stat.st_mtime_ns) for stat in stats))


@lru_cache(maxsize=1024)
def _hash_files(files: tuple[Path, ...], _stamp: tuple[tuple[int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()
