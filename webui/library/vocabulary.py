"""What the embedded model was trained on, in words: it can draw nothing else."""

import json
from functools import cache
from typing import Any

from webui.core.files import ModelFile
from webui.library.library import DEMO_MODEL


def vocabulary_of(model: ModelFile) -> dict[str, Any] | None:
    """Its things, styles, colours, sizes and places, and the words between them; None for a model that knows more than
    anybody could list."""
    return _read() if model.path == DEMO_MODEL else None


@cache
def _read() -> dict[str, Any]:
    told: dict[str, Any] = json.loads((DEMO_MODEL / "vocabulary.json").read_text("utf-8"))
    return told
