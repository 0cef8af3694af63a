"""Controls in the words that A1111's extension sd-webui-controlnet puts into a picture's text, older ones too.

Since August 2023 there is a value for each unit, ``ControlNet 0: "Module: canny, ..."``, until May 2024 with what
Python calls an enumeration's member, ``ResizeMode.INNER_FIT``; so has Forge. From May 2023 its names were others, and
one unit alone had no number. Before there was a setting for each of a unit's fields: ``ControlNet-0 Module``, from
April 2023 ``ControlNet 0 Preprocessor``.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from webui.core.errors import RequestError
from webui.core.infotext import CONTROL_MODES, CONTROL_RESIZES, UNION_KINDS
from webui.core.maps import RESOLUTION, choose_map

WORDS = {
    **{"module": "preprocessor", "preprocessor": "preprocessor", "model": "model", "weight": "weight"},
    **{"guidance start": "start", "guidance end": "end", "starting step": "start", "ending step": "end"},
    **{"control mode": "mode", "resize mode": "resize", "union control type": "kind", "pixel perfect": "pixel perfect"},
    **{"processor res": "resolution", "threshold a": "a", "threshold b": "b", "hr option": "passes"},
    **{"starting/ending": "span", "preprocessor params": "numbers", "preprocessor parameters": "numbers"},
}
SPELLED = {
    "mode": {text.casefold(): ours for ours, text in CONTROL_MODES.items()}
    | {f"controlmode.{ours}": ours for ours in CONTROL_MODES},
    "resize": {text.casefold(): ours for ours, text in CONTROL_RESIZES.items()}
    | dict.fromkeys(("resizemode.resize",), "just resize")
    | dict.fromkeys(("resizemode.inner_fit", "inner fit (scale to fit)", "scale to fit (inner fit)"), "crop and resize")
    | dict.fromkeys(("resizemode.outer_fit", "outer fit (shrink to fit)", "envelope (outer fit)"), "resize and fill"),
    "kind": {text.casefold(): ours for ours, text in UNION_KINDS.items()} | {"unknown": "auto"},
}
BOTH = ("both", "hiresfixoption.both")
_UNIT = re.compile(r"controlnet(?:[ -](\d{1,2}))?(?: ([a-z][a-z ]{3,40}))?")
_PAIR = re.compile(r"([\w/ ]{1,40}): (\([^()]*\)|[^,]*)(?:, |$)")
_HASH = re.compile(r"\s*\[[0-9a-fA-F]{4,64}\]\s*$")


def take_settings(settings: Mapping[str, tuple[str, Any]]) -> tuple[list[dict[str, Any]], set[str], list[str]]:
    """What a picture says of its controls: their values, all unchecked, the names of the settings, in lower case,
    that say it, and lines about what is not done here."""
    told: dict[int, dict[str, str]] = {}
    said: dict[int, set[str]] = {}
    for key, (_, value) in settings.items():
        if (match := _UNIT.fullmatch(key)) and (match[2] is None or match[2] in (*WORDS, "enabled")):
            number = int(match[1] or 0)
            pairs = _pairs(str(value)) if match[2] is None else [(match[2], str(value))]
            told.setdefault(number, {}).update({WORDS[name]: text for name, text in pairs if name in WORDS})
            said.setdefault(number, set()).add(key)
    read = {number: _read(words) for number, words in sorted(told.items())}
    taken = [number for number, values in read.items() if values.get("model")]
    with_hires = any(key.startswith("hires") for key in settings)
    lines = [
        f"control {place}: {told[number]['passes']} there; here it is on in both passes"
        for place, number in enumerate(taken, 1)
        if with_hires and told[number].get("passes", BOTH[0]).casefold() not in BOTH
    ]
    return [read[number] for number in taken], set().union(*(said[number] for number in taken)), lines


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    return ((key.strip().casefold(), value.strip()) for key, value in _PAIR.findall(text))


def _read(told: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {name: told[name] for name in ("weight", "start", "end") if name in told}
    for name, words in SPELLED.items():
        if name in told:
            values[name] = words.get(told[name].casefold(), told[name])
    if (model := _HASH.sub("", told.get("model", ""))).casefold() not in ("", "none"):
        values["model"] = model
    if "span" in told:
        values |= dict(zip(("start", "end"), _numbers(told["span"]), strict=False))
    values |= _preprocessor(told)
    return values


def _preprocessor(told: Mapping[str, str]) -> dict[str, Any]:
    """Its name here, and its numbers, which are told by their places."""
    name = told.get("preprocessor", "none")
    try:
        row = choose_map(name)
    except RequestError:
        return {"preprocessor": name}
    numbers = _numbers(told["numbers"]) if "numbers" in told else [told.get(name) for name in ("resolution", "a", "b")]
    own = {option.name: option for option in row.options}
    if told.get("pixel perfect") == "True":  # it is that of the picture, whatever the slider said
        numbers[:1] = [None]
    names = [RESOLUTION.name, *(name for name in own if name != RESOLUTION.name)]
    given = {name: _number(value) for name, value in zip(names, numbers, strict=False) if name in own}
    options = {
        name: value
        for name, value in given.items()
        if value is not None and own[name].min <= value <= own[name].max and value != own[name].default
    }
    return {"preprocessor": row.name} | ({"options": options} if options else {})


def _numbers(text: str) -> list[str | None]:
    return [part.strip() for part in text.strip("()").split(",")]


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
