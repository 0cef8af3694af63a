"""InvokeAI's settings: ``invokeai_metadata`` since 3.0, ``sd-metadata`` before, at first ``Dream``, a command line."""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from webui.interop.found import Found, Lora, Unreadable
from webui.interop.weights import from_compel

FIELDS = {
    "positive_prompt": "prompt",
    "negative_prompt": "negative",
    "prompt": "prompt",
    "width": "width",
    "height": "height",
    "seed": "seed",
    "cfg_scale": "guidance",
    "guidance": "distilled guidance",
    "steps": "steps",
    "scheduler": "sampler",
    "sampler": "sampler",
    "strength": "strength",
    "model_weights": "model",
    "model_hash": "model_hash",
    "refiner_start": "refiner_at",
}
MODELS = {"model": "model", "vae": "vae", "refiner_model": "refiner"}
SILENT = {
    *MODELS,
    "app_version",
    "app_id",
    "generation_mode",
    "loras",
    "clip_skip",
    "rand_device",
    "type",
    "postprocessing",
}
SILENT |= {"canvas_v2_metadata", "ref_images", "variations"}
DREAM = {"s": "steps", "S": "seed", "W": "width", "H": "height", "C": "guidance", "A": "sampler", "f": "strength"}
DREAM |= {"steps": "steps", "seed": "seed", "width": "width", "height": "height", "cfg_scale": "guidance"}
DREAM |= {"sampler": "sampler", "strength": "strength"}
MIXED = re.compile(r"\)\.(?:blend|and|swap)\(")


def is_invokeai(body: Mapping[str, Any]) -> bool:
    """Whether a JSON object is InvokeAI's."""
    return "positive_prompt" in body or "model_weights" in body or "app_version" in body and "generation_mode" in body


def read_invokeai(body: Mapping[str, Any]) -> Found:
    """What the JSON object of any version says; raises Unreadable."""
    found = Found("InvokeAI")
    image = body.get("image")
    if "model_weights" in body or isinstance(image, dict):
        if not isinstance(image, dict):
            raise Unreadable("InvokeAI's settings have no picture in them")
        found.take({name: body[name] for name in ("model_weights", "model_hash") if name in body}, FIELDS)
        found.take({name: value for name, value in image.items() if name != "prompt"}, FIELDS, SILENT)
        _take_old_prompt(found, image.get("prompt"))
        _translate(found)
        return found
    found.take(body, FIELDS, SILENT)
    found.note("guidance of the model's own", found.values.pop("distilled guidance", None))
    if "prompt" in found.values:
        found.put("negative", "")  # null where it was switched off
    for name, field in MODELS.items():
        found.put(field, _name_of(body.get(name)))
    found.loras += _read_loras(body.get("loras"))
    layers = body.get("clip_skip")  # those that are left out
    if isinstance(layers, int) and not isinstance(layers, bool):
        found.put("clip_skip", layers + 1)
    _translate(found)
    return found


def read_dream(text: str) -> Found:
    """The command line of the first versions: ``"prompt [negative]" -s 50 -S 1 -W 512 -H 512 -C 7.5 -A k_lms``."""
    found = Found("InvokeAI")
    try:
        words = shlex.split(text)
    except ValueError:
        raise Unreadable("Dream cannot be read as a command line") from None
    spoken: list[str] = []
    options: dict[str, str] = {}
    more: list[str] = []  # second values, as -U has
    place = 0
    while place < len(words):
        name, equals, value = words[place].lstrip("-").partition("=")
        short = re.fullmatch(r"-([A-Za-z])(\S+)", words[place])
        if not re.match(r"--?[A-Za-z]", words[place]) or " " in words[place]:
            (more if options else spoken).append(words[place])
        elif equals:
            options[name] = value
        elif short and short[1] in DREAM:
            options[short[1]] = short[2]
        elif place + 1 < len(words) and not re.match(r"--?[A-Za-z]", words[place + 1]):
            options[name], place = words[place + 1], place + 1
        else:
            options[name] = ""
        place += 1
    found.take(options, DREAM)
    found.note("more values", " ".join(more))
    _take_old_prompt(found, " ".join(spoken))
    if not found.values:
        raise Unreadable("Dream has neither a prompt nor settings")
    _translate(found)
    return found


def _take_old_prompt(found: Found, prompt: Any) -> None:
    """A prompt of the first versions: what stands in square brackets is the negative one."""
    if isinstance(prompt, list):
        texts = [part.get("prompt") if isinstance(part, dict) else part for part in prompt]
        prompt = next((text for text in texts if isinstance(text, str)), None)
        if len(texts) > 1:
            found.unmapped.append(f"prompt: one of {len(texts)}, which were mixed")
    if isinstance(prompt, str):
        negative = re.findall(r"\[([^\[\]]*)\]", prompt)
        found.put("prompt", " ".join(re.sub(r"\[[^\[\]]*\]", " ", prompt).split()))
        found.put("negative", ", ".join(part.strip() for part in negative))


def _name_of(model: Any) -> Any:
    """A model's name, which has been called differently."""
    if isinstance(model, dict):
        return model.get("name") or model.get("model_name") or model.get("key")
    return model


def _read_loras(loras: Any) -> Iterator[Lora]:
    for entry in loras if isinstance(loras, list) else []:
        if isinstance(entry, dict):
            named = entry.get("model", entry.get("lora", entry))
            yield Lora(_name_of(named), entry.get("weight", 1.0))


def _translate(found: Found) -> None:
    """The prompts with our marks for weights."""
    for field in ("prompt", "negative"):
        if isinstance(text := found.values.get(field), str):
            found.values[field] = from_compel(text)
            if mixed := MIXED.search(text):
                found.unmapped.append(
                    f"{field}: InvokeAI's {mixed[0]}...) is not supported here and is read as plain words"
                )
