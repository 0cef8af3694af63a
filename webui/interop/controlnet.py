"""Controls in the words of A1111's extension sd-webui-controlnet: the units of a request over HTTP.

Names, numbers and words are those of ``internal_controlnet/args.py`` of github.com/Mikubill/sd-webui-controlnet, and of
what its clients have sent over the years. A unit without ``enabled`` is on.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image as PilImage
from PIL.Image import Resampling

from webui.core import images
from webui.core.control_file import read_control
from webui.core.errors import RequestError
from webui.core.files import ControlFile
from webui.core.groups.control import MAX_CONTROLS, Control
from webui.core.images import MAX_SIDE_PX
from webui.core.infotext import UNION_KINDS
from webui.core.ip_adapter_file import ip_adapter_of
from webui.core.maps import RESOLUTION, Map, MapOption, choose_map
from webui.core.names import choose_file
from webui.core.request import Request
from webui.core.tensor_file import BadFile
from webui.interop.a1111.pictures import read_picture
from webui.interop.a1111.refusals import flag

NAME = "ControlNet"
MODES = ("balanced", "prompt", "control")
MODE_WORDS = {"balanced": 0, "my prompt is more important": 1, "prompt is more important": 1}
MODE_WORDS |= {"controlnet is more important": 2}
RESIZES = ("just resize", "crop and resize", "resize and fill")
RESIZE_WORDS = {"just resize": 0, "crop and resize": 1, "resize and fill": 2, "just resize (latent upscale)": 0}
RESIZE_WORDS |= {"scale to fit (inner fit)": 1, "inner fit (scale to fit)": 1}
RESIZE_WORDS |= {"envelope (outer fit)": 2, "outer fit (shrink to fit)": 2}
BOTH = ("both", "hiresfixoption.both", "0")
UNION_WORDS = {text.casefold(): ours for ours, text in UNION_KINDS.items()}
FIELDS = {"weight": "weight", "guidance_start": "start", "guidance_end": "end"}
"""Theirs -> ours, where the value is the same."""
ALIASES = {
    **{"input_image": "image", "mask_image": "mask", "guidance": "guidance_end", "lowvram": "low_vram"},
    **{"preprocessor": "module", "preprocessor_res": "processor_res", "guess_mode": "guessmode"},
}
"""What else clients call a field of a unit, where they do not send that, too."""
# What changes the picture there and is not done here, where it is as the function says.
REFUSED: Mapping[str, Callable[[Any], bool]] = {
    "advanced_weighting": bool,
    "effective_region_mask": bool,
    "ipadapter_input": bool,
    "loopback": flag,
    "batch_images": bool,
    "animatediff_batch": flag,
}
CLIP_MODULES = ("auto", "clip_sd15", "clip_h", "clip_sdxl", "clip_g", "clip_sdxl_plus_vith")
IP_ADAPTER = tuple(f"ip-adapter{joint}{module}" for joint in "-_" for module in CLIP_MODULES)
"""Modules of what an IP-Adapter is shown, which needs no map: it has an image encoder of its own."""
HASH = re.compile(r"\s*\[[0-9a-fA-F]{8,64}\]\s*$")
EMPTY_BELOW, FULL_FROM = 6, 250
"""Levels of a mask in which nothing, or all, is drawn."""


@dataclass(frozen=True)
class Units:
    """``controls``, one for each unit that is on; of each that acts, whether its maps are ``shown`` behind the
    pictures; lines for people about what is not done as it says."""

    controls: tuple[Control, ...] = ()
    shown: tuple[bool, ...] = ()
    comments: tuple[str, ...] = ()


def read_units(script: Any, controls: Mapping[str, ControlFile], enlarged: bool) -> Units:
    """What ``alwayson_scripts.ControlNet`` asks for; ``enlarged`` says whether there is a hires pass.

    Raises RequestError naming the unit, counted from 0 as there, and its field.
    """
    args = script.get("args", []) if isinstance(script, Mapping) else script
    if not isinstance(args, list) or not all(isinstance(unit, Mapping) for unit in args):
        raise RequestError(f"alwayson_scripts: {NAME}: args must be a list of units", field="alwayson_scripts")
    read: list[Control] = []
    shown: list[bool] = []
    comments: list[str] = []
    for number, unit in enumerate(args):
        given = _known(unit)
        if not given or not flag(given.get("enabled", True)):
            continue
        if len(read) == MAX_CONTROLS:
            reason = f"alwayson_scripts: {NAME}: more than {MAX_CONTROLS} units are on, which is the limit"
            raise RequestError(reason, field="alwayson_scripts")
        try:
            control, lines = _read(given, controls, enlarged)
        except RequestError as error:
            raise RequestError(f"{place(number)}{error}", "alwayson_scripts", error.mend) from None
        read.append(control)
        if control.acts:
            shown.append(flag(given.get("save_detected_map", True)))
        comments += [f"{NAME} unit {number}: {line}" for line in lines]
    return Units(tuple(read), tuple(shown), tuple(comments))


def place(number: int) -> str:
    """Where an error is, to be put before it."""
    return f"alwayson_scripts: {NAME} unit {number}: "


def _known(unit: Mapping[str, Any]) -> dict[str, Any]:
    """What a unit says, under one name for each thing."""
    given = {str(key): value for key, value in unit.items() if value is not None and value != ""}
    for alias, key in ALIASES.items():
        if alias in given:
            value = given.pop(alias)
            given.setdefault(key, value)
    return given


def _read(given: Mapping[str, Any], controls: Mapping[str, ControlFile], enlarged: bool) -> tuple[Control, list[str]]:
    """One unit as a control, and lines about it."""
    for field, is_asked in REFUSED.items():
        if field in given and is_asked(given[field]):
            raise RequestError(f"{field} is not supported here")
    if enlarged and str(given.get("hr_option", "both")).casefold() not in BOTH:
        raise RequestError(f"hr_option {str(given['hr_option'])[:60]!r} is not supported here; Both is")
    row = choose_module(given.get("module", "none"), "module")
    values: dict[str, Any] = {ours: given[theirs] for theirs, ours in FIELDS.items() if theirs in given}
    values |= {"model": find_control(given.get("model"), controls), "preprocessor": row.name}
    values["options"], lines = read_options(row, given)
    if "control_mode" in given:
        values["mode"] = MODES[_choose("control_mode", given["control_mode"], MODE_WORDS, len(MODES))]
    elif flag(given.get("guessmode")):
        values["mode"] = "control"
    if "resize_mode" in given:
        values["resize"] = RESIZES[_choose("resize_mode", given["resize_mode"], RESIZE_WORDS, len(RESIZES) + 1) % 3]
    if picture := _read_picture(given, row):
        values["image"] = picture
    if is_union(controls[values["model"]]):
        values |= _read_kind(given)
    if not flag(given.get("inpaint_crop_input_image", True)):
        lines.append("inpaint_crop_input_image: the picture is always cut as the start picture is")
    control = _checked(values)
    if control.start > control.end:
        raise RequestError(f"guidance_start {control.start:g} is behind guidance_end {control.end:g}")
    if control.mode not in ("auto", "balanced") and ip_adapter_of(controls[control.model]):
        lines.append("control_mode: an IP-Adapter has no other mode than balanced, which is taken")
        control = control.model_copy(update={"mode": "balanced"})
    return control, lines


def _read_kind(given: Mapping[str, Any]) -> dict[str, str]:
    """What a union is told that the map shows. Other models take no notice of it, there neither."""
    text = str(given.get("union_control_type", "unknown")).strip().casefold()
    if text == "unknown":
        return {}
    if text not in UNION_WORDS:
        raise RequestError(f"union_control_type must be one of {', '.join(UNION_WORDS)}, unknown, not {text[:60]!r}")
    return {"kind": UNION_WORDS[text]}


def is_union(file: ControlFile) -> bool:
    """Whether a control is one of xinsir's, which know several kinds of map; one that cannot be read is none."""
    try:
        return bool(read_control(file).kinds)
    except BadFile:
        return False


