"""One sampler of a graph with all that it is told: ComfyUI's own or a custom node's, known by its inputs."""

import re
from dataclasses import dataclass, field
from typing import Any

from webui.core.errors import show
from webui.interop.comfyui.areas import read_areas
from webui.interop.comfyui.conditioning import NEGATIVES, PIPES, POSITIVES, Prompts, Side
from webui.interop.comfyui.graph import MAX_DEPTH, Graph, Node
from webui.interop.comfyui.loras import loras_of
from webui.interop.comfyui.values import number_of, text_of
from webui.interop.found import Lora, read_size, short

PROMPTED = (*POSITIVES, *NEGATIVES, "guider", "text_embeds", *PIPES)
TIMED = ("steps", "sigmas")
DRAWN = ("sampler_name", "sampler", "scheduler", "seed", "noise_seed", "noise", "cfg")
LATENTS: tuple[str, ...] = (
    "latent_image",
    "latent",
    "latents",
    "samples",
    "optional_latent",
    "init_latent",
    "image",
    "images",
    "pixels",
)
MODEL_NAMES = ("ckpt_name", "unet_name", "model_name", "base_ckpt_name", "model_path", "gguf_name", "diffusion_model")
NUMBERS = {
    "seed": ("seed", "noise_seed"),
    "steps": ("steps",),
    "guidance": ("cfg", "cfg_conds", "guidance_scale"),
    "strength": ("denoise", "denoise_strength"),
}
GUIDING = {
    "PerturbedAttentionGuidance": ("scale", "pag.scale"),
    "RescaleCFG": ("multiplier", "guidance_rescale"),
}
"""The kind of a node: its number, and the field that it is."""
_SAVER = re.compile(r"saver|save[ _]?image|image[ _]?save", re.I)
ONWARD = ("model", "model1", "opt_model")
SIZES = (("width", "height"), ("empty_latent_width", "empty_latent_height"), ("W", "H"))

_SIZE = re.compile(r"\d{2,5}\s{0,3}[xX*×]\s{0,3}\d{2,5}(?!\d)")
_NO_PICTURE = re.compile(r"model|clip|vae|positive|negative|cond|control|mask")


def is_sampler(node: Node) -> bool:
    """Whether a node draws: it is given a prompt, steps, and how to take them."""
    has_prompt, has_steps, has_way = (any(name in node.inputs for name in names) for names in (PROMPTED, TIMED, DRAWN))
    draws = has_steps and has_way and (has_prompt or node.says("ksampler", "samplercustom"))
    return draws and _SAVER.search(node.kind) is None  # which is told all of it for its texts


@dataclass
class Drawing:
    """What one sampler was told, by the names of the request's fields."""

    values: dict[str, Any] = field(default_factory=dict)
    loras: list[Lora] = field(default_factory=list)

    def put(self, name: str, value: Any) -> None:
        if value is not None:
            self.values.setdefault(name, value)


def read_sampler(graph: Graph, node: Node) -> Drawing:
    """Everything behind the inputs of a sampler; what cannot be told is a note of the graph's, and no value."""
    drawing = Drawing()
    guider = graph.source(node.inputs.get("guider"), (*POSITIVES, *NEGATIVES, "cfg"), "guider")
    told = {**(guider.inputs if guider else {}), **node.inputs}
    if guider and guider.says("basicguider", "nagguider"):  # the prompt alone
        drawing.put("guidance", 1.0)
    _read_numbers(graph, node, told, drawing)
    prompts = Prompts(graph)
    _read_nag(graph, prompts, told, drawing)
    _read_model(graph, told, drawing)
    _read_size(graph, node, drawing)
    _read_prompts(graph, prompts, node, told, drawing)
    return drawing


def _read_prompts(graph: Graph, prompts: Prompts, node: Node, told: dict[str, Any], drawing: Drawing) -> None:
    """Both sides, the positive one by area where that can be told."""
    value = next((told[key] for key in POSITIVES if key in told), None)
    width, height = (drawing.values.get(side) for side in ("width", "height"))
    if width and height and (areas := read_areas(graph, prompts, value, (width, height))):
        drawing.put("prompt", areas[0])
        drawing.put("regions", areas[1])
    sides: tuple[tuple[str, Side, tuple[str, ...]], ...] = (
        ("prompt", "positive", POSITIVES),
        ("negative", "negative", NEGATIVES),
    )
    for name, side, names in sides:
        if name in drawing.values:
            continue
        given = next((told[key] for key in (*names, *PIPES) if key in told), None)
        text = prompts.read(given, side)
        drawing.put(name, text)
        if text is None and (given is not None or name == "prompt"):
            graph.note(f"{name}: node {node.name[:20]} ({node.kind[:60]}) leads to no text that can be read")


