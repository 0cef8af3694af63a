"""What A1111's text says of a request, part by part: by the names that its readers know."""

import json
import re
from collections.abc import Mapping, Sequence

from webui.core.groups.control import Control
from webui.core.groups.detail import MOST_PARTS, Detail
from webui.core.groups.init import Init
from webui.core.groups.region import Region, box_text
from webui.core.groups.upscale import Upscale
from webui.core.maps import MAPS, RESOLUTION
from webui.core.prompt import join_loras
from webui.core.request import Request

DETAIL_WORDS = {
    "finder": "ADetailer model",
    "prompt": "ADetailer prompt",
    "negative": "ADetailer negative prompt",
    "threshold": "ADetailer confidence",
    "at_most": "ADetailer mask only top k",
    "strength": "ADetailer denoising strength",
    "padding": "ADetailer inpaint padding",
    "dilate": "ADetailer dilate erode",
}
"""What A1111's extension ADetailer calls a detail's fields."""
CONTROL_MODES = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
}
CONTROL_RESIZES = {
    "just resize": "Just Resize",
    "crop and resize": "Crop and Resize",
    "resize and fill": "Resize and Fill",
}
"""What A1111's extension sd-webui-controlnet calls these."""
UNION_KINDS = {
    **{"pose": "OpenPose", "depth": "Depth", "soft edge": "Soft Edge", "hard edge": "Hard Edge"},
    **{"normals": "Normal Map", "segmentation": "Segmentation", "tile": "Tile", "inpaint": "Inpaint"},
}
"""What it calls the kinds of map that a ControlNet Union is told."""
ORDINALS = {2: "2nd", 3: "3rd"}
REGION_WORDS = {"box": "box", "weight": "weight", "feather": "soft edge", "prompt": "prompt"}
"""What the text calls a region's fields, behind ``Region 1``; of a mask it has the beginning of its hash."""


def hashes_text(hashes: Mapping[str, str]) -> str | None:
    """A1111's form: one quoted value of ``name: first 12 digits`` pairs."""
    pairs = (f"{re.sub(r'[,:]', ' ', name)}: {digest[:12]}" for name, digest in hashes.items())
    return json.dumps(", ".join(pairs), ensure_ascii=False) if hashes else None


def refiner_settings(request: Request) -> dict[str, object]:
    """A1111's words for a second stage."""
    if not request.refiner:
        return {}
    return {"Refiner": re.sub(r"[,:\n]", " ", request.refiner), "Refiner switch at": f"{request.refiner_at:g}"}


def hires_settings(request: Request) -> dict[str, object]:
    """A1111's words for a second pass, and of the prompt its LoRAs are tags; a start picture's strength has the usual
    one."""
    hires = request.hires
    if hires is None:
        return {}
    loras, prompt = hires.loras or request.loras, hires.prompt or request.prompt
    told = join_loras(prompt, loras) if hires.prompt or hires.loras else ""
    size = {"Hires resize": f"{hires.width or 0}x{hires.height or 0}"}
    settings: dict[str, object] = {
        "Hires denoising strength" if request.init else "Denoising strength": f"{hires.strength:g}",
        "Hires prompt": quoted(neutralise(told)),
        "Hires negative prompt": quoted(neutralise(hires.negative)),
        **(size if hires.width or hires.height else {"Hires upscale": f"{hires.scale:g}"}),
        "Hires steps": hires.steps or None,
        "Hires upscaler": re.sub(r"[,:\n]", " ", hires.upscaler),
        "Hires checkpoint": re.sub(r"[,:\n]", " ", hires.model) or None,
        "Hires sampler": hires.sampler or None,
        "Hires schedule type": hires.schedule or None,
        "Hires CFG Scale": None if hires.guidance is None else f"{hires.guidance:g}",
    }
    return settings


def quoted(text: str) -> str | None:
    """A value as A1111 writes it: one with a comma, a colon or a line break as JSON; None for an empty one."""
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text or None


def detail_settings(details: Sequence[Detail]) -> dict[str, object]:
    """ADetailer's words, with `` 2nd``, `` 3rd`` and so on behind those of further details. That it is all parts is not
    said."""
    settings: dict[str, object] = {}
    for number, detail in enumerate(details, start=1):
        end = "" if number == 1 else f" {ORDINALS.get(number, f'{number}th')}"
        told = {field: getattr(detail, field) for field in DETAIL_WORDS}
        told |= {"prompt": join_loras(detail.prompt, detail.loras)}
        for field, name in DETAIL_WORDS.items():
            value = told[field]
            if value == "" or field == "at_most" and value == MOST_PARTS:
                continue
            settings[f"{name}{end}"] = f"{value:g}" if isinstance(value, float) else quoted(neutralise(str(value)))
            if field == "at_most":
                settings[f"ADetailer method to decide top k masks{end}"] = "Confidence"
    return settings


