"""A1111's HTTP API: the scripts that a request has beside it, as far as they are known here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.interop import adetailer, controlnet, soft_inpainting
from webui.interop.a1111.refusals import ADETAILER, CONTROLNET, SCRIPTS, SOFT_INPAINTING

FIELD = "alwayson_scripts"
OLDER_UNITS = "controlnet_units"
"""Where older clients put what the script ControlNet is asked for; newer ones send both."""


@dataclass(frozen=True)
class Scripts:
    """``values`` of a request's fields, lines for people, of each control that acts whether its maps are ``shown``, and
    what goes to the start picture, if there is one."""

    values: Mapping[str, Any]
    comments: tuple[str, ...] = ()
    shown: tuple[bool, ...] = ()
    start: Mapping[str, Any] = field(default_factory=dict)


def read_scripts(given: Mapping[str, Any], with_picture: bool, catalog: Catalog, enlarged: bool) -> Scripts:
    """What the scripts of a body ask for, whatever the case of their names; ``enlarged`` where there is a hires pass.

    Raises RequestError for the first script that is not known here, and what the scripts themselves refuse.
    """
    asked = given.get(FIELD) or {}
    if not isinstance(asked, Mapping):
        raise RequestError(f"{FIELD} must be an object of scripts by their names, not {repr(asked)[:60]}", field=FIELD)
    for name in asked:
        if str(name).casefold() not in SCRIPTS:
            raise RequestError(f"{FIELD}: there is no script {str(name)[:80]!r} here", field=FIELD)
    scripts = {str(name).casefold(): script for name, script in asked.items()}
    values: dict[str, Any] = {}
    details, comments = adetailer.read_arguments(scripts.get(ADETAILER, []), with_picture)
    units = controlnet.read_units(scripts.get(CONTROLNET, given.get(OLDER_UNITS, [])), catalog.controls, enlarged)
    values |= {"detail": details} if details else {}
    values |= {"controls": units.controls} if units.controls else {}
    softness, lines = soft_inpainting.read_arguments(scripts.get(SOFT_INPAINTING, []))
    start = {"softness": softness} if softness else {}
    return Scripts(values, comments + units.comments + lines, units.shown, start)
