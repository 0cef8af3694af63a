"""Controls in the words that A1111's extension sd-webui-controlnet puts into a picture's text, older ones too."""

import re
from collections.abc import Mapping
from typing import Any

from webui.core.errors import RequestError
from webui.core.infotext import CONTROL_MODES, CONTROL_RESIZES
from webui.core.maps import RESOLUTION, choose_map

WORDS = {
    **{"module": "preprocessor", "preprocessor": "preprocessor", "model": "model", "weight": "weight"},
    **{"guidance start": "start", "guidance end": "end", "control mode": "mode", "resize mode": "resize"},
    **{"processor res": "resolution", "threshold a": "a", "threshold b": "b"},
    **{"starting/ending": "span", "preprocessor params": "numbers"},
}
SPELLED = {
    "mode": {text.casefold(): ours for ours, text in CONTROL_MODES.items()},
    "resize": {text.casefold(): ours for ours, text in CONTROL_RESIZES.items()},
}
_UNIT = re.compile(r"controlnet \d")
_PAIR = re.compile(r"([\w/ ]{1,40}): (\([^()]*\)|[^,]*)(?:, |$)")
_HASH = re.compile(r"\s*\[[0-9a-fA-F]{4,64}\]\s*$")


def take_settings(settings: Mapping[str, tuple[str, Any]]) -> tuple[list[dict[str, Any]], set[str]]:
    """What a picture says of its controls: their values, all unchecked, and the names of the settings, in lower case,
    that say it."""
    units = {key: str(value) for key, (_, value) in settings.items() if _UNIT.fullmatch(key)}
    read = {key: _read(text) for key, text in units.items()}
    taken = {key for key, values in read.items() if values.get("model")}
    return [read[key] for key in sorted(taken)], taken


def _read(text: str) -> dict[str, Any]:
    pairs = ((key.strip().casefold(), value.strip()) for key, value in _PAIR.findall(text))
    told = {WORDS[key]: value for key, value in pairs if key in WORDS}
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