def _checked(values: Mapping[str, Any]) -> Control:
    """The same as a control; RequestError in their words for what is out of bounds."""
    try:
        (control,) = Request.parse({"controls": [values]}).controls
    except RequestError as error:
        reasons = str(error).replace("controls.1.", "").split("; ")
        theirs = {ours: key for key, ours in FIELDS.items()}
        named = (re.sub(r"^\w+", lambda match: theirs.get(match[0], match[0]), reason) for reason in reasons)
        raise RequestError("; ".join(named), error.field, error.mend) from None
    return control


def choose_module(name: Any, field: str) -> Map:
    """The map that a module's name stands for; RequestError with near names."""
    text = str(name).strip()
    return choose_map("none" if text.casefold() in IP_ADAPTER else text, field)


def find_control(name: Any, controls: Mapping[str, ControlFile]) -> str:
    """Our name of the control that a name, with or without a hash behind it, stands for."""
    if not isinstance(name, str) or name.strip().casefold() in ("", "none"):
        raise RequestError("model: no control model is named")
    if name in controls:
        return name
    return choose_file("control", HASH.sub("", name).strip(), controls, "model")


def read_options(row: Map, given: Mapping[str, Any]) -> tuple[dict[str, float], list[str]]:
    """The options of a map by ``processor_res``, ``threshold_a`` and ``threshold_b``, and lines about what is not
    taken: what is out of bounds means the default there, -1 says so. RequestError names theirs."""
    values: dict[str, float] = {}
    lines = []
    for field, option in _sliders(row, flag(given.get("pixel_perfect"))):
        if field not in given:
            continue
        try:
            value = float(given[field])
        except (TypeError, ValueError):
            raise RequestError(f"{field} must be a number, not {str(given[field])[:60]!r}", field) from None
        lowest = max(option.min, 1) if option is RESOLUTION else option.min
        if lowest <= value <= option.max:
            values[option.name] = int(value) if option.step == 1 else value
        elif value != -1:
            lines.append(f"{field} {value:g} is out of bounds; {row.name} has its default, {option.default:g}")
    return values, lines


