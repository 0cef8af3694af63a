"""Graphs and a workflow of ComfyUI's, as small as they come, for the tests to change."""

import json
from typing import Any

Graph = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """``kind`` with inputs; a link is ``["3", 0]``."""
    return {"class_type": kind, "inputs": inputs}


def graph(**changes: dict[str, Any] | None) -> Graph:
    """A plain graph, with nodes put in or, where a change is None, taken out. Names are letters, n6 for 6."""
    plain: dict[str, dict[str, Any] | None] = {
        "3": node(
            "KSampler",
            seed=77,
            steps=12,
            cfg=4.5,
            sampler_name="euler_ancestral",
            scheduler="karras",
            denoise=1.0,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="sd/other.safetensors"),
        "5": node("EmptyLatentImage", width=384, height=512, batch_size=1),
        "6": node("CLIPTextEncode", text="a fox", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="ugly", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="x"),
    }
    plain |= {name.removeprefix("n"): change for name, change in changes.items()}
    return {name: change for name, change in plain.items() if change is not None}


def sampler(**inputs: Any) -> dict[str, Any]:
    """The plain graph's sampler with other inputs; None takes one out."""
    merged = {**graph()["3"]["inputs"], **inputs}
    return node("KSampler", **{name: value for name, value in merged.items() if value is not None})


def as_text(body: Any) -> str:
    return json.dumps(body)


FOX: dict[str, Any] = {"prompt": "a fox", "negative": "ugly", "seed": 77, "steps": 12, "width": 384, "height": 512}
FOX |= {"guidance": 4.5, "sampler": "Euler a", "schedule": "Karras"}
"""What the plain graph and the workflow ask for."""


def drawn(name: int, kind: str, values: list[Any], inputs: dict[str, int], **more: Any) -> dict[str, Any]:
    """A node of a workflow; inputs by the numbers of their links."""
    slots = [{"name": slot, "type": more.get("type", "X"), "link": link} for slot, link in inputs.items()]
    rest = {"mode": more.get("mode", 0), "outputs": [{"name": "out", "type": more.get("type", "X")}]}
    return {"id": name, "type": kind, "widgets_values": values, "inputs": slots, **rest}


WORKFLOW = {
    "nodes": [
        drawn(
            3,
            "KSampler",
            [77, "fixed", 12, 4.5, "euler_ancestral", "karras", 1.0],
            {"model": 1, "positive": 2, "negative": 3, "latent_image": 4},
        ),
        drawn(4, "CheckpointLoaderSimple", ["other.safetensors"], {}),
        drawn(5, "EmptyLatentImage", [384, 512, 1], {}),
        drawn(6, "CLIPTextEncode", ["a fox"], {"clip": 5}),
        drawn(7, "CLIPTextEncode", ["ugly"], {"clip": 6}),
        drawn(8, "VAEDecode", [], {"samples": 7, "vae": 8}),
        drawn(9, "SaveImage", ["x"], {"images": 9}),
        drawn(10, "LoraLoader", ["blueprint", 1.0, 1.0], {"model": 10}, mode=4, type="MODEL"),
        drawn(11, "KSampler", [1, "fixed", 1, 1.0, "euler", "normal", 1.0], {"positive": 3}, mode=2),
    ],
    "links": [
        *([1, 10, 0, 3, 0, "MODEL"], [2, 6, 0, 3, 1, "X"], [3, 7, 0, 3, 2, "X"], [4, 5, 0, 3, 3, "X"]),
        *([5, 4, 1, 6, 0, "X"], [6, 4, 1, 7, 0, "X"], [7, 3, 0, 8, 0, "X"], [8, 4, 2, 8, 1, "X"], [9, 8, 0, 9, 0, "X"]),
        [10, 4, 0, 10, 0, "MODEL"],
    ],
}
