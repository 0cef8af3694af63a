"""The words that the model was trained on, as the page shows them, in one file of its folder."""

import json
from pathlib import Path
from typing import Any

from .captions import EXTRAS, OPENINGS
from .concepts import COLOURS, CONCEPTS, PLACEMENTS, STYLES, SYNONYMS

FILE = "vocabulary.json"
JOINTS = ("a", "an", "the", "and", "of", "on", "with", "in", "at", "background", "style")
"""Words between the others."""


def vocabulary() -> dict[str, Any]:
    """``things`` are phrases, each with the other words for it; ``colours`` are backgrounds in sRGB; ``passed_over``
    are words that were trained to mean nothing."""
    phrases = [part for placement in PLACEMENTS for part in placement.phrase.split(", ")]
    return {
        "things": {concept.phrase: [concept.words, *SYNONYMS.get(concept.words, ())] for concept in CONCEPTS},
        "styles": [style.name for style in STYLES],
        "colours": {name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in COLOURS.items()},
        "places": [*dict.fromkeys(filter(None, phrases))],
        "passed_over": [*OPENINGS, *EXTRAS],
        "joints": [*JOINTS],
    }


def write(folder: Path) -> None:
    """Write the file into the model's folder, a line for each kind."""
    lines = (f" {json.dumps(kind)}: {json.dumps(words)}" for kind, words in vocabulary().items())
    (folder / FILE).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
