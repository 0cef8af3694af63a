"""Programs that write each setting by its name, in JSON or as one text each: Easy Diffusion, Draw Things, others."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from webui.interop.found import Found, Lora, read_size

FIELDS = {
    "prompt": "prompt",
    "positive_prompt": "prompt",
    "positive": "prompt",
    "c": "prompt",
    "negative_prompt": "negative",
    "negativeprompt": "negative",
    "negative": "negative",
    "uc": "negative",
    "seed": "seed",
    "steps": "steps",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "guidance": "guidance",
    "cfg_scale": "guidance",
    "cfgscale": "guidance",
    "cfg": "guidance",
    "scale": "guidance",
    "width": "width",
    "height": "height",
    "sampler": "sampler",
    "sampler_name": "sampler",
    "scheduler": "schedule",
    "scheduler_name": "schedule",
    "schedule": "schedule",
    "model": "model",
    "model_name": "model",
    "model_hash": "model_hash",
    "stable_diffusion_model": "model",
    "use_stable_diffusion_model": "model",
    "vae": "vae",
    "vae_model": "vae",
    "use_vae_model": "vae",
    "strength": "strength",
    "prompt_strength": "strength",
    "denoising_strength": "strength",
}
SILENT = {
    "size",
    "use_lora_model",
    "lora_model",
    "lora_alpha",
    "lora_strength",
    "lora",
    "loras",
    "clip_skip",
    "clipskip",
    "v2",
}
SILENT |= {"resources", "created_at", "date", "version", "num_outputs", "profile"}
MARKS = {
    "Easy Diffusion": {"use_stable_diffusion_model", "stable_diffusion_model"},
    "Draw Things": {"c", "uc"},
}

MIN_LINES = 3
_LINE = re.compile(r"[ \t]{0,9}([A-Za-z][\w ]{0,40})[ \t]{0,9}:")


def key_of(name: Any) -> str:
    """A setting's name in lower case with underscores."""
    return str(name)[:100].strip().lower().replace(" ", "_")


def is_flat(settings: Mapping[str, Any]) -> bool:
    """Whether there is a prompt as text, and two settings more."""
    keys = {FIELDS.get(key_of(name)) for name, value in settings.items() if not isinstance(value, dict | list)}
    return "prompt" in keys and len(keys - {None, "prompt", "negative"}) > 1


def read_flat(settings: Mapping[str, Any], program: str = "") -> Found:
    """What the settings say. A schedule of its own is none of the sampler's that another program names."""
    named = {key_of(name): value for name, value in settings.items()}
    marked = (name for name, marks in MARKS.items() if marks & named.keys())
    found = Found(program or next(marked, "another program"))
    found.take({name: None if value == "None" else value for name, value in named.items()}, FIELDS, SILENT)
    if size := read_size(named.get("size", "")):
        found.put("width", size[0])
        found.put("height", size[1])
    skipped = str(named.get("clip_skip", named.get("clipskip", "")))
    if skipped == "True":  # Easy Diffusion's switch
        found.put("clip_skip", 2)
    elif skipped.isdecimal():
        found.put("clip_skip", int(skipped[:9]))
    if str(found.values.get("strength")) in ("1", "1.0"):
        del found.values["strength"]  # it began with no picture
    found.loras += _read_loras(named)
    return found


def split_lines(text: str) -> dict[str, str]:
    """The settings of a text with one on each line, the prompt first, as Easy Diffusion writes it; {} for another."""
    settings: dict[str, str] = {}
    spoken: list[str] = []
    last = ""
    for line in text.split("\n"):
        name = _LINE.match(line)
        if name and (settings or key_of(name[1]) in FIELDS):
            last = key_of(name[1])
            settings.setdefault(last, line[name.end() :].strip())
        elif settings:  # a prompt of several lines
            settings[last] = f"{settings[last]}\n{line}".strip()
        else:
            spoken.append(line)
    known = {FIELDS.get(name) for name in settings} - {None, "prompt", "negative"}
    if len(known) < MIN_LINES or "," in settings.get("steps", ""):  # A1111's line has all settings
        return {}
    return settings if "prompt" in settings else {"prompt": "\n".join(spoken).strip(), **settings}


def _read_loras(named: Mapping[str, Any]) -> Iterator[Lora]:
    """Easy Diffusion's names and strengths, one or a list each; others' lists of objects."""
    names = _as_list(named.get("use_lora_model", named.get("lora_model")))
    weights = _as_list(named.get("lora_alpha", named.get("lora_strength")))
    for place, name in enumerate(names):
        if name not in (None, "", "None"):
            yield Lora(name, weights[place] if place < len(weights) else 1.0)
    for entry in _as_list(named.get("loras", named.get("lora", named.get("resources")))):
        if isinstance(entry, str) and entry not in ("", "None"):  # as requests of ours have it
            name, *weights = entry.split(":")
            yield Lora(name, weights[-1] if weights else 1.0, weights[0] if len(weights) > 1 else None)
        elif isinstance(entry, dict) and entry.get("type", "lora") == "lora":  # civitai lists models with them
            name = next((entry[key] for key in ("name", "file", "model", "lora") if key in entry), None)
            yield Lora(name, next((entry[key] for key in ("weight", "strength", "scale") if key in entry), 1.0))


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, str) and re.match(r"\s*\[", value):
        value = [part.strip(" '\"") for part in value.strip(" []").split(",")]
    return value if isinstance(value, list) else [] if value is None else [value]
