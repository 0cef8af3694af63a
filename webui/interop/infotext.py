"""A1111's text: prompt, negative prompt, and settings as ``Name: value`` between commas.

Forge, SD.Next, Fooocus, civitai, Darkroom and nodes of ComfyUI write it too, each a little differently: on one line,
with JSON or quoted text as values, with lines behind the settings. As in A1111's ``modules/infotext_utils.py`` a value
with a comma, a colon or a line break is quoted as JSON; here a value that begins as JSON is one up to its last bracket,
and the first mention of a name counts. Each step goes forward in the text, so the work is linear in its length.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from webui.core.errors import show
from webui.interop import adetailer, controlnet_words, regions
from webui.interop.found import Found, Lora, Unreadable, read_size, short

NEGATIVE = "Negative prompt:"
NO_SETTINGS_LINE = "its text has no line of settings (Steps, Sampler, Seed ...)"
FIELDS = {
    "steps": "steps",
    "sampler": "sampler",
    "schedule type": "schedule",
    "scheduler": "schedule",
    "cfg scale": "guidance",
    "guidance scale": "guidance",
    "seed": "seed",
    "model": "model",
    "model hash": "model_hash",
    "denoising strength": "strength",
    "clip skip": "clip_skip",
    "form": "form",
    "mask blur": "mask_blur",
    "masked area padding": "padding",
    "mask softness": "softness",
    "vae": "vae",
    "text encoder": "text_encoder",
    "refiner": "refiner",
    "refiner switch at": "refiner_at",
    "variation seed": "variation.seed",
    "variation seed strength": "variation.strength",
    "hires upscale": "hires.scale",
    "hires upscaler": "hires.upscaler",
    "hires steps": "hires.steps",
    "hires denoising strength": "hires.strength",
    "hires checkpoint": "hires.model",
    "hires sampler": "hires.sampler",
    "hires schedule type": "hires.schedule",
    "hires cfg scale": "hires.guidance",
    "hires prompt": "hires.prompt",
    "hires negative prompt": "hires.negative",
    "cfg rescale": "guidance_rescale",
    "cfg rescale phi": "guidance_rescale",
    "guidance rescale": "guidance_rescale",
    "pag scale": "pag.scale",
    "pag adaptive": "pag.adaptive",
    "nag scale": "nag.scale",
    "nag tau": "nag.tau",
    "nag alpha": "nag.alpha",
    "postprocess upscale by": "upscale.scale",
    "postprocess upscaler": "upscale.upscaler",
}
OURS = {"guidance until": "guidance_until", "deep features every": "reuse", "token merging ratio": "token_merging"}
WORDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "soft inpainting enabled": ("softness", {"true": 0.5, "false": 0.0}),
    "int8": ("int8", {"true": True, "false": False}),
    "inpaint area": ("only_masked", {"only masked": True, "whole picture": False}),
    "mask mode": ("invert_mask", {"inpaint masked": False, "inpaint not masked": True}),
    "masked content": ("mask_fill", {"latent noise": "noise", "latent nothing": "nothing"}),
}
SILENT = {"version", "app", "hashes", "lora hashes", "ti hashes", "vae hash", "refiner hash", "metadata scheme"}
SILENT |= {"pag active"}
KNOWN = {*FIELDS, *WORDS, "size", "version", "model hash", "lora hashes", "rng", "created date", "civitai resources"}
TEMPLATES = {"template": "template", "negative template": "negative_template"}
CANDIDATES = 20
FAILED_BRACKETS = 20

_STEPS_LINE = re.compile(r"^[ \t]*(?=Steps:[ \t]*\d{1,9}[ \t]*(?:,|$))", re.M | re.I)
_STEPS_ANYWHERE = re.compile(r"Steps:[ \t]*\d{1,9}[ \t]*,")
_NAME = re.compile(r"(\w[\w \-/.+()#'&]{0,80}?)[ \t]*:[ \t]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(?=[ \t]*(?:,|\n|\Z))', re.S)
_PIECE = re.compile(r"[^,\n]*")
_BRACKETS = re.compile(r"[\[\]{}\n]|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'")
_STEALS = re.compile(r", ?(?:Steps|Sampler|Seed|CFG scale|Size|Model):")
_WRITTEN_BREAK = re.compile(r"\\n(?=\s{0,3}(?:Negative prompt|Steps):)")
_INLINE_NEGATIVE = re.compile(r"(?<=[\w.,;)\]>])[ \t]{0,9}Negative prompt:")
_HEADING = re.compile(r"\Aparameters\s{0,3}:\s{0,3}", re.I)
_HASH = re.compile(r"\s*\[[0-9a-fA-F]{4,64}\]\s*$")
_MODULE = re.compile(r"module \d")
"""Forge's autoencoder and text encoders."""
_ADDNET = re.compile(r"addnet model (\d)")


