"""What a picture's text says of its regions: ours. Regional Prompter's are said to be read as one prompt."""

import re
from collections.abc import Mapping
from typing import Any

from webui.core.infotext import REGION_WORDS

_FIELDS = {words: field for field, words in REGION_WORDS.items()}
_DIVIDED = ("divide mode", "matrix submode", "ratios", "base ratios", "use base", "use common")
"""Of Regional Prompter's settings, ``RP Ratios`` and so on, those that say how a picture was divided."""
_SETTING = re.compile(rf"region (\d) ({'|'.join([*_FIELDS, 'mask'])})")


def take_settings(settings: Mapping[str, tuple[str, Any]]) -> tuple[list[dict[str, Any]], set[str], list[str]]:
    """The regions with a box, their values all unchecked; the names of the settings, in lower case, that are of
    regions; and a line for people for each whose mask was painted, which no text holds."""
    places = {key: found for key in settings if (found := _SETTING.fullmatch(key))}
    regions: dict[str, dict[str, Any]] = {found[1]: {} for found in places.values()}
    for key, found in places.items():
        if field := _FIELDS.get(found[2]):
            regions[found[1]][field] = settings[key][1]
    known = [region for _, region in sorted(regions.items()) if "box" in region]
    painted = (number for number, region in sorted(regions.items()) if "box" not in region)
    lines = [f"region {number}: its mask is not in the text" for number in painted]
    theirs = {key: str(value) for key, (_, value) in settings.items() if key.startswith("rp ")}
    if theirs.get("rp active", "").casefold() == "true":
        told = ", ".join(f"{word} {theirs[f'rp {word}'][:80]}" for word in _DIVIDED if theirs.get(f"rp {word}"))
        here = "here its prompt is one, and ADDCOL and such are plain words"
        lines.append(f"Regional Prompter divided the picture ({told}); {here}")
    return known, {*places, *theirs}, lines
