"""Fooocus' settings as JSON: its own scheme (``modules/meta_parser.py``), its older log, and RuinedFooocus'."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from webui.interop.found import Found, Lora, read_size

FIELDS = {
    "prompt": "prompt",
    "negative_prompt": "negative",
    "negative": "negative",
    "steps": "steps",
    "guidance_scale": "guidance",
    "cfg": "guidance",
    "sampler": "sampler",
    "sampler_name": "sampler",
    "scheduler": "schedule",
    "seed": "seed",
    "base_model": "model",
    "base_model_name": "model",
    "base_model_hash": "model_hash",
    "clip_skip": "clip_skip",
    "vae": "vae",
    "width": "width",
    "height": "height",
    "refiner_model": "refiner",
    "refiner_switch": "refiner_at",
}
SILENT = {"full_prompt", "full_negative_prompt", "metadata_scheme", "version", "resolution", "loras", "software"}
SILENT |= {"refiner_model_hash", "created_by"}
_COMBINED = re.compile(r"lora_combined_\d+|lora_\d+")


def is_fooocus(body: Mapping[str, Any]) -> bool:
    """Whether a JSON object is Fooocus' or one of its forks'."""
    keys = {_key(name) for name in body}
    return bool(keys & {"base_model", "base_model_name"}) and bool(keys & {"prompt", "negative_prompt", "negative"})


def read_fooocus(body: Mapping[str, Any]) -> Found:
    """What the JSON object says. The prompt is the one that was written, its styles are a line."""
    ruined = "RuinedFooocus" in str(body.get("software", ""))[:40]
    found = Found("RuinedFooocus" if ruined else "Fooocus")
    settings = {_key(name): value for name, value in body.items()}
    if (full := settings.get("full_prompt")) and isinstance(full, list) and full != [settings.get("prompt")]:
        found.note("full_prompt", ", ".join(map(str, full)))
    found.take({name: value for name, value in settings.items() if not _COMBINED.fullmatch(name)}, FIELDS, SILENT)
    if size := read_size(settings.get("resolution", "")):
        found.values |= {"width": size[0], "height": size[1]}
    combined = [lora for name, value in settings.items() if _COMBINED.fullmatch(name) for lora in _read_combined(value)]
    found.loras += [*_read_loras(settings.get("loras"))] or combined
    return found


def _key(name: Any) -> str:
    return str(name)[:100].strip().lower().replace(" ", "_")


def _read_loras(loras: Any) -> Iterator[Lora]:
    """``[[name, weight, hash], ...]``, in some versions in other orders."""
    for entry in loras if isinstance(loras, list) else []:
        if isinstance(entry, list) and len(entry) > 1:
            weight, dash, name = str(entry[1]).partition(" - ")  # RuinedFooocus': hash, then both
            yield Lora(name, weight) if dash else Lora(entry[0], entry[1])
        elif isinstance(entry, dict) and "name" in entry:
            yield Lora(entry["name"], entry.get("weight", 1.0))


def _read_combined(value: Any) -> Iterator[Lora]:
    """``name : weight``, with ``True : `` or ``False : `` before it in some versions."""
    parts = [part.strip() for part in str(value)[:600].split(" : ")]
    if parts[0] in ("True", "False") and len(parts) > 2:
        parts = parts[1:] if parts[0] == "True" else []
    if len(parts) > 1 and parts[0] != "None":
        yield Lora(parts[0], parts[1])
