"""The texts of A1111, Forge, ComfyUI, InvokeAI, Fooocus and SwarmUI, read with sd-parsers.

sd-parsers trusts what it reads: it splits quoted values at their commas, follows graphs as often as they have samplers,
and raises whatever a wrong type leads to. So texts reach it bounded and simplified, and only by its parsers; its own
way of getting at a file remembers the last picture by an address that the next one may have.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_NODES = 1000
MAX_NODES_TIMES_LINKS = 60_000  # sd-parsers keeps for each text what every way to it has passed
MAX_CHARACTERS = 50_000
MAX_GRAPH_CHARACTERS = 2_000_000
LIMITS = {
    "parameters": MAX_CHARACTERS,
    "invokeai_metadata": MAX_CHARACTERS,
    "sd-metadata": MAX_CHARACTERS,
    "Dream": MAX_CHARACTERS,
    "prompt": MAX_GRAPH_CHARACTERS,
    "workflow": MAX_GRAPH_CHARACTERS,
}
# Of every program: the name in sd-parsers' answer, lower case with underscores -> the field here.
FIELDS = {
    "steps": "steps",
    "cfg_scale": "guidance",
    "seed": "seed",
    "noise_seed": "seed",
    "scheduler": "schedule",
    "denoise": "strength",
    "denoising_strength": "strength",
    "strength": "strength",
    "mask_blur": "mask_blur",
    "clip_skip": "clip_skip",
    "width": "width",
    "height": "height",
}
# What needs no line of its own among what could not be mapped.
KNOWN = {"version", "app_version", "lora_hashes", "ti_hashes", "hashes", "model", "model_hash", "size", "resolution"}
KNOWN |= {
    "emptylatentimage",
    "full_prompt",
    "full_negative_prompt",
    "metadata_scheme",
    "generation_mode",
    "add_noise",
    "date",
}
NEGATIVE = "Negative prompt:"
_QUOTED = re.compile(r'(?:^|, ?)([\w][\w /.+-]{0,60}): ?"((?:[^"\\\n]|\\.)*)"')


@dataclass
class Found:
    """``values`` by field name, with ``model`` and ``model_hash`` as the program calls them, all unchecked."""

    program: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    unmapped: list[str] = field(default_factory=list)

    def add(self, name: str, value: Any) -> None:
        """Takes a setting under the name that its program has for it."""
        key = str(name).strip().lower().replace(" ", "_")
        if key in FIELDS:
            self.values.setdefault(FIELDS[key], value)
        elif key not in KNOWN and value not in (None, "", [], {}, False):
            self.unmapped.append(f"{str(name)[:60]}: {_short(value)}")


def parse(texts: Mapping[str, str]) -> Found:
    """What the texts say; where they cannot be read, a line that says so. Never raises."""
    from sd_parsers import parsers

    attempts = []
    if "parameters" in texts:
        text = texts["parameters"]
        attempts += [_read_json_parameters] if text.lstrip().startswith("{") else [_read_infotext]
    attempts += [_read_comfy] if "prompt" in texts else []
    attempts += [_read_invoke] if {"invokeai_metadata", "sd-metadata", "Dream"} & texts.keys() else []
    failed = []
    for attempt in attempts:
        try:
            return attempt(parsers, texts)
        except Unreadable as error:
            failed.append(str(error))
        except Exception as error:  # whatever sd-parsers stumbles on in a stranger's text
            failed.append(f"its settings cannot be read: {type(error).__name__}")
    return Found(unmapped=failed)


class Unreadable(ValueError):
    """A text that is not understood; the message is a line for people."""


def _read_infotext(parsers: Any, texts: Mapping[str, str]) -> Found:
    """A1111's text, of A1111 itself, Forge, Fooocus, ours and others."""
    found = Found("AUTOMATIC1111")
    *above, settings = texts["parameters"].rstrip().split("\n")
    for name, value in _QUOTED.findall(settings):
        found.add(name, value)
    try:
        _take(found, parsers.AUTOMATIC1111Parser().parse({"parameters": _QUOTED.sub("", settings)}))
    except Exception:
        raise Unreadable("its text has no line of settings (Steps, Sampler, Seed ...)") from None
    marks = [k for k, line in enumerate(above) if line.startswith(NEGATIVE)]
    end = marks[0] if marks else len(above)
    negative = "\n".join(line.removeprefix(NEGATIVE).strip() for line in above[end:])
    found.values |= {"prompt": "\n".join(above[:end]), "negative": negative}
    size = re.search(r"(?:^|, )Size: (\d{1,6})x(\d{1,6})(?:,|$)", settings)
    if size:
        found.values |= {"width": size[1], "height": size[2]}
    version = re.search(r"(?:^|, )Version: ([^,]{1,80})", settings)
    found.program = _program_of(version[1] if version else "")
    return found


def _program_of(version: str) -> str:
    if version.startswith("Darkroom"):
        return "Darkroom"
    if version.startswith(("f0", "f1", "f2", "forge", "neo")):
        return "Forge"
    return "Fooocus" if version.startswith("Fooocus") else "AUTOMATIC1111"


