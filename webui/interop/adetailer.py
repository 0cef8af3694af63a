"""Details in the words of A1111's extension ADetailer: its arguments over HTTP, and what its pictures say.

Names and defaults are those of ``adetailer/args.py`` of github.com/Bing-su/adetailer.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from webui.core.errors import RequestError, show
from webui.core.groups.detail import MAX_DETAILS, MOST_PARTS, Detail
from webui.core.infotext import DETAIL_WORDS
from webui.core.request import Request

NAME = "ADetailer"
TOP_K = "ad_mask_k"
FIELDS = {  # theirs -> ours
    "ad_model": "finder",
    "ad_prompt": "prompt",
    "ad_negative_prompt": "negative",
    "ad_confidence": "threshold",
    TOP_K: "at_most",
    "ad_denoising_strength": "strength",
    "ad_inpaint_only_masked_padding": "padding",
    "ad_dilate_erode": "dilate",
}
DEFAULTS = {"dilate": 4}
"""Where theirs are others than ours."""
# What else it can be asked for, in pictures too, and whether that is something else than what is done here.
OTHERS: Mapping[str, tuple[str, Callable[[str], bool]]] = {
    "ad_model_classes": ("ADetailer model classes", bool),
    "ad_mask_min_ratio": ("ADetailer mask min ratio", lambda value: _number(value) != 0),
    "ad_mask_max_ratio": ("ADetailer mask max ratio", lambda value: _number(value) != 1),
    "ad_x_offset": ("ADetailer x offset", lambda value: _number(value) != 0),
    "ad_y_offset": ("ADetailer y offset", lambda value: _number(value) != 0),
    "ad_mask_merge_invert": ("ADetailer mask merge invert", lambda value: value != "None"),
    "ad_mask_blur": ("ADetailer mask blur", lambda value: _number(value) != 4),
    "ad_inpaint_only_masked": ("ADetailer inpaint only masked", lambda value: not _flag(value)),
    "ad_use_inpaint_width_height": ("ADetailer use inpaint width height", lambda value: _flag(value)),
    "ad_use_steps": ("ADetailer use separate steps", lambda value: _flag(value)),
    "ad_use_cfg_scale": ("ADetailer use separate CFG scale", lambda value: _flag(value)),
    "ad_use_checkpoint": ("ADetailer use separate checkpoint", lambda value: _flag(value)),
    "ad_use_vae": ("ADetailer use separate VAE", lambda value: _flag(value)),
    "ad_use_sampler": ("ADetailer use separate sampler", lambda value: _flag(value)),
    "ad_use_noise_multiplier": ("ADetailer use separate noise multiplier", lambda value: _flag(value)),
    "ad_use_clip_skip": ("ADetailer use separate CLIP skip", lambda value: _flag(value)),
    "ad_restore_face": ("ADetailer restore face", lambda value: _flag(value)),
    "ad_controlnet_model": ("ADetailer ControlNet model", lambda value: value != "None"),
}
# What these are about: nothing, where they are off.
SILENT = {
    *("ad_tab_enable", "ad_mask_filter_method", "is_api", "ad_inpaint_width", "ad_inpaint_height", "ad_steps"),
    *("ad_cfg_scale", "ad_checkpoint", "ad_vae", "ad_sampler", "ad_scheduler", "ad_noise_multiplier", "ad_clip_skip"),
    *("ad_controlnet_module", "ad_controlnet_weight", "ad_controlnet_guidance_start", "ad_controlnet_guidance_end"),
}
OLDER: Mapping[str, str] = {"ad_mask_k_largest": TOP_K, "ad_conf": "ad_confidence"}
TOKENS = re.compile(r"\[(SEP|SKIP)\]")
_IN_TEXT = {text.casefold(): ours for ours, text in DETAIL_WORDS.items()}
_OTHERS_IN_TEXT = {text.casefold(): is_other for text, is_other in OTHERS.values()}
_SILENT_IN_TEXT = {"adetailer version", "adetailer method to decide top k masks", "adetailer tab enable"}
_SUFFIX = re.compile(r" (\d{1,2})(?:st|nd|rd|th)$")


def read_arguments(script: Any, with_picture: bool) -> tuple[tuple[Detail, ...], tuple[str, ...]]:
    """What ``alwayson_scripts.ADetailer`` asks for, and lines about what of it is not done as it says.

    Raises RequestError naming the argument.
    """
    args = script.get("args", []) if isinstance(script, Mapping) else script
    if not isinstance(args, list):
        raise _error("args must be a list")
    entries = [entry for entry in args if isinstance(entry, Mapping)]
    switches = [entry for entry in args if not isinstance(entry, Mapping)]
    if switches and not _flag(switches[0]):
        return (), ()
    if with_picture and len(switches) > 1 and _flag(switches[1]):
        raise _error("skip_img2img is not supported here: img2img is done before the details")
    details: list[Detail] = []
    comments: list[str] = []
    for entry in entries:
        given: dict[str, Any] = {OLDER.get(str(key), str(key)): value for key, value in entry.items()}
        if str(given.get("ad_model", "None")).casefold() == "none" or not _flag(given.get("ad_tab_enable", True)):
            continue
        details.append(_read(given))
        if details[-1].at_most < MOST_PARTS and given.get("ad_mask_filter_method", "Area") != "Confidence":
            comments.append(f"{NAME}: {TOP_K} takes the surest parts here, not the largest")
    if len(details) > MAX_DETAILS:
        raise _error(f"{len(details)} are too many; {MAX_DETAILS} is the limit")
    return tuple(details), tuple(dict.fromkeys(comments))


def _read(given: Mapping[str, Any]) -> Detail:
    for key, value in given.items():
        if key in OTHERS and value is not None and OTHERS[key][1](value):
            raise _error(f"{key} {repr(value)[:60]} is not supported here")
        if key not in (*FIELDS, *OTHERS, *SILENT):
            raise _error(f"there is no argument “{show(str(key))}”")
    values = DEFAULTS | {ours: given[key] for key, ours in FIELDS.items() if given.get(key) is not None}
    for key in ("ad_prompt", "ad_negative_prompt"):
        if token := TOKENS.search(str(given.get(key, ""))):
            raise _error(f"{key}: {token[0]} is not supported here; ask for one detail after the other")
    if str(values["finder"]).casefold().startswith("mediapipe"):
        raise _error(f"ad_model “{show(values['finder'])}” is not supported here; finders are ONNX files")
    values["at_most"] = _at_most(values.get("at_most", 0))
    try:
        (detail,) = Request.parse({"detail": [values]}).detail
    except RequestError as error:
        message = str(error).replace("detail.1.", "")
        for key, ours in FIELDS.items():
            message = re.sub(rf"^{ours}\b", key, message)
        raise _error(message) from None
    return detail


def take_settings(settings: Mapping[str, tuple[str, Any]]) -> tuple[list[dict[str, Any]], set[str]]:
    """What a picture says of its details: their values, all unchecked, and the names of the settings, in lower case,
    that are said by them. What is not done here, or belongs to no finder, is not among these."""
    places = {key: _SUFFIX.search(key) for key in settings if key.startswith("adetailer ")}
    numbers = {key: int(found[1]) if found else 1 for key, found in places.items()}
    plain = {key: _SUFFIX.sub("", key) for key in places}
    details = {numbers[key]: {"at_most": MOST_PARTS} for key in places if _IN_TEXT.get(plain[key]) == "finder"}
    taken = set()
    for key, (_, value) in settings.items():
        if key not in places or numbers[key] not in details and plain[key] not in _SILENT_IN_TEXT:
            continue
        if ours := _IN_TEXT.get(plain[key]):
            details[numbers[key]][ours] = _at_most(value) if ours == "at_most" else value
        elif plain[key] not in _SILENT_IN_TEXT and _OTHERS_IN_TEXT.get(plain[key], bool)(value):
            continue
        taken.add(key)
    return [details[number] for number in sorted(details)], taken


def _at_most(value: Any) -> Any:
    """Theirs, where 0 is all."""
    return MOST_PARTS if _number(value) == 0 else value


def _flag(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().casefold() not in ("", "0", "false", "no", "off", "none", "null")
    return bool(value)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _error(reason: str) -> RequestError:
    return RequestError(f"alwayson_scripts: {NAME}: {reason}", field="alwayson_scripts")
