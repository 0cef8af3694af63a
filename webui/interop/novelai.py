"""NovelAI's settings, the JSON of its ``Comment``."""

from collections.abc import Mapping
from typing import Any

from webui.interop.found import Found
from webui.interop.weights import from_novelai

FIELDS = {
    "prompt": "prompt",
    "uc": "negative",
    "negative_prompt": "negative",
    "steps": "steps",
    "width": "width",
    "height": "height",
    "scale": "guidance",
    "seed": "seed",
    "sampler": "sampler",
    "noise_schedule": "schedule",
    "strength": "strength",
}
SILENT = {"v4_prompt", "v4_negative_prompt", "request_type", "signed_hash", "n_samples", "version", "reference_image"}
SILENT |= {"uncond_scale", "image", "hide_debug_overlay"}


def is_novelai(body: Mapping[str, Any]) -> bool:
    """Whether a JSON object is NovelAI's."""
    return "v4_prompt" in body or {"uc", "scale", "sampler"} <= body.keys() and "c" not in body


def read_novelai(body: Mapping[str, Any], texts: Mapping[str, str]) -> Found:
    """What the JSON object says, and the texts beside it: the prompt as ``Description``, the model as ``Source``."""
    found = Found("NovelAI")
    settings = dict(body)
    for name, version in (("prompt", "v4_prompt"), ("uc", "v4_negative_prompt")):
        caption = _caption(settings.get(version))
        if not settings.get(name):
            settings[name] = caption.get("base_caption")
        characters = caption.get("char_captions")
        for character in characters if isinstance(characters, list) else []:
            if isinstance(character, dict):
                found.note(f"character in {version}", character.get("char_caption"))
    if not settings.get("prompt"):
        settings["prompt"] = texts.get("Description")
    if settings.get("noise_schedule") == "native":
        del settings["noise_schedule"]
    if "Img2Img" not in str(settings.get("request_type")) and "Infill" not in str(settings.get("request_type")):
        settings.pop("strength", None)  # it is written where there was no start picture, too
        settings.pop("noise", None)
    found.take(settings, FIELDS, SILENT)
    found.put("model", texts.get("Source"))
    for field in ("prompt", "negative"):
        if isinstance(text := found.values.get(field), str):
            found.values[field] = from_novelai(text)
    return found


def _caption(prompt: Any) -> Mapping[str, Any]:
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    return caption if isinstance(caption, dict) else {}
