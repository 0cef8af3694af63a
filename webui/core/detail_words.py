"""Details in the text that A1111 and its readers understand: the names of its extension ADetailer."""

import json
import re
from collections.abc import Iterator, Sequence

from webui.core.groups.detail import MOST_PARTS, Detail
from webui.core.prompt import join_loras

WORDS = {
    "finder": "ADetailer model",
    "prompt": "ADetailer prompt",
    "negative": "ADetailer negative prompt",
    "threshold": "ADetailer confidence",
    "at_most": "ADetailer mask only top k",
    "strength": "ADetailer denoising strength",
    "padding": "ADetailer inpaint padding",
}
"""By field."""
BY_SCORE = "Confidence"
ORDINALS = {2: "2nd", 3: "3rd"}


def settings(details: Sequence[Detail]) -> Iterator[tuple[str, object]]:
    """Names and values; those of further details have `` 2nd``, `` 3rd`` and so on behind their names."""
    for number, detail in enumerate(details, start=1):
        end = "" if number == 1 else f" {ORDINALS.get(number, f'{number}th')}"
        held = {field: getattr(detail, field) for field in WORDS} | {"prompt": join_loras(detail.prompt, detail.loras)}
        for field, name in WORDS.items():
            value = held[field]
            if value == "" or field == "at_most" and value == MOST_PARTS:  # which is all, as where nothing is said
                continue
            yield f"{name}{end}", f"{value:g}" if isinstance(value, float) else _quoted(str(value))
            if field == "at_most":
                yield f"ADetailer method to decide top k masks{end}", BY_SCORE


def _quoted(text: str) -> str:
    """As A1111 writes a value with a comma, a colon or a line break."""
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:\n"]', text) else text