def thresholds(row: Map) -> tuple[MapOption, ...]:
    """The options that are ``threshold_a`` and ``threshold_b`` there, in this order."""
    return tuple(option for option in row.options if option is not RESOLUTION and option.name != "seed")[:2]


def _sliders(row: Map, pixel_perfect: bool) -> Iterator[tuple[str, MapOption]]:
    if RESOLUTION in row.options and not pixel_perfect:
        yield "processor_res", RESOLUTION
    yield from zip(("threshold_a", "threshold_b"), thresholds(row), strict=False)


def _read_picture(given: Mapping[str, Any], row: Map) -> PilImage | None:
    """A unit's own picture, no larger than what can be drawn. For inpaint its mask is what is transparent in it; others
    draw after a mask that is painted on, as there."""
    picture: Any = given.get("image")
    mask: Any = given.get("mask")
    if isinstance(picture, list):
        if len(picture) == 2 and all(isinstance(part, str) for part in picture):
            picture, mask = picture
        elif len(picture) == 1:
            (picture,) = picture
        else:
            raise RequestError(f"image: {len(picture)} pictures were given; one is taken")
    if isinstance(picture, Mapping):
        picture, mask = picture.get("image"), picture.get("mask", mask)
    if not picture:
        return None
    opened = read_picture("image", picture)
    whole = _with_mask(opened, read_picture("mask", mask), row) if mask else opened
    return images.shrink(whole, MAX_SIDE_PX)


def _with_mask(picture: PilImage, mask: PilImage, row: Map) -> PilImage:
    levels = images.to_mask(mask)
    if not row.needs_mask:
        counts = levels.histogram()
        painted = any(counts[EMPTY_BELOW:]) and any(counts[:FULL_FROM])
        return levels.convert("RGB") if painted else picture
    return masked_picture(picture, levels)


def masked_picture(picture: PilImage, levels: PilImage) -> PilImage:
    """The picture with what is white in the mask's levels transparent."""
    whole = images.to_rgb(picture).copy()
    if levels.size != whole.size:
        levels = levels.resize(whole.size, Resampling.BILINEAR)
    whole.putalpha(levels.point(lambda level: 255 - level))
    return whole


def _choose(field: str, value: Any, words: Mapping[str, int], count: int) -> int:
    """A choice by number or by words."""
    text = str(value).strip().casefold().rpartition(".")[2] if isinstance(value, str) else ""
    if text in words:
        return words[text]
    for number in range(count):
        if not isinstance(value, bool) and (value == number or text == str(number)):
            return number
    raise RequestError(f"{field} must be one of {', '.join(words)}, or its number, not {str(value)[:60]!r}")