def read_infotext(text: str, may_be_prompt: bool = True) -> Found:
    """What such a text says; raises Unreadable where it has no settings and may not be a prompt alone."""
    text = _HEADING.sub("", text.strip())
    if "\n" not in text:
        text = _WRITTEN_BREAK.sub("\n", text)
    start = _find_settings(text)
    found = Found("AUTOMATIC1111")
    if start is None:
        if not may_be_prompt and NEGATIVE not in text:
            raise Unreadable(NO_SETTINGS_LINE)
        found.unmapped.append(NO_SETTINGS_LINE)
        _take_prompts(found, text, at_line="\n" in text or NEGATIVE not in text)
        if NEGATIVE not in text:
            found.values.pop("negative", None)
        return found
    settings, behind = _read_settings(text, start, found)
    _take_prompts(found, text[:start], at_line=start == 0 or text[:start].rstrip(" \t")[-1:] == "\n")
    _interpret(found, settings)
    found.unmapped += behind
    return found


def _find_settings(text: str) -> int | None:
    """Where the settings begin: at the last line that begins with Steps and has more, or has three known names.

    In a text of one line they begin at its last "Steps: 20," that is followed by another known name.
    """
    lines = [match.end() for match in _STEPS_LINE.finditer(text)][-CANDIDATES:]
    chosen, end = None, 0
    for start in lines:
        if start < end:
            continue  # inside a quoted value of the one before
        pairs, _, end = _scan(text, start)
        if chosen is None or sum(name.casefold() in KNOWN for name, _ in pairs) > 1:
            chosen = start
    if chosen is not None:
        return chosen
    if "\n" not in text:
        for match in reversed([*_STEPS_ANYWHERE.finditer(text)][-CANDIDATES:]):
            if _is_settings(text, match.start(), 2):
                return match.start()
    breaks = [0, *(match.end() for match in re.finditer("\n", text))][-CANDIDATES:]
    return next((start for start in reversed(breaks) if _is_settings(text, start, 3)), None)


def _is_settings(text: str, start: int, least: int) -> bool:
    """Whether pairs begin there, at least so many, of which the first and another have known names."""
    pairs, _, _ = _scan(text, start)
    known = [name.casefold() in KNOWN for name, _ in pairs]
    begins = bool(pairs) and text[start : start + 200].lstrip(" \t,").startswith(pairs[0][0])
    return begins and len(pairs) >= least and known[0] and sum(known) > 1


def _scan(text: str, at: int) -> tuple[list[tuple[str, Any]], list[str], int]:
    """The pairs of name and value from there to the end of the line, what is between them, and where that ends."""
    pairs: list[tuple[str, Any]] = []
    strays: list[str] = []
    failed = 0
    while at < len(text) and text[at] != "\n":
        if text[at] in " \t,":
            at += 1
            continue
        name = _NAME.match(text, at)
        if name is None:
            end = _piece_end(text, at)
            strays.append(text[at:end].strip())
            at = end
            continue
        value, at, ended = _read_value(text, name.end(), failed < FAILED_BRACKETS)
        failed += not ended
        pairs.append((name[1], value))
    return pairs, strays, at