def _read_json_parameters(parsers: Any, texts: Mapping[str, str]) -> Found:
    """SwarmUI's and Fooocus' text."""
    body = _object(texts["parameters"], "parameters")
    if "sui_image_params" in body:
        return _read_swarm(body)
    found = Found("Fooocus")
    _take(found, parsers.FooocusParser().parse({"parameters": texts["parameters"]}))
    size = re.fullmatch(r"\((\d{1,6}), ?(\d{1,6})\)", str(body.get("resolution", ""))[:40])
    if size:
        found.values |= {"width": size[1], "height": size[2]}
    return found


def _read_swarm(body: Mapping[str, Any]) -> Found:
    """SwarmUI's, which sd-parsers does not know."""
    settings = body["sui_image_params"]
    if not isinstance(settings, dict):
        raise Unreadable("SwarmUI's settings are not a JSON object")
    found = Found("SwarmUI")
    names = {
        "prompt": "prompt",
        "negativeprompt": "negative",
        "model": "model",
        "sampler": "sampler",
        "scheduler": "schedule",
        "cfgscale": "guidance",
        "initimagecreativity": "strength",
    }
    for name, value in settings.items():
        if name in names:
            found.values[names[name]] = value
        elif name not in ("swarm_version", "aspectratio", "images"):
            found.add(name, value)
    return found


def _read_invoke(parsers: Any, texts: Mapping[str, str]) -> Found:
    found = Found("InvokeAI")
    texts = dict(texts)
    if "Dream" in texts:  # a long run of spaces takes sd-parsers' pattern long
        texts["Dream"] = " ".join(texts["Dream"].split())
    _take(found, parsers.InvokeAIParser().parse(texts))
    if "invokeai_metadata" in texts:
        model = _object(texts["invokeai_metadata"], "invokeai_metadata").get("model")
        if isinstance(model, dict):  # newer versions say "name"
            found.values["model"] = model.get("name") or model.get("model_name")
        if isinstance(found.values.get("clip_skip"), int):
            found.values["clip_skip"] += 1  # InvokeAI counts the layers left out
    return found


def _read_comfy(parsers: Any, texts: Mapping[str, str]) -> Found:
    """ComfyUI's graph as it ran; of several samplers the one that starts from an empty picture, or the first."""
    graph = _object(texts["prompt"], "prompt")
    if len(graph) > MAX_NODES:
        raise Unreadable(f"ComfyUI's graph has {len(graph):,} nodes; up to {MAX_NODES:,} are read")
    nodes = {
        name: node for name, node in graph.items() if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
    }
    samplers = [name for name, node in nodes.items() if {"sampler_name", "steps", "cfg"} <= node["inputs"].keys()]
    if not samplers:
        raise Unreadable("ComfyUI's graph has no sampler node (with sampler_name, steps and cfg) that can be read")
    chosen = next((name for name in samplers if _latent_size(nodes, name)), samplers[0])
    others = [name for name in samplers if name != chosen]
    kept = {name: node for name, node in nodes.items() if name not in others}
    found, links = Found("ComfyUI"), _links(kept)
    if len(kept) * len(links) > MAX_NODES_TIMES_LINKS:
        raise Unreadable(f"ComfyUI's graph of {len(kept):,} nodes and {len(links):,} links is too large to be read")
    _take(found, parsers.ComfyUIParser().parse({"prompt": kept, "workflow": {"links": links}}))
    found.values |= _latent_size(nodes, chosen) or {}
    for name in others:
        inputs = nodes[name]["inputs"]
        summary = ", ".join(
            f"{key} {_short(inputs[key], 30)}" for key in ("sampler_name", "steps", "denoise") if key in inputs
        )
        found.unmapped.append(f"another sampler, node {name[:20]}: {summary}")
    return found


def _latent_size(nodes: Mapping[str, Any], sampler: str) -> dict[str, Any] | None:
    """Width and height of the node that the sampler starts from, if they are said there."""
    link = nodes[sampler]["inputs"].get("latent_image")
    source = nodes.get(str(link[0]), {}) if isinstance(link, list) and link else {}
    size = {side: source["inputs"].get(side) for side in ("width", "height")} if source else {}
    return size if size and all(isinstance(px, int) for px in size.values()) else None


def _links(nodes: Mapping[str, Any]) -> list[tuple[int, str, int, str, int, str]]:
    """The graph's edges in the workflow's form, which not every picture has."""
    return [
        (0, str(value[0]), 0, name, 0, str(key).upper())
        for name, node in nodes.items()
        for key, value in node["inputs"].items()
        if isinstance(value, list) and len(value) == 2
    ]


def _take(found: Found, info: Any) -> None:
    """sd-parsers' answer."""
    sampler = info.samplers[0]
    found.values |= {
        "prompt": ", ".join(str(prompt) for prompt in sampler.prompts),
        "negative": ", ".join(str(prompt) for prompt in sampler.negative_prompts),
        "sampler": sampler.name,
    }
    if sampler.model:
        found.values |= {"model": sampler.model.name, "model_hash": sampler.model.hash}
    for name, value in [*sampler.parameters.items(), *info.metadata.items()]:
        found.add(name, value)


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable(f"{name} cannot be read as JSON") from None
    if not isinstance(body, dict):
        raise Unreadable(f"{name} is not a JSON object")
    return body


def _short(value: Any, characters: int = 160) -> str:
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return "..."
    return text if len(text) <= characters else f"{text[:characters]}..."
