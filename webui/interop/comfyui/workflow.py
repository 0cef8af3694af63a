"""ComfyUI's workflow, the graph as it is drawn on the page: nodes with values in order, links in a list, subgraphs.

It stands beside the graph that ran; alone it says less, since the values have no names in older files.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from webui.interop.comfyui.graph import MAX_DEPTH, MAX_NODES, Node
from webui.interop.found import Unreadable, read_object

# The values of ComfyUI's own nodes and of some that are widespread in their order, for files that do not name them.
WIDGETS = {
    "KSampler": ("seed", "control", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", "control", "steps", "cfg", "sampler_name", "scheduler", "start_at_step"),
        *("end_at_step", "return_with_leftover_noise"),
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "control", "cfg"),
    "RandomNoise": ("noise_seed", "control"),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "KSamplerSelect": ("sampler_name",),
    "CFGGuider": ("cfg",),
    "FluxGuidance": ("guidance",),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": (
        *("width", "height", "crop_w", "crop_h", "target_width", "target_height", "text_g", "text_l"),
    ),
    "CLIPTextEncodeSD3": ("clip_l", "clip_g", "t5xxl", "empty_padding"),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "ConditioningSetArea": ("width", "height", "x", "y", "strength"),
    "ConditioningSetAreaPercentage": ("width", "height", "x", "y", "strength"),
    "ConditioningSetAreaStrength": ("strength",),
    "PerturbedAttentionGuidance": ("scale",),
    "RescaleCFG": ("multiplier",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "VAELoader": ("vae_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "LatentUpscale": ("upscale_method", "width", "height", "crop"),
    "ImageScale": ("upscale_method", "width", "height", "crop"),
    "ControlNetLoader": ("control_net_name",),
    "LoadImage": ("image", "upload"),
    "PrimitiveNode": ("value", "control"),
    "PrimitiveString": ("value",),
    "PrimitiveStringMultiline": ("value",),
    "StringConcatenate": ("string_a", "string_b", "delimiter"),
    "KSampler (Efficient)": ("seed", "control", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "Efficient Loader": (
        *("ckpt_name", "vae_name", "clip_skip", "lora_name", "lora_model_strength", "lora_clip_strength"),
        *("positive", "negative", "token_normalization", "weight_interpretation"),
        *("empty_latent_width", "empty_latent_height", "batch_size"),
    ),
}
CONTROLS = ("fixed", "increment", "decrement", "randomize")
# Links that are not drawn: each getter has what leads into the setter of the same name.
GETTERS, SETTERS = ("GetNode", "easy getNode"), ("SetNode", "easy setNode")
MAX_SUBGRAPHS = 200
MUTED, BYPASSED = 2, 4
INPUT_NODE, OUTPUT_NODE = "-10", "-20"


def is_workflow(body: Any) -> bool:
    """Whether a JSON object is a workflow."""
    return isinstance(body, dict) and isinstance(body.get("nodes"), list) and "links" in body


def output_names(workflow: Any) -> dict[str, tuple[str, ...]]:
    """What the outputs of each node are called, by the node's name in the graph that ran; nothing for no workflow."""
    try:
        body = read_object(workflow, "workflow") if isinstance(workflow, str) else workflow
        return {node.name: node.outputs for node in nodes_of_workflow(body)} if is_workflow(body) else {}
    except Unreadable:
        return {}  # the graph that ran is complete without it


def nodes_of_workflow(body: Mapping[str, Any]) -> list[Node]:
    """The nodes of a workflow and of its subgraphs, whose nodes are named ``12:3``; raises Unreadable for too many."""
    definitions = body.get("definitions")
    listed = _dicts(definitions.get("subgraphs")) if isinstance(definitions, dict) else []
    subgraphs = {str(subgraph.get("id")): subgraph for subgraph in listed}
    scope = _Scope(body, "", subgraphs, None, None)
    nodes = []
    for node in scope.nodes(0):
        nodes.append(node)
        if len(nodes) > MAX_NODES:
            raise Unreadable(f"ComfyUI's workflow has more than {MAX_NODES:,} nodes; they are not read")
    return nodes