def _read_value(text: str, at: int, with_brackets: bool) -> tuple[Any, int, bool]:
    """A value and where it ends: quoted, JSON, or up to the next comma; False where its brackets do not end."""
    opening = text[at : at + 1]
    if opening == '"' and (quoted := _QUOTED.match(text, at)):
        try:
            return json.loads(quoted[0], strict=False), quoted.end(), True
        except ValueError:
            return quoted[1], quoted.end(), True
    ended = True
    end = at
    if opening in ("{", "["):
        ended = with_brackets and (end := _find_json_end(text, at)) > at
    end = _piece_end(text, end)
    return text[at:end].strip(), end, ended


def _piece_end(text: str, at: int) -> int:
    """The next comma or line break."""
    piece = _PIECE.match(text, at)
    return piece.end() if piece else at


def _find_json_end(text: str, at: int) -> int:
    """Behind the bracket that ends the one here; quoted brackets do not count. The place itself where there is none."""
    try:
        end = json.JSONDecoder(strict=False).raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        end = _find_bracket(text, at)
        if _STEALS.search(text, at, end):
            return at
    return end


def _find_bracket(text: str, at: int) -> int:
    """Behind the bracket that closes the one here, on its line; the place itself where none does."""
    depth = 0
    for match in _BRACKETS.finditer(text, at):
        depth += (match[0] in "[{") - (match[0] in "]}")
        if match[0] == "\n" or depth == 0:
            return match.end() if depth == 0 else at
    return at


def _read_settings(text: str, start: int, found: Found) -> tuple[dict[str, tuple[str, Any]], list[str]]:
    """The settings by their names in lower case, and the lines behind them that are none."""
    pairs, behind, end = _scan(text, start)
    template = ""  # of a prompt before its wildcards were drawn
    while end < len(text):
        start = end + 1
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        line = text[start:end].strip()
        name = _NAME.match(line)
        if name and (field := TEMPLATES.get(name[1].casefold())):
            template = field
            found.values[template] = line[name.end() :]
        elif template:
            found.values[template] = f"{found.values[template]}\n{line}".strip()
        elif name and name[1].casefold() in KNOWN:
            more, strays, end = _scan(text, start)
            pairs += more
            behind += strays
        elif line:
            behind.append(line)
    settings: dict[str, tuple[str, Any]] = {}
    for named, value in pairs:
        key = named.casefold()
        if settings.setdefault(key, (named, value))[1] != value:
            behind.append(f"{named}: {short(value)} (said a second time)")
    return settings, behind


def _take_prompts(found: Found, text: str, at_line: bool) -> None:
    """Prompt and negative prompt from what stands before the settings."""
    lines = [line.strip() for line in text.strip().split("\n")]
    marks = [k for k, line in enumerate(lines) if line.startswith(NEGATIVE)]
    if not marks and (inline := _INLINE_NEGATIVE.search(text)):
        prompt, negative = text[: inline.start()].strip().rstrip(" \t,."), text[inline.end() :].strip()
        negative = negative if at_line else negative.rstrip(" \t,.")
    else:
        end = marks[0] if marks else len(lines)
        prompt = "\n".join(lines[:end]).strip()
        negative = "\n".join(line.removeprefix(NEGATIVE).strip() for line in lines[end:]).strip()
        if not at_line:
            prompt, negative = (part.rstrip(" \t,.") for part in (prompt, negative))
    if prompt:
        found.values["prompt"] = prompt
    if prompt or negative:
        found.values["negative"] = negative


