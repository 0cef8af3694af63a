"""What a reader found -> values for the fields of Request and Init, each checked alone; a line for whatever is not."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from PIL import Image as PilImages
from pydantic import ValidationError

from webui.core import dynamic
from webui.core.catalog import Catalog
from webui.core.errors import RequestError, explain, show
from webui.core.files import File
from webui.core.groups import GROUP_FIELDS, SWITCHES, group_values, nest
from webui.core.groups.init import Init
from webui.core.groups.region import Region
from webui.core.groups.upscale import DEFAULT_UPSCALER
from webui.core.latent_filters import LATENT_FILTERS
from webui.core.names import choose_finder, choose_upscaler, find_file
from webui.core.prompt import split_loras, unsupported
from webui.core.request import MAX_LORAS, MAX_PROMPT_CHARACTERS, PROMPTS, TEMPLATES, LoraRef, Request
from webui.core.schedule import as_words
from webui.interop.found import Found, Lora, clean, short
from webui.interop.sampler_names import translate
from webui.library import model_lookup

MARKS_ARE_WORDS = ("ComfyUI", "Fooocus", "InvokeAI", "NovelAI", "SwarmUI")
"""Programs to which prompt editing, alternating words and AND are what their letters say, and choices too by then."""
MAX_LOOKED_UP = 2 * MAX_LORAS
STAND_IN = PilImages.new("L", (64, 64))  # settings of a start picture are checked where there is none
NO_FILE = ("", "none", "automatic", "default", "default (model)", "baked", "baked vae", "same as model")
_TAG = re.compile(r"(?:(?<!\s)\s+)?<(?:lora|lyco):([^<>:]*)[^<>]*>", re.I)


def check(found: Found, catalog: Catalog) -> tuple[dict[str, Any], list[str]]:
    """The values that mean something here, and a line for each thing that does not."""
    reasons = [*found.unmapped]
    given = {name: clean(value).strip() if isinstance(value, str) else value for name, value in found.values.items()}
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("prompt") == "" and not given.get("regions"):
        del given["prompt"]  # what says nothing must not wipe what somebody wrote
    sampler, schedule = given.pop("sampler", None), given.pop("schedule", None)
    if sampler is None:  # some call that a scheduler
        sampler, schedule = schedule, None
    values, lines = translate(sampler, schedule, catalog.samplers)
    reasons += lines
    values |= _check_files(given, catalog, reasons)
    values |= _check_size(given.pop("width", None), given.pop("height", None), reasons)
    values |= _check_loras(found.loras, given, catalog, reasons)
    given |= _check_finders(given.pop("detail", ()), catalog, reasons)
    given |= _check_controls(given.pop("controls", ()), catalog, reasons)
    for name, value in given.items():
        try:
            values[name] = _check_one(name, value)
        except RequestError as error:
            reasons.append(str(error))
    for field in PROMPTS:
        if found.program in MARKS_ARE_WORDS and field in values:
            values[field] = as_words(values[field])
        if field in values and (found.program in MARKS_ARE_WORDS or TEMPLATES[field] in values):
            values[field] = dynamic.as_words(values[field])  # it was drawn already
        forms = unsupported(str(values.get(field, "")), negative=field == "negative")
        reasons += [f"{field}: {line}" for line in forms]
    if found.program in MARKS_ARE_WORDS and "regions" in values:
        values["regions"] = tuple(map(_in_words, values["regions"]))
    _check_upscale(values, catalog, reasons)
    _check_hires(values, catalog, reasons)
    values |= {group: True for group in SWITCHES if any(name.startswith(f"{group}.") for name in values)}
    known = (*Request.model_fields, *Init.model_fields, *GROUP_FIELDS)
    return {name: values[name] for name in known if name in values}, reasons


def _in_words(region: Region) -> Region:
    return region.model_copy(update={"prompt": dynamic.as_words(as_words(region.prompt))})


def _check_upscale(values: dict[str, Any], catalog: Catalog, reasons: list[str]) -> None:
    """On where its upscaler is here, and without an upscaler not at all."""
    named = values.get("upscale.upscaler", "")
    try:
        known = choose_upscaler(named, catalog.upscalers, "upscale") if named else ""
    except RequestError:
        known = ""
        reasons.append(f"upscaler: “{show(named)}” is not here")
    for name in [name for name in values if name.startswith("upscale.") and not known]:
        del values[name]
    values |= {"upscale": True, "upscale.upscaler": known} if known else {}


def _check_hires(values: dict[str, Any], catalog: Catalog, reasons: list[str]) -> None:
    """On where a size is said; where its upscaler is not here the embedded one stands in, and the first pass for what
    else is not."""
    if not values.keys() & {"hires.scale", "hires.width", "hires.height"}:
        for name in [name for name in values if name.startswith("hires")]:
            del values[name]
        return
    values["hires"] = True
    if named := values.pop("hires.upscaler", ""):
        try:
            values["hires.upscaler"] = choose_upscaler(named, catalog.upscalers, "hires", LATENT_FILTERS)
        except RequestError:
            reasons.append(f"upscaler: “{show(named)}” is not here; {DEFAULT_UPSCALER} stands in for it")
    if named := values.pop("hires.model", ""):
        if here := model_lookup.find_name(named, catalog.models):
            values["hires.model"] = here
        elif named.casefold() not in NO_FILE:
            reasons.append(f"hires checkpoint: “{show(named)}” is not here")
    sampler, schedule = (values.pop(f"hires.{field}", None) for field in ("sampler", "schedule"))
    if sampler or schedule:
        found, lines = translate(sampler or values.get("sampler"), schedule, catalog.samplers)
        given = {"sampler": sampler, "schedule": schedule or found.get("schedule") != "Default"}
        values |= {f"hires.{field}": name for field, name in found.items() if given[field]}
        reasons += [f"hires {line}" for line in lines]


def _check_finders(details: Any, catalog: Catalog, reasons: list[str]) -> dict[str, Any]:
    """The details whose finders are here."""
    here = []
    for detail in details:
        try:
            here.append(detail | {"finder": choose_finder(str(detail["finder"]), catalog.finders, "detail")})
        except RequestError:
            reasons.append(f"detail: the finder “{show(short(detail['finder']))}” is not here")
    return {"detail": here} if here else {}


def _check_controls(controls: Any, catalog: Catalog, reasons: list[str]) -> dict[str, Any]:
    """The controls whose files are here. Their pictures are in no text."""
    here = []
    for number, control in enumerate(controls, start=1):
        if name := model_lookup.find_name(control["model"], catalog.controls):
            here.append(control | {"model": name})
            reasons.append(f"control {number}: its picture is not in this text")
        else:
            reasons.append(f"control: “{show(short(control['model']))}” is not here")
    return {"controls": here} if here else {}


def _check_one(name: str, value: Any) -> Any:
    if name in GROUP_FIELDS:
        return group_values(Request.parse(nest({name: value}))).get(name, False)
    if name in Request.model_fields:
        return getattr(Request.parse({name: value}), name)
    try:
        return getattr(Init.model_validate({"image": STAND_IN, name: value}), name)
    except ValidationError as error:
        raise RequestError(explain(error), field=name) from None


def _check_files(given: dict[str, Any], catalog: Catalog, reasons: list[str]) -> dict[str, Any]:
    """Takes model, VAE and refiner out of what is given; the names that they have here."""
    values = {}
    named, model_hash = given.pop("model", None), given.pop("model_hash", None)
    if named or model_hash:
        if model := model_lookup.find(named, model_hash, catalog.models):
            values["model"] = model
        else:
            hashed = f" (hash {str(model_hash)[:12]})" if model_hash else ""
            reasons.append(f"model: “{show(short(named or ''))}”{hashed} is not here")
    files: tuple[tuple[str, str, Mapping[str, File]], ...] = (
        ("vae", "VAE", catalog.vaes),
        ("text_encoder", "text encoder", catalog.text_encoders),
        ("refiner", "refiner", catalog.models),
    )
    for name in given.pop("modules", ()):  # Forge's, which may be either
        plain = re.split(r"[/\\]", name)[-1]
        fitting = (field for field, _, known in files[:2] if model_lookup.find_name(plain, known))
        given.setdefault(next(fitting, "text_encoder"), plain)
    for field, kind, known in files:
        name = given.pop(field, "")
        if str(name).casefold() in NO_FILE:
            continue
        if here := model_lookup.find_name(name, known):
            values[field] = here
        else:
            reasons.append(f"{kind}: “{show(short(name))}” is not here")
    if "refiner" not in values:
        given.pop("refiner_at", None)
    return values


def _check_size(width: Any, height: Any, reasons: list[str]) -> dict[str, Any]:
    """Both sides, or neither."""
    if width is None and height is None:
        return {}
    if width is None or height is None:
        reasons.append(f"size: {short(width, 20)} x {short(height, 20)} has one side only")
        return {}
    try:
        return {"width": _check_one("width", width), "height": _check_one("height", height)}
    except RequestError as error:
        reasons.append(f"size: {short(width, 20)} x {short(height, 20)} cannot be taken; {error}")
        return {}


def _check_loras(loras: Sequence[Lora], given: dict[str, Any], catalog: Catalog, reasons: list[str]) -> dict[str, Any]:
    """The LoRAs that are here, of the program's own list; one that the prompt names too leaves the prompt."""
    refs: dict[str, LoraRef] = {}
    if len(loras) > MAX_LOOKED_UP:
        reasons.append(f"LoRA: {len(loras):,} are named; the first {MAX_LOOKED_UP} are looked for")
    for lora in loras[:MAX_LOOKED_UP]:
        here = model_lookup.find_name(lora.name, catalog.loras)
        if here is None:
            reasons.append(f"LoRA: “{show(_show_name(lora.name))}” is not here")
        elif here in refs or len(refs) == MAX_LORAS:
            reasons.append(
                f"LoRA: “{show(here)}” is named more than once" if here in refs else f"LoRA: “{show(here)}” is too many"
            )
        else:
            try:
                refs[here] = LoraRef(name=here, weight=lora.weight, text_weight=_text_weight(lora))
            except ValidationError as error:
                reasons.append(f"LoRA: “{show(here)}”: {explain(error)}")
    if isinstance(prompt := given.get("prompt"), str):
        listed = {_stem(name) for name in (*refs, *(str(lora.name) for lora in loras[:MAX_LOOKED_UP]))}
        prompt = _TAG.sub(lambda tag: "" if _stem(tag[1]) in listed else tag[0], prompt).strip()
        given["prompt"] = prompt
        reasons += _missing_in(prompt, catalog.loras)
        if prompt == "" and not given.get("regions"):
            del given["prompt"]
    return {"loras": tuple(refs.values())} if refs else {}


def _text_weight(lora: Lora) -> Any:
    return None if lora.text_weight == lora.weight else lora.text_weight


def _show_name(name: Any) -> str:
    return short(name, 100).replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors")


def _stem(name: str) -> str:
    return PurePosixPath(name.strip().replace("\\", "/")).name.removesuffix(".safetensors").casefold()


def _missing_in(prompt: str, known: Mapping[str, File]) -> list[str]:
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        return []  # it is no prompt here
    try:
        names = dict.fromkeys(ref.name for ref in split_loras(prompt)[1])
    except RequestError as error:
        return [str(error)]
    return [f"LoRA: “{show(name)}” is not here" for name in [*names][:MAX_LOOKED_UP] if find_file(name, known) is None]
