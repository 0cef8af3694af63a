"""Prompts of a graph: from a sampler's positive and negative input back to the texts that were encoded.

Each node is looked at once for each of its outputs, so a graph in which many ways lead to one text costs no more.
"""

import re
from typing import Any, Literal

from webui.interop.comfyui.graph import MAX_DEPTH, Graph, Node
from webui.interop.comfyui.values import number_of, text_of

Side = Literal["positive", "negative"]
NEGATIVES = ("negative", "neg_conditioning", "negative_conditioning", "text_negative", "negative_prompt", "neg")
POSITIVES: tuple[str, ...] = (
    "positive",
    "conditioning",
    "pos_conditioning",
    "text_positive",
    "positive_prompt",
    "cond1",
    "pos",
    "prompt",
)
# The texts that an encoder takes, the one that says most first; the others are listed where they differ.
ENCODED: tuple[str, ...] = (
    "populated_text",
    "text",
    "text_g",
    "text_l",
    "t5xxl",
    "clip_l",
    "clip_g",
    "prompt",
    "user_prompt",
    "mt5xl",
)
ENCODED += ("bert", "text_positive", "string", "wildcard_text", "caption")
_CONDITIONING = re.compile(r"cond(itioning)?[ _]?\w*|c\d{1,2}", re.I)
_SIDES: dict[Side, re.Pattern[str]] = {
    "positive": re.compile(r"(^|_)pos(itive)?(_|$)", re.I),
    "negative": re.compile(r"(^|_)neg(ative)?(_|$)", re.I),
}
# Inputs that lead elsewhere than to a prompt.
ELSEWHERE = re.compile(
    r"(model|clip|vae|control|image|mask|latent|samples|pixels|style|gligen|ipadapter|lora|insight|noise|sigmas)\w*",
    re.I,
)
PIPES = ("pipe", "basic_pipe", "sdxl_pipe", "context", "base_ctx", "ctx", "bus")
MODELS = ("model", "clip", "ckpt_name", *PIPES)
PARTLY = ("setarea", "setmask", "timesteprange", "gligen", "setproperties", "regional", "couple")


class Prompts:
    """Reads the prompts of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[tuple[str, int, Side], str | None] = {}

    def read(self, value: Any, side: Side, depth: int = 0) -> str | None:
        """The prompt behind an input, "" for one that is thrown away; None where it cannot be told."""
        linked = self._graph.linked(value)
        if linked is None:
            return value if isinstance(value, str) else None
        node, slot = linked
        key = (node.name, slot, side)
        if key not in self._known and depth < MAX_DEPTH:
            self._known[key] = None  # for whatever leads back to itself
            self._known[key] = self._read_node(node, slot, side, depth + 1)
        return self._known.get(key)

    def _read_node(self, node: Node, slot: int, side: Side, depth: int) -> str | None:
        if node.says("zeroout", "zero out", "zero_out"):
            return ""
        if (chosen := self._graph.chosen(node)) is not None:
            return self.read(chosen, side, depth)
        by_side = {name: given for name in _SIDES if (given := self._find(node, name)) is not None}
        if len(by_side) == 2:
            side = self._side_of(node, slot, side)
            return self.read(by_side[side], side, depth)
        pipe = next((node.inputs[name] for name in PIPES if self._graph.linked(node.inputs.get(name))), None)
        if pipe is not None:  # what the node is given itself goes before what comes with the others
            return self.read(by_side.get(self._side_of(node, slot, side), pipe), side, depth)
        links = sorted(self._graph.links(node), key=lambda link: str(link[0]).endswith("_from"))  # behind "_to"
        conditionings = [value for name, value in links if _CONDITIONING.fullmatch(str(name))]
        if conditionings:
            return self._read_several(node, conditionings, side, depth)
        if any(name in node.inputs for name in ENCODED):
            return self._read_texts(node)
        others = [value for name, value in links if not ELSEWHERE.fullmatch(str(name))]
        return self._read_several(node, others, side, depth) if others else text_of(self._graph, [node.name, slot])

    def _find(self, node: Node, side: Side) -> Any:
        """What a node takes for one side, a link or a text; by a name that is known, or that says so."""
        said = [name for name in node.inputs if _SIDES[side].search(str(name))]
        for name in (*(NEGATIVES if side == "negative" else POSITIVES), *said):
            value = node.inputs.get(name)
            if isinstance(value, str) or self._graph.linked(value):
                return value
        return None

    def _side_of(self, node: Node, slot: int, side: Side) -> Side:
        """Which of the two an output gives: as the workflow calls it, else the first or the second.

        A node that takes a model gives that first, so there the sampler's own word counts.
        """
        name = node.outputs[slot].casefold() if 0 <= slot < len(node.outputs) else ""
        for word, said in (("neg", "negative"), ("-", "negative"), ("pos", "positive"), ("+", "positive")):
            if word in name:
                return "negative" if said == "negative" else "positive"
        if any(name in node.inputs for name in MODELS):
            return side
        return "positive" if slot == 0 else "negative" if slot == 1 else side

    def _read_several(self, node: Node, values: list[Any], side: Side, depth: int) -> str | None:
        """What one or several conditionings come to. Chained ones are what BREAK stands between here."""
        texts = [self.read(value, side, depth) for value in values]
        if any(text is None for text in texts):
            return None
        kept = [*dict.fromkeys(text for text in texts if text)]
        where = f"node {node.name[:20]} ({node.kind[:60]})"
        if node.says(*PARTLY) and kept:
            self._graph.note(f"{side}: {where} uses a part of it only in some places or for some steps")
        if "guidance" in node.inputs and (guidance := number_of(self._graph, node.inputs["guidance"])) is not None:
            self._graph.note(f"{node.kind[:60]}: guidance {guidance:g}")
        if len(kept) > 1 and not node.says("concat"):
            self._graph.note(f"{side}: {where} mixes {len(kept)} prompts; here they are one")
        joined = (" BREAK " if node.says("concat") else ", ").join(kept)
        return joined if len(joined) <= 20_000 else None

    def _read_texts(self, node: Node) -> str | None:
        names = [name for name in ENCODED if name in node.inputs]
        texts = {name: text_of(self._graph, node.inputs[name]) for name in names}
        first = next((name for name in names if texts[name]), names[0])
        for name, text in texts.items():
            if name != first and text and text != texts[first]:
                self._graph.note(f"{name} of node {node.name[:20]} ({node.kind[:60]}): {text[:160]}")
        text = texts[first]
        return text if text is None or not _is_plain(node) else self._as_plain(text)

    def _as_plain(self, text: str) -> str:
        """ComfyUI's own encoders know no square brackets and no LoRA tags, and write ``embedding:`` before a name."""
        if tags := re.findall(r"<lora:[^<>]{1,200}>", text, re.I):
            self._graph.note(f"prompt: {', '.join(tags)[:160]} does nothing in ComfyUI, and is left out")
            text = re.sub(r"<lora:[^<>]{1,200}>", "", text, flags=re.I).strip()
        text = re.sub(r"\bembedding:([^\s,:()<>]{1,200})", lambda match: _without_ending(match[1]), text, flags=re.I)
        return re.sub(r"(?<!\\)([\[\]])", r"\\\1", text)


def _is_plain(node: Node) -> bool:
    return node.kind.startswith(("CLIPTextEncode", "TextEncode"))


def _without_ending(name: str) -> str:
    return re.sub(r"\.(pt|bin|safetensors)$", "", name, flags=re.I)
