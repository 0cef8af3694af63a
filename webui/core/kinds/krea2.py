"""Krea 2 and Krea 2 Turbo: how their files are known, and what they cannot do.

A file is in diffusers' names, or in those of Krea's own program. The two forms have the same tensors.
"""

import math

from webui.core.kinds.forms import Form
from webui.core.kinds.kind import OF_UNETS, Defaults, Kind, Traits
from webui.core.kinds.parts import QWEN3_VL, QWEN_IMAGE_VAE, inner
from webui.core.tensor_file import Header

BACKBONE_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")
BY_SIZE = {
    **{"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15},
    **{"base_image_seq_len": 256, "max_image_seq_len": 6400},
}
"""The schedule is shifted by the picture's tokens; that of Turbo is always where this one ends."""
NETWORKS = {"text_encoder": QWEN3_VL, "vae": QWEN_IMAGE_VAE}


def _recognise(header: Header) -> Traits | None:
    shapes = header.shapes
    for prefix in BACKBONE_PREFIXES:
        for names, fusion, told in (("krea", "txtfusion", "txtmlp.1"), ("diffusers", "text_fusion", "txt_in.linear_1")):
            if f"{prefix}{fusion}.projector.weight" in shapes and f"{prefix}{told}.weight" in shapes:
                found = {"backbone": prefix, **inner(shapes, NETWORKS)}
                return Traits(tuple(found.items()), names, 16, shapes[f"{prefix}{told}.weight"][-1])
    return None


KREA2 = Kind(
    name="Krea 2",
    parts=("text_encoder", "backbone", "vae"),
    latents="Qwen-Image",
    recognise=_recognise,
    networks=NETWORKS,
    vocabulary="qwen3",
    folders={"backbone": "transformer"},
    native_px=1024,
    prediction="flow",
    forms=(
        Form("Turbo", Defaults(steps=8, guidance=1.0, sampler="Euler"), {"shift": math.exp(1.15)}, is_distilled=True),
        Form("Raw", Defaults(steps=28, guidance=5.5, sampler="Euler"), BY_SIZE),
    ),
    lacks=frozenset({"emphasis", "clip skip", "embeddings", "refiner", "prediction", *OF_UNETS}),
)
