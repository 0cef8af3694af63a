"""Graphs of ComfyUI's, as small as they come, for the tests to change."""

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
