"""From the texts of ComfyUI's pictures to settings: which graph, which of its samplers, and what else it did."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from webui.interop.comfyui.graph import Graph, Node
from webui.interop.comfyui.sampler import is_sampler, latents, read_sampler
from webui.interop.comfyui.values import text_of
from webui.interop.comfyui.workflow import is_workflow, nodes_of_workflow, output_names
from webui.interop.found import Found, Unreadable, read_object, short

NO_SAMPLER = "ComfyUI's graph has no sampler node (with a prompt, steps, and how to take them) that can be read"
MAX_LISTED = 10
MAX_SAVERS = 4  # that are looked at beside the one whose picture is read
# What is named by nodes on the way to the picture and done by none of ours: the input's name, and what people call it.
NOTABLE = {
    "control_net_name": "ControlNet",
    "ipadapter_file": "IP-Adapter",
    "style_model_name": "style model",
    "upscale_model": "upscaler",
    "upscale_model_name": "upscaler",
    "instantid_file": "InstantID",
    "hypernetwork_name": "hypernetwork",
    "model2": "merged model",
}
CIVITAI = {
    "prompt": "prompt",
    "negativePrompt": "negative",
    "steps": "steps",
    "cfgScale": "guidance",
    "sampler": "sampler",
    "seed": "seed",
    "width": "width",
    "height": "height",
    "clipSkip": "clip_skip",
}


def is_comfyui(body: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a graph as it ran, a workflow, or an object with either of them."""
    inner = body.get("prompt")
    return _is_graph(body) or is_workflow(body) or _is_graph(inner) or "workflow" in body and "prompt" in body


def _is_graph(body: Any) -> bool:
    return isinstance(body, dict) and any(isinstance(node, dict) and "class_type" in node for node in body.values())


def read_comfyui(body: Mapping[str, Any], texts: Mapping[str, str]) -> Found:
    """What the graph says, with the help of the workflow beside it; raises Unreadable."""
    try:
        return _read(body, texts)
    except Unreadable as error:
        raise Unreadable(str(error), "ComfyUI") from None


def _read(body: Mapping[str, Any], texts: Mapping[str, str]) -> Found:
    if is_workflow(body):
        return _read_graph(Graph(nodes_of_workflow(body)))
    workflow = body.get("workflow", texts.get("workflow"))
    if not _is_graph(body) and "prompt" in body:
        body = _as_object(body["prompt"], "prompt")
        if not _is_graph(body):
            return _read_graph(Graph(nodes_of_workflow(_as_object(workflow, "workflow"))))
    found = _read_graph(Graph(_nodes(body, output_names(workflow))))
    if "extraMetadata" in body:
        _add_civitai(found, body["extraMetadata"])
    return found


def _as_object(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, str):
        return read_object(value, name)
    if not isinstance(value, dict):
        raise Unreadable(f"ComfyUI's {name} is not a JSON object")
    return value


def _nodes(body: Mapping[str, Any], outputs: Mapping[str, tuple[str, ...]]) -> Iterator[Node]:
    for name, node in body.items():
        if isinstance(node, dict):
            inputs = node.get("inputs")
            kind = str(node.get("class_type", ""))[:200]
            yield Node(str(name), kind, inputs if isinstance(inputs, dict) else {}, outputs.get(str(name), ()))


def _read_graph(graph: Graph) -> Found:
    samplers = [node for node in graph.nodes.values() if is_sampler(node)]
    if not samplers:
        raise Unreadable(NO_SAMPLER)
    saved, chain = _saved_chain(graph)
    chosen = chain[-1] if chain else samplers[0]
    drawing = read_sampler(graph, chosen)
    found = Found("ComfyUI", dict(drawing.values), drawing.loras)
    if saved is not None:
        _add_vae(graph, saved, found)
    elif len(samplers) > 1:
        found.unmapped.append("its graph saves no picture; the first sampler is read")
    found.unmapped += graph.notes
    found.unmapped += _notable(graph, saved or chosen)
    others = [*reversed(chain[:-1]), *(node for node in samplers if node not in chain and node is not chosen)]
    for node in others[:MAX_LISTED]:
        told = ", ".join(
            f"{key} {short(node.inputs[key], 30)}"
            for key in ("sampler_name", "steps", "denoise", "start_at_step")
            if key in node.inputs and not isinstance(node.inputs[key], list)
        )
        where = "another sampler" if node in chain else "a sampler beside it"
        found.unmapped.append(f"{where}, node {node.name[:20]} ({node.kind[:60]}): {told}")
    if len(others) > MAX_LISTED:
        found.unmapped.append(f"... and {len(others) - MAX_LISTED} more samplers")
    return found


def _saved_chain(graph: Graph) -> tuple[Node | None, list[Node]]:
    """A node that saves the picture, and the samplers on the way to it, the last one first.

    Nodes that save come before those that only show; where several save other pictures, a note says which one is read.
    """
    savers = [node for node in graph.nodes.values() if node.says("save", "preview", "output", "display")]
    savers = [node for node in savers if not is_sampler(node)]
    savers.sort(key=lambda node: (not node.says("save"), node.kind != "SaveImage"))
    chains = ((saver, _samplers_behind(graph, saver)) for saver in savers)
    saved, chain = next(((saver, found) for saver, found in chains if found), (None, []))
    for saver, other in islice(chains, MAX_SAVERS):
        if saved and saver.says("save") and other and other[-1] is not chain[-1]:
            graph.note(f"its graph saves several pictures; that of node {saved.name[:20]} is read")
    return saved, chain


def _samplers_behind(graph: Graph, saver: Node) -> list[Node]:
    return [node for node in graph.upstream(_pictures(saver), _towards_pictures) if is_sampler(node)]


def _pictures(node: Node) -> list[Any]:
    return [value for value in node.inputs.values() if isinstance(value, list)]


def _towards_pictures(node: Node) -> list[Any]:
    """From a sampler only by what it starts from, so that those before it in time come behind it here."""
    return latents(node) if is_sampler(node) else [*node.inputs.values()]


def _add_vae(graph: Graph, saved: Node, found: Found) -> None:
    """The autoencoder of the decoding that is nearest to the saved picture, where it is a file of its own."""
    for node in graph.upstream(_pictures(saved)):
        if "samples" in node.inputs and "vae" in node.inputs:
            loader = graph.source(node.inputs["vae"], ("vae_name",))
            found.put("vae", text_of(graph, loader.inputs["vae_name"], "vae_name") if loader else None)
            return


def _notable(graph: Graph, end: Node) -> list[str]:
    """Lines for files that are used and do nothing here."""
    lines: dict[str, None] = {}
    for node in graph.upstream(_pictures(end)):
        for key, what in NOTABLE.items():
            if isinstance(name := node.inputs.get(key), str):
                lines[f"{what}: {short(name, 100)}"] = None
    return [*lines][:MAX_LISTED]


def _add_civitai(found: Found, extra: Any) -> None:
    """What civitai's generator says beside its graph, for what the graph does not."""
    try:
        said = json.loads(extra) if isinstance(extra, str) else extra
    except (ValueError, RecursionError):
        return
    if isinstance(said, dict):
        found.take({name: value for name, value in said.items() if name in CIVITAI}, CIVITAI)
        for resource in said["resources"][:MAX_LISTED] if isinstance(said.get("resources"), list) else []:
            found.note("Civitai's resource", resource)