class _Scope:
    """The nodes and links of a workflow, or of a subgraph where it stands in another."""

    def __init__(
        self,
        body: Mapping[str, Any],
        prefix: str,
        subgraphs: Mapping[str, Mapping[str, Any]],
        parent: "_Scope | None",
        instance: Mapping[str, Any] | None,
    ) -> None:
        self.prefix, self.subgraphs, self.parent = prefix, subgraphs, parent
        self.opened: list[str] = parent.opened if parent else []  # every subgraph so far, for all together
        self.by_id = {str(node.get("id")): node for node in _dicts(body.get("nodes"))}
        self.links = dict(_links(body.get("links")))
        self.inputs = [str(entry.get("name")) for entry in _dicts(body.get("inputs"))]
        self.ends = dict(_ends(body.get("links")))
        self.given = {str(entry.get("name")): entry.get("link") for entry in _dicts((instance or {}).get("inputs"))}
        self.written = _widgets(instance or {}, "")
        setters = (node for node in self.by_id.values() if node.get("type") in SETTERS)
        self.setters = {_first_value(node): node for node in setters}
        self.everywhere = dict(self._everywhere())
        self._inner: dict[str, _Scope] = {}

    def nodes(self, depth: int) -> Iterator[Node]:
        if depth > 20:
            raise Unreadable("ComfyUI's workflow has subgraphs that are nested too deeply")
        for name, node in self.by_id.items():
            if node.get("mode") in (MUTED, BYPASSED):
                continue
            kind = str(node.get("type", ""))[:200]
            if kind in self.subgraphs:
                yield from self.inner(name, node, kind).nodes(depth + 1)
                continue
            inputs = {**_widgets(node, kind), **self._linked_inputs(node)}
            slots = _dicts(node.get("outputs"))
            outputs = tuple(str(slot.get("name") or slot.get("type") or "")[:60] for slot in slots)
            yield Node(self.prefix + name, kind, inputs, outputs)

    def inner(self, name: str, node: Mapping[str, Any], kind: str) -> "_Scope":
        if name not in self._inner:
            self.opened.append(kind)
            if len(self.opened) > MAX_SUBGRAPHS:
                raise Unreadable(f"ComfyUI's workflow has more than {MAX_SUBGRAPHS} subgraphs; they are not read")
            self._inner[name] = _Scope(self.subgraphs[kind], f"{self.prefix}{name}:", self.subgraphs, self, node)
        return self._inner[name]

    def _linked_inputs(self, node: Mapping[str, Any]) -> dict[str, Any]:
        inputs = {}
        for slot in _dicts(node.get("inputs")):
            name, link = str(slot.get("name", "")), slot.get("link")
            if link is None and "widget" not in slot:
                link = self.everywhere.get(name, self.everywhere.get(str(slot.get("type"))))
            if link is not None and (origin := self.origin(link, 0)) is not None:
                inputs[name] = origin
        return inputs

    def _everywhere(self) -> Iterator[tuple[str, Any]]:
        """What cg-use-everywhere sends to inputs that nothing is linked to: the links by name or type of the input."""
        for node in self.by_id.values():
            kind = str(node.get("type", ""))
            if "Everywhere" not in kind or node.get("mode") in (MUTED, BYPASSED):
                continue
            for place, slot in enumerate(_dicts(node.get("inputs"))):
                source, output = self.links.get(str(slot.get("link")), ("", 0))
                outputs = _dicts(self.by_id.get(source, {}).get("outputs"))
                if kind == "Prompts Everywhere" and place < 2:
                    yield ("positive", "negative")[place], slot.get("link")
                elif 0 <= output < len(outputs):
                    yield str(outputs[output].get("type")), slot["link"]

    def origin(self, link: Any, depth: int) -> Any:
        """Where a link comes from: ``[node, output]``, through subgraphs and past nodes that are bypassed.

        For what leads out of a subgraph that nothing is linked to, the value that is written there.
        """
        source, slot = self.links.get(str(link), ("", 0))
        if depth > MAX_DEPTH or not source:
            return None
        if source == INPUT_NODE and self.parent is not None:
            name = self.inputs[slot] if 0 <= slot < len(self.inputs) else ""
            given = self.given.get(name)
            return self.written.get(name) if given is None else self.parent.origin(given, depth + 1)
        node = self.by_id.get(source)
        if node is None or node.get("mode") == MUTED:
            return None
        if node.get("mode") == BYPASSED:
            return self._past(node, slot, depth)
        kind = str(node.get("type", ""))
        if kind in GETTERS:
            setter = self.setters.get(_first_value(node), {})
            given = next((slot.get("link") for slot in _dicts(setter.get("inputs"))), None)
            return self.origin(given, depth + 1)
        if kind in self.subgraphs:
            inner = self.inner(source, node, kind)
            return inner.origin(inner.ends.get(slot), depth + 1)
        return [self.prefix + source, slot]

    def _past(self, node: Mapping[str, Any], slot: int, depth: int) -> Any:
        """A bypassed node passes on its first input of the output's type."""
        outputs = _dicts(node.get("outputs"))
        kind = outputs[slot].get("type") if 0 <= slot < len(outputs) else None
        for entry in _dicts(node.get("inputs"))[:MAX_DEPTH]:
            if entry.get("type") == kind and entry.get("link") is not None:
                return self.origin(entry["link"], depth + 1)
        return None


def _links(links: Any) -> Iterator[tuple[str, tuple[str, int]]]:
    """Each link's number, and the node and output it comes from; lists in workflows, objects in subgraphs."""
    for link in links if isinstance(links, list) else []:
        if isinstance(link, list) and len(link) > 2 and isinstance(link[2], int):
            yield str(link[0]), (str(link[1]), link[2])
        elif isinstance(link, dict) and isinstance(link.get("origin_slot"), int):
            yield str(link.get("id")), (str(link.get("origin_id")), link["origin_slot"])


def _ends(links: Any) -> Iterator[tuple[int, str]]:
    """The outputs of a subgraph, each with the number of the link that leads to it."""
    for link in _dicts(links):
        if str(link.get("target_id")) == OUTPUT_NODE and isinstance(link.get("target_slot"), int):
            yield link["target_slot"], str(link.get("id"))


def _first_value(node: Mapping[str, Any]) -> str:
    values = node.get("widgets_values")
    return str(values[0])[:200] if isinstance(values, list) and values else ""


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _widgets(node: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The values of a node by name: as it names them itself, or as ComfyUI's own nodes have them."""
    values = node.get("widgets_values")
    if isinstance(values, dict):
        return values
    if not isinstance(values, list):
        return {}
    if kind in WIDGETS:
        return dict(zip(WIDGETS[kind], values, strict=False))
    named: dict[str, Any] = {
        f"lora_{place}": value for place, value in enumerate(values) if isinstance(value, dict) and "lora" in value
    }
    place = 0
    for entry in _dicts(node.get("inputs")):
        widget = entry.get("widget")
        if isinstance(widget, dict) and place < len(values):
            named[str(widget.get("name"))] = values[place]
            place += 1
            if "seed" in str(widget.get("name")) and place < len(values) and values[place] in CONTROLS:
                place += 1
    return named