def _read_nag(graph: Graph, prompts: Prompts, told: dict[str, Any], drawing: Drawing) -> None:
    """NAG of samplers and guiders that have it (ComfyUI-NAG). At guidance 1 their one negative prompt is that of it."""
    numbers = {name: number_of(graph, told.get(f"nag_{name}"), f"nag_{name}") for name in ("scale", "tau", "alpha")}
    if None in numbers.values() or (numbers["scale"] or 0) <= 1:
        return
    for name, number in numbers.items():
        drawing.put(f"nag.{name}", number)
    negative = prompts.read(told.get("nag_negative"), "negative")
    if negative is not None and drawing.values.get("guidance") == 1:
        drawing.put("negative", negative)
    elif negative:
        graph.note(f"NAG's own negative prompt: {negative[:160]}")
    if until := number_of(graph, told.get("nag_sigma_end"), "nag_sigma_end"):
        graph.note(f"NAG: until sigma {until:g} there; here to the end")


def _read_guiding(graph: Graph, node: Node, drawing: Drawing) -> bool:
    """What guides beside guidance, of nodes of ComfyUI's own that change the model; whether it was one of these."""
    if (found := GUIDING.get(node.kind)) is None or found[1] in drawing.values:
        return False
    if (number := number_of(graph, node.inputs.get(found[0]), found[0])) is None:
        return False
    if number:
        drawing.put(found[1], number)
    if node.kind == "RescaleCFG":
        graph.note("RescaleCFG: of a model that predicts noise it is computed in another way there")
    return True


def _read_numbers(graph: Graph, node: Node, told: dict[str, Any], drawing: Drawing) -> None:
    sigmas = graph.source(node.inputs.get("sigmas"), ("steps",), "sigmas", "sigmas_1")
    noise = graph.source(node.inputs.get("noise"), ("noise_seed", "seed"), "noise", "noise1")
    method = graph.source(node.inputs.get("sampler"), ("sampler_name",), "sampler")
    timed = {**(sigmas.inputs if sigmas else {}), **told}
    drawn = {**(noise.inputs if noise else {}), **(method.inputs if method else {}), **timed}
    for name, keys in NUMBERS.items():
        given = next((drawn[key] for key in keys if key in drawn), None)
        number = number_of(graph, given, *keys)
        drawing.put(name, number)
        if given is not None and number is None:
            graph.note(f"{name}: comes from another node, and cannot be told")
    if sigmas and (first := graph.linked(node.inputs.get("sigmas"))) and first[0] is not sigmas:
        graph.note(f"steps: changed on their way by {first[0].kind[:60]}")
    drawing.put("sampler", _name_of(graph, drawn.get("sampler_name"), node.inputs.get("sampler"), "Sampler"))
    drawing.put("schedule", _name_of(graph, timed.get("scheduler"), node.inputs.get("sigmas"), "Scheduler"))
    for name in ("start_at_step", "end_at_step"):
        step = number_of(graph, told.get(name), name)
        if step and step < drawing.values.get("steps", 0):
            graph.note(f"{name}: {step}")
    if node.inputs.get("add_noise") in ("disable", False):
        graph.note("add_noise: disable")


def _name_of(graph: Graph, given: Any, link: Any, word: str) -> str | None:
    """A sampler's or a schedule's name: said, or that of the kind of node that it comes from."""
    if given is not None:
        names = ("sampler_name", "sampler") if word == "Sampler" else ("scheduler", "schedule")
        name = text_of(graph, given, *names)
        return f"of node {given[0]}" if name is None and graph.linked(given) else name
    linked = graph.linked(link)
    return re.sub(rf"^{word}|{word}$|^KSampler$", "", linked[0].kind)[:80] if linked else None


