"""Texts and numbers of a graph: written into a node, or linked to nodes that hold, join or pass them on."""

import re
from typing import Any

from webui.interop.comfyui.graph import MAX_DEPTH, Graph, Node

MAX_CHARACTERS = 20_000
MAX_NUMBER = 10**30
# What a node that holds a text calls it.
TEXT_NAMES: tuple[str, ...] = (
    "populated_text",
    "value",
    "text",
    "string",
    "prompt",
    "text_positive",
    "positive",
    "result",
    "content",
)
TEXT_NAMES += ("multiline_text", "positive_prompt", "user_prompt", "str")
NUMBER_NAMES = ("value", "int", "float", "number", "seed", "val")
# Kinds whose output is not what is written into them.
CHANGING: tuple[str, ...] = (
    "random",
    "wildcard",
    "llm",
    "gpt",
    "ollama",
    "gemini",
    "caption",
    "florence",
    "tagger",
    "translat",
    "replace",
)
CHANGING += ("regex", "interrogat", "enhanc", "generat", "dynamic", "styler", "stylist", "split", "slice", "substring")
CHANGING += ("lower", "upper", "format", "template", "math", "operation", "calculat", "expression", "batch", "list")
CHANGING += ("prefix", "suffix", "stylesselector")
_JOINING = ("concat", "join", "append", "combine", "stringfunction", "merge")
_PART = re.compile(r"(?:text|string|str|prompt|input|part)[ _]?([a-z]|\d{1,3})")


def text_of(graph: Graph, value: Any, *names: str, depth: int = 0) -> str | None:
    """The text of an input; ``names`` are what a node that holds it may call it. None, and a note, where it is none."""
    if isinstance(value, str):
        return value if len(value) <= MAX_CHARACTERS else None
    linked = graph.linked(value)
    if linked is None or depth > MAX_DEPTH:
        return None
    node, slot = linked
    if linked not in graph.texts:
        graph.texts[linked] = None  # for whatever leads back to itself
        noted = len(graph.notes)
        text = _joined(graph, node, depth) if node.says(*_JOINING) else _held(graph, node, slot, names, depth)
        graph.texts[linked] = text if text is None or len(text) <= MAX_CHARACTERS else None
        if graph.texts[linked] is None and len(graph.notes) == noted:
            graph.note(f"text: what node {node.name[:20]} ({node.kind[:60]}) makes of it is not in the file")
    return graph.texts[linked]


def _held(graph: Graph, node: Node, slot: int, names: tuple[str, ...], depth: int) -> str | None:
    """The text that a node holds or passes on; of several texts the one that belongs to the output."""
    inputs = {str(name).casefold(): value for name, value in node.inputs.items()}
    if isinstance(populated := inputs.get("populated_text"), str):  # with its wildcards drawn
        return populated
    if (chosen := graph.chosen(node)) is not None:
        return text_of(graph, chosen, *names, depth=depth + 1)
    if node.says(*CHANGING) and not inputs.keys() & set(names):
        return None
    held = [name for name in (*names, *TEXT_NAMES) if name in inputs]
    if slot > 0 and held:
        output = node.outputs[slot].casefold() if slot < len(node.outputs) else ""
        texts = [name for name in inputs if re.fullmatch(r"(text|string|prompt)(_?[a-z0-9])?|positive|negative", name)]
        texts = [name for name in inputs if name in ("text_positive", "text_negative")] or texts
        if output in inputs:
            held = [output]
        elif len(texts) > 1:
            held = texts[slot : slot + 1]
    value = inputs[held[0]] if held else graph.passed_on(node)
    return text_of(graph, value, *names, depth=depth + 1)


def _joined(graph: Graph, node: Node, depth: int) -> str | None:
    """The texts that a node strings together, in the order of the letters or numbers behind their names."""
    parts = {}
    for name, value in node.inputs.items():
        if value is not None and (match := _PART.fullmatch(str(name).casefold())):
            parts[match[1].rjust(3), str(name)] = value
    if not parts or node.inputs.get("action", "append") != "append":
        return None
    tidy = ", " if node.inputs.get("tidy_tags") in ("yes", True) else ""
    between = text_of(graph, node.inputs.get("delimiter", node.inputs.get("separator", tidy)), depth=depth + 1)
    texts = [text_of(graph, parts[key], depth=depth + 1) for key in sorted(parts)]
    known = [text for text in texts if text is not None]
    if between is None or len(known) < len(texts):
        return None
    if node.inputs.get("clean_whitespace") == "true":
        known = [text.strip() for text in known]
    between = between.replace("\\n", "\n")
    return between.join(text for text in known if text or not between.strip())


def number_of(graph: Graph, value: Any, *names: str) -> int | float | None:
    """The number of an input; ``names`` are what a node that holds it may call it. None where it cannot be told."""
    for _ in range(MAX_DEPTH):
        if isinstance(value, bool) or value is None:
            return None
        if isinstance(value, int | float):
            return value if abs(value) < MAX_NUMBER else None  # neither endless nor no number
        if isinstance(value, str):
            return _parse(value)
        linked = graph.linked(value)
        if linked is None:
            return None
        node = linked[0]
        held = {str(name).casefold(): held for name, held in node.inputs.items()}
        value = next((held[name] for name in (*names, *NUMBER_NAMES) if name in held), None)
        if node.says(*CHANGING) and not set(names) & held.keys():
            value = None
        elif value is None:
            value = graph.passed_on(node)
    return None


def _parse(text: str) -> int | float | None:
    match = re.fullmatch(r"\s*-?(\d{1,20})(\.\d{1,20})?\s*", text[:60])
    return None if match is None else float(text) if match[2] else int(text)
