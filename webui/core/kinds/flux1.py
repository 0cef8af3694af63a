"""FLUX.1: how its files are known, and what they cannot do.

A file is in diffusers' names, or in Black Forest Labs' own. dev, and Krea dev, are told the guidance; schnell is not.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from webui.core.kinds.kind import OF_UNETS, Defaults, Kind, Source, Traits
from webui.core.kinds.parts import CLIP, FLUX_VAE, T5, inner
from webui.core.tensor_file import BadFile, Header

if TYPE_CHECKING:
    from webui.core.checkpoint import Checkpoint

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")
CHANNELS, PATCH = 16, 4
"""Of latents, and how many of them are one token."""
NETWORKS = {"text_encoder": CLIP, "text_encoder_2": T5, "vae": FLUX_VAE}
# (whose names, what only FLUX.1 has, what reads pictures, words and their summary, what is told the guidance)
NAMES = (
    (
        "flux",
        *("double_blocks.0.img_mod.lin.weight", "img_in.weight", "txt_in.weight", "vector_in.in_layer.weight"),
        "guidance_in.in_layer.weight",
    ),
    (
        "diffusers",
        *("single_transformer_blocks.0.proj_mlp.weight", "x_embedder.weight", "context_embedder.weight"),
        "time_text_embed.text_embedder.linear_1.weight",
        "time_text_embed.guidance_embedder.linear_1.weight",
    ),
)


def _recognise(header: Header) -> Traits | None:
    shapes = header.shapes
    for names, sign, pictures, words, summary, guidance in NAMES:
        needed = (sign, pictures, words, summary)
        prefix = next((prefix for prefix in PREFIXES if all(prefix + name in shapes for name in needed)), None)
        if prefix is None:
            continue
        if shapes[prefix + pictures][-1] != CHANNELS * PATCH:
            raise BadFile(
                "is a FLUX.1 model that is shown a picture besides (Fill, Depth, Canny); dev and schnell draw here"
            )
        found = {"backbone": prefix, **inner(shapes, NETWORKS)}
        widths = (("text_encoder", shapes[prefix + summary][-1]),)
        guides_itself = prefix + guidance in shapes
        return Traits(tuple(found.items()), names, CHANNELS, shapes[prefix + words][-1], guides_itself, widths)
    return None


def _settle(found: "Checkpoint", _source: Source) -> "Checkpoint":
    """schnell needs few steps and no guidance."""
    if found.guides_itself:
        return found
    return replace(found, defaults=Defaults(steps=4, guidance=1.0, sampler="Euler"))


FLUX1 = Kind(
    name="FLUX.1",
    parts=("text_encoder", "text_encoder_2", "backbone", "vae"),
    latents="FLUX.1",
    recognise=_recognise,
    settle=_settle,
    networks=NETWORKS,
    vocabulary="t5",
    folders={"backbone": "transformer"},
    native_px=1024,
    prediction="flow",
    defaults=Defaults(steps=28, guidance=3.5, sampler="Euler"),
    lacks=frozenset({"clip skip", "embeddings", "refiner", "prediction", *OF_UNETS}),
)
