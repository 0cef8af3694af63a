"""A model that another program names -> the one that is here."""

import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from webui.core.files import File, ModelFile
from webui.core.names import find_file
from webui.core.weight_files import content_hash

HASHING_S = 5.0
"""After this no further file is hashed for one answer; what was hashed is remembered for the next."""
MIN_HASH_DIGITS = 8


def find(name: Any, sha256: Any, models: Mapping[str, ModelFile]) -> str | None:
    """The name here of the model with this name, whatever its folder and ending, or with this beginning of a hash."""
    named = find_name(name, models)
    return named or (_find_hash(sha256.lower(), models) if isinstance(sha256, str) else None)


def find_name(name: Any, files: Mapping[str, File]) -> str | None:
    """The name here of the file that is meant: as requests name it, or by its last part, whatever folder and ending."""
    if not isinstance(name, str) or not name:
        return None
    wanted = _stem(name)
    return find_file(name[:300], files) or next((known for known in files if _stem(known) == wanted), None)


def _stem(name: str) -> str:
    last = PurePosixPath(name[:300].replace("\\", "/")).name
    for ending in (".safetensors", ".ckpt", ".pt", ".sft", ".bin", ".gguf"):
        last = last.removesuffix(ending)
    return last.casefold()


def _find_hash(digits: str, models: Mapping[str, ModelFile]) -> str | None:
    if not (MIN_HASH_DIGITS <= len(digits) <= 64 and set(digits) <= set("0123456789abcdef")):
        return None
    end_s = time.monotonic() + HASHING_S
    usable = [(name, file) for name, file in models.items() if file.checkpoint]
    for name, file in sorted(usable, key=lambda pair: pair[1].checkpoint.nbytes if pair[1].checkpoint else 0):
        if time.monotonic() > end_s:
            return None
        try:
            if content_hash(file).startswith(digits):
                return name
        except OSError:
            continue
    return None