def _interpret(found: Found, settings: dict[str, tuple[str, Any]]) -> None:
    """Settings by their names, as fields, LoRAs, or lines."""
    values = {key: value for key, (_, value) in settings.items()}
    found.program = _program_of(values)
    fields = FIELDS | (OURS if found.program == "Darkroom" else {})
    details, taken = adetailer.take_settings(settings)
    found.put("detail", details or None)
    controls, units, lines = controlnet_words.take_settings(settings)
    found.put("controls", controls or None)
    found.unmapped += lines
    areas, of_regions, lines = regions.take_settings(settings)
    found.put("regions", areas or None)
    found.unmapped += lines
    settings = {key: pair for key, pair in settings.items() if key not in taken | units | of_regions}
    with_hires = any(key.startswith("hires") for key in values)
    for key, (name, value) in settings.items():
        if value == "":
            continue
        if key == "denoising strength" and with_hires and "hires denoising strength" not in values:
            found.put("hires.strength", value)
        elif key == "hires resize" and (size := read_size(value)):
            found.values |= {"hires.width": size[0], "hires.height": size[1]}
        elif key == "size" and (size := read_size(value)):
            found.values |= {"width": size[0], "height": size[1]}
        elif key in WORDS:
            field, words = WORDS[key]
            found.put(field, words.get(str(value).casefold(), value))
        elif key in fields:
            found.put(fields[key], _HASH.sub("", value[:300]) if isinstance(value, str) else value)
        elif key == "lora weights":
            found.loras += _read_lora_weights(str(value))
        elif key == "civitai resources":
            _take_resources(found, value)
        elif _MODULE.fullmatch(key):
            found.values.setdefault("modules", []).append(str(value)[:300])
        elif _ADDNET.fullmatch(key):
            _take_additional_network(found, key[-1], values)
        elif key not in SILENT and not key.startswith("addnet"):
            found.note(name, value)


def _program_of(values: dict[str, Any]) -> str:
    version = str(values.get("version", ""))
    for program in ("Darkroom", "Fooocus", "ComfyUI"):
        if version.startswith(program):
            return program
    if "app" in values:
        return str(values["app"])[:40]
    if version.startswith(("f0", "f1", "f2", "forge", "neo")):
        return "Forge"
    if "civitai resources" in values or "civitai metadata" in values:
        return "Civitai"
    return "AUTOMATIC1111"


def _read_lora_weights(text: str) -> Iterator[Lora]:
    """Fooocus': ``name: weight, name: weight``."""
    for entry in text.split(", "):
        name, colon, weight = entry.rpartition(":")
        if colon:
            yield Lora(name.strip(), weight.strip())


def _take_resources(found: Found, text: Any) -> None:
    """civitai's list of models and LoRAs, by what the site calls them, not by their files."""
    try:
        resources = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        resources = None
    if not isinstance(resources, list):
        found.note("Civitai resources", text)
        return
    for resource in resources:
        if not isinstance(resource, dict):
            continue
        name, kind = resource.get("modelName"), str(resource.get("type", "")).lower()
        version = resource.get("modelVersionId") or resource.get("air") or resource.get("modelVersionName")
        if isinstance(name, str) and kind == "checkpoint":
            found.put("model", name)
        weight = f", weight {short(resource['weight'], 20)}" if "weight" in resource else ""
        called = f" “{show(short(name))}”" if name else ""
        line = f"Civitai's {kind[:40] or 'resource'}{called} (version {short(version, 60)}{weight})"
        found.unmapped.append(line)


def _take_additional_network(found: Found, number: str, values: dict[str, Any]) -> None:
    """A LoRA of A1111's extension Additional Networks, whose name ends in ``(hash)``."""
    name = re.sub(r"\([0-9a-f]{4,64}\)$", "", str(values[f"addnet model {number}"])[:300])
    weights = [values.get(f"addnet weight {part}{number}") for part in ("a ", "b ", "")]
    weight = weights[0] if weights[0] is not None else weights[2]
    if name not in ("", "None") and str(values.get("addnet enabled", "True")) == "True":
        found.loras.append(Lora(name, 1.0 if weight is None else weight, weights[1]))
