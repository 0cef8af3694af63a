"""Qwen-Image: how its files are known, and what it cannot do.

A file is in diffusers' names, whoever made it. Those that change a picture by words, or take it apart into layers, have
other uses for nearly the same tensors: some say so, and are refused.
"""

from typing import TYPE_CHECKING

from webui.core.kinds.kind import OF_UNETS, Defaults, Kind, Source, Traits
from webui.core.kinds.parts import QWEN2_5_VL, QWEN_IMAGE_VAE, inner
from webui.core.tensor_file import BadFile, Header

if TYPE_CHECKING:
    from webui.core.checkpoint import Checkpoint

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")
CHANNELS = 16
NETWORKS = {"text_encoder": QWEN2_5_VL, "vae": QWEN_IMAGE_VAE}
EDIT, LAYERED, NEXT = "Qwen-Image-Edit", "Qwen-Image-Layered", "Qwen-Image 2.1"
SIGNS = {
    "__index_timestep_zero__": EDIT,  # ComfyUI's files of Qwen-Image-Edit 2511
    "time_text_embed.addition_t_embedding.weight": LAYERED,
    "txt_in.text_norm.weight": NEXT,
}
"""Tensors of the same program's other models, by their names behind the transformer's."""


def _recognise(header: Header) -> Traits | None:
    shapes = header.shapes
    for prefix in PREFIXES:
        other = next((name for sign, name in SIGNS.items() if f"{prefix}{sign}" in shapes), "")
        if f"{prefix}transformer_blocks.0.img_mod.1.weight" not in shapes and other != NEXT:
            continue
        if other:
            raise _refusal(other)
        told = shapes[f"{prefix}txt_in.weight"]
        found = {"backbone": prefix, **inner(shapes, NETWORKS)}
        return Traits(tuple(found.items()), "diffusers", CHANNELS, told[-1])
    return None


def _settle(checkpoint: "Checkpoint", source: Source) -> "Checkpoint":
    """A folder says in words what its tensors do not."""
    pipeline = str(source.configs.get("index", {}).get("_class_name", ""))
    if "Edit" in pipeline or source.configs.get("backbone", {}).get("zero_cond_t"):
        raise _refusal(EDIT)
    if "Layered" in pipeline:
        raise _refusal(LAYERED)
    return checkpoint


def _refusal(name: str) -> BadFile:
    return BadFile(f"is {name}; of its kind Qwen-Image is what draws here")


QWEN_IMAGE = Kind(
    name="Qwen-Image",
    parts=("text_encoder", "backbone", "vae"),
    latents="Qwen-Image",
    recognise=_recognise,
    settle=_settle,
    networks=NETWORKS,
    vocabulary="qwen3",
    folders={"backbone": "transformer"},
    native_px=1328,
    prediction="flow",
    defaults=Defaults(steps=20, guidance=2.5, sampler="Euler"),
    lacks=frozenset({"emphasis", "clip skip", "embeddings", "refiner", "prediction", *OF_UNETS}),
)