def control_settings(controls: Sequence[Control], hashes: Mapping[str, str]) -> dict[str, object]:
    """sd-webui-controlnet's words, counted from 0 as there; ``hashes`` are of their files, by name."""
    settings: dict[str, object] = {}
    for number, control in enumerate(controls):
        name = re.sub(r"[,:\n\[\]]", " ", control.model)
        digest = hashes.get(control.model)
        row = MAPS.get(control.preprocessor)
        numbers = row.read(control.options) if row else {}
        resolution = numbers.get(RESOLUTION.name, 0)
        thresholds = [value for option, value in numbers.items() if option != RESOLUTION.name]
        told: dict[str, object] = {
            "Module": row.a1111[0].partition(" (")[0] if row and row.a1111 else control.preprocessor,
            "Model": f"{name} [{digest[:8]}]" if digest else name,
            "Weight": f"{control.weight:g}",
            "Resize Mode": CONTROL_RESIZES[control.resize],
            **({"Processor Res": f"{resolution:g}"} if resolution else {}),
            **{f"Threshold {'AB'[place]}": f"{value:.10g}" for place, value in enumerate(thresholds[:2])},
            "Guidance Start": f"{control.start:g}",
            "Guidance End": f"{control.end:g}",
            "Pixel Perfect": not resolution,
            **({"Control Mode": CONTROL_MODES[control.mode]} if control.mode in CONTROL_MODES else {}),
            **({"Union Control Type": UNION_KINDS[control.kind]} if control.kind in UNION_KINDS else {}),
        }
        text = ", ".join(f"{word}: {neutralise(str(value))}" for word, value in told.items())
        settings[f"ControlNet {number}"] = json.dumps(text, ensure_ascii=False)
    return settings


def region_settings(regions: Sequence[Region]) -> dict[str, object]:
    """Words of our own: A1111's extensions have a grid of regions, and their prompts in that of the picture."""
    settings: dict[str, object] = {}
    for number, region in enumerate(regions, start=1):
        told = region.told | ({"box": box_text(region.box)} if region.box else {})
        for field, words in {**REGION_WORDS, "mask": "mask"}.items():
            if field in told:
                value = told[field]
                is_text = isinstance(value, str)
                settings[f"Region {number} {words}"] = quoted(neutralise(value)) if is_text else f"{value:g}"
    return settings


def upscale_settings(upscale: Upscale | None) -> dict[str, object]:
    """A1111's words for its extras."""
    if upscale is None:
        return {}
    sides = {"Postprocess upscale to": f"{upscale.width or '?'}x{upscale.height or '?'}"}
    sized = upscale.width or upscale.height
    return {
        **(sides if sized else {"Postprocess upscale by": f"{upscale.scale:g}"}),
        "Postprocess upscaler": re.sub(r"[,:\n]", " ", upscale.upscaler),
    }


def guiding_settings(request: Request) -> dict[str, object]:
    """What guides beside guidance, by the names of A1111's and Forge's extensions for it."""
    pag = request.pag if request.pag and request.pag.acts else None
    nag = request.nag if request.nag and request.nag.acts else None
    return {
        "CFG Rescale": f"{request.guidance_rescale:g}" if request.guidance_rescale else None,
        "PAG Active": True if pag else None,
        "PAG Scale": f"{pag.scale:g}" if pag else None,
        "PAG Adaptive": f"{pag.adaptive:g}" if pag and pag.adaptive else None,
        "NAG Scale": f"{nag.scale:g}" if nag else None,
        "NAG Tau": f"{nag.tau:g}" if nag else None,
        "NAG Alpha": f"{nag.alpha:g}" if nag else None,
    }


def approximations(request: Request) -> dict[str, object]:
    """A1111's word for merged tokens; it has none for the others."""
    return {
        "Guidance until": f"{request.guidance_until:g}" if request.stops_guiding else None,
        "Deep features every": request.reuse if request.reuse > 1 else None,
        "Token merging ratio": f"{request.token_merging:g}" if request.token_merging else None,
        "Int8": True if request.int8 else None,
    }


def start_settings(init: Init | None) -> dict[str, object]:
    """A1111's words for a start picture and its mask."""
    if init is None:
        return {}
    settings: dict[str, object] = {"Denoising strength": f"{init.strength:g}"}
    if init.masked:
        settings |= {"Mask blur": init.mask_blur, "Masked content": init.mask_fill}
    if init.masked and init.softness:
        settings |= {"Mask softness": f"{init.softness:g}"}
    if init.masked and init.only_masked:
        settings |= {"Inpaint area": "Only masked", "Masked area padding": init.padding}
    return settings


def neutralise(text: str) -> str:
    """The text with what readers take for settings made harmless: they look for these words by position."""
    text = re.sub(r"(?i)negative prompt:", "negative prompt -", text.replace("\0", "").replace("\r", ""))
    return re.sub(r"(?im)^(\s*steps):", r"\1 -", text)


def in_one_line(text: str) -> str:
    """As the extension of A1111's that draws them writes it, and its readers look for it."""
    return " ".join(neutralise(text).split("\n"))
