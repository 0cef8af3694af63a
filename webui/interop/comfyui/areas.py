"""Prompts by area of a graph: ComfyUI's own nodes that set one, as regions.

There a conditioning for an area counts with its strength s beside g, that of those for everything, and the sum is
divided by all that count at a place. So an area has s / (g + s) of its place, and all of it where nothing is for
everything. Its edge goes in a line over eight cells of the latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from webui.core.groups.region import MAX_FEATHER, MAX_REGIONS
from webui.core.images import LATENT_STEP_PX, Size
from webui.interop.comfyui.conditioning import Prompts
from webui.interop.comfyui.graph import MAX_DEPTH, Graph, Node
from webui.interop.comfyui.values import number_of

COMBINE = "ConditioningCombine"
SHARES, PIXELS, STRENGTH = "ConditioningSetAreaPercentage", "ConditioningSetArea", "ConditioningSetAreaStrength"
EDGE_PX = 64

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Part:
    """One conditioning: a link to its text, the box that it is for, None for everything, and how much it counts."""

    link: Any
    box: Box | None = None
    strength: float = 1.0


def read_areas(graph: Graph, prompts: Prompts, value: Any, size: Size) -> tuple[str, list[dict[str, Any]]] | None:
    """The prompt for everything and the regions behind a sampler's positive input, for a picture of (width, height) px.

    None where no area is set, or where regions would not come to the same.
    """
    parts = _parts(graph, value, size, 0) or []
    areas = [part for part in parts if part.box and part.strength > 0]
    whole = [part for part in parts if part.box is None]
    alone = not whole and _cover_all([part.box for part in areas if part.box])
    if not 0 < len(areas) <= MAX_REGIONS or not (whole or alone and len({part.strength for part in areas}) == 1):
        return None
    texts = [prompts.read(part.link, "positive") for part in areas]
    everywhere = [prompts.read(part.link, "positive") for part in whole]
    if None in everywhere or not all(texts):
        return None
    beside = sum(part.strength for part in whole)
    feather = min(round(EDGE_PX / min(size), 4), MAX_FEATHER) if whole else 0.0
    regions = [
        {"box": part.box, "prompt": text, "weight": round(part.strength / (beside + part.strength), 4)}
        | {"feather": feather}
        for part, text in zip(areas, texts, strict=True)
    ]
    graph.note("areas of prompts: here each prompt is asked about the whole picture, and overlaps are shared otherwise")
    if len(whole) > 1:
        graph.note(f"positive: {len(whole)} prompts are for everything; here they are one")
    return ", ".join(dict.fromkeys(filter(None, everywhere))), regions


def _parts(graph: Graph, value: Any, size: Size, depth: int) -> list[_Part] | None:
    """Each conditioning that is combined, the first one first; None where what sets an area cannot be told."""
    linked = graph.linked(value)
    if linked is None or depth > MAX_DEPTH:
        return None
    node = linked[0]
    if node.kind == COMBINE:
        found: list[_Part] = []
        for name in ("conditioning_1", "conditioning_2"):
            parts = _parts(graph, node.inputs.get(name), size, depth + 1)
            if parts is None or len(found) > 2 * MAX_REGIONS:
                return None
            found += parts
        return found
    if node.kind not in (SHARES, PIXELS, STRENGTH):
        return [_Part(value)]
    strength = number_of(graph, node.inputs.get("strength"), "strength")
    inner = _parts(graph, node.inputs.get("conditioning"), size, depth + 1)
    if inner is None or strength is None:
        return None
    if node.kind == STRENGTH:
        return [replace(part, strength=float(strength)) for part in inner]
    box = _box(graph, node, size)
    return None if box is None else [_Part(part.link, box, float(strength)) for part in inner]


def _box(graph: Graph, node: Node, size: Size) -> Box | None:
    """Left, top, right and bottom as shares of the picture; None where they cannot be told or nothing is in it."""
    told = [number_of(graph, node.inputs.get(name), name) for name in ("x", "y", "width", "height")]
    numbers = [float(number) for number in told if number is not None]
    if len(numbers) < len(told):
        return None
    if node.kind == PIXELS:  # whole cells of the latents
        numbers = [number // LATENT_STEP_PX * LATENT_STEP_PX / size[k % 2] for k, number in enumerate(numbers)]
    x, y, width, height = numbers
    left, top, right, bottom = (round(min(max(share, 0.0), 1.0), 6) for share in (x, y, x + width, y + height))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _cover_all(boxes: Sequence[Box]) -> bool:
    """Whether every place of the picture is in one of them."""
    across, down = (sorted({0.0, 1.0, *(box[k] for box in boxes), *(box[k + 2] for box in boxes)}) for k in (0, 1))
    places = [((x + far) / 2, (y + low) / 2) for x, far in pairwise(across) for y, low in pairwise(down)]
    return all(any(box[0] < x < box[2] and box[1] < y < box[3] for box in boxes) for x, y in places)
