"""Other programs' names of samplers and schedules -> ours."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from webui.core.errors import show
from webui.core.samplers import does_not_go

# Keys as ``_key`` spells them. Our own names need no row, and neither do those that differ only in spelling, such as
# dpmpp_2m and uni_pc.
SAMPLERS = {
    "eulerancestral": "Euler a",
    "eulerancestralcfgpp": "",  # another method under a name that begins alike
    "dpm2ancestral": "DPM2 a",
    "kdpm2": "DPM2",
    "kdpm2a": "DPM2 a",
    "kdpm2ancestral": "DPM2 a",
    "dpmpp2msdegpu": "DPM++ 2M SDE",
    "dpmppsdegpu": "DPM++ SDE",
    "unipcbh2": "UniPC",
    "plms": "PNDM",
    "kheun": "Heun",
    "klms": "LMS",
    "keuler": "Euler",
    "keulera": "Euler a",
    "keulerancestral": "Euler a",
    "kdpmpp2m": "DPM++ 2M",
    "kdpmpp2msde": "DPM++ 2M SDE",
    "ddimv3": "DDIM",
    "kdpmppsde": "DPM++ SDE",
}
SCHEDULES = {
    "automatic": "Default",
    "normal": "Default",
    "uniform": "Default",
    "simple": "Trailing",  # both step down from the last timestep in even strides
    "sgmuniform": "Trailing",
}
SUFFIXES = {
    "karras": "Karras",
    "exponential": "Exponential",
    "trailing": "Trailing",
    "k": "Karras",
}  # as in "DPM++ 2M Karras", "dpmpp_2m_k"


def translate(sampler: Any, schedule: Any, known: Mapping[str, Sequence[str]]) -> tuple[dict[str, Any], list[str]]:
    """Values for the fields ``sampler`` and ``schedule``, and a line for each that is not known here.

    ``known`` has the schedules of each sampler, as the catalog does.
    """
    if sampler is None:
        return {}, []
    name, in_name = _split(_key(str(sampler)), _ours(known) | SAMPLERS)
    if not name:
        scheduled = f" with schedule “{show(str(schedule))}”" if schedule else ""
        return {}, [f"sampler: “{show(str(sampler))}”{scheduled} is not known here"]
    values = {"sampler": name}
    if schedule is None and in_name is None:
        return values | {"schedule": "Default"}, []
    by_key = {_key(own): own for schedules in known.values() for own in schedules} | SCHEDULES
    wanted = in_name or by_key.get(_key(str(schedule)), "")
    if wanted in known[name]:
        return values | {"schedule": wanted}, []
    problem = does_not_go(name, known[name]) if wanted else "is not known here"
    return values, [f"schedule: “{show(str(in_name or schedule))}” {problem}"]


def _ours(known: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {_key(name): name for name in known}


def _split(key: str, names: Mapping[str, str]) -> tuple[str, str | None]:
    """Our sampler, and the schedule that the name ends in, if any; "" where it is not known."""
    if key in names:
        return names[key], None
    for suffix, schedule in SUFFIXES.items():
        if key.endswith(suffix) and (name := names.get(key.removesuffix(suffix))):
            return name, schedule
    return "", None


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", name[:100].casefold().replace("++", "pp"))
