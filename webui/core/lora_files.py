"""What a LoRA's file brings besides its weights."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from webui.core.tensor_file import read_header

MAX_TEXT = 2_000
MAX_SIDECAR_BYTES = 2**20
_BUNDLED = re.compile(
    r"bundle_emb\.(?P<name>[^.]{1,200})\.(?P<vectors>clip_[lg]|emb_params|text_encoders_[01]|string_to_param\..+)"
)


def made_for(metadata: Mapping[str, str]) -> str:
    """The architecture that a file says it was made for; empty where it does not."""
    said = (metadata.get("modelspec.architecture", ""), metadata.get("ss_base_model_version", ""))
    return next((short_text(text, 80) for text in said if text.strip()), "")


def bundled_embeddings(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """The keys of the embeddings' vectors in a LoRA's file, ``bundle_emb.NAME.VECTORS``, by name and by vectors."""
    found: dict[str, dict[str, str]] = {}
    for key in keys:
        if bundled := _BUNDLED.fullmatch(key):
            found.setdefault(bundled["name"], {})[bundled["vectors"]] = key
    return found


def bundled_rows(path: Path) -> dict[str, int]:
    """How many tokens each embedding in a LoRA's file stands for, by name; raises BadFile."""
    shapes = read_header(path).shapes
    vectors = {name: shapes[next(iter(keys.values()))] for name, keys in bundled_embeddings(shapes).items()}
    return {name: shape[0] if len(shape) > 1 else len(shape) for name, shape in vectors.items()}


def find_adapter_config(path: Path) -> Path | None:
    """PEFT's ``adapter_config.json`` for this file: beside the only file in a folder, or beside PEFT's own name."""
    found = path.with_name("adapter_config.json")
    if not found.is_file():
        return None
    alone = path.stem == "adapter_model" or all(other == path for other in path.parent.glob("*.safetensors"))
    return found if alone else None


def short_text(text: str, limit: int = MAX_TEXT) -> str:
    """The text's beginning, in characters that can be sent: no NUL, no half of a pair."""
    return text[:limit].replace("\0", "").encode("utf-8", "replace").decode().strip()
