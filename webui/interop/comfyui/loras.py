"""LoRAs of a graph: ComfyUI's loaders, and the stacks and lists of custom nodes, known by their inputs."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from webui.core.errors import show
from webui.interop.comfyui.graph import MAX_DEPTH, Graph, Node
from webui.interop.comfyui.values import number_of, text_of
from webui.interop.found import Lora, short

STACKS = ("lora_stack", "optional_lora_stack", "lora_stack_in", "loras")
_NAME = re.compile(r"lora(?:_name)?(?:_(\d{1,3}))?|lora_model(?:_name)?|lora_file")
_NUMBERED = re.compile(r"lora_?(\d{1,3})_(\w{1,40})")
_SIMPLE_WEIGHTS = ("lora_wt", "lora_strength")
_MODEL_WEIGHTS: tuple[str, ...] = ("strength_model", "model_weight", "model_str", "lora_model_strength", "lora_wt")
_MODEL_WEIGHTS += ("strength", "lora_strength", "lora_weight", "weight")
_TEXT_WEIGHTS = ("strength_clip", "clip_weight", "clip_str", "lora_clip_strength")
_TAG = re.compile(r"<lora:([^<>:]{1,255})(?::([^<>:]{1,40}))?(?::([^<>:]{1,40}))?>", re.I)


def loras_of(graph: Graph, node: Node) -> list[Lora]:
    """The LoRAs that a node puts into the model, those of the stacks linked to it first."""
    nodes = [node]
    while len(nodes) < MAX_DEPTH:
        linked = next((linked for name in STACKS if (linked := graph.linked(nodes[-1].inputs.get(name)))), None)
        if linked is None or linked[0] in nodes:
            break
        nodes.append(linked[0])
    found = [lora for node in reversed(nodes) for lora in _own(graph, node)]
    return [lora for lora in found if lora.name not in (None, "", "None", "none") and (lora.weight or lora.text_weight)]


def _own(graph: Graph, node: Node) -> Iterator[Lora]:
    # ``lora_2_strength`` and ``lora2_strength`` are ``lora_strength_2``
    node = replace(node, inputs={_NUMBERED.sub(r"lora_\2_\1", str(name)): node.inputs[name] for name in node.inputs})
    if node.inputs.get("toggle") is False:
        return
    count = number_of(graph, node.inputs.get("lora_count", node.inputs.get("num_loras")))
    for name, value in node.inputs.items():
        key = str(name).casefold()
        if isinstance(value, dict) and "lora" in value:  # rgthree's
            if value.get("on") is not False:
                yield Lora(value["lora"], value.get("strength", 1.0), value.get("strengthTwo"))
        elif key == "loras" and isinstance(value, dict | list) and not graph.linked(value):
            yield from _listed(value)
        elif match := _NAME.fullmatch(key):
            if count is None or match[1] is None or int(match[1]) <= count:
                yield from _named(graph, node, value, match[1])
        elif key == "lora_names" and isinstance(value, str):  # SwarmUI's own loader
            weights = str(node.inputs.get("lora_weights", "")).split(",")
            for place, part in enumerate(value.split(",")):
                yield Lora(part.strip(), weights[place] if place < len(weights) and weights[place] else 1.0)
    text = node.inputs.get("loras")
    if text is None and node.says("loratag", "lora tag", "lora loader (loramanager)"):
        text = text_of(graph, node.inputs.get("text"))
    if isinstance(text, str):
        for match in _TAG.finditer(text[:20_000]):
            yield Lora(match[1], match[2] or 1.0, match[3])


def _named(graph: Graph, node: Node, value: Any, number: str | None) -> Iterator[Lora]:
    """``lora_name`` and its strengths, or ``lora_name_2`` and those with the same number."""
    if isinstance(value, dict):
        value = value.get("content")  # with its picture, as a custom script sends it
    if value in (None, "", "None") or _given(node.inputs, ("switch", "enabled", "on"), number) in ("Off", False):
        return
    name = text_of(graph, value, "lora_name", "lora") if isinstance(value, str | list) else None
    simple = "simple" in (node.inputs.get("input_mode"), node.inputs.get("mode"))
    given = _given(node.inputs, _SIMPLE_WEIGHTS if simple else _MODEL_WEIGHTS, number)
    given_text = None if simple else _given(node.inputs, _TEXT_WEIGHTS, number)
    weight = 1.0 if given is None else number_of(graph, given, *_MODEL_WEIGHTS)
    text_weight = number_of(graph, given_text, *_TEXT_WEIGHTS)
    if node.says("modelonly", "model only"):
        given_text, text_weight = 0.0, 0.0
    if name is None or weight is None or given_text is not None and text_weight is None:
        where = f"node {node.name[:20]} ({node.kind[:60]})"
        graph.note(f"LoRA: “{show(short(name or value))}” of {where}: its name or strength cannot be told")
        return
    if node.says("blockweight", "block weight"):
        graph.note(f"LoRA: “{show(short(name))}” has weights for parts of the model, which are left out")
    yield Lora(name, weight, text_weight)


def _given(inputs: Mapping[str, Any], names: tuple[str, ...], number: str | None) -> Any:
    ending = "" if number is None else f"_{number}"
    return next((inputs[name + ending] for name in names if name + ending in inputs), None)


def _listed(value: Any) -> Iterator[Lora]:
    entries = value.get("__value__", []) if isinstance(value, dict) else value
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("active", entry.get("on", True)):
            yield Lora(entry.get("name"), entry.get("strength", 1.0), entry.get("clipStrength"))
