"""A1111's script "Soft inpainting": what it asks for, as far as there is the like here."""

from collections.abc import Mapping
from typing import Any

from webui.core.errors import RequestError

NAME = "soft inpainting"
ARGUMENTS = (
    *("Soft inpainting", "Schedule bias", "Preservation strength", "Transition contrast boost"),
    *("Mask influence", "Difference threshold", "Difference contrast"),
)
DEFAULTS = (False, 1, 0.5, 4, 0, 0.5, 2)
PRESERVATION = 2


def read_arguments(script: Any) -> tuple[float, tuple[str, ...]]:
    """The softness that the script's arguments ask for, and lines about what of it is not done as it says.

    Its preservation strength is taken for the softness, up to 1. Raises RequestError naming the argument.
    """
    args = script.get("args", []) if isinstance(script, Mapping) else script
    if isinstance(args, Mapping):  # by name, as newer programs send it
        args = [args.get(name, default) for name, default in zip(ARGUMENTS, DEFAULTS, strict=True)]
    if not isinstance(args, list) or len(args) > len(ARGUMENTS):
        raise _error(f"args must be a list of up to {len(ARGUMENTS)} values: {', '.join(ARGUMENTS)}")
    given = (*args, *DEFAULTS[len(args) :])
    if given[0] not in (True, "true", "True", 1):
        return 0.0, ()
    numbers = []
    for name, value in zip(ARGUMENTS[1:], given[1:], strict=True):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            raise _error(f"{name} must be a number from 0 to 100, not {repr(value)[:60]}")
        numbers.append(float(value))
    others = [
        name
        for name, value, default in zip(ARGUMENTS[1:], numbers, DEFAULTS[1:], strict=True)
        if name != ARGUMENTS[PRESERVATION] and value != default
    ]
    lines = (f"{NAME}: {', '.join(others)} {'have' if len(others) > 1 else 'has'} no effect here",) if others else ()
    return min(numbers[PRESERVATION - 1], 1.0), lines


def _error(reason: str) -> RequestError:
    return RequestError(f"alwayson_scripts: {NAME}: {reason}", field="alwayson_scripts")
