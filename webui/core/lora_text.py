"""LoRAs as text: ``NAME:WEIGHT``, what tags of A1111 and its extensions say besides, and several between commas."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from webui.core import block_weights
from webui.core.schedule import MAX_PLACE, read_points

_PLACES = ("start", "end", "stop", "step")
_KEYS = ("te", "unet", "hr", *_PLACES, "lbw", "lbwe", "x")
_POINT = re.compile(r"\s*[-+.\d]+\s*@\s*[.\d]")
_BLOCK_VALUE = re.compile(r"\s*(?:[-+.\de]+|[RU]|X[-+.\d]*)\s*(?::\s*\w+\s*=|$)")


def split_refs(text: str) -> list[str]:
    """The LoRAs between commas, but for those between points and between weights by block."""
    refs: list[str] = []
    for part in text.split(","):
        if refs and (_POINT.match(part) or (_is_in_blocks(refs[-1]) and _BLOCK_VALUE.match(part))):
            refs[-1] += f",{part}"
        else:
            refs.append(part)
    return [ref.strip() for ref in refs if ref.strip()]


def read_refs(value: Any) -> Any:
    """LoRAs that are text as a list: from JSON, or names and weights between commas; raises ValueError."""
    if not isinstance(value, str):
        return () if value is None else value
    if not value.lstrip().startswith("["):
        return split_refs(value)
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("cannot be read as JSON") from None


def _is_in_blocks(text: str) -> bool:
    return text.rpartition(":")[2].lstrip().startswith("lbw=")


def read_lora(text: str) -> dict[str, Any]:
    """``NAME[:TEXT[:UNET]]`` as A1111 has it, with ``te=`` and ``unet=`` for either weight; raises ValueError.

    The text's weight is 1 where it is not given, and the UNet's the same as the text's. Points, and ``hr=`` for the
    hires pass, are sd-webui-loractl's; ``lbw=``, ``lbwe=``, ``x=``, ``stop=`` and ``step=`` are those of
    sd-webui-lora-block-weight, as is the name of a preset in the place of UNET. ``start=`` and ``end=`` are the places
    between which it acts.
    """
    name, *weights = text.split(":")
    places = [weight for weight in weights if "=" not in weight]
    given: dict[str, str] = {}
    for weight in weights:
        key, equals, value = (part.strip() for part in weight.partition("="))
        if equals and key not in _KEYS:
            raise ValueError(f"{key!r} is not supported in a LoRA's weights; te and unet are")
        if equals and key in given:
            raise ValueError(f"{key}= is given twice")
        if equals:
            given[key] = value
    if len(places) > 2:
        raise ValueError(f"must be NAME, NAME:WEIGHT or NAME:TEXT:UNET, not {text[:60]!r}")
    if len(places) == 2 and "lbw" not in given and block_weights.is_block_weights(places[1]):
        given["lbw"] = places.pop()
    given = dict(zip(("te", "unet"), places, strict=False)) | given
    values: dict[str, Any] = {"name": name.strip()}
    if "lbw" in given or "x" in given:
        values["block_weights"] = block_weights.fill_in(given.get("lbw", ""), given.get("x"))
    if "lbwe" in given:
        values["block_elements"] = given["lbwe"]
    if "hr" in given:
        values["hires_weight"] = given["hr"]
    span = _read_span({key: given[key] for key in _PLACES if key in given})
    if span or "te" in given or "unet" in given:
        text_weight = given.get("te", 1.0)
        values["weight"] = _between(given.get("unet", text_weight), span)
        if "unet" in given:
            values["text_weight"] = _between(text_weight, span)
    return values


@dataclass(frozen=True)
class _Span:
    """Where a LoRA acts: two places, each None where it is open, in steps or in shares of them."""

    start: float | None
    end: float | None
    in_steps: bool


def _read_span(given: Mapping[str, str]) -> _Span | None:
    """Of ``start=``, ``end=``, ``stop=`` and ``step=5-10``; None where there is none. Raises ValueError.

    A number with a decimal point is a share, one without is a step, as in prompts; ``end=1`` is the end, too, where the
    start is no step. Both must be the same.
    """
    texts = dict(given)
    if (both := texts.pop("step", None)) is not None:
        first, dash, last = both.partition("-")
        if not dash or texts:
            raise ValueError(f"step must be two steps, as step=5-10, without start, end or stop, not {both[:20]!r}")
        texts = {"start": first, "stop": last}
    if "stop" in texts and "end" in texts:
        raise ValueError("stop and end are the same; one of them is enough")
    numbers = {key: _read_place(key, text) for key, text in texts.items()}
    if not numbers:
        return None
    shares = [key for key, number in numbers.items() if "." in texts[key] and 0 < number <= 1]
    steps = [key for key, number in numbers.items() if key not in shares and number]
    if steps == ["end"] and numbers["end"] == 1:  # as ControlNet has it
        steps = []
    if shares and steps:
        raise ValueError(
            f"{shares[0]}={texts[shares[0]]} is a share of the steps and {steps[0]}={texts[steps[0]]} is a step; give"
            " both as shares or both as steps"
        )
    start, end = numbers.get("start"), numbers.get("end", numbers.get("stop"))
    if start is not None and end is not None and end < start:
        key = "end" if "end" in numbers else "stop"
        raise ValueError(f"{key}={end:g} is before start={start:g}")
    return _Span(start, end, bool(steps))


def _read_place(key: str, text: str) -> float:
    try:
        place = float(text)
    except ValueError:
        place = -1.0
    if not 0 <= place <= MAX_PLACE:
        raise ValueError(f"{key} must be a share of the steps or a step, not {text[:20]!r}")
    return place


def _between(weight: Any, span: _Span | None) -> Any:
    """The weight from the start to the end and 0 elsewhere, as points."""
    if span is None:
        return weight
    if isinstance(weight, str):
        weight = read_points(weight)
    if isinstance(weight, tuple):
        raise ValueError("start and end do not go with points")
    start, end = span.start, span.end
    points = [(0.0, 0.0), (start, 0.0), (start, weight)] if start else [(0.0, weight)]
    points += [] if end is None else [(end, weight), (end, 0.0)]
    if span.in_steps and points[-1][0] <= 1:
        points.append((2.0, points[-1][1]))  # the last place says that all of them are steps
    return points
