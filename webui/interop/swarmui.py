"""SwarmUI's settings: ``sui_image_params``, as ``src/Text2Image/T2IParamInput.cs`` writes it."""

from collections.abc import Mapping
from typing import Any

from webui.interop.found import Found, Lora, Unreadable

FIELDS = {
    "prompt": "prompt",
    "negativeprompt": "negative",
    "model": "model",
    "seed": "seed",
    "steps": "steps",
    "cfgscale": "guidance",
    "width": "width",
    "height": "height",
    "sampler": "sampler",
    "comfyuisampler": "sampler",
    "autowebuisampler": "sampler",
    "scheduler": "schedule",
    "vae": "vae",
    "initimagecreativity": "strength",
}
SHARE = "refinercontrolpercentage"
LISTS = ("loras", "loraweights", "loratencweights")
SILENT = {
    *LISTS,
    SHARE,
    "refinermodel",
    "clipstopatlayer",
    "aspectratio",
    "images",
    "automaticvae",
    "swarm_version",
    "date",
    "generation_time",
}
TOP = ("sui_image_params", "sui_extra_data", "sui_models")


def is_swarmui(body: Mapping[str, Any]) -> bool:
    """Whether a JSON object is SwarmUI's."""
    return "sui_image_params" in body


def read_swarmui(body: Mapping[str, Any]) -> Found:
    """What the JSON object says; raises Unreadable."""
    settings = body["sui_image_params"]
    if not isinstance(settings, dict):
        raise Unreadable("SwarmUI's settings are not a JSON object")
    found = Found("SwarmUI")
    found.take(settings, FIELDS, SILENT)
    names, weights, text_weights = (_as_list(settings.get(key)) for key in LISTS)
    for place, name in enumerate(names):
        weight = weights[place] if place < len(weights) else 1.0
        found.loras.append(Lora(name, weight, text_weights[place] if place < len(text_weights) else None))
    if settings.get("refinermethod") == "StepSwap" and (share := _as_number(settings.get(SHARE))) is not None:
        found.put("refiner", settings.get("refinermodel"))
        found.put("refiner_at", 1 - share)  # theirs is the share that the refiner does
    else:
        for name in ("refinermodel", SHARE):
            found.note(name, settings.get(name))
    if layer := _as_number(settings.get("clipstopatlayer")):  # -1 is the last
        found.put("clip_skip", abs(layer))
    if "width" not in settings:
        found.note("aspectratio", settings.get("aspectratio"))
    return found


def _as_number(value: Any) -> float | None:
    """A number, which older versions write as text."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else value.split(",") if isinstance(value, str) and value else []