def _read_model(graph: Graph, told: dict[str, Any], drawing: Drawing) -> None:
    """From the model's input through LoRAs and whatever changes it to the file."""
    value = given = next((told[key] for key in ("model", *PIPES) if key in told), None)
    changed: list[str] = []
    seen: list[Node] = []
    while len(seen) < MAX_DEPTH:
        linked = graph.linked(value)
        if linked is None or linked[0] in seen:
            break
        node = linked[0]
        seen.append(node)
        loras = loras_of(graph, node)
        drawing.loras[:0] = loras
        named = next((node.inputs[name] for name in MODEL_NAMES if name in node.inputs), None)
        onward = next((node.inputs[name] for name in (*ONWARD, *PIPES) if graph.linked(node.inputs.get(name))), None)
        if named is not None and onward is None:
            named = named.get("content") if isinstance(named, dict) else named
            drawing.put("model", text_of(graph, named, *MODEL_NAMES))
            drawing.put("vae", _written(node.inputs.get("vae_name")))
            layer = node.inputs.get("clip_skip", node.inputs.get("stop_at_clip_layer"))
            _put_clip_skip(graph, layer, drawing)
            break
        passes = node.says("reroute", "pipe", "context", "lora", "power")
        if not loras and onward is not None and not passes and not _read_guiding(graph, node, drawing):
            changed.append(node.kind[:40])
        value = onward if onward is not None else graph.passed_on(node)
    if given is not None and "model" not in drawing.values:
        graph.note("model: leads to no file that can be read")
    if changed:
        graph.note(f"model: changed on its way by {', '.join(changed)}")
    _read_clip(graph, told, drawing, seen)


def _read_clip(graph: Graph, told: dict[str, Any], drawing: Drawing, seen: list[Node]) -> None:
    """Clip skip, from the node between text encoder and loader that sets it; a note for LoRAs beside those ``seen``."""
    value = next((told[key] for key in (*POSITIVES, *PIPES) if key in told), None)
    for node in graph.upstream([value], lambda node: [node.inputs[name] for name in node.inputs if name != "model"]):
        if "stop_at_clip_layer" in node.inputs:
            _put_clip_skip(graph, node.inputs["stop_at_clip_layer"], drawing)
        elif "lora_name" in node.inputs and "clip" in node.inputs and node not in seen:
            name = short(node.inputs["lora_name"], 80)
            graph.note(f"LoRA: “{show(name)}” of node {node.name[:20]} changes the text encoder alone, and is left out")


def _put_clip_skip(graph: Graph, layer: Any, drawing: Drawing) -> None:
    """ComfyUI counts from the end: -1 is the last layer."""
    number = number_of(graph, layer, "stop_at_clip_layer", "clip_skip")
    if isinstance(number, int) and number < 0:
        drawing.put("clip_skip", -number)


def _written(name: Any) -> str | None:
    return name if isinstance(name, str) and name != "Baked VAE" else None


def latents(node: Node) -> list[Any]:
    """The links by which a picture comes into a node, or all that could be one where none is called so."""
    named = [node.inputs[name] for name in LATENTS if isinstance(node.inputs.get(name), list)]
    return named or [value for name, value in node.inputs.items() if not _NO_PICTURE.match(str(name))]


def _read_size(graph: Graph, node: Node, drawing: Drawing) -> None:
    """The size of the empty latents or of the picture that the sampler starts from, nearest first."""
    links = [node.inputs[name] for name in (*LATENTS, *PIPES) if graph.linked(node.inputs.get(name))]
    started = False
    for found in graph.upstream(links, latents):
        if found.says("loadimage", "load image") and not started:
            started = True
            graph.note(f"start picture: “{show(short(found.inputs.get('image', '')))}” is not in this file")
        if "width" in drawing.values:
            continue
        if size := _size_of(graph, found):
            drawing.values |= {"width": size[0], "height": size[1]}
    if drawing.values.get("strength") == 1 and not started:
        del drawing.values["strength"]  # it starts from nothing


def _size_of(graph: Graph, node: Node) -> tuple[int, int] | None:
    """Width and height of a node that makes or scales a picture: those of a list, or else its numbers."""
    if size := _listed_size(node):
        return size
    for across, down in SIZES:
        linked = graph.linked(node.inputs.get(across))
        if linked and (size := _listed_size(linked[0])):
            return size
        width = number_of(graph, node.inputs.get(across), across)
        height = number_of(graph, node.inputs.get(down), down)
        if width and height and width >= 16 and height >= 16:
            return int(width), int(height)
    return None


def _listed_size(node: Node) -> tuple[int, int] | None:
    """The size in an entry that was chosen, such as "3:4 portrait 896x1152"; its numbers do not count beside it."""
    for name in ("dimensions", "resolution", "aspect_ratio"):
        said = node.inputs.get(name)
        match = _SIZE.search(said[:100]) if isinstance(said, str) else None
        if match and (size := read_size(match[0])):
            return size[::-1] if node.inputs.get("swap_dimensions") == "On" else size
    return None
